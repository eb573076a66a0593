from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fusebench.benchmarks.store import Store
from fusebench.methods.training import TrainingLoop
from fusebench.study import unit_work
from fusebench.study.dispatch import compute_on
from fusebench.study.plan import make_plan
from fusebench.study.run import missing_cells, run
from fusebench.study.unit_work import Job
from tests.killed_runs import kept
from tests.pool_in_process import PoolInProcess
from tests.tiny_gate import make_world, options
from tests.tiny_models import one_thread

METHODS = (
    *("mean", "cls", "max", "prompt-mask", "mean+whiten(k=4)"),
    *("scalar-mix+batch-softmax", "mlp+batch-softmax", "hire+batch-softmax", "hire+batch-softmax+whiten(k=4)"),
)
TUNED = ("mean+batch-softmax", "layer-attention+batch-softmax")
SETTINGS = {"seeds": (0, 1)}


def silent(stage, done, total):
    pass


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("dispatch"))


def tuning(asked):
    return replace(asked, training=replace(asked.training, regime="finetune"))


@pytest.fixture(scope="module")
def local(world, tmp_path_factory):
    """What a run in one process leaves, frozen and fine-tuned."""
    out = tmp_path_factory.mktemp("local")
    with one_thread():
        for asked in (options(world, *METHODS, out=out, **SETTINGS), tuning(options(world, *TUNED, out=out))):
            assert not run(make_plan(asked), Store(out)).failures
    return kept(out)


def dispatched(asked, progress=silent, **pool):
    """The outcome of a run on a pool, and the pool."""
    plan, store = make_plan(asked), Store(asked.out)
    workers = PoolInProcess(Job(asked, (), Path.cwd(), threads=1), **pool)
    return compute_on(workers, plan, missing_cells(plan, store), progress), workers


def assert_same(found, expected):
    """Everything in a results folder that does not say when or where, to the last bit."""
    cells = found.records.keys()
    assert found.records == {cell: expected.records[cell] for cell in cells}
    assert all(np.array_equal(found.numbers[cell], expected.numbers[cell]) for cell in cells)
    assert found.weights == {name: expected.weights[name] for name in found.weights}
    assert found.logs == {name: expected.logs[name] for name in found.logs}


def test_methods_that_read_alike_train_together_one_pass_serves_all_and_records_are_those_of_one_process(
    world, local, tmp_path
):
    asked = options(world, *METHODS, out=tmp_path, **SETTINGS)
    outcome, pool = dispatched(asked, slots=3)
    assert not outcome.failures
    assert outcome.finished == len(make_plan(asked).cells)
    assert_same(kept(tmp_path), local)
    stages = Counter(unit.stage for unit in pool.done)
    assert stages["encoding"] == 6  # two templates, a shard a slot
    # hire reads tokens, scalar-mix and mlp stored states; two seeds of each.
    assert sorted(len(unit.bundles) for unit in pool.done if unit.stage == "training") == [2, 4]
    assert len(outcome.passes) == 2


def test_fine_tuned_backbones_are_units_of_their_own(world, local, tmp_path):
    asked = tuning(options(world, *TUNED, out=tmp_path))
    outcome, pool = dispatched(asked)
    assert (outcome.finished, outcome.failures, outcome.methods) == (4, [], 2)
    assert [unit.stage for unit in pool.done] == ["fine-tuning"] * 2
    assert_same(kept(tmp_path), local)


