"""Tests of boards: what is tested, what the numbers are, where they are shown, and when they are out of date."""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
import pytest

from fusebench.benchmarks.board_markup import latex, markdown
from fusebench.benchmarks.board_significance import GROUP, INTERVAL
from fusebench.benchmarks.board_tests import read_tests
from fusebench.benchmarks.leaderboard import build_boards
from fusebench.benchmarks.resampling import resample
from fusebench.benchmarks.sample_files import sample_path
from fusebench.benchmarks.sealed_json import sealed_text, unsealed
from fusebench.study.commands import report
from fusebench.study.compare_choice import variants
from fusebench.study.evidence import gather
from fusebench.study.significance import numbers_of, write_board_tests
from tests.scored_results import COUNT, Results

TASKS = ("Pairs", "Ret")
RESAMPLES = 300


@pytest.fixture
def results(tiny, tmp_path):
    """A baseline, one method as good, one that is hopeless, one that equals the baseline, one without a task."""
    results = Results(tiny, tmp_path / "out")
    results.store.remember_suite("both", "Both", TASKS)
    for name in TASKS:
        results.add("mean", 0.3, tasks=(name,))
        results.add("abtt", 0.3, tasks=(name,))
        results.add("cls", 5.0, tasks=(name,))
        results.add("mean-sqrt-len", 0.3, tasks=(name,), equal_to="mean")
    results.add("half", 0.3, tasks=("Pairs",))
    return results


def after_tests(results, **changes):
    """The problems, and the board as it is read again."""
    records = results.store.records()
    boards = build_boards(records, results.store.suites())
    tasks = {name: results.tiny.load(name) for name in TASKS}
    problems = write_board_tests(boards, records, tasks, results.out, **{"resamples": RESAMPLES, **changes})
    return problems, board_of(results)


def board_of(results):
    (board,) = build_boards(results.store.records(), results.store.suites(), read_tests(results.out)[0])
    return board


def test_rows_with_every_task_are_tested_and_twins_and_incomplete_rows_are_named(results):
    problems, board = after_tests(results)
    assert problems == []
    assert {own.label for own in board.tests.methods} == {"mean", "abtt", "cls"}
    assert set(board.tests.untested) == {"mean-sqrt-len", "half"}
    assert board.tests.baseline == "mean"
    assert board.tests.leading == "overall"


def test_every_number_is_that_of_the_resamples(results):
    _, board = after_tests(results)
    of_method = {variant.method: variant for variant in variants(results.store.records())}
    labels = [own.label for own in board.tests.methods]
    tasks = [results.tiny.load(name) for name in TASKS]
    evidence = gather([of_method[label] for label in labels], tasks, results.out, match_seeds=False)
    drawn = resample(evidence.contenders, evidence.tasks, "items", resamples=RESAMPLES)
    on = np.asarray([0.5, 0.5])
    for place, own in enumerate(board.tests.methods):
        expected = drawn.estimate(place, on)
        score = own.scores["overall"]
        assert (score.value, score.items.low, score.items.high) == pytest.approx(
            (expected.value, expected.low, expected.high), abs=1e-6
        )
    family = drawn.against(labels.index("mean"), on)
    for found in family:
        less = board.tests.methods[found.one].less_baseline["overall"].items
        assert less.difference == pytest.approx(found.estimate.value, abs=1e-6)
        assert (less.p, less.adjusted) == pytest.approx((found.p, found.adjusted), abs=1e-6)
    assert len(board.tests.pairs) == 3


def test_a_hopeless_method_is_told_apart_and_one_as_good_is_not(results):
    _, board = after_tests(results)
    marks = {own.label: set(own.group) for own in board.tests.methods}
    assert marks["mean"] & marks["abtt"]
    assert not marks["mean"] & marks["cls"]
    best = {own.label for own in board.tests.methods if own.among_the_best}
    assert best == {"mean", "abtt"}


def test_every_record_gets_the_interval_of_its_own_score_and_seed(results):
    records = [results.add("seeded", 0.5, tasks=(name,), seed=seed) for name in TASKS for seed in (0, 1)]
    _, board = after_tests(results)
    for record in records:
        held = board.tests.records[record.spec_id]
        assert held.value == pytest.approx(record.main_score, abs=1e-5)
        assert held.items.low <= held.value <= held.items.high
    assert board.tests.records[records[0].spec_id].items.low < records[0].main_score
    row = board.tests.method("seeded")
    single = board.tests.records[records[0].spec_id].items
    # over both seeds: their spread counts too
    assert row.scores["Pairs"].items != single


