"""The project's own gate: embedded scores of training-free methods and of two short trainings."""

from __future__ import annotations

from pathlib import Path

from fusebench.benchmarks.baseline import FLOOR, read_baseline
from fusebench.benchmarks.gate import compare
from fusebench.benchmarks.gate_files import markdown
from fusebench.study.rerun import Places, make_again, options_of

BASELINE = Path(__file__).resolve().parents[1] / "results" / "baselines" / "embedded.json"


def test_embedded_scores_are_those_of_the_committed_baseline():
    baseline = read_baseline(BASELINE)
    made = make_again(options_of(baseline.run, Places()))
    report = compare(baseline, made.records, made.failures)
    assert report.passed, markdown(report)
    assert report.count("new") == 0


def test_the_baseline_gates_training_free_and_trained_methods_on_both_embedded_tasks():
    cells = read_baseline(BASELINE).cells
    trained = {cell.method for cell in cells if "batch-softmax" in cell.method}
    free = {cell.method for cell in cells} - trained
    assert len(trained) == 2
    assert len(free) == 8
    assert {cell.task for cell in cells} == {"LeeSTS", "LeeKnownItem"}
    assert all(cell.tolerance == FLOOR for cell in cells if cell.method in free)
