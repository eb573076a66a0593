"""A transformer and its tokenizer, frozen: texts to token ids, token ids to `LayerStates`."""

from __future__ import annotations

import contextlib
import inspect
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import transformers
from tokenizers import normalizers
from torch import nn

from fusebench.errors import InputError
from fusebench.methods.backbone_source import Source
from fusebench.methods.pooling_config import stated_lower_case, stated_max_length
from fusebench.methods.states import LayerStates, Needs, StateShape

Padding = Literal["left", "right"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Limit:
    """The longest input in tokens, special tokens included, and who says so."""

    tokens: int
    source: str


@dataclass(frozen=True)
class Tokenized:
    """Token ids of some texts, cut at the length limit.

    Attributes:
        ids: one int32 array a text.
        truncated: which texts were cut, bool `[texts]`.
        marker: position of the template's mask token in each text, or None without a template.
    """

    ids: list[np.ndarray]
    truncated: np.ndarray
    marker: np.ndarray | None = None


class Backbone:
    """A loaded backbone in evaluation mode, its weights frozen.

    Args:
        source: where its files are.
        device: a torch device.
        dtype: of weights and states.
        max_length: limit in tokens; None takes the folder's own.
        remote_code: whether Python code that the folder carries may run.

    Raises:
        InputError: if the folder cannot be loaded as it is, or the limit is impossible.
    """

    def __init__(
        self,
        source: Source,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        max_length: int | None = None,
        remote_code: bool = False,
    ) -> None:
        self.source = source
        self.device = torch.device(device)
        self.dtype = dtype
        self.remote_code = remote_code
        config, self.tokenizer = _load_config_and_tokenizer(source, remote_code)
        self.model = _load_model(source, config, DTYPES[dtype], remote_code).to(self.device).eval()
        self.model.requires_grad_(False)
        self.config = self.model.config  # the model reads its own copy, so ours must be that one
        self._lock, self._readers_of_maps, self._fused = threading.Lock(), 0, ""
        self.limit = length_limit(source, self.tokenizer, self.model, max_length)
        self.padding_side: Padding = self.tokenizer.padding_side
        self.shape, self.final_norm = self._probe()

    @property
    def architecture(self) -> str:
        """Class name of the loaded model."""
        return type(self.model).__name__

    def tokenize(self, texts: Sequence[str], template: str | None = None) -> Tokenized:
        """Token ids of each text, put into the template if there is one.

        Raises:
            InputError: if a text has no token at all, or a template finds no mask token or no room.
        """
        if template is not None:
            return self._tokenize_in_template(texts, template)
        ids, truncated = self._encode(texts, self.limit.tokens)
        empty = [text for text, row in zip(texts, ids, strict=True) if len(row) == 0]
        if empty:
            raise InputError(f"{len(empty)} texts have no token for this tokenizer, the first is {empty[0][:40]!r}.")
        return Tokenized(self._known(ids), truncated)

    def _known(self, ids: list[np.ndarray]) -> list[np.ndarray]:
        rows = self.model.get_input_embeddings().num_embeddings
        highest = max((int(row.max()) for row in ids), default=0)
        if highest >= rows:
            raise InputError(
                f"--backbone {self.source.name}: its tokenizer gives token {highest} and its model has {rows}; "
                "the two do not belong together, fetch the model again."
            )
        return ids

    def _encode(self, texts: Sequence[str], limit: int, special: bool = True) -> tuple[list[np.ndarray], np.ndarray]:
        if not texts:
            return [], np.zeros(0, dtype=bool)
        batch = self.tokenizer(
            list(texts),
            truncation=True,
            max_length=limit,
            padding=False,
            add_special_tokens=special,
            return_attention_mask=False,
        )
        ids = [np.asarray(row, dtype=np.int32) for row in batch["input_ids"]]
        if batch.encodings is not None:
            return ids, np.array([bool(encoding.overflowing) for encoding in batch.encodings])
        whole = self.tokenizer(list(texts), add_special_tokens=special)["input_ids"]
        return ids, np.array([len(full) > len(cut) for full, cut in zip(whole, ids, strict=True)])

    def _tokenize_in_template(self, texts: Sequence[str], template: str) -> Tokenized:
        mask_token, mask_id = self.tokenizer.mask_token, self.tokenizer.mask_token_id
        if mask_id is None:
            raise InputError(f"{self.source.name} has no mask token, so prompt-mask cannot read one.")
        frame = template.replace("{mask}", mask_token)
        room = self.limit.tokens - len(self._encode([frame.replace("{text}", "")], 10**6)[0][0]) - 1
        if room < 1:
            raise InputError(f"the template leaves no room for text in {self.limit.tokens} tokens.")
        cut, truncated = self._cut(texts, room)
        ids, over = self._encode([frame.replace("{text}", text) for text in cut], self.limit.tokens)
        # Beside the template a text can have more tokens than alone: shorten those that do, each for itself.
        while over.any() and room > 1:
            room -= 1
            for place in np.flatnonzero(over).tolist():
                (shorter,), _ = self._cut([texts[place]], room)
                (ids[place],), over[[place]] = self._encode([frame.replace("{text}", shorter)], self.limit.tokens)
                truncated[place] = True
        # The text may itself hold the mask token; the template's is the outer one.
        outer = -1 if frame.index("{text}") < frame.index(mask_token) else 0
        places = [np.flatnonzero(row == mask_id) for row in ids]
        if over.any() or any(len(place) == 0 for place in places):
            raise InputError("the template was cut off or lost its mask token; give a shorter template.")
        return Tokenized(self._known(ids), truncated, np.array([place[outer] for place in places], dtype=np.int64))

    def _cut(self, texts: Sequence[str], tokens: int) -> tuple[list[str], np.ndarray]:
        """Texts shortened to so many tokens, as text."""
        if not self.tokenizer.is_fast:
            raise InputError(f"{self.source.name} has no fast tokenizer (tokenizer.json), which templates need.")
        stripped = [text.strip() for text in texts]
        if not stripped:
            return [], np.zeros(0, dtype=bool)
        batch = self.tokenizer(
            stripped,
            truncation=True,
            max_length=tokens,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        cut = np.array([bool(encoding.overflowing) for encoding in batch.encodings])
        ends = [offsets[-1][1] if offsets else 0 for offsets in batch["offset_mapping"]]
        return [t[:end] if long else t for t, end, long in zip(stripped, ends, cut, strict=True)], cut

    @torch.inference_mode()
    def states(
        self, ids: Sequence[np.ndarray], needs: Needs = Needs.TOKENS, marker: np.ndarray | None = None
    ) -> LayerStates:
        """One forward pass over a batch, padded to its longest row, without gradients."""
        tokens, mask = self._pad(ids)
        if marker is not None and self.padding_side == "left":
            marker = marker + (mask.shape[1] - mask.sum(axis=1))
        return self.forward(
            torch.from_numpy(tokens).to(self.device),
            torch.from_numpy(mask).to(self.device),
            needs,
            None if marker is None else torch.from_numpy(marker).to(self.device),
        )

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor, needs: Needs, marker: torch.Tensor | None = None
    ) -> LayerStates:
        """States of padded token ids `[batch, tokens]` under a bool mask of the same shape."""
        wants_maps = Needs.ATTENTION in needs
        extra: dict[str, Any] = {}
        if self.padding_side == "left" and self._takes_positions():
            extra["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
        with self._eager_attention() if wants_maps else contextlib.nullcontext():
            out = self.model(
                input_ids=tokens,
                attention_mask=mask.long(),
                output_hidden_states=True,
                output_attentions=wants_maps,
                **extra,
            )
        attention = tuple(out.attentions) if wants_maps and out.attentions else None
        if wants_maps and (not attention or any(block is None for block in attention)):
            raise InputError(f"{self.architecture} returned no attention maps; it must run with eager attention.")
        if not out.hidden_states:
            raise InputError(f"{self.architecture} returned no hidden states, so its layers cannot be read.")
        return LayerStates(tuple(out.hidden_states), mask, attention, marker)

    @contextlib.contextmanager
    def _eager_attention(self) -> Iterator[None]:
        """Within, attention is computed step by step, because fused kernels leave no maps behind."""
        with self._lock:
            if self._readers_of_maps == 0:
                self._fused = self.model.config._attn_implementation
                self.model.set_attn_implementation("eager")
            self._readers_of_maps += 1
        try:
            yield
        finally:
            with self._lock:
                self._readers_of_maps -= 1
                if self._readers_of_maps == 0:
                    self.model.set_attn_implementation(self._fused)

    def _pad(self, ids: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        longest = max(len(row) for row in ids)
        tokens = np.full((len(ids), longest), self._pad_id, dtype=np.int64)
        mask = np.zeros((len(ids), longest), dtype=bool)
        for place, row in enumerate(ids):
            span = slice(longest - len(row), None) if self.padding_side == "left" else slice(len(row))
            tokens[place, span] = row
            mask[place, span] = True
        return tokens, mask

    @property
    def _pad_id(self) -> int:
        # Padding is masked, so any id will do where the tokenizer has none of its own.
        for token_id in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token_id is not None:
                return int(token_id)
        return 0

    def _takes_positions(self) -> bool:
        """Whether position ids must be handed over; models with a padding row in their table count themselves."""
        takes = "position_ids" in inspect.signature(self.model.forward).parameters
        return takes and not any(table.padding_idx is not None for table in position_tables(self.model))

    def _probe(self) -> tuple[StateShape, Literal["none", "last-state-only"]]:
        """Sizes from a real pass, and whether the last state alone went through a final norm."""
        ids = [self.tokenize(["layers"]).ids[0]]
        states = self.states(ids)
        blocks = len(states.hidden) - 1
        if blocks != self.config.num_hidden_layers:
            raise InputError(
                f"{self.architecture} gives {blocks + 1} states for {self.config.num_hidden_layers} blocks; "
                "its layers cannot be numbered."
            )
        if len({state.shape for state in states.hidden}) > 1:
            raise InputError(f"{self.architecture} has states of different widths, which cannot be fused.")
        with _bare_last_state(self.config):
            bare = self.states(ids).hidden[-1]
        normed = not torch.equal(bare, states.hidden[-1])
        return StateShape(blocks, states.hidden[0].shape[-1]), "last-state-only" if normed else "none"


@contextlib.contextmanager
def _bare_last_state(config: Any) -> Iterator[None]:
    """Within, the last hidden state is the last block's output, before any final norm."""
    before = getattr(config, "tie_last_hidden_states", None)
    config.tie_last_hidden_states = False
    try:
        yield
    finally:
        if before is None:
            del config.tie_last_hidden_states
        else:
            config.tie_last_hidden_states = before


def position_tables(model: nn.Module) -> list[nn.Embedding]:
    """Learned tables of absolute positions."""
    names = ("position_embeddings", "wpe", "embed_positions")
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and name.rsplit(".", 1)[-1] in names
    ]


def length_limit(source: Source, tokenizer: Any, model: nn.Module, asked: int | None) -> Limit:
    """The length limit in force.

    `asked` if given; else `max_seq_length` of `sentence_bert_config.json` unless the position table is shorter;
    else the smaller of the tokenizer's limit and the position table; else 512.

    Raises:
        InputError: if the position table is shorter than what is asked for, or nothing but special tokens fits.
    """
    tables = [t.num_embeddings - (0 if t.padding_idx is None else t.padding_idx + 1) for t in position_tables(model)]
    configured = getattr(model.config, "max_position_embeddings", None)
    # Some tables have more rows than positions (OPT's first two are spare), so the config has a say too.
    rows = [*tables, *([configured] if isinstance(configured, int) and configured > 0 else [])]
    table = min(rows) if rows else None
    special = tokenizer.num_special_tokens_to_add(pair=False)
    if asked is not None:
        if asked <= special:
            raise InputError(f"--max-length {asked} leaves no room for text: {special} tokens are special ones.")
        if tables and asked > min(rows):
            raise InputError(f"--max-length {asked} is beyond the backbone's position table of {min(rows)}.")
        return Limit(asked, "--max-length")
    stated = stated_max_length(source.folder)
    if stated is not None and stated <= special:
        raise InputError(f"max_seq_length {stated} of sentence_bert_config.json leaves no room; give --max-length.")
    if stated is not None and not (tables and stated > min(rows)):
        return Limit(stated, "sentence_bert_config.json")
    limits = {"position table": table, "tokenizer": tokenizer.model_max_length}
    known = {who: limit for who, limit in limits.items() if limit is not None and limit < 10**6}
    if not known:
        return Limit(512, "assumed: neither tokenizer nor position table states a limit")
    who = min(known, key=lambda name: known[name])
    return Limit(known[who], who)


def _load_config_and_tokenizer(source: Source, remote_code: bool) -> tuple[Any, Any]:
    kwargs: dict[str, Any] = {"trust_remote_code": remote_code, "local_files_only": True}
    try:
        config = transformers.AutoConfig.from_pretrained(source.folder, **kwargs)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.folder, **kwargs)
    except Exception as error:  # garbled files raise whatever their parser meets first
        raise InputError(_unloadable(source, error, remote_code)) from error
    _check_vocabulary(source, tokenizer)
    if stated_lower_case(source.folder) and tokenizer.is_fast:
        backend = tokenizer.backend_tokenizer
        own = [backend.normalizer] if backend.normalizer is not None else []
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    return config, tokenizer


def _check_vocabulary(source: Source, tokenizer: Any) -> None:
    """Without any vocabulary file transformers makes up a tokenizer that knows its special tokens only."""
    names = {"tokenizer.json", "tekken.json", *tokenizer.vocab_files_names.values()}
    found = any((source.folder / name).is_file() for name in names) or any(source.folder.glob("*.model"))
    if tokenizer.vocab_files_names and not found:
        raise InputError(f"--backbone {source.name} has no tokenizer files (such as tokenizer.json); fetch it again.")


def _load_model(source: Source, config: Any, dtype: torch.dtype, remote_code: bool) -> Any:
    # Of an encoder-decoder only the encoder is a backbone; saved alone, only its class name says what it is.
    alone = any(name.endswith("EncoderModel") for name in config.architectures or ())
    encoder = config.is_encoder_decoder or alone
    auto = transformers.AutoModelForTextEncoding if encoder else transformers.AutoModel
    if hasattr(config, "use_cache"):
        config.use_cache = False  # keys and values serve generation only, and are as large as the states
    try:
        with quiet_transformers():
            model, report = auto.from_pretrained(
                source.folder,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=remote_code,
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:  # garbled weights raise SafetensorError, which has no base of its own
        raise InputError(_unloadable(source, error, remote_code)) from error
    # The pooler is not used; any other weight that the file lacks would be random.
    absent = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    wrong = sorted(str(key) for key in report["mismatched_keys"])
    if absent or wrong:
        raise InputError(
            f"--backbone {source.name}: its weights do not fit {type(model).__name__} "
            f"({len(absent)} missing, {len(wrong)} of another shape, the first is {(absent + wrong)[0]}), and random "
            "ones would be meaningless; fetch the model again."
        )
    return model


def _unloadable(source: Source, error: Exception, remote_code: bool) -> str:
    reason = str(error).strip().split("\n")[0]
    if "trust_remote_code" in str(error) and not remote_code:
        return f"--backbone {source.name} needs Python code of its own; if you trust it, add --trust-remote-code."
    return f"--backbone {source.name} cannot be loaded ({type(error).__name__}: {reason}); fetch it again."


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps the load report and its progress bar off the screen: the checks above say what matters."""
    from transformers.utils import logging as their_logging

    level = their_logging.get_verbosity()
    bars = their_logging.is_progress_bar_enabled()
    their_logging.set_verbosity(logging.ERROR)
    their_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        their_logging.set_verbosity(level)
        if bars:
            their_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
