"""Maps of chosen blocks equal a plain loop and a model's own, before dropout, with gradients, in any thread."""

import math
import threading

import pytest
import torch

from fusebench.errors import InputError
from fusebench.methods.attention_guides import MapDiscrimination, PatternDecorrelation
from fusebench.methods.attention_maps import ROUTE, attention, attention_map, collecting, route, without_dropout
from fusebench.methods.states import Needs
from tests.tiny_models import BLOCKS, KINDS, TEXTS, backbone_of, folder_of, load, one_thread

MAPS = Needs.TOKENS | Needs.ATTENTION
OWN = ["mpnet", "deberta-v2"]  # compute their attention themselves
ROUTED = [name for name in KINDS if name not in OWN]


@pytest.fixture(scope="module", autouse=True)
def _on_one_thread():
    with one_thread():
        yield


def heads_of(groups=2, dtype=torch.float64):
    """Queries of 4 heads, keys and values of `groups`; 2 texts of 5 tokens, 3 dimensions."""
    generator = torch.Generator().manual_seed(1)
    sizes = (4, groups, groups)
    return [torch.randn(2, heads, 5, 3, generator=generator, dtype=torch.float64).to(dtype) for heads in sizes]


def map_by_loop(query, key, scaling, visible, bias=None):
    """`visible[b][i][j]`: whether query i may look at key j; bias is added to the scores of head h."""
    batch, heads, tokens, _ = query.shape
    out = torch.zeros(batch, heads, tokens, tokens, dtype=torch.float64)
    for b in range(batch):
        for h in range(heads):
            shared = key[b, h * key.shape[1] // heads]
            for i in range(tokens):
                scores = [float(query[b, h, i] @ shared[j]) * scaling for j in range(tokens)]
                scores = [s + (0 if bias is None else float(bias[0, h, i, j])) for j, s in enumerate(scores)]
                powers = [math.exp(s) if visible[b][i][j] else 0.0 for j, s in enumerate(scores)]
                out[b, h, i] = torch.tensor(powers) / sum(powers)
    return out


KEYS = torch.tensor([[True] * 5, [True, True, True, False, False]])
VISIBLE = KEYS[:, None, :].expand(2, 5, 5)


@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_a_map_equals_its_loop_under_a_bool_mask_and_under_an_added_one(groups, added, scaling):
    query, key, _ = heads_of(groups)
    mask = VISIBLE[:, None]
    given = torch.zeros(mask.shape).double().masked_fill(~mask, torch.finfo(torch.float64).min) if added else mask
    expected = map_by_loop(query, key, scaling or 1 / math.sqrt(3), VISIBLE)
    torch.testing.assert_close(attention_map(query, key, given, scaling=scaling), expected)


def test_a_causal_map_shows_no_key_after_the_query_and_a_bias_moves_the_scores():
    query, key, _ = heads_of()
    causal = torch.ones(5, 5).tril().bool().expand(2, 5, 5)
    torch.testing.assert_close(attention_map(query, key, causal=True), map_by_loop(query, key, 3**-0.5, causal))
    bias = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(2)).double()
    found = attention_map(query, key, VISIBLE[:, None], scaling=1.0, bias=bias)
    torch.testing.assert_close(found, map_by_loop(query, key, 1.0, VISIBLE, bias))


def test_a_query_that_sees_no_key_has_a_finite_map_and_gradient():
    query, key, _ = heads_of()
    query.requires_grad_()
    seen = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    seen[0, 0, 2] = False
    found = attention_map(query, key, seen)
    assert found.isfinite().all()
    (found[:, :, 0] ** 2).sum().backward()
    assert query.grad.isfinite().all()


def test_a_mask_of_float32_stays_finite_beside_scores_of_bfloat16():
    query, key, _ = heads_of(dtype=torch.bfloat16)
    mask = torch.zeros(2, 1, 5, 5).masked_fill(~VISIBLE[:, None], torch.finfo(torch.float32).min)
    mask[:, :, 4] = torch.finfo(torch.float32).min  # in bfloat16 this number would be -inf
    maps = attention_map(query, key, mask)
    torch.testing.assert_close(maps.sum(dim=-1), torch.ones(2, 4, 5))
    assert not maps[1, :, :4, 3:].any()


