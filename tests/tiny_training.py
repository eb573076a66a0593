"""Tiny trainings: rows of made-up texts, sources of their states on a tiny backbone, and methods to be trained."""

from functools import reduce

import numpy as np
import torch

import fusebench.methods  # noqa: F401  registers the parts
from fusebench.methods.engine import SharedPass
from fusebench.methods.gradients import seeded
from fusebench.methods.grammar import parse
from fusebench.methods.recipe import Recipe
from fusebench.methods.registry import card
from fusebench.methods.row_batches import Rows
from fusebench.methods.state_sources import CachedTokenSource, LiveSource, PooledSource
from fusebench.methods.states import Needs
from fusebench.methods.trainee import Trainee
from fusebench.methods.training import TrainingLoop
from tests.tiny_models import WORDS, backbone_of, one_thread

SEED = 5
RECIPE = Recipe(epochs=3, batch_size=4, learning_rate=1e-3, learning_rate_new=1e-2)


def made_up_texts(count=30):
    generator = np.random.default_rng(0)
    return [" ".join(generator.choice(WORDS, size=generator.integers(1, 9))) for _ in range(count)]


TEXTS = list(dict.fromkeys(made_up_texts()))


def rows(kind="pairs", count=14, *, seed=1):
    """Rows whose texts are drawn at random; labels too."""
    columns = {"sentences": 1, "pairs": 2, "scored-pairs": 2, "triplets": 3}[kind]
    generator = np.random.default_rng(seed)
    numbers = np.stack([generator.permutation(len(TEXTS))[:count] for _ in range(columns)])
    labels = generator.random(count) if kind == "scored-pairs" else None
    return Rows(numbers, tuple(TEXTS[n] for n in numbers[0]), labels, np.arange(count))


def trainee(sentence, recipe=RECIPE, *, seed=0, name=None, backbone="bert"):
    """A method with weights drawn from the seed."""
    method = parse(sentence)
    with seeded(seed, torch.device("cpu")):
        fusion = method.build_fusion(backbone_of(backbone).shape)
        objectives = method.build_objectives()
    guides = list(zip(map(str, method.guides), method.build_guides(), strict=True))
    return Trainee(name or sentence, fusion, objectives, guides, recipe)


def pooled(*names, views=(), backbone="bert"):
    """Stored pooled states of all texts, of the layers that these fusions read."""
    loaded = backbone_of(backbone)
    with seeded(0, torch.device("cpu")):
        fusions = {name: card(name).part(loaded.shape) for name in names}
    passes = {view: SharedPass(loaded, fusions, noise_seed=None if view is None else view) for view in (None, *views)}
    for one in passes.values():
        one.ensure(TEXTS)
    return PooledSource(passes.pop(None), passes, TEXTS)


def live(backbone="bert"):
    """The frozen backbone, run on each batch."""
    return LiveSource(backbone_of(backbone), TEXTS, Needs.TOKENS, noise_seed=3)


def cached(folder, *, layers=(0, 1, 2, 3), views=(None,), backbone="bert", texts=TEXTS):
    """Token states of these layers on disk."""
    source = LiveSource(backbone_of(backbone), texts, Needs.TOKENS, noise_seed=3)
    shape = backbone_of(backbone).shape
    return CachedTokenSource(source, layers=layers, blocks=shape.blocks, dim=shape.dim, views=views, folder=folder)


def trained(one, *, dropout=True, backbone="bert"):
    """A copy of the backbone that learns along with a method."""
    copied = backbone_of(backbone).trainable_copy()
    if not dropout:
        silence(copied.model)
    guides = [guide for _, guide in one.guides]
    needs = reduce(lambda found, guide: found | guide.needs, guides, one.fusion.needs)
    return LiveSource(copied, TEXTS, needs, train=True)


def silence(model):
    """Dropout never drops anything from now on."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout_prob"):
            module.dropout_prob = 0.0
    return model


def train(trainees, stages, source, *, kind=TrainingLoop, **settings):
    """Runs the loop to its end."""
    loop = kind(trainees, stages, source, **{"seed": SEED, **settings})
    with one_thread():
        loop.run()
    return loop


def weights_of(one, source=None):
    """A copy of everything that was learned, by name."""
    backbone = source.trained if source is not None else None
    return {name: tensor.detach().clone() for name, tensor in one.weights(backbone).items()}


def assert_bitwise(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def assert_near(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=tolerance, atol=tolerance, msg=name, equal_nan=False)