def test_what_is_recorded_is_not_done_again(world, tmp_path):
    asked = options(world, "mean", "max", out=tmp_path)
    dispatched(asked)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*/*.json")}
    outcome, pool = dispatched(replace(asked, methods=("mean", "max", "cls")))
    assert outcome.finished == 2
    assert {spec_id for unit in pool.done for spec_id in unit.spec_ids} & {p.stem[-16:] for p in before} == set()
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_rerun_computes_everything_again_and_trains_once(world, tmp_path, monkeypatch):
    asked = options(world, "mean", "mlp+batch-softmax", out=tmp_path)
    dispatched(asked)
    trained = []
    monkeypatch.setattr(TrainingLoop, "run", lambda loop, real=TrainingLoop.run: (trained.append(1), real(loop)))
    outcome, _ = dispatched(replace(asked, rerun=True))
    assert (outcome.finished, len(trained)) == (4, 1)


def test_a_unit_that_is_lost_again_and_again_is_divided_until_what_is_lost_is_alone(world, local, tmp_path):
    asked = options(world, "mean", "cls", "max", "mean+whiten(k=4)", out=tmp_path)
    poison = next(
        cell.spec.spec_id
        for cell in make_plan(asked).cells
        if cell.method.name == "max" and cell.task.spec.name == "TinySTS"
    )
    told = []
    outcome, _ = dispatched(
        asked,
        progress=lambda stage, done, total: told.append((stage, done, total)),
        slots=1,
        loses=lambda unit: unit.stage == "scoring" and poison in unit.spec_ids,
    )
    assert outcome.failures == ["max on TinySTS: its worker was lost"]
    found = kept(tmp_path)
    assert found.records.keys() == {cell.spec.spec_id for cell in make_plan(asked).cells} - {poison}
    assert_same(found, local)
    cells = len(make_plan(asked).cells)
    assert told[-1] == ("cells", cells, cells)


def test_a_lost_training_costs_its_own_cells_and_no_others(world, local, tmp_path):
    methods = ("mean+whiten(k=4)", "scalar-mix+batch-softmax", "mlp+batch-softmax")
    asked = options(world, *methods, out=tmp_path, **SETTINGS)
    lost = {cell.spec.spec_id for cell in make_plan(asked).cells if cell.method.name == "mlp+batch-softmax"}
    outcome, _ = dispatched(asked, loses=lambda unit: unit.stage == "training" and lost & set(unit.spec_ids))
    assert len(outcome.failures) == len(lost) == 4
    assert all(failure.startswith("mlp+batch-softmax on Tiny") for failure in outcome.failures)
    assert_same(kept(tmp_path), local)


def test_a_lost_shard_fails_the_cells_of_its_pass_once_and_the_other_pass_goes_on(world, tmp_path):
    asked = options(world, "mean", "cls", "prompt-mask", out=tmp_path)
    outcome, _ = dispatched(asked, loses=lambda unit: unit.stage == "encoding" and unit.template is None)
    assert sorted({failure.split(" on ")[0] for failure in outcome.failures}) == ["cls", "mean"]
    assert len(outcome.failures) == 4
    assert outcome.finished == 2


def test_a_training_that_fails_is_a_failure_of_its_cells(world, tmp_path, monkeypatch):
    def fail(loop):
        for trainee in loop.trainees:
            trainee.failure = ArithmeticError("the loss is nan")

    monkeypatch.setattr(TrainingLoop, "run", fail)
    outcome, _ = dispatched(options(world, "mean", "mlp+batch-softmax", out=tmp_path))
    assert outcome.finished == 2
    assert sorted(outcome.failures) == [
        f"mlp+batch-softmax on {t}: the loss is nan" for t in ("TinySTS", "TinySearch")
    ]


def test_a_unit_tried_again_after_half_of_its_cells_has_the_batches_of_the_whole(world, local, tmp_path, monkeypatch):
    real, tries = unit_work.compute, []

    def dies_half_way(plan, cells, *others, **settings):
        tries.append(len(cells))
        return real(plan, cells[:1] if len(tries) == 1 else cells, *others, **settings)

    monkeypatch.setattr(unit_work, "compute", dies_half_way)
    asked = tuning(options(world, TUNED[0], out=tmp_path))
    plan, pool = make_plan(asked), PoolInProcess(Job(asked, (), Path.cwd(), threads=1))
    compute_on(pool, plan, plan.cells, silent)
    pool.submit(pool.done[0])
    assert tries == [2, 1]
    assert len(kept(tmp_path).records) == 2
    assert_same(kept(tmp_path), local)


def test_a_worker_with_other_data_computes_nothing(world, tmp_path):
    asked = options(world, "mean", out=tmp_path)
    plan = make_plan(asked)
    pool = PoolInProcess(Job(replace(asked, max_length=9), (), Path.cwd(), threads=1))
    outcome = compute_on(pool, plan, plan.cells, silent)
    assert len(outcome.failures) == 2
    assert "are not those of the machine that gave the command" in outcome.failures[0]
    assert not Store(tmp_path).records()