def test_a_map_of_half_precision_is_softmaxed_in_float32():
    query, key, _ = heads_of(dtype=torch.bfloat16)
    found = attention_map(query, key)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(2, 4, 5))


def module_with(**settings):
    module = torch.nn.Module()
    for name, value in settings.items():
        setattr(module, name, value)
    return module


MODULES = [
    (4, {"is_causal": False}),
    (2, {"is_causal": True, "num_key_value_groups": 2}),
    (1, {"is_causal": True, "num_key_value_groups": 4}),
]


@pytest.mark.parametrize(("groups", "settings"), MODULES)
@pytest.mark.parametrize("mask", [None, VISIBLE[:, None]], ids=["unmasked", "masked"])
@pytest.mark.parametrize("asked", [None, True, False])
def test_a_collected_block_gives_the_output_of_fused_attention(groups, settings, mask, asked):
    query, key, value = heads_of(groups)
    more = {"scaling": 0.4} | ({} if asked is None else {"is_causal": asked})
    module = module_with(**settings)
    fused, _ = attention(module, query, key, value, mask, **more)
    with collecting((2,)) as collector:
        skipped, _ = attention(module, query, key, value, mask, **more)
        chosen, _ = attention(module, query, key, value, mask, **more)
    assert torch.equal(skipped, fused)
    torch.testing.assert_close(chosen, fused)
    assert chosen.is_contiguous()
    assert (collector.calls, list(collector.maps)) == (2, [2])


def test_dropout_falls_on_the_output_and_not_on_the_map():
    query, key, value = heads_of(4)
    with collecting((1,)) as collector:
        torch.manual_seed(7)
        output, _ = attention(module_with(is_causal=False), query, key, value, None, dropout=0.5)
    whole = attention_map(query, key)
    torch.manual_seed(7)
    expected = torch.nn.functional.dropout(whole, 0.5) @ value
    assert torch.equal(collector.maps[1], whole)
    torch.testing.assert_close(output, expected.transpose(1, 2))


# In models


@pytest.fixture(params=list(KINDS))
def name(request):
    return request.param


def learning(name, dropout=0.0):
    """A trainable copy of a tiny model in training mode, every dropout set to this probability."""
    copied = load(folder_of(name)).trainable_copy()
    for module in copied.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
        for key in ("attention_dropout", "dropout"):
            if isinstance(getattr(module, key, None), float):
                setattr(module, key, dropout)
    copied.model.train()
    return copied


def test_every_architecture_but_two_computes_attention_where_maps_are_read(name):
    model = load(folder_of(name)).model
    before = model.config._attn_implementation
    assert route(model) == route(model) == (name in ROUTED)
    assert model.config._attn_implementation == (ROUTE if name in ROUTED else before)


def test_passes_without_maps_are_the_same_to_the_last_bit_before_and_after_maps_were_read(name):
    backbone = load(folder_of(name))
    ids = backbone.tokenize(TEXTS).ids
    before = backbone.states(ids).hidden
    backbone.states(ids, MAPS)
    assert all(torch.equal(a, b) for a, b in zip(backbone.states(ids).hidden, before, strict=True))


@torch.no_grad()
def test_states_beside_maps_are_those_without(name):
    backbone = backbone_of(name)
    tokens, mask = backbone.pad(backbone.tokenize(TEXTS).ids)
    plain = backbone.forward(tokens, mask, Needs.TOKENS)
    for blocks in ((2,), None):
        beside = backbone.forward(tokens, mask, MAPS, map_blocks=blocks)
        for found, expected in zip(beside.hidden, plain.hidden, strict=True):
            torch.testing.assert_close(found[mask], expected[mask], rtol=0, atol=1e-5)


