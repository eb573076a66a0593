"""MDG and PDG equal plain loops, and behave as their paper intends: on received, not on released attention."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError

from fusebench.errors import InputError
from fusebench.methods.attention_guides import MapChoice, MapDiscrimination, PatternDecorrelation
from fusebench.methods.states import LayerStates

pytestmark = pytest.mark.filterwarnings("ignore:.*no gradient:UserWarning")  # one test asks for it

GUIDES = [MapDiscrimination, PatternDecorrelation]
BLOCKS, HEADS = 3, 2
LENGTHS = (4, 1, 6)


def states_of(attention, mask=None):
    """Guides read the maps, the mask, and how many states there are."""
    batch, tokens = attention[0].shape[0], attention[0].shape[-1]
    hidden = (torch.zeros(batch, tokens, 1),) * (len(attention) + 1)
    mask = torch.ones(batch, tokens, dtype=torch.bool) if mask is None else mask
    return LayerStates(hidden, mask, dict(enumerate(attention, start=1)))


def make(side="right", width=7, dropout=0.1):
    """Maps of ragged texts, dropped out as in training, and each text's real part [maps, queries, keys]."""
    generator = torch.Generator().manual_seed(5)
    attention = torch.full((BLOCKS, len(LENGTHS), HEADS, width, width), 1e4).double()
    mask = torch.zeros(len(LENGTHS), width, dtype=torch.bool)
    texts = []
    for row, length in enumerate(LENGTHS):
        real = slice(0, length) if side == "right" else slice(width - length, width)
        scores = torch.randn(BLOCKS, HEADS, length, length, generator=generator).double()
        kept = 1 + dropout * torch.randn(scores.shape, generator=generator).double()
        attention[:, row, :, real, real] = scores.softmax(dim=-1) * kept
        mask[row, real] = True
        texts.append(attention[:, row, :, real, real].flatten(0, 1))
    return states_of(attention.unbind(), mask), texts


def maps_by_loop(text, aggregate):
    """One unit vector a map: the mean over queries or over keys, position by position."""
    length = text.shape[-1]
    rows = []
    for attention in text:
        if aggregate == "received":
            a = torch.stack([sum(attention[i, j] for i in range(length)) / length for j in range(length)])
        else:
            a = torch.stack([sum(attention[i, j] for j in range(length)) / length for i in range(length)])
        rows.append(a / math.sqrt(sum(x**2 for x in a)))
    return rows


def mdg_by_loop(texts, temperature, aggregate):
    total = 0.0
    for text in texts:
        maps = maps_by_loop(text, aggregate)
        for a in maps:
            scores = [math.exp(float(a @ b) / temperature) for b in maps]
            total -= math.log(math.exp(float(a @ a) / temperature) / sum(scores)) / len(maps) / len(texts)
    return total


def pdg_by_loop(texts, aggregate):
    total = 0.0
    for text in texts:
        maps = maps_by_loop(text, aggregate)
        length = text.shape[-1]
        for i in range(length):
            for j in range(length):
                correlation = sum(float(a[i] * a[j]) for a in maps) - (i == j)
                total += correlation**2 / length / len(texts)
    return total


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("aggregate", ["received", "released"])
@pytest.mark.parametrize("temperature", [2.0, 0.3])
def test_mdg_equals_its_loop(temperature, aggregate, side):
    states, texts = make(side)
    found = MapDiscrimination(temperature=temperature, aggregate=aggregate)(states)
    assert found.item() == pytest.approx(mdg_by_loop(texts, temperature, aggregate), rel=1e-12)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("aggregate", ["received", "released"])
def test_pdg_equals_its_loop(aggregate, side):
    states, texts = make(side)
    found = PatternDecorrelation(aggregate=aggregate)(states)
    assert found.item() == pytest.approx(pdg_by_loop(texts, aggregate), rel=1e-12)


def attending_to(*rows):
    """One text, one block, a head a row: every query of the head attends with these weights."""
    return states_of([torch.tensor(rows, dtype=torch.float64)[None, :, None, :].repeat(1, 1, len(rows[0]), 1)])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_identical_maps_have_an_mdg_of_ln_n(count):
    found = MapDiscrimination()(attending_to(*[[0.2, 0.5, 0.3]] * count))
    assert found.item() == pytest.approx(math.log(count), abs=1e-12)


def test_separating_two_identical_maps_lowers_mdg_step_by_step():
    values = [
        MapDiscrimination()(attending_to([0.5 + gap, 0.5 - gap], [0.5 - gap, 0.5 + gap], [0.5, 0.5])).item()
        for gap in (0.0, 0.1, 0.3, 0.5)
    ]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 4


def test_pdg_is_zero_exactly_when_the_maps_are_orthonormal_over_positions():
    one_each = PatternDecorrelation()(attending_to([1, 0, 0], [0, 1, 0], [0, 0, 1]))
    assert one_each.item() == pytest.approx(0, abs=1e-15)
    shared = PatternDecorrelation()(attending_to([1, 0, 0], [0, 1, 0], [0, 1, 0]))
    assert shared.item() == pytest.approx((1 + 1) / 3)  # A^T A = diag(1, 2, 0)
    slanted = PatternDecorrelation()(attending_to([1, 0, 0], [0, 1, 0], [0, 0.1, 0.9]))
    assert slanted.item() > 1e-3


