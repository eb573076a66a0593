"""Latent poolers equal their attention written out head by head."""

import pytest
import torch

from fusebench.errors import InputError
from fusebench.methods.latent_pooling import LatentAttention, MultiLayerLatents
from fusebench.methods.states import StateShape
from tests.tiny_states import SHAPE, assert_equal, count, make, permuted, stirred

SIZES = {"latents": 3, "heads": 2, "head_dim": 4, "expansion": 2}


def layer_norm(x, norm):
    mean, variance = x.mean(dim=-1, keepdim=True), x.var(dim=-1, correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias


def block(fusion, X, Y):
    """X `[asking, dim]` asks, Y `[answering, dim]` answers."""
    source = layer_norm(Y, fusion.answering_norm)
    heads = []
    for W_q, W_k, W_v in zip(
        *(linear.weight.chunk(fusion.heads) for linear in (fusion.query, fusion.key, fusion.value)), strict=True
    ):
        q, k, v = layer_norm(X, fusion.asking_norm) @ W_q.T, source @ W_k.T, source @ W_v.T
        heads.append((q @ k.T / len(W_q) ** 0.5).softmax(dim=1) @ v)
    O = torch.cat(heads, dim=1) @ fusion.output.weight.T + X  # noqa: E741
    wide = layer_norm(O, fusion.wide_norm) @ fusion.widen.weight.T + fusion.widen.bias
    half = wide.shape[1] // 2
    x, gate = wide[:, :half], wide[:, half:]
    gated = x * gate * (1 + torch.erf(gate / 2**0.5)) / 2
    return gated @ fusion.narrow.weight.T + fusion.narrow.bias + O


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("params", [{}, SIZES], ids=str)
def test_tokens_attend_to_latents(params, side):
    states, texts = make(side)
    fusion = stirred(LatentAttention(SHAPE, **params))
    expected = [block(fusion, text[-1], fusion.latents).mean(dim=0) for text in texts]
    assert_equal(fusion(states), torch.stack(expected))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("params", [{}, SIZES, {"first": 0}, {"first": 3}], ids=str)
def test_latents_attend_to_layers(params, side):
    states, texts = make(side)
    fusion = stirred(MultiLayerLatents(SHAPE, **params))
    expected = []
    for text in texts:
        X = text[params.get("first", 1) :].mean(dim=1) + fusion.layer_embeddings
        expected.append(block(fusion, fusion.latents, X).mean(dim=0))
    assert_equal(fusion(states), torch.stack(expected))


def test_attention_is_that_of_torch():
    states, texts = make()
    fusion = stirred(LatentAttention(SHAPE, heads=3))
    reference = torch.nn.MultiheadAttention(SHAPE.dim, 3, bias=False, batch_first=True, dtype=torch.float64)
    weights = [fusion.query.weight, fusion.key.weight, fusion.value.weight]
    reference.in_proj_weight.data = torch.cat(weights).data
    reference.out_proj.weight.data = fusion.output.weight.data
    for weight in fusion.narrow.parameters():
        weight.data.zero_()
    X, Z = texts[0][-1], fusion.answering_norm(fusion.latents)
    expected = reference(fusion.asking_norm(X), Z, Z)[0] + X
    assert_equal(fusion(states)[0], expected.mean(dim=0))


def test_the_order_of_latents_is_not_seen():
    states, _ = make()
    for kind in (LatentAttention, MultiLayerLatents):
        fusion = stirred(kind(SHAPE, latents=4))
        before = fusion(states)
        fusion.latents.data = fusion.latents.data[[2, 0, 3, 1]]
        assert_equal(fusion(states), before)


def test_the_order_of_layers_is_seen_by_their_embeddings_alone():
    states, _ = make()
    fusion = stirred(MultiLayerLatents(SHAPE))
    swapped = permuted(states, [0, 2, 1, 4, 3])
    assert not torch.allclose(fusion(swapped), fusion(states))
    fusion.layer_embeddings.data.zero_()
    assert_equal(fusion(swapped), fusion(states))


def test_sizes_scale_to_the_published_ones():
    shape = StateShape(blocks=32, dim=4096)
    with torch.device("meta"):
        assert MultiLayerLatents(shape).latents.shape == (768, 4096)
        assert LatentAttention(shape).latents.shape == (512, 4096)
        published = LatentAttention(shape, head_dim=4096)
    d, inner = 4096, 8 * 4096
    attention = 4 * d * inner + 3 * 2 * d
    feed = d * 8 * d + 8 * d + 4 * d * d + d
    assert count(published) == 512 * d + attention + feed


@pytest.mark.parametrize("kind", [LatentAttention, MultiLayerLatents])
@pytest.mark.parametrize("size", ["latents", "heads", "head_dim", "expansion"])
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_below_1_are_refused(kind, size, value):
    with pytest.raises(InputError, match=size):
        kind(SHAPE, **{size: value})
