from __future__ import annotations

import contextlib
import re

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, models, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from fusebench.errors import InputError
from fusebench.methods.backbone import Backbone
from fusebench.methods.backbone_source import find_backbone
from fusebench.methods.states import Needs
from fusebench.methods.token_pooling import LastToken
from fusebench.methods.tokenization import Limit
from tests.tiny_models import (
    BLOCKS,
    KINDS,
    POSITIONS,
    TEXTS,
    WIDTH,
    backbone_of,
    copy_of,
    edit_json,
    folder_of,
    load,
    one_thread,
    save,
)
from tests.tiny_models import tokenizer as build_tokenizer

ALL = list(KINDS)
DECODERS = [name for name, kind in KINDS.items() if kind.decoder]
MASKED = [name for name, kind in KINDS.items() if kind.tokenizer in ("wordpiece", "roberta")]
MAPS = Needs.TOKENS | Needs.ATTENTION


@pytest.fixture(scope="module", autouse=True)
def _on_one_thread():
    with one_thread():
        yield


@pytest.fixture(params=ALL)
def name(request):
    return request.param


@contextlib.contextmanager
def padded(backbone, side):
    before = backbone.padding_side
    backbone.padding_side = side
    try:
        yield
    finally:
        backbone.padding_side = before


def alone(backbone, ids):
    """The states of one input without any padding, `[states, tokens, dim]`."""
    return torch.stack(backbone.states([ids]).hidden)[:, 0]


def reloaded(name, **config_changes):
    """The tiny model, loaded by transformers alone."""
    config = transformers.AutoConfig.from_pretrained(folder_of(name))
    for key, value in config_changes.items():
        setattr(config, key, value)
    auto = transformers.T5EncoderModel if name.startswith("t5") else transformers.AutoModel
    return auto.from_pretrained(folder_of(name), config=config).eval()


def test_a_backbone_has_one_state_more_than_blocks_all_of_one_width(name):
    backbone = backbone_of(name)
    states = backbone.states(backbone.tokenize(TEXTS).ids)
    assert (backbone.shape.blocks, backbone.shape.dim) == (BLOCKS, WIDTH)
    longest = max(len(ids) for ids in backbone.tokenize(TEXTS).ids)
    assert [tuple(state.shape) for state in states.hidden] == [(len(TEXTS), longest, WIDTH)] * (BLOCKS + 1)


