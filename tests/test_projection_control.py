"""The controls equal their formulas and have the weights that they are to match."""

import pytest
import torch

from fusebench.errors import InputError
from fusebench.methods.layer_attention import LayerAttention
from fusebench.methods.projection_control import MLP, TransformerBlock
from fusebench.methods.states import StateShape
from tests.tiny_states import SHAPE, assert_equal, count, make, stirred


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("params", [{}, {"hidden": 3}], ids=str)
def test_the_mlp_is_two_maps_of_the_mean(params, side):
    states, texts = make(side)
    fusion = stirred(MLP(SHAPE, **params))
    expected = []
    for text in texts:
        wide = fusion.widen.weight @ text[-1].mean(dim=0) + fusion.widen.bias
        gelu = wide * (1 + torch.erf(wide / 2**0.5)) / 2
        expected.append(fusion.narrow.weight @ gelu + fusion.narrow.bias)
    assert_equal(fusion(states), torch.stack(expected))


@pytest.mark.parametrize("dim", [16, 100, 312, 384, 512, 768, 1024])
def test_the_mlp_has_the_weights_of_layer_attention(dim):
    shape = StateShape(12, dim)
    with torch.device("meta"):
        gap = count(MLP(shape)) - count(LayerAttention(shape))
        one_unit = count(MLP(shape, hidden=11)) - count(MLP(shape, hidden=10))
    assert abs(gap) <= one_unit / 2


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("heads", "expansion"), [(None, 4), (2, 4), (3, 1)])
def test_the_block_is_that_of_torch(heads, expansion, side):
    states, texts = make(side)
    fusion = stirred(TransformerBlock(SHAPE, heads=heads, expansion=expansion))
    reference = torch.nn.TransformerEncoderLayer(
        SHAPE.dim,
        heads or 1,
        dim_feedforward=expansion * SHAPE.dim,
        dropout=0,
        activation="gelu",
        layer_norm_eps=1e-12,
        dtype=torch.float64,
    )
    places = {
        "query_key_value.": "self_attn.in_proj_",
        "output.": "self_attn.out_proj.",
        "attention_norm.": "norm1.",
        "widen.": "linear1.",
        "narrow.": "linear2.",
        "norm.": "norm2.",
    }
    ours = fusion.state_dict()
    weights = {theirs + kind: ours[own + kind] for own, theirs in places.items() for kind in ("weight", "bias")}
    reference.load_state_dict(weights)
    expected = [reference(text[-1].unsqueeze(1)).squeeze(1).mean(dim=0) for text in texts]
    assert_equal(fusion(states), torch.stack(expected))


def test_the_block_has_the_weights_of_one_of_bert_base():
    with torch.device("meta"):
        fusion = TransformerBlock(StateShape(12, 768))
    assert (count(fusion), fusion.heads) == (7_087_872, 12)


@pytest.mark.parametrize("kind", [MLP, TransformerBlock])
def test_the_start_is_berts(kind):
    fusion = kind(StateShape(blocks=2, dim=64))
    for name, weight in fusion.named_parameters():
        if name.endswith("bias"):
            assert not weight.any()
        elif "norm" in name:
            assert bool((weight == 1).all())
        else:
            assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        (MLP, {"hidden": 0}),
        (TransformerBlock, {"heads": 4}),
        (TransformerBlock, {"heads": 0}),
        (TransformerBlock, {"expansion": 0}),
    ],
)
def test_sizes_that_do_not_fit_are_refused(kind, params):
    with pytest.raises(InputError):
        kind(SHAPE, **params)
