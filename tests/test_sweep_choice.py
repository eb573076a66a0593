"""The choice among a sweep's runs, on records made by hand."""

from __future__ import annotations

import pytest

from fusebench.benchmarks.record import TaskSpec, Training
from fusebench.benchmarks.sweep_choice import choose
from tests.tiny_cells import record_of


def task(name="A"):
    return TaskSpec(
        name=name,
        type="STS",
        source="folder",
        revision="r",
        data_sha256="d",
        splits=("test",),
        subsets=("default",),
        metric="cosine_spearman",
        protocol="sts",
    )


def trained(dev, *, main=0.5, rate=1e-3, seed=0, name="A", method="hire", trials=1, updates=10):
    """A record of a training; the rate makes it a training of its own."""
    record = record_of(task(name), main, method=method, seed=seed, max_length=round(rate * 1e6))
    training = Training(
        states="pooled states",
        updates=updates,
        examples=updates * 8,
        trials=trials,
        seconds=1.0,
        trained_parameters=1,
        learning_rate=rate,
        learning_rate_new=rate,
        loss=0.1,
        best_update=1,
        dev_score=dev,
    )
    return record.model_copy(update={"training": training})


def test_the_best_mean_over_seeds_on_dev_wins_whatever_the_test_score():
    runs = {
        "1": [trained(0.9, main=0.1, seed=0), trained(0.5, main=0.3, seed=1)],
        "2": [trained(0.6, main=0.9, rate=2e-3, seed=0), trained(0.6, main=0.9, rate=2e-3, seed=1)],
    }
    (choice,) = choose(runs)
    assert (choice.run, choice.dev_score, choice.main_score) == ("1", pytest.approx(0.7), pytest.approx(0.2))


def test_everything_that_was_tried_counts_in_the_budget_and_each_training_once():
    runs = {
        "1": [trained(0.5, name=name, seed=seed, trials=3, updates=30) for name in "AB" for seed in (0, 1)],
        "2": [trained(0.4, name=name, seed=seed, rate=2e-3) for name in "AB" for seed in (0, 1)],
    }
    (choice,) = choose(runs)
    assert (choice.runs, choice.trials) == (2, 3 + 1)
    assert (choice.updates, choice.examples) == (2 * (30 + 10), 8 * 2 * (30 + 10))


def test_a_run_that_lacks_a_seed_or_a_task_is_not_compared_but_paid_for():
    runs = {"1": [trained(0.9, seed=0)], "2": [trained(0.5, rate=2e-3, seed=0), trained(0.5, rate=2e-3, seed=1)]}
    (choice,) = choose(runs)
    assert (choice.run, choice.runs, choice.updates) == ("2", 1, 30)


def test_of_equal_dev_scores_the_first_run_wins():
    (choice,) = choose({"1": [trained(0.5)], "2": [trained(0.5, rate=2e-3)]})
    assert choice.run == "1"


def test_without_dev_scores_nothing_is_chosen():
    (choice,) = choose({"1": [trained(None)], "2": [trained(None, rate=2e-3)]})
    assert (choice.run, choice.dev_score, choice.main_score, choice.runs) == (None, None, None, 2)


def test_methods_are_chosen_for_one_by_one_and_untrained_ones_not_at_all():
    runs = {
        "1": [trained(0.9), trained(0.1, method="mlp"), record_of(task())],
        "2": [trained(0.1, rate=2e-3), trained(0.9, rate=2e-3, method="mlp"), record_of(task())],
    }
    assert {choice.method: choice.run for choice in choose(runs)} == {"hire": "1", "mlp": "2"}