@torch.inference_mode()
def test_states_are_the_models_own(name):
    backbone = backbone_of(name)
    (ids,) = backbone.tokenize(TEXTS[:1]).ids
    model = reloaded(name)
    out = model(input_ids=torch.tensor(ids[None].astype(np.int64)), output_hidden_states=True)
    torch.testing.assert_close(alone(backbone, ids)[-1], out.last_hidden_state[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(alone(backbone, ids), torch.stack(out.hidden_states)[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("needs", [Needs.TOKENS, MAPS], ids=["fused", "maps"])
def test_padding_and_neighbours_are_invisible(name, side, needs):
    backbone = backbone_of(name)
    ids = backbone.tokenize(TEXTS).ids
    with padded(backbone, side):
        states = backbone.states(ids, needs)
        assert states.mask.sum(dim=1).tolist() == [len(row) for row in ids]
        assert not states.mask[1, 0 if side == "left" else -1]
        for place, row in enumerate(ids):
            inside = torch.stack([state[place][states.mask[place]] for state in states.hidden])
            torch.testing.assert_close(inside, alone(backbone, row), rtol=0, atol=1e-5)
        # A masked sum multiplies padding by 0, and 0 x NaN is NaN.
        assert all(torch.isfinite(state).all() for state in states.hidden)


@pytest.mark.parametrize("name", DECODERS)
def test_last_token_reads_the_last_real_token_of_a_left_padded_decoder(name):
    backbone = backbone_of(name)
    assert backbone.padding_side == "left"
    ids = backbone.tokenize(TEXTS).ids
    vectors = LastToken(backbone.shape)(backbone.states(ids))
    expected = torch.stack([alone(backbone, row)[-1, -1] for row in ids])
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_no_keys_and_values_are_kept_for_generation(name):
    backbone = backbone_of(name)
    out = backbone.model(input_ids=torch.tensor([[1, 2, 3]]))
    assert out.past_key_values is None


@torch.inference_mode()
def test_final_norm_is_what_a_model_cut_after_k_blocks_shows(name):
    """A cut model norms the state of its last block, which the whole model norms only if it is post-norm."""
    backbone = backbone_of(name)
    (ids,) = backbone.tokenize(TEXTS[:1]).ids
    tokens = torch.tensor(ids[None].astype(np.int64))
    whole = alone(backbone, ids)
    gaps = []
    for k in range(1, BLOCKS):
        cut = reloaded(name, num_hidden_layers=k)(input_ids=tokens).last_hidden_state[0]
        gaps.append(float((cut - whole[k]).abs().max()))
    normed = [gap > 1e-2 for gap in gaps]
    assert normed == [KINDS[name].pre_norm] * (BLOCKS - 1), gaps
    assert all(gap > 1e-2 or gap < 1e-5 for gap in gaps)
    assert backbone.final_norm == ("last-state-only" if normed[0] else "none")


def test_the_length_limit_is_the_usable_part_of_the_position_table(name):
    expected = {"t5": 512, "t5-encoder": 512}.get(name, KINDS[name].positions or POSITIONS)
    assert backbone_of(name).limit.tokens == expected
    if name in ("roberta", "mpnet"):
        table = backbone_of(name).model.embeddings.position_embeddings
        assert expected == table.num_embeddings - table.padding_idx - 1 == POSITIONS - 2


def marks(backbone, tokens):
    """A text of so many tokens, special ones included, in every tiny tokenizer."""
    return "!" * (tokens - backbone.tokenizer.num_special_tokens_to_add(pair=False))


def test_a_text_a_hundred_tokens_too_long_is_cut_and_counted(name):
    backbone = backbone_of(name)
    limit = backbone.limit.tokens
    tokenized = backbone.tokenize(
        [marks(backbone, limit + 100), marks(backbone, limit), marks(backbone, limit + 1), "a"]
    )
    assert [len(ids) for ids in tokenized.ids[:3]] == [limit] * 3
    assert tokenized.truncated.tolist() == [True, False, True, False]
    states = backbone.states(tokenized.ids)
    assert all(torch.isfinite(state).all() for state in states.hidden)


def test_a_max_length_beyond_the_position_table_is_refused(name):
    usable = KINDS[name].positions
    if usable is None:
        assert load(folder_of(name), max_length=700).limit == Limit(700, "--max-length")
        return
    assert load(folder_of(name), max_length=usable).limit == Limit(usable, "--max-length")
    with pytest.raises(InputError, match=f"--max-length {usable + 1} is beyond .* table of {usable}"):
        load(folder_of(name), max_length=usable + 1)


def test_a_max_length_without_room_for_text_is_refused():
    with pytest.raises(InputError, match="--max-length 2 leaves no room"):
        load(folder_of("bert"), max_length=2)


def test_a_config_that_states_fewer_positions_than_the_table_has_rows_is_believed(tmp_path):
    """OPT's table has two spare rows, which index nothing."""
    sizes = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 16, "num_attention_heads": 2}
    words = build_tokenizer("bytes")
    config = transformers.OPTConfig(
        vocab_size=len(words), num_hidden_layers=2, max_position_embeddings=40, pad_token_id=None, **sizes
    )
    transformers.OPTModel(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    backbone = load(tmp_path)
    assert backbone.limit.tokens == 40
    backbone.states(backbone.tokenize(["!" * 100]).ids)
    with pytest.raises(InputError, match="table of 40"):
        load(tmp_path, max_length=42)


def test_the_length_that_sentence_transformers_states_wins(tmp_path):
    folder = copy_of("bert", tmp_path)
    edit_json(folder / "tokenizer_config.json", model_max_length=90)
    assert load(folder).limit == Limit(90, "tokenizer")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 120, "do_lower_case": false}')
    assert load(folder).limit == Limit(120, "sentence_bert_config.json")
    assert load(folder, max_length=130).limit == Limit(130, "--max-length")


def test_a_stated_length_beyond_the_position_table_falls_back_to_the_table(tmp_path):
    folder = copy_of("roberta", tmp_path)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 512}')
    backbone = load(folder)
    assert backbone.limit == Limit(158, "position table")
    backbone.states(backbone.tokenize(["!" * 600]).ids)


@pytest.mark.parametrize("stated", ['"long"', "-1", "0", "2", "1.5", "true"])
def test_an_impossible_stated_length_is_refused(tmp_path, stated):
    folder = copy_of("bert", tmp_path)
    (folder / "sentence_bert_config.json").write_text(f'{{"max_seq_length": {stated}}}')
    with pytest.raises(InputError, match="max_seq_length"):
        load(folder)


def test_lower_case_that_sentence_transformers_states_is_obeyed(tmp_path):
    folder = copy_of("roberta", tmp_path)
    upper, lower = load(folder).tokenize(["THE Cat", "the cat"]).ids
    assert upper.tolist() != lower.tolist()
    (folder / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    upper, lower = load(folder).tokenize(["THE Cat", "the cat"]).ids
    assert upper.tolist() == lower.tolist()


FRAME = 'this sentence of "{text}" means {mask}.'


@pytest.mark.parametrize("name", MASKED)
def test_a_template_stays_whole_when_its_text_is_cut(name):
    backbone = load(folder_of(name), max_length=24)
    mask = backbone.tokenizer.mask_token_id
    (empty,) = backbone.tokenize([""], FRAME).ids
    cut_here = backbone.tokenize(["x"], FRAME).ids[0].tolist().index(backbone.tokenizer.unk_token_id)
    tokenized = backbone.tokenize(["cat " * 100, "the cat", "cat " * 13], FRAME)
    for ids, marker in zip(tokenized.ids, tokenized.marker, strict=True):
        assert len(ids) <= 24
        assert ids[marker] == mask
        assert ids[:cut_here].tolist() == empty[:cut_here].tolist()
        assert ids[cut_here - len(empty) :].tolist() == empty[cut_here:].tolist()
    assert tokenized.truncated.tolist() == [True, False, False]
    assert len(tokenized.ids[0]) == 23
    # The same text whole, cut by hand.
    whole = backbone.tokenize(["cat " * (23 - len(empty))], FRAME).ids[0]
    assert tokenized.ids[0].tolist() == whole.tolist()


def test_a_text_that_needs_more_tokens_inside_the_template_is_cut_further(tmp_path):
    """A byte-level tokenizer puts a space before a text that stands alone, and `Ġabcd` is one token with it only."""
    alphabet = ["<mask>", "<pad>", "Ġabcd", "Ġabc", "Ġab", "Ġa", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = [("Ġ", "a"), ("Ġa", "b"), ("Ġab", "c"), ("Ġabc", "d")]
    fast = FastTokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(alphabet)}, merges=merges))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast, mask_token=AddedToken("<mask>", special=True), pad_token="<pad>"
    )
    backbone = load(save("bert", tmp_path / "prefix", words=words), max_length=30)
    frame = '"{text}"={mask}!'
    hard, easy = "abcd" + " abcd" * 60, "z" * 60
    tokenized = backbone.tokenize([hard, easy, "abcd"], frame)
    assert tokenized.truncated.tolist() == [True, True, False]
    assert all(len(ids) <= 30 for ids in tokenized.ids)
    for ids, marker in zip(tokenized.ids, tokenized.marker, strict=True):
        assert re.fullmatch(r'"[Ġabcdz]*"=<mask>Ġ?!', backbone.tokenizer.decode(ids).replace(" ", "").lstrip("Ġ"))
        assert ids[marker] == words.mask_token_id
    # What one text needs does not shorten another.
    assert tokenized.ids[1].tolist() == backbone.tokenize([easy], frame).ids[0].tolist()
    assert len(tokenized.ids[1]) >= 28