@torch.no_grad()
def test_maps_of_chosen_blocks_are_those_of_all_blocks(name):
    backbone = backbone_of(name)
    tokens, mask = backbone.pad(backbone.tokenize(TEXTS).ids)
    every = backbone.forward(tokens, mask, MAPS).attention
    for chosen in ((1,), (3, 1), (2, 2)):
        some = backbone.forward(tokens, mask, MAPS, map_blocks=chosen).attention
        assert list(some) == sorted(set(chosen))
        for block, found in some.items():
            real, expected = (one.transpose(1, 2)[mask] for one in (found, every[block]))
            torch.testing.assert_close(real, expected, rtol=0, atol=1e-5)


def test_each_pass_of_a_shared_block_counts():
    """ALBERT has one block and runs it three times."""
    backbone = backbone_of("albert")
    maps = backbone.states(backbone.tokenize(TEXTS).ids, MAPS).attention
    assert list(maps) == [1, 2, 3]
    assert not torch.allclose(maps[1], maps[2])
    assert not torch.allclose(maps[2], maps[3])


def eager_gradients(name, guide):
    """The penalty of a model loaded with eager attention, and its gradients by weight."""
    backbone = load(folder_of(name)).trainable_copy()
    backbone.model.set_attn_implementation("eager")
    return penalty_and_gradients(backbone, guide)


