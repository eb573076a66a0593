"""Tiny random models of many architectures, saved as a hub repository would hold them."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from fusebench.methods.backbone import Backbone
from fusebench.methods.backbone_source import find_backbone

BLOCKS, WIDTH, POSITIONS = 3, 32, 160
WORDS = [*(f"w{i}" for i in range(40)), *"this sentence of means the a cat dog sat on mat".split()]  # noqa: SIM905
PIECES = [*".,!?'\"", "##s", "##ing"]

TEXTS = [
    "the cat sat on the mat.",
    "a dog",
    "w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12 w13 w14 w15 w16 w17",
    "dogs, cats! w30",
    "w7",
]


@dataclass(frozen=True)
class Kind:
    """An architecture: how to build its model, which tokenizer it takes, whether its blocks are pre-norm."""

    build: Callable[[int], transformers.PreTrainedModel]
    tokenizer: str
    pre_norm: bool = False
    decoder: bool = False
    positions: int | None = POSITIONS  # rows of a learned table that can be used; None without such a table


SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}


def _bert_like(name: str, **more: Any) -> Callable[[int], transformers.PreTrainedModel]:
    """A builder for the classes `<name>Config` and `<name>Model`."""

    def build(vocabulary: int) -> transformers.PreTrainedModel:
        settings = {**SIZES, "num_hidden_layers": BLOCKS, "max_position_embeddings": POSITIONS, **more}
        config = getattr(transformers, f"{name}Config")(vocab_size=vocabulary, **settings)
        return getattr(transformers, f"{name}Model")(config)

    return build


def _distilbert(vocabulary: int) -> transformers.PreTrainedModel:
    sizes = {"dim": WIDTH, "n_heads": 2, "n_layers": BLOCKS, "hidden_dim": 48, "max_position_embeddings": POSITIONS}
    return transformers.DistilBertModel(transformers.DistilBertConfig(vocab_size=vocabulary, **sizes))


def _gpt2(vocabulary: int) -> transformers.PreTrainedModel:
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = transformers.GPT2Config(
        vocab_size=vocabulary, n_embd=WIDTH, n_head=2, n_layer=BLOCKS, n_positions=POSITIONS, **ends
    )
    return transformers.GPT2Model(config)


def _t5(kind: str) -> Callable[[int], transformers.PreTrainedModel]:
    def build(vocabulary: int) -> transformers.PreTrainedModel:
        sizes = {"d_model": WIDTH, "d_kv": 16, "d_ff": 48, "num_layers": BLOCKS, "num_decoder_layers": 2}
        return getattr(transformers, kind)(transformers.T5Config(vocab_size=vocabulary, num_heads=2, **sizes))

    return build


_RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
_ROTARY = {"num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
_GROUPED = {**_ROTARY, "num_key_value_heads": 1}
_MODERN = {"global_attn_every_n_layers": 2, "local_attention": 8, "pad_token_id": 0, "reference_compile": False}
_ALBERT = {"embedding_size": 16, "inner_group_num": 1}

KINDS: dict[str, Kind] = {
    "bert": Kind(_bert_like("Bert"), "wordpiece"),
    "roberta": Kind(_bert_like("Roberta", pad_token_id=1, bos_token_id=0, eos_token_id=2), "roberta", positions=158),
    "mpnet": Kind(_bert_like("MPNet", pad_token_id=1, bos_token_id=0, eos_token_id=2), "roberta", positions=158),
    "distilbert": Kind(_distilbert, "wordpiece"),
    "deberta-v2": Kind(_bert_like("DebertaV2", **_RELATIVE), "wordpiece", positions=None),
    "electra": Kind(_bert_like("Electra", embedding_size=16), "wordpiece"),
    "albert": Kind(_bert_like("Albert", **_ALBERT), "wordpiece"),
    "modernbert": Kind(_bert_like("ModernBert", **_MODERN), "wordpiece", pre_norm=True, positions=None),
    "t5": Kind(_t5("T5Model"), "t5", pre_norm=True, positions=None),
    "t5-encoder": Kind(_t5("T5EncoderModel"), "t5", pre_norm=True, positions=None),
    "gpt2": Kind(_gpt2, "bytes", pre_norm=True, decoder=True),
    "llama": Kind(_bert_like("Llama", **_ROTARY), "bytes", pre_norm=True, decoder=True, positions=None),
    "llama-grouped": Kind(_bert_like("Llama", **_GROUPED), "bytes", pre_norm=True, decoder=True, positions=None),
    "qwen3": Kind(_bert_like("Qwen3", head_dim=16, **_ROTARY), "bytes", pre_norm=True, decoder=True, positions=None),
}


# The first tokens of a vocabulary, what they are for, and how a text is framed.
_SPECIAL = {
    "wordpiece": (
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        ["pad", "unk", "cls", "sep", "mask"],
        "[CLS] $A [SEP]",
    ),
    "roberta": (["<s>", "<pad>", "</s>", "<unk>", "<mask>"], ["bos", "pad", "eos", "unk", "mask"], "<s> $A </s>"),
    "t5": (["<pad>", "</s>", "<unk>"], ["pad", "eos", "unk"], "$A </s>"),
}


def tokenizer(kind: str = "wordpiece", **settings: Any) -> transformers.PreTrainedTokenizerFast:
    """A fast tokenizer built in memory.

    Args:
        kind: `wordpiece` (uncased, CLS and SEP), `roberta` (cased word pieces, <s> and </s>, <pad> is 1), `t5`
            (</s> only, no mask token), `bytes` (byte-level BPE without any special token in the text).
        settings: of the tokenizer, such as `padding_side`.
    """
    settings = {"model_max_length": 10**9, **settings}
    if kind == "bytes":
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        pieces = ["<|end|>", *alphabet, "th", "the", "Ġw", "at"]
        merges = [("t", "h"), ("th", "e"), ("Ġ", "w"), ("a", "t")]
        fast = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges))
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        fast.decoder = decoders.ByteLevel()
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=fast, eos_token="<|end|>", **{"padding_side": "left", **settings}
        )
    first, named, template = _SPECIAL[kind]
    unknown = dict(zip(named, first, strict=True))["unk"]
    ids = {word: i for i, word in enumerate([*first, *WORDS, *PIECES])}
    fast = Tokenizer(models.WordPiece(vocab=ids, unk_token=unknown))
    if kind == "wordpiece":
        fast.normalizer = normalizers.Lowercase()
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.decoder = decoders.WordPiece()
    fast.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(piece, ids[piece]) for piece in first if piece in template]
    )
    special = {f"{name}_token": piece for name, piece in zip(named, first, strict=True)}
    if kind == "roberta":
        special.update(cls_token="<s>", sep_token="</s>")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=fast, **special, **settings)


def save(
    name: str, folder: Path, *, seed: int = 0, words: transformers.PreTrainedTokenizerFast | None = None
) -> Path:
    """Writes the tiny model of an architecture and its tokenizer (or the one given) into a folder."""
    kind = KINDS[name]
    words = words or tokenizer(kind.tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind.build(len(words)).eval()
        _shake(model, scale=1 if kind.tokenizer == "t5" else 4)
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def _shake(model: torch.nn.Module, scale: float) -> None:
    """Weights far from their initial values: a norm whose weights are all 1 would hide its own absence."""
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.3 * torch.randn_like(parameter)
        elif parameter.shape[-1] > 1:
            parameter.data *= scale


@functools.cache
def _root() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="tiny-models-")


@functools.cache
def folder_of(name: str) -> Path:
    """The saved tiny model of an architecture; tests do not write there."""
    return save(name, Path(_root().name) / name)


@functools.cache
def backbone_of(name: str) -> Backbone:
    """The loaded tiny model of an architecture; tests leave it as it is."""
    return load(folder_of(name))


def copy_of(name: str, folder: Path) -> Path:
    """A copy of an architecture's folder, to be spoilt."""
    return Path(shutil.copytree(folder_of(name), folder / name))


def load(folder: Path, **settings: Any) -> Backbone:
    """A folder as a backbone."""
    return Backbone(find_backbone(str(folder)), **settings)


def edit_json(path: Path, **changes: Any) -> None:
    """Overwrites keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within, torch computes on one thread: matrices are so small that threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