@pytest.mark.parametrize("name", MASKED)
def test_a_mask_token_in_the_text_does_not_confuse_the_marker(name):
    backbone = backbone_of(name)
    mask, mask_id = backbone.tokenizer.mask_token, backbone.tokenizer.mask_token_id
    text = f"the {mask} cat {mask}"
    for frame, outermost in ((FRAME, -1), ("{mask} means {text}.", 0)):
        tokenized = backbone.tokenize([text], frame)
        places = np.flatnonzero(tokenized.ids[0] == mask_id)
        assert len(places) == 3
        assert tokenized.marker.tolist() == [places[outermost]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_marker_follows_the_padding(side):
    backbone = backbone_of("bert")
    tokenized = backbone.tokenize(TEXTS, FRAME)
    with padded(backbone, side):
        states = backbone.states(tokenized.ids, Needs.TOKENS | Needs.MARKER, tokenized.marker)
    read = states.hidden[-1][torch.arange(len(TEXTS)), states.marker]
    expected = [alone(backbone, ids)[-1, at] for ids, at in zip(tokenized.ids, tokenized.marker, strict=True)]
    torch.testing.assert_close(read, torch.stack(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["t5", *DECODERS])
def test_a_template_without_a_mask_token_is_refused(name):
    with pytest.raises(InputError, match="has no mask token"):
        backbone_of(name).tokenize(["a"], FRAME)


def test_a_template_longer_than_the_limit_is_refused():
    with pytest.raises(InputError, match="leaves no room for text in 11 tokens"):
        load(folder_of("bert"), max_length=11).tokenize(["a"], FRAME)


def test_a_text_without_tokens_is_refused_where_nothing_frames_it():
    with pytest.raises(InputError, match="1 texts have no token"):
        backbone_of("gpt2").tokenize(["a", ""])
    assert [len(ids) for ids in backbone_of("bert").tokenize(["", "  "]).ids] == [2, 2]


def test_no_text_makes_no_tokens():
    assert backbone_of("bert").tokenize([]).ids == []
    assert len(backbone_of("bert").tokenize([], FRAME).marker) == 0


# What cannot be loaded


def change_weights(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_missing_weights_are_named(name, tmp_path):
    folder = copy_of(name, tmp_path)
    last = max(
        key
        for key in load_file(folder / "model.safetensors")
        if "weight" in key and not any(part in key for part in ("decoder", "pooler", "shared", "relative"))
    )
    change_weights(folder, lambda tensors: tensors.pop(last))
    with pytest.raises(InputError, match=r"1 missing, 0 of another shape") as caught:
        load(folder)
    assert last.split(".", 1)[1] in str(caught.value)


def test_a_missing_pooler_is_no_loss(tmp_path):
    folder = copy_of("bert", tmp_path)
    change_weights(folder, lambda tensors: [tensors.pop(key) for key in list(tensors) if "pooler" in key])
    ids = backbone_of("bert").tokenize(TEXTS[:1]).ids[0]
    assert torch.equal(alone(load(folder), ids), alone(backbone_of("bert"), ids))


def test_weights_of_another_shape_are_refused(tmp_path):
    folder = copy_of("bert", tmp_path)
    edit_json(folder / "config.json", intermediate_size=64)
    with pytest.raises(InputError, match="backbone bert"):
        load(folder)


@pytest.mark.parametrize("kept", [0, 7, 200, 5000])
def test_a_cut_weight_file_is_refused(tmp_path, kept):
    path = copy_of("bert", tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="--backbone bert cannot be loaded"):
        load(path.parent)


def test_pickled_weights_are_refused(tmp_path):
    folder = copy_of("bert", tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        InputError, match=r"no \*.safetensors weights and pytorch_model.bin is not read, because pickle"
    ):
        find_backbone(str(folder))


@pytest.mark.parametrize(
    "config", ["", "{", "[]", "{}", '{"model_type": "nope"}', '{"model_type": 3}', "\x00\xff", "null"]
)
def test_a_garbled_config_is_refused(tmp_path, config):
    folder = copy_of("bert", tmp_path)
    (folder / "config.json").write_bytes(config.encode("latin-1"))
    with pytest.raises(InputError, match="--backbone bert"):
        load(folder)


@pytest.mark.parametrize("change", [{"hidden_size": "big"}, {"num_attention_heads": 5}, {"num_hidden_layers": 2.5}])
def test_an_impossible_config_is_refused(tmp_path, change):
    folder = copy_of("bert", tmp_path)
    edit_json(folder / "config.json", **change)
    with pytest.raises(InputError, match="--backbone bert"):
        load(folder)


@pytest.mark.parametrize("lost", [["tokenizer.json"], ["tokenizer.json", "tokenizer_config.json"]])
@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "t5"])
def test_a_folder_without_a_vocabulary_is_refused(tmp_path, name, lost):
    folder = copy_of(name, tmp_path)
    for file in lost:
        (folder / file).unlink()
    with pytest.raises(InputError, match=f"--backbone {name}"):
        load(folder)


def test_a_garbled_tokenizer_is_refused(tmp_path):
    folder = copy_of("bert", tmp_path)
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(InputError, match="--backbone bert cannot be loaded"):
        load(folder)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    folder = copy_of("bert", tmp_path)
    build_tokenizer("bytes").save_pretrained(folder)
    with pytest.raises(InputError, match="do not belong together"):
        load(folder)


def test_remote_code_is_refused_with_the_flag_that_allows_it(tmp_path):
    folder = copy_of("bert", tmp_path)
    (folder / "mine.py").write_text("raise SystemExit('this code ran')")
    edit_json(folder / "config.json", model_type="mine", auto_map={"AutoConfig": "mine.C", "AutoModel": "mine.M"})
    with pytest.raises(InputError, match="add --trust-remote-code"):
        load(folder)


# Attention maps


def test_attention_maps_are_there_when_asked_for_and_only_then(name):
    backbone = backbone_of(name)
    tokenized = backbone.tokenize(TEXTS).ids
    states = backbone.states(tokenized, MAPS)
    assert list(states.attention) == list(range(1, BLOCKS + 1))
    batch, tokens = states.mask.shape
    for block in states.attention.values():
        assert tuple(block.shape) == (batch, 2, tokens, tokens)
        rows = block.sum(dim=-1).transpose(1, 2)[states.mask]
        torch.testing.assert_close(rows, torch.ones_like(rows))
        to_padding = block.transpose(1, 2)[states.mask].transpose(0, 1) * ~states.mask.repeat_interleave(
            states.mask.sum(dim=1), dim=0
        )
        assert to_padding.abs().max() < 1e-6
    assert backbone.states(tokenized).attention is None


@torch.inference_mode()
def test_attention_maps_are_those_of_a_model_loaded_with_eager_attention(name):
    backbone = backbone_of(name)
    (ids,) = backbone.tokenize(TEXTS[:1]).ids
    model = reloaded(name, _attn_implementation="eager")
    expected = model(input_ids=torch.tensor(ids[None].astype(np.int64)), output_attentions=True).attentions
    for block, reference in zip(backbone.states([ids], MAPS).attention.values(), expected, strict=True):
        torch.testing.assert_close(block, reference, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_maps_of_a_padded_batch_are_those_of_each_text_alone(name, side):
    backbone = backbone_of(name)
    ids = backbone.tokenize(TEXTS).ids
    with padded(backbone, side):
        states = backbone.states(ids, MAPS)
    for place, row in enumerate(ids):
        real = states.mask[place]
        for block, single in backbone.states([row], MAPS).attention.items():
            inside = states.attention[block][place][:, real][:, :, real]
            torch.testing.assert_close(inside, single[0], rtol=0, atol=1e-5)


def test_a_block_that_a_backbone_lacks_has_no_map():
    backbone = backbone_of("bert")
    tokens, mask = backbone.pad(backbone.tokenize(["a"]).ids)
    for block in (0, -1, BLOCKS + 1):
        with pytest.raises(InputError, match=f"no block {block} to read maps of: bert has {BLOCKS}"):
            backbone.forward(tokens, mask, MAPS, map_blocks=(1, block))


# Copies that learn, and noise


def test_a_padded_batch_is_ids_and_mask_as_tensors(name):
    backbone = backbone_of(name)
    for side in ("left", "right"):
        with padded(backbone, side):
            tokens, mask = backbone.pad([np.array([5, 6, 7], np.int32), np.array([8], np.int32)])
        assert tokens.dtype == torch.int64
        assert tokens[mask].tolist() == [5, 6, 7, 8]
        assert mask.tolist() == [[True] * 3, [False, False, True] if side == "left" else [True, False, False]]


def test_a_trainable_copy_learns_and_its_original_stays(name):
    backbone = load(folder_of(name))
    ids = backbone.tokenize(TEXTS).ids
    before = [state.clone() for state in backbone.states(ids).hidden]
    copied = backbone.trainable_copy()
    assert all(parameter.requires_grad for parameter in copied.model.parameters())
    assert copied.config is copied.model.config is not backbone.config
    tokens, mask = copied.pad(ids)
    states = copied.forward(tokens, mask, MAPS)
    for found, expected in zip(states.hidden, before, strict=True):
        torch.testing.assert_close(found[mask], expected[mask], rtol=0, atol=1e-5)
    states.mean(-1).square().sum().backward()
    with torch.no_grad():
        for parameter in copied.model.parameters():
            parameter += 0.1 if parameter.grad is None else parameter.grad
    assert not torch.equal(copied.states(ids).hidden[-1], before[-1])
    assert all(torch.equal(a, b) for a, b in zip(backbone.states(ids).hidden, before, strict=True))
    assert not any(p.requires_grad or p.grad is not None for p in backbone.model.parameters())


def test_a_trainable_copy_of_half_precision_learns_in_float32():
    half = load(folder_of("bert"), dtype="bfloat16")
    copied = half.trainable_copy()
    assert {p.dtype for p in copied.model.parameters()} == {torch.float32}
    assert (copied.dtype, half.dtype, half.model.dtype) == ("float32", "bfloat16", torch.bfloat16)


DROPPING = [name for name in ALL if not name.startswith(("albert", "modernbert", "llama", "qwen3"))]


@pytest.mark.parametrize("name", DROPPING)
def test_noise_is_drawn_from_its_seed_and_leaves_nothing_behind(name):
    backbone = backbone_of(name)
    ids = backbone.tokenize(TEXTS).ids
    clean = backbone.states(ids).hidden[-1]
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)

    def noised(seed):
        with backbone.noisy(seed):
            return backbone.states(ids).hidden[-1]

    one, same, other = noised(1), noised(1), noised(2)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.allclose(one, clean)
    assert not backbone.model.training
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(backbone.states(ids).hidden[-1], clean)


def test_a_failed_noisy_pass_leaves_evaluation_mode_and_generators_as_they_were():
    backbone = backbone_of("bert")
    before = torch.get_rng_state()
    assert not backbone.model.training

    def fail():
        with backbone.noisy(3):
            assert backbone.model.training
            raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        fail()
    assert not any(module.training for module in backbone.model.modules())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", sorted(set(ALL) - set(DROPPING)))
def test_noise_without_dropout_is_refused(name):
    with pytest.raises(InputError, match="simcse needs dropout noise"), backbone_of(name).noisy(1):
        pass


def test_attention_dropout_alone_is_noise_enough(tmp_path):
    """Llama applies it as a function, and has no dropout module."""
    folder = copy_of("llama", tmp_path)
    edit_json(folder / "config.json", attention_dropout=0.5)
    backbone = load(folder)
    ids = backbone.tokenize(TEXTS).ids
    with backbone.noisy(1):
        noised = backbone.states(ids).hidden[-1]
    assert not torch.allclose(noised, backbone.states(ids).hidden[-1])


# Number types


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_loads_and_stays_near(name, dtype):
    backbone = Backbone(find_backbone(str(folder_of(name))), dtype=dtype)
    assert {p.dtype for p in backbone.model.parameters()} <= {getattr(torch, dtype), torch.float32}
    assert next(backbone.model.parameters()).dtype == getattr(torch, dtype)
    assert backbone.final_norm == backbone_of(name).final_norm
    ids = backbone.tokenize(TEXTS).ids
    half, full = backbone.states(ids).mean(-1).float(), backbone_of(name).states(ids).mean(-1)
    assert torch.nn.functional.cosine_similarity(half, full).min() > 0.98
    assert (half - full).abs().max() > 1e-6


def test_nothing_in_a_backbone_learns(name):
    backbone = backbone_of(name)
    assert not backbone.model.training
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