def test_fewer_maps_than_positions_cannot_reach_zero():
    assert PatternDecorrelation()(attending_to([1, 0, 0], [0, 1, 0])).item() == pytest.approx(1 / 3)


def test_pdg_of_random_maps_is_above_zero():
    states, _ = make()
    assert PatternDecorrelation()(states).item() > 0


def gradient(guide, width=5):
    """With respect to the scores behind softmaxed maps without dropout, as in evaluation mode."""
    generator = torch.Generator().manual_seed(6)
    scores = torch.randn(BLOCKS, 2, HEADS, width, width, generator=generator).double().requires_grad_()
    value = guide(states_of(scores.softmax(dim=-1).unbind()))
    return value.item(), torch.autograd.grad(value, scores)[0].norm().item()


@pytest.mark.parametrize("guide", [MapDiscrimination, PatternDecorrelation])
def test_released_aggregation_without_dropout_has_no_gradient_but_received_has(guide):
    """A softmax row sums to 1, so its mean over keys is 1/T whatever the model does."""
    assert gradient(guide(aggregate="released"))[1] < 1e-14
    assert gradient(guide(aggregate="received"))[1] > 1e-3


def test_released_aggregation_without_dropout_is_a_constant():
    N, L = BLOCKS * HEADS, 5
    assert gradient(MapDiscrimination(aggregate="released"))[0] == pytest.approx(math.log(N))
    expected = (L - 1) * (N / L) ** 2 + (N / L - 1) ** 2
    assert gradient(PatternDecorrelation(aggregate="released"))[0] == pytest.approx(expected)


@pytest.mark.parametrize("guide", [MapDiscrimination(), PatternDecorrelation()])
def test_padding_is_invisible(guide):
    tight = guide(make("right", 6)[0]).item()
    for side, width in (("right", 9), ("left", 6), ("left", 9)):
        assert guide(make(side, width)[0]).item() == pytest.approx(tight, rel=1e-12)


@pytest.mark.parametrize("attention", [None, {}])
@pytest.mark.parametrize("guide", [MapDiscrimination(), PatternDecorrelation()])
def test_missing_maps_raise(guide, attention):
    states, _ = make()
    with pytest.raises(ValueError, match=r"needs the attention maps of blocks \[1, 2, 3\]"):
        guide(LayerStates(states.hidden, states.mask, attention))


@pytest.mark.parametrize("guide", [MapDiscrimination(layers="1,3"), PatternDecorrelation()])
def test_a_map_that_was_not_collected_is_no_map_left_out(guide):
    states, _ = make()
    some = {block: states.attention[block] for block in (1, 2)}
    with pytest.raises(ValueError, match=r"blocks \[3\]"):
        guide(LayerStates(states.hidden, states.mask, some))


def test_maps_are_unit_vectors_with_nothing_on_padding():
    states, _ = make()
    maps = MapDiscrimination().choice.unit_maps(states)
    assert maps.shape == (3, BLOCKS * HEADS, 7)
    torch.testing.assert_close(maps.norm(dim=-1), torch.ones(3, BLOCKS * HEADS).double())
    assert not maps.masked_select(~states.mask.unsqueeze(1)).any()


@pytest.mark.parametrize("guide", [MapDiscrimination(), MapDiscrimination(temperature=0.3), PatternDecorrelation()])
def test_gradients_are_those_of_finite_differences(guide):
    states, _ = make()
    maps = [block.clone().requires_grad_() for block in states.attention.values()]
    for block in maps:
        block.data.clamp_(max=1)
    assert torch.autograd.gradcheck(lambda *blocks: guide(states_of(blocks, states.mask)), maps, fast_mode=True)


@pytest.mark.parametrize("guide", [MapDiscrimination(), PatternDecorrelation()])
def test_bfloat16_maps_are_normalised_in_float32(guide):
    states, _ = make()
    small = [block.bfloat16() for block in states.attention.values()]
    assert torch.equal(
        guide(states_of(small, states.mask)), guide(states_of([b.float() for b in small], states.mask))
    )


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature):
    with pytest.raises(InputError, match="above 0"):
        MapDiscrimination(temperature=temperature)


# Which maps, and how much they weigh


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("layers", "heads"), [("2", None), ("1,3", None), (None, "1"), ("2,3", "0"), ("3", "0,1")])
def test_chosen_layers_and_heads_alone_are_penalised(layers, heads, side):
    states, texts = make(side)
    blocks = [int(b) - 1 for b in (layers or "1,2,3").split(",")]
    kept = [int(h) for h in (heads or "0,1").split(",")]
    chosen = [torch.stack([text[b * HEADS + h] for b in blocks for h in kept]) for text in texts]
    mdg = MapDiscrimination(layers=layers, heads=heads)
    pdg = PatternDecorrelation(layers=layers, heads=heads)
    assert mdg.blocks == pdg.blocks == (None if layers is None else tuple(b + 1 for b in blocks))
    assert mdg(states).item() == pytest.approx(mdg_by_loop(chosen, 2.0, "received"), rel=1e-12, abs=1e-15)
    assert pdg(states).item() == pytest.approx(pdg_by_loop(chosen, "received"), rel=1e-12)


