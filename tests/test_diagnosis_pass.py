"""A diagnosis equals its quantities computed one method at a time, and one pass serves them all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fusebench
from fusebench.benchmarks.embedding_space import space_of
from fusebench.benchmarks.geometry import linear_cka
from fusebench.benchmarks.record import Prompts
from fusebench.benchmarks.tasks import find_tasks, load_task
from fusebench.methods.backbone import Backbone
from fusebench.methods.parts import Fusion
from fusebench.methods.states import Needs
from fusebench.study.diagnosis import diagnose
from fusebench.study.diagnosis_pass import Examination, Settings
from fusebench.study.diagnosis_subjects import choose_subjects
from fusebench.study.diagnosis_texts import draw
from fusebench.study.text_sets import load_texts
from tests.tiny_gate import bench, make_world, options
from tests.tiny_models import BLOCKS, load

METHODS = ("mean@each", "cls@each", "max", "mean+whiten(k=4)")
TUNED = "cls+batch-softmax"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny backbone, a task of each kind, a trained head and a tuned backbone."""
    world = make_world(tmp_path_factory.mktemp("world"))
    tasks = ("TinySTS",)
    training = options(world).training
    bench(world, world / "out", "mlp+batch-softmax", tasks=tasks)
    tuned = training.__class__(**{**vars(training), "regime": "finetune"})
    bench(world, world / "out", TUNED, tasks=tasks, training=tuned)
    return world


def samples_of(world, names=("TinySTS",), limit=1000):
    return [
        draw(load_task(source, limit=None, allow_empty=False), Prompts(), limit=limit, seed=0)
        for source in find_tasks(names, world / "data")
    ]


def near(space):
    """To be compared with another: other batches round differently, and then two neighbours may change places."""
    held = space.model_dump()
    counts = {name: pytest.approx(held.pop(name), abs=0.05) for name in ("hubness", "antihubs")}
    return {name: pytest.approx(value, rel=1e-3, abs=1e-5) for name, value in held.items()} | counts


def made(world, *sentences, attention=False, names=("TinySTS",), limit=1000, every_training=False):
    backbone, fit = load(world / "models" / "tiny-bert"), load_texts(str(world / "fit.txt"), None)
    subjects, _ = choose_subjects(sentences, world / "out", backbone, fit.spec.count, every_training=every_training)
    settings = Settings(attention, limit, 0, Prompts(), 64)
    return diagnose(backbone, subjects, samples_of(world, names, limit), fit, settings)


def test_every_space_is_that_of_the_methods_own_vectors(world):
    (found,), failures = made(world, *METHODS, "mlp", TUNED)
    assert failures == []
    (sample,) = samples_of(world)
    folders = {path.name.split("-seed")[0]: path for path in (world / "out" / "trained").iterdir()}
    seen = set()
    for method, space in zip(found.spec.methods, found.spaces, strict=True):
        if method.method.name == "mean+whiten(k=4)" or (method.backbone and not method.trained):
            continue  # fitted on other texts, or read from a backbone that no name leads to
        name = str(folders[method.trained.method]) if method.trained else method.method.name
        encoder = fusebench.load(name, str(world / "models" / "tiny-bert"))
        vectors = [encoder.encode(texts) for texts in (sample.texts, sample.left, sample.right)]
        assert space.model_dump() == near(space_of(*vectors)), name
        seen.add(method.method.name)
    assert seen == {
        *(f"mean(layer={k})" for k in range(BLOCKS)),
        *(f"cls(layer={k})" for k in range(1, BLOCKS)),
        *("mean", "cls", "max", "mlp+batch-softmax", TUNED),
    }


def test_layers_are_compared_over_the_texts_that_are_measured(world):
    (found,), _ = made(world, "mean@each")
    (sample,) = samples_of(world)
    layers = ["mean(layer=0)", "mean(layer=1)", "mean(layer=2)", "mean"]
    vectors = [fusebench.load(name, str(world / "models" / "tiny-bert")).encode(sample.texts) for name in layers]
    (similarity,) = found.similarities
    assert (similarity.sweep, similarity.layers) == ("mean", (0, 1, 2, 3))
    assert np.array(similarity.cka) == pytest.approx(linear_cka(vectors), abs=1e-4)


def test_a_tuned_backbone_has_layers_and_attention_of_its_own(world):
    (found,), _ = made(world, "mean@each", TUNED, attention=True)
    owners = [None, TUNED]
    assert [one.backbone and one.backbone.method for one in found.similarities] == owners
    assert [one.backbone and one.backbone.method for one in found.attention] == owners
    spaces = {
        (m.method.name, m.backbone is not None): s for m, s in zip(found.spec.methods, found.spaces, strict=True)
    }
    assert spaces["mean(layer=1)", False] != spaces["mean(layer=1)", True]
    entropy = [[block.entropy for block in one.blocks] for one in found.attention]
    assert entropy[0] != entropy[1]


def test_a_text_goes_through_the_backbone_once_whatever_is_asked(world, monkeypatch):
    seen = []
    states = Backbone.states

    def counted(self, ids, *rest):
        seen.extend(one.tobytes() for one in ids)
        return states(self, ids, *rest)

    monkeypatch.setattr(Backbone, "states", counted)
    _, failures = made(world, *METHODS, "mlp", attention=True, names=("TinySTS", "TinySearch"))
    probes = load(world / "models" / "tiny-bert").tokenize(["layers"]).ids[0].tobytes()
    inputs = [one for one in seen if one != probes]
    assert failures == []
    assert len(inputs) == len(set(inputs)) > 100


def test_each_task_has_a_diagnosis_of_its_own_texts(world):
    found, _ = made(world, "mean", names=("TinySTS", "TinySearch"))
    apart = [made(world, "mean", names=(name,))[0][0] for name in ("TinySTS", "TinySearch")]
    assert [one.spec.task.name for one in found] == ["TinySTS", "TinySearch"]
    for together, alone in zip(found, apart, strict=True):
        assert together.diagnosis_id == alone.diagnosis_id
        assert together.sizes == alone.sizes
        assert together.spaces[0].model_dump() == near(alone.spaces[0])


def test_a_limit_says_how_many_of_how_many(world):
    (found,), _ = made(world, "mean", limit=20)
    (whole,), _ = made(world, "mean")
    assert (found.sizes.texts, found.sizes.texts_of_task) == (20, whole.sizes.texts_of_task)
    assert found.sizes.pairs == min(20, whole.sizes.pairs)
    assert found.diagnosis_id != whole.diagnosis_id


class Collapsed(Fusion):
    """Every text at one place."""

    needs = Needs.MEANS

    def __init__(self, shape):
        super().__init__()
        self.layers, self.out_dim = (shape.blocks,), shape.dim

    def forward(self, states):
        return torch.ones_like(states.mean(self.layers[0]))


def test_a_method_without_a_geometry_is_named_and_the_others_go_on(world, monkeypatch):
    fusion = Examination._fusion
    monkeypatch.setattr(
        Examination,
        "_fusion",
        lambda self, one: Collapsed(self.backbone.shape) if one.method.name == "max" else fusion(self, one),
    )
    (found,), failures = made(world, "max", "mean")
    assert [one.method.name for one in found.spec.methods] == ["mean"]
    assert failures == ["max on TinySTS: all vectors are equal, so they spread in no direction"]
