"""What a plan is said to take: everything that can be counted is counted right."""

from __future__ import annotations

import pytest

from fusebench.benchmarks.store import Store
from fusebench.methods.recipe import Recipe
from fusebench.study.calibration import Calibration
from fusebench.study.dry_run import duration
from fusebench.study.estimate import estimate
from fusebench.study.options import Options, TrainingOptions
from fusebench.study.plan import make_plan
from fusebench.study.run import run
from tests.tiny_models import folder_of

PAIRS = [{"sentence1": f"the cat w{i}", "sentence2": f"a dog w{i % 4}", "score": i / 2} for i in range(8)]


class Fixed(Calibration):
    """Constants that sums can be made of by hand."""

    def token_seconds(self, plan, fusions, texts):
        return 2.0

    def scoring_seconds(self, tasks, dim):
        return {task.spec.name: 100.0 for task in tasks}

    def update_seconds(self, plan, wanted, live):
        return dict.fromkeys(wanted, 1000.0)


@pytest.fixture
def plan_of(tiny, tmp_path, monkeypatch):
    """A plan on the tiny BERT with two tasks that share all their texts, trained on eight rows."""
    monkeypatch.chdir(tmp_path)
    tiny.write_sts("One", PAIRS)
    tiny.write_sts("Two", PAIRS[::-1])
    tiny.write_jsonl(tmp_path / "rows.jsonl", [{"anchor": f"w{i}", "positive": f"w{i} mat"} for i in range(8)])
    tiny.write_jsonl(tmp_path / "dev.jsonl", [{**row, "sentence1": f"sat w{i}"} for i, row in enumerate(PAIRS)])

    def plan_of(*methods, seeds=(0,), **training):
        asked = TrainingOptions(data=("rows.jsonl",), **training)
        return make_plan(
            Options(
                methods=methods,
                tasks=("One", "Two"),
                data_dir=tiny.root,
                backbone=str(folder_of("bert")),
                seeds=seeds,
                device="cpu",
                out=tmp_path / "res",
                training=asked,
            )
        )

    return plan_of


def tokens_of(plan, texts):
    return sum(len(ids) for ids in plan.backbone.tokenize(sorted(texts)).ids)


def task_texts():
    return {row[side] for row in PAIRS for side in ("sentence1", "sentence2")}


def test_texts_go_through_once_a_pass_and_every_cell_is_scored(plan_of):
    plan = plan_of("mean", "cls", "max")
    found = estimate(plan, (), Fixed(), loading_seconds=5.0)
    assert (found.cells, found.there, found.passes, found.trainings) == (6, 0, 1, 0)
    assert found.texts == len(task_texts()) == 12
    assert found.tokens == tokens_of(plan, task_texts())
    assert found.pass_seconds == 2 * found.tokens
    assert found.seconds == 2 * found.tokens + 6 * 100 + 5


def test_a_template_is_a_pass_of_its_own_over_longer_inputs(plan_of):
    plan = plan_of("mean", "prompt-mask")
    template = plan.methods[1].build_fusion(plan.backbone.shape).template
    longer = sum(len(ids) for ids in plan.backbone.tokenize(sorted(task_texts()), template).ids)
    found = estimate(plan, (), Fixed())
    assert (found.passes, found.tokens) == (2, tokens_of(plan, task_texts()) + longer)


def test_what_is_there_is_not_done_again(plan_of, tmp_path):
    plan = plan_of("mean", "scalar-mix+batch-softmax", recipe=Recipe(epochs=None, steps=2, batch_size=4))
    store = Store(tmp_path / "res")
    run(plan, store)
    there = set(store.finished())
    done = estimate(plan, there, Fixed())
    assert (done.cells, done.there, done.passes, done.seconds) == (4, 4, 0, 0)
    some = {cell.spec.spec_id for cell in plan.cells if cell.method.trained and cell.task.spec.name == "One"}
    rest = estimate(plan, there - some, Fixed())  # its weights are saved, so only the score is missing
    assert (rest.there, rest.passes, rest.trainings, rest.scoring_seconds) == (3, 1, 0, 100)


def test_trainings_are_counted_by_seed_and_trial_and_their_rows_go_through_once(plan_of):
    recipe = Recipe(epochs=None, steps=8, batch_size=4)
    plan = plan_of(
        "scalar-mix+batch-softmax",
        "mlp+batch-softmax",
        seeds=(0, 1, 2),
        recipe=recipe,
        dev="dev.jsonl",
        trials=2,
        drop_leaks=True,
    )
    found = estimate(plan, (), Fixed())
    assert found.trainings == 2 * 3 * 2
    rows = {
        text for one in plan.training.methods.values() for stage in one.stages for c in stage.columns for text in c
    }
    dev = {text for column in plan.training.dev.columns for text in column}
    states = 2 * tokens_of(plan, rows | dev)
    # four looks; a look costs a third of an update a token
    of_update = 2 * 4 * tokens_of(plan, rows) / len(rows)
    one = 8 * 1000 + 4 * tokens_of(plan, dev) / of_update * 1000 / 3
    assert found.training_seconds == pytest.approx(states + 12 * one)


def test_a_fine_tuned_backbone_has_a_pass_of_its_own_and_no_stored_states(plan_of):
    recipe = Recipe(epochs=None, steps=2, batch_size=4)
    plan = plan_of("mean+batch-softmax", "cls", seeds=(0, 1), regime="finetune", recipe=recipe)
    found = estimate(plan, (), Fixed())
    assert (found.passes, found.trainings) == (3, 2)
    assert found.training_seconds == 2 * 2 * 1000


def test_constants_are_measured_on_the_real_thing_and_once(plan_of):
    recipe = Recipe(epochs=None, steps=50, batch_size=4)
    plan = plan_of("mean", "mlp+batch-softmax", "hire+batch-softmax", recipe=recipe)
    calibration = Calibration()
    first = estimate(plan, (), calibration)
    assert min(first.pass_seconds, first.training_seconds, first.scoring_seconds, first.memory_gb) > 0
    again = estimate(plan, (), calibration)
    assert (again.pass_seconds, again.training_seconds) == (first.pass_seconds, first.training_seconds)
    assert not plan.options.out.exists()


def test_durations_are_said_in_the_unit_that_fits():
    assert [duration(s) for s in (0.04, 99, 150, 7200)] == ["0.0 s", "99.0 s", "2.5 min", "2.0 h"]


def test_a_method_that_fails_while_it_is_measured_is_named_and_the_others_are_measured(plan_of):
    plan = plan_of("mean", "cls")
    fusions = {method.name: method.build_fusion(plan.backbone.shape) for method in plan.methods}

    def broken(states):
        raise ArithmeticError("no such mean")

    fusions["cls"].forward = broken
    calibration = Calibration()
    assert calibration.token_seconds(plan, fusions, sorted(task_texts())) > 0
    assert [str(error) for error in calibration.failures.values()] == ["no such mean"]
    assert list(calibration.failures) == ["cls"]