@pytest.mark.parametrize("guide", GUIDES)
def test_blocks_that_are_not_chosen_need_no_maps(guide):
    states, _ = make()
    only = LayerStates(states.hidden, states.mask, {3: states.attention[3]})
    assert torch.equal(guide(layers="3")(only), guide(layers="3")(states))


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("written", ["", "0", "-1", "1,", "2,1", "2,2", "1, 2", "one", "1.5", "²"])
def test_layers_that_cannot_be_meant_are_refused(guide, written):
    with pytest.raises(InputError, match=r"layers=.*rising numbers from 1 on"):
        guide(layers=written)


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("written", ["", "-1", "1,0", "a"])
def test_heads_that_cannot_be_meant_are_refused(guide, written):
    with pytest.raises(InputError, match=r"heads=.*rising numbers from 0 on"):
        guide(heads=written)


@pytest.mark.parametrize("guide", GUIDES)
def test_a_block_or_a_head_that_the_backbone_lacks_is_refused_with_their_number(guide):
    states, _ = make()
    with pytest.raises(InputError, match="no block 4, this backbone has 3"):
        guide(layers="1,4")(states)
    with pytest.raises(InputError, match=r"no head 2, .* has 2 of them"):
        guide(heads="0,2")(states)


@pytest.mark.parametrize("guide", GUIDES)
def test_the_factor_is_0_001_and_is_left_to_whoever_trains(guide):
    states, _ = make()
    assert guide().factor == 0.001
    assert guide(factor=7.0).factor == 7.0
    assert torch.equal(guide(factor=7.0)(states), guide()(states))


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("factor", [-0.001, math.inf, math.nan])
def test_a_factor_that_is_no_weight_is_refused(guide, factor):
    with pytest.raises(InputError, match="0 or more"):
        guide(factor=factor)


@pytest.mark.parametrize("guide", GUIDES)
def test_an_unknown_aggregate_is_refused(guide):
    # The shapes that tests check include choices, and are then the first to refuse.
    with pytest.raises((InputError, TypeCheckError), match="received"):
        guide(aggregate="both")


@pytest.mark.parametrize("guide", GUIDES)
def test_released_aggregation_warns_that_it_has_no_gradient(guide):
    with pytest.warns(UserWarning, match="no gradient"):
        guide(aggregate="released")


# Statistics


def statistics_by_loop(texts):
    entropies, firsts, cosines = [], [], []
    for text in texts:
        length = text.shape[-1]
        entropy = first = 0.0
        for attention in text:
            for query in attention:
                entropy -= sum(float(p) * math.log(p) for p in query) / length / len(text)
                first += float(query[0]) / length / len(text)
        entropies.append(entropy / math.log(length) if length > 1 else 1.0)
        firsts.append(first)
        maps = maps_by_loop(text, "received")
        pairs = [float(a @ b) for i, a in enumerate(maps) for j, b in enumerate(maps) if i != j]
        cosines.append(sum(pairs) / len(pairs))
    means = [sum(values) / len(values) for values in (entropies, firsts, cosines)]
    return dict(zip(["entropy", "first_token_share", "map_cosine"], means, strict=True))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("guide", GUIDES)
def test_statistics_equal_their_loop_whatever_stands_in_the_padding(guide, side):
    states, texts = make(side, dropout=0.0)
    assert guide().statistics(states) == pytest.approx(statistics_by_loop(texts), rel=1e-12)


def test_statistics_of_even_and_of_pointed_attention():
    even = PatternDecorrelation().statistics(attending_to([0.25] * 4, [0.25] * 4))
    assert even == pytest.approx({"entropy": 1.0, "first_token_share": 0.25, "map_cosine": 1.0})
    pointed = PatternDecorrelation().statistics(attending_to([1, 0, 0, 0], [0, 0, 1, 0]))
    assert pointed == pytest.approx({"entropy": 0.0, "first_token_share": 0.5, "map_cosine": 0.0})


def test_statistics_leave_no_trace_for_gradients_and_read_the_chosen_maps_alone():
    states, texts = make(dropout=0.0)
    maps = {block: one.clone().requires_grad_() for block, one in states.attention.items()}
    found = MapDiscrimination(layers="2", heads="0").statistics(LayerStates(states.hidden, states.mask, maps))
    expected = statistics_by_loop([torch.stack([text[HEADS]] * 2) for text in texts])
    assert set(found) == {"entropy", "first_token_share"}  # one map has no pair
    assert found == pytest.approx({key: expected[key] for key in found}, rel=1e-12)
    assert all(isinstance(value, float) for value in found.values())
    assert all(one.grad is None for one in maps.values())


def test_the_choice_of_maps_says_what_it_was_told():
    assert MapDiscrimination(layers="5,6", heads="0").choice == MapChoice("mdg", (5, 6), (0,), "received")