def test_the_board_shows_intervals_groups_and_what_is_best(results):
    _, board = after_tests(results)
    shown = board.table.set_index("method")
    assert shown.loc["mean", INTERVAL].count(" to ") == 1
    assert list(shown.loc[["mean-sqrt-len", "half"], GROUP]) == ["", ""]
    text = markdown(board)
    assert f"**{shown.loc['mean', 'overall']:.2f}**" in text
    assert f"**{shown.loc['cls', 'overall']:.2f}**" not in text
    assert "## Less mean" in text
    assert "## Intervals" in text
    assert f"{COUNT} items, each by itself" in text
    assert "Differences are not tested" not in text
    assert rf"\textbf{{{shown.loc['mean', 'overall']:.2f}}}" in latex(board, "x")


def test_one_more_record_makes_the_tests_out_of_date(results):
    after_tests(results)
    results.add("late", 0.3)
    board = board_of(results)
    assert board.tests is None
    assert INTERVAL not in board.table
    assert any("Differences are not tested" in line for line in board.caption)


def test_a_board_without_the_baseline_has_groups_and_no_differences(results):
    _, board = after_tests(results, baseline="hire")
    assert board.tests.baseline is None
    assert all(not own.less_baseline for own in board.tests.methods)
    assert all(own.group for own in board.tests.methods)
    assert "## Less" not in markdown(board)


def test_an_incomplete_suite_has_intervals_of_its_tasks_and_no_groups(results):
    results.store.remember_suite("both", "Both", (*TASKS, "Missing"))
    _, board = after_tests(results)
    assert board.tests.leading is None
    assert set(board.tests.methods[0].scores) == set(TASKS)
    assert INTERVAL not in board.table
    assert "## Intervals" in markdown(board)


def test_missing_samples_are_said_and_spoil_no_other_board(results):
    record = next(
        one for one in results.store.records() if (one.spec.method.name, one.spec.task.name) == ("cls", "Pairs")
    )
    sample_path(results.out, record).unlink()
    results.store.remember_suite("one", "One", ("Ret",))
    records = results.store.records()
    boards = build_boards(records, results.store.suites())
    tasks = {name: results.tiny.load(name) for name in TASKS}
    problems = write_board_tests(boards, records, tasks, results.out, resamples=RESAMPLES)
    (problem,) = problems
    assert problem.startswith("Both: ")
    assert "has a score but no samples" in problem
    assert len(read_tests(results.out)[0]) == 1


def flags(results, **changes):
    given = {
        "out": results.out,
        "html": None,
        "figures": False,
        "test": True,
        "data_dir": results.tiny.root,
        "baseline": "mean",
        "plugin": [],
        "mteb_results": None,
    }
    return argparse.Namespace(**{**given, "resamples": RESAMPLES, "seed": 0, **changes})


def test_report_tests_the_boards_and_writes_the_numbers(results, capsys):
    assert report(flags(results)) == 0
    assert GROUP in capsys.readouterr().out
    (path,) = results.out.glob("leaderboards/*/tests/*.csv")
    frame = pd.read_csv(path).set_index(["method", "on"])
    assert frame.loc[("cls", "overall"), "adjusted"] < 0.05
    assert frame.loc[("mean", "overall"), ["difference", "p"]].isna().all()
    scores = pd.read_csv(results.out / "scores.csv")
    assert scores[scores.method == "half"].low.isna().all()
    assert report(flags(results, test=False)) == 0
    assert board_of(results).tests is not None


def test_the_same_seed_gives_the_same_file(results):
    held = set()
    for _ in range(2):
        after_tests(results)
        (path,) = results.out.glob("tests/*/*.json")
        held.add(path.read_bytes())
    assert len(held) == 1


@pytest.mark.parametrize("change", [{"resamples": "many"}, {"schema_version": 9}, {"surprise": 1}])
def test_a_file_that_holds_no_tests_is_refused_with_the_reason(results, change):
    after_tests(results)
    (path,) = results.out.glob("tests/*/*.json")
    path.write_text(sealed_text(unsealed(path.read_bytes()) | change))
    found, [(where, reason)] = read_tests(results.out)
    assert (found, where) == ([], path)
    assert reason.startswith(f"holds no tests of a board: {next(iter(change))}")


def test_the_size_of_a_test_is_numbers_of_items_times_series(results):
    records = results.store.records()
    (board,) = build_boards(records, results.store.suites())
    tasks = {name: results.tiny.load(name) for name in TASKS}
    queries = len(tasks["Ret"].task.dataset["default"]["test"]["queries"])
    by_id = {record.spec_id: record for record in records}
    assert numbers_of(board, by_id, tasks) == 5 * COUNT + 4 * queries


def test_a_flipped_digit_is_found(results):
    after_tests(results)
    (path,) = results.out.glob("tests/*/*.json")
    path.write_text(path.read_text().replace('"resamples": 300', '"resamples": 900'))
    assert "does not hash" in read_tests(results.out)[1][0][1]