def penalty_and_gradients(backbone, guide):
    tokens, mask = backbone.pad(backbone.tokenize(TEXTS).ids)
    value = guide(backbone.forward(tokens, mask, MAPS, map_blocks=guide.blocks))
    value.backward()
    return value.item(), {n: p.grad for n, p in backbone.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("guide", [MapDiscrimination(), PatternDecorrelation(layers="2")])
def test_penalties_and_their_gradients_are_those_of_eager_attention(name, guide):
    value, gradients = penalty_and_gradients(load(folder_of(name)).trainable_copy(), guide)
    expected, references = eager_gradients(name, guide)
    assert value == pytest.approx(expected, rel=1e-5)
    shared = gradients.keys() & references.keys()
    scale = max(float(g.abs().max()) for g in references.values())
    for key in shared:
        torch.testing.assert_close(gradients[key], references[key], rtol=0, atol=1e-4 * scale)
    for key in gradients.keys() ^ references.keys():
        assert not (gradients | references)[key].abs().max() > 1e-6 * scale, key


def asks(key):
    """Whether these weights make queries or keys."""
    parts = (
        "query",
        "key",
        "q_lin",
        "k_lin",
        "attn.q",
        "attn.k",
        "q_proj",
        "k_proj",
        "Wqkv",
        "c_attn",
        "Attention.q",
        "Attention.k",
    )
    return any(part in key for part in parts) and key.endswith("weight") and "norm" not in key


def test_gradients_reach_the_queries_and_keys_of_the_blocks_that_are_guided_and_those_before(name):
    _, gradients = penalty_and_gradients(learning(name), PatternDecorrelation(layers="2"))
    reached = [key for key, gradient in gradients.items() if asks(key) and gradient.abs().max() > 0]
    blocks = {part for key in reached for part in key.split(".") if part.isdigit()}
    assert blocks == ({"0"} if name == "albert" else {"0", "1"})


@pytest.mark.parametrize("needs_blocks", [None, (2,)])
def test_rows_sum_to_one_in_training_mode_too(name, needs_blocks):
    backbone = learning(name, dropout=0.3)
    tokens, mask = backbone.pad(backbone.tokenize(TEXTS[:3]).ids)
    torch.manual_seed(0)
    states = backbone.forward(tokens, mask, MAPS, map_blocks=needs_blocks)
    for found in states.attention.values():
        rows = found.sum(dim=-1).transpose(1, 2)[mask]
        left = rows if name in ROUTED else rows[rows > 0]  # after dropout nothing may be left of a short row
        assert left.numel() > 0.8 * rows.numel()
        torch.testing.assert_close(left, torch.ones_like(left))


@pytest.mark.parametrize("name", ROUTED)
def test_maps_of_the_first_block_carry_no_attention_dropout(name):
    """With the attention's dropout alone, what enters the first block is the same in both modes."""
    backbone = learning(name)
    for module in backbone.model.modules():
        is_attention = "Attention" in type(module).__name__
        for key in ("attention_dropout", "dropout") if is_attention else ():
            own = getattr(module, key, None)
            if isinstance(own, float):
                setattr(module, key, 0.5)
            elif isinstance(own, torch.nn.Dropout) and "Output" not in type(module).__name__:
                own.p = 0.5
        if isinstance(getattr(module, "attn_dropout", None), torch.nn.Dropout):
            module.attn_dropout.p = 0.5
    tokens, mask = backbone.pad(backbone.tokenize(TEXTS).ids)
    noised = backbone.forward(tokens, mask, MAPS)
    clean = backbone_of(name).states(backbone.tokenize(TEXTS).ids, MAPS)
    torch.testing.assert_close(noised.attention[1], clean.attention[1], rtol=0, atol=1e-5)
    assert not torch.allclose(noised.hidden[1], clean.hidden[1], atol=1e-3)


def test_maps_after_dropout_are_rescaled_row_by_row_and_a_row_dropped_whole_stays_zero():
    dropped = torch.tensor([[0.5, 0.0, 1.0], [0.0, 0.0, 0.0], [0.25, 0.25, 0.5]])[None, None]
    expected = torch.tensor([[1 / 3, 0.0, 2 / 3], [0.0, 0.0, 0.0], [0.25, 0.25, 0.5]])[None, None]
    other = torch.zeros_like(dropped)
    found = without_dropout([other, dropped], (2,), training=True)
    assert list(found) == [2]
    torch.testing.assert_close(found[2], expected)
    assert without_dropout([other, dropped], (2,), training=False)[2] is dropped


def test_threads_collect_the_blocks_that_each_asked_for():
    backbone = load(folder_of("bert"))
    ids = backbone.tokenize(TEXTS).ids
    tokens, mask = backbone.pad(ids)
    plain = backbone.states(ids).hidden[-1]
    with torch.no_grad():
        expected = backbone_of("bert").forward(tokens, mask, MAPS).attention
    failures = []

    def work(blocks):
        try:
            for _ in range(10):
                with torch.no_grad():
                    states = backbone.forward(tokens, mask, MAPS if blocks else Needs.TOKENS, map_blocks=blocks)
                if blocks:
                    assert list(states.attention) == list(blocks)
                    for block, found in states.attention.items():
                        torch.testing.assert_close(found, expected[block], rtol=0, atol=1e-5)
                else:
                    assert torch.equal(states.hidden[-1], plain)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(blocks,)) for blocks in ((1,), (2, 3), None, None)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_failed_pass_leaves_no_collector_behind(monkeypatch):
    backbone = load(folder_of("bert"))
    ids = backbone.tokenize(TEXTS).ids
    plain = backbone.states(ids).hidden[-1]
    whole = backbone.model.encoder.forward

    def fail(*args, **settings):
        whole(*args, **settings)
        raise RuntimeError("no luck")

    with monkeypatch.context() as patch:
        patch.setattr(backbone.model.encoder, "forward", fail)
        with pytest.raises(RuntimeError, match="no luck"):
            backbone.states(ids, MAPS)
    assert torch.equal(backbone.states(ids).hidden[-1], plain)
    assert list(backbone.states(ids, MAPS).attention) == list(range(1, BLOCKS + 1))


def test_a_model_whose_attentions_cannot_be_numbered_is_refused(monkeypatch):
    backbone = load(folder_of("bert"))
    layers = backbone.model.encoder.layer
    monkeypatch.setattr(layers[0].attention, "forward", lambda states, *args, **settings: (states, None))
    with pytest.raises(InputError, match=f"computes attention {BLOCKS - 1} times in {BLOCKS} blocks"):
        backbone.states(backbone.tokenize(["a"]).ids, MAPS)


def test_a_model_of_its_own_attention_that_leaves_no_maps_is_refused(monkeypatch):
    backbone = load(folder_of("bert"))
    monkeypatch.setattr(backbone.model, "_can_set_attn_implementation", lambda: False)
    with pytest.raises(InputError, match="returned no attention maps"):
        backbone.states(backbone.tokenize(["a"]).ids, MAPS)
