"""What all learned fusions share: the contract under every option, and how they behave in training."""

import pytest
import torch

import fusebench.methods  # noqa: F401  registers the parts
from fusebench.errors import InputError
from fusebench.methods.grammar import parse
from fusebench.methods.registry import card, cards
from fusebench.methods.states import LayerStates, StateShape
from fusebench.testing import check_fusion
from tests.tiny_states import count, make

# Not among them: pool=first of hire and bigru, which leaves weights idle (see test_hire.py).
OPTIONS = {
    "layer-attention": ("query=last", "scale=sqrt-dim", "activation=none", "concat=false"),
    "hire": (
        "include_last=false",
        "summary=last-layer",
        "summary=mean",
        "normalization=none",
        "hidden=3",
        "fusion_hidden=5",
    ),
    "bigru": ("depth=2", "hidden=3"),
    "scalar-mix": ("layer_norm=text",),
    "weighted-layers": (),
    "cls-lstm": ("width=5",),
    "cls-attention": ("width=5",),
    "dwatt": ("bottleneck=0.25", "position_dim=3"),
    "multi-layer-latents": ("latents=5", "heads=3", "head_dim=16", "expansion=1"),
    "latent-attention": ("latents=5", "heads=3", "head_dim=16", "expansion=1"),
    "set-encoder": ("hidden=9", "pool=sum", "dropout=0.0"),
    "layer-graph": ("graph=full", "steps=2", "hidden=9", "pool=sum", "dropout=0.0"),
    "squeeze-gate": ("width=3",),
    "mlp": ("hidden=3",),
    "transformer-block": ("heads=4", "expansion=1"),
}
NOISY = {"layer-attention", "set-encoder", "layer-graph"}  # in training, at their defaults
NAMES = list(OPTIONS)


def test_every_learned_fusion_is_in_this_file():
    assert {card.name for card in cards("fusion") if card.learned} >= set(NAMES)
    assert all(card(name).learned for name in NAMES)


@pytest.mark.parametrize(
    "sentence", [f"{name}({option},untrained)" for name, options in OPTIONS.items() for option in options]
)
def test_every_option_keeps_the_contract(sentence):
    fusion = parse(sentence).fusion
    check_fusion(fusion.name, **dict(fusion.params))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [StateShape(blocks=1, dim=8), StateShape(blocks=25, dim=8)], ids=str)
def test_depth_comes_from_the_backbone(name, shape):
    states, texts = make(shape=shape)
    fusion = card(name).part(shape).double().eval()
    assert fusion(states).shape == (len(texts), fusion.out_dim)
    assert max(fusion.layers) == shape.blocks


@pytest.mark.parametrize("name", NAMES)
def test_a_bare_name_needs_an_objective(name):
    with pytest.raises(InputError, match="add an objective"):
        parse(name)


SHAPE = StateShape(blocks=6, dim=16)


def built(name):
    torch.manual_seed(0)
    return card(name).part(SHAPE).double()


@pytest.mark.parametrize("name", NAMES)
def test_training_noise_is_drawn_from_the_seed_and_evaluation_draws_none(name):
    states, _ = make(shape=SHAPE)
    fusion = built(name).train()
    vectors = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        vectors.append(fusion(states))
    assert torch.equal(vectors[0], vectors[1])
    assert torch.equal(vectors[0], vectors[2]) == (name not in NOISY)
    before = torch.get_rng_state()
    fusion.eval()(states)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_start_from_equal_weights(name):
    first, second = built(name), built(name)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_reaches_every_weight_in_training_without_a_push(name):
    states, _ = make(shape=SHAPE)
    fusion = built(name).train()
    vectors = fusion(states)
    (vectors * torch.randn_like(vectors)).sum().backward()
    for key, weight in fusion.named_parameters():
        assert weight.grad is not None, key
        assert bool(weight.grad.isfinite().all() and weight.grad.any()), key


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_from_its_start(name):
    """A few steps towards the vectors of another draw of weights bring it nearer to them."""
    states, _ = make(shape=SHAPE, lengths=(3, 1, 5, 4, 2, 6))
    teacher = built(name).eval()
    for weight in teacher.parameters():
        weight.data += 0.3 * torch.randn_like(weight)
    with torch.no_grad():
        target = teacher(states)
    fusion = built(name).eval()
    optimizer = torch.optim.Adam(fusion.parameters(), lr=0.01)
    losses = []
    for _ in range(25):
        loss = (fusion(states) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_whatever_stands_in_the_padding_stays_invisible_in_the_gradient_of_weights(name):
    gradients = []
    for filling in (0.0, 1e6):
        states, _ = make("left", shape=SHAPE)
        padding = ~states.mask.unsqueeze(-1)
        filled = LayerStates(tuple(h.masked_fill(padding, filling) for h in states.hidden), states.mask)
        fusion = built(name).eval()
        fusion(filled).square().sum().backward()
        gradients.append([weight.grad for weight in fusion.parameters()])
    for clean, dirty in zip(*gradients, strict=True):
        torch.testing.assert_close(dirty, clean, rtol=1e-9, atol=1e-12)


COUNTS = {
    "layer-attention": 5 * 384**2 + 384,
    "hire": 3_325_440,
    "bigru": 665_856,
    "scalar-mix": 7 + 1,
    "weighted-layers": 5,
    "cls-lstm": 1_182_720,
    "cls-attention": 384**2 + 384,
    "dwatt": 1_048_848,
    "multi-layer-latents": 2_395_008,
    "latent-attention": 2_383_488,
    "set-encoder": 230_144,
    "layer-graph": 230_657,
    "squeeze-gate": 88_320,
    "mlp": 737_855,
    "transformer-block": 1_774_464,
}


@pytest.mark.parametrize(("name", "weights"), COUNTS.items())
def test_weights_on_six_blocks_of_384_dimensions(name, weights):
    with torch.device("meta"):
        assert count(card(name).part(StateShape(blocks=6, dim=384))) == weights
