"""The same specification gives the same bits; other batches and threads move scores within the stated bounds."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from fusebench.benchmarks.store import Store
from fusebench.methods.engine import SharedPass
from fusebench.methods.grammar import parse
from fusebench.study.options import Options
from fusebench.study.plan import make_plan
from fusebench.study.run import run
from tests.killed_runs import kept
from tests.test_engine import SENTENCES, fusions_of, texts_of
from tests.tiny_gate import make_world, options
from tests.tiny_models import backbone_of

# What the README states, for float32 on one machine.
VECTORS, SCORES = 2e-6, 2e-5


@contextlib.contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def computed(out, asked):
    run(make_plan(replace(asked, out=out)), Store(out))
    return kept(out)


def test_the_same_specification_gives_the_same_bits_scores_samples_and_weights(tmp_path):
    asked = options(make_world(tmp_path / "world"))
    first, second = (computed(tmp_path / name, asked) for name in ("a", "b"))
    assert len(first.records) == 14
    assert first.records == second.records
    assert first.weights == second.weights
    assert first.logs == second.logs
    assert all(first.numbers[cell].tobytes() == second.numbers[cell].tobytes() for cell in first.numbers)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "modernbert"])
def test_vectors_of_unit_length_hardly_move_with_batches_and_threads(kind):
    backbone, texts, found = backbone_of(kind), texts_of(40, seed=9), {}
    for budget, workers, count in [(64, 1, 1), (300, 2, 2), (4096, 1, 2)]:
        with threads(count):
            shared = SharedPass(backbone, fusions_of(backbone), batch_tokens=budget, workers=workers)
            rows = shared.rows(texts)
            for name in SENTENCES:
                vectors = shared.vectors(name)[rows]
                found.setdefault(name, []).append(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    for name, (first, *others) in found.items():
        for other in others:
            assert np.abs(other - first).max() <= VECTORS, name


def test_scores_on_the_default_backbone_hardly_move_with_batches_and_threads(tmp_path):
    asked = Options(methods=("mean", "cls", "max", "sbert-wk", "mean(layer=3)"), tasks=("LeeSTS",), device="cpu")
    scores = []
    for budget, count in [(128, 1), (1024, 2)]:
        with threads(count):
            found = computed(tmp_path / str(budget), replace(asked, batch_tokens=budget))
        by_method = {held["spec"]["method"]["name"]: found.numbers[cell][0] for cell, held in found.records.items()}
        scores.append(by_method)
    assert scores[0].keys() == scores[1].keys() == {parse(one).name for one in asked.methods}
    assert max(abs(scores[1][name] - value) for name, value in scores[0].items()) <= SCORES
