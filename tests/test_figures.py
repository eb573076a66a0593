"""Figures for papers: which there are, what they say, and that equal results give equal bytes."""

from __future__ import annotations

import re

import pytest

from fusebench.benchmarks.leaderboard import build_boards
from fusebench.benchmarks.paper_figures import FORMATS
from fusebench.study.figures import write_all_figures
from fusebench.study.significance import write_board_tests
from tests.invented_records import make
from tests.scored_results import Results

pytest.importorskip("matplotlib", reason="figures are drawn by matplotlib")


@pytest.fixture
def results(tiny, tmp_path):
    """A board with tests: a baseline, a hopeless method, and one that is nearly as good; `$` is no formula."""
    results = Results(tiny, tmp_path / "out")
    results.store.remember_suite("one", "One", ("Pairs",))
    for method, noise in (("mean", 0.3), ("cls", 5.0), ("a_b$c$", 0.35)):
        results.add(method, noise)
    boards = build_boards(results.store.records(), results.store.suites())
    tasks = {"Pairs": tiny.load("Pairs")}
    assert write_board_tests(boards, results.store.records(), tasks, results.out, resamples=200) == []
    return results


def texts(path):
    """What can be read in an SVG."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text())


def test_a_tested_board_has_intervals_differences_and_cost_in_every_format(results):
    names = {path.name for path in write_all_figures(results.store)}
    assert names == {f"one-{figure}.{kind}" for figure in ("scores", "differences", "cost") for kind in FORMATS}


def test_a_star_marks_what_the_adjusted_test_tells_from_the_baseline(results):
    (path,) = [path for path in write_all_figures(results.store) if path.name == "one-differences.svg"]
    shown = texts(path)
    assert "cls *" in shown
    assert "a_b$c$" in shown
    assert not any(text.startswith("mean") for text in shown)


def test_the_same_results_give_the_same_bytes(results):
    first = {path: path.read_bytes() for path in write_all_figures(results.store)}
    assert {path: path.read_bytes() for path in write_all_figures(results.store)} == first


def test_figures_of_boards_that_are_no_more_go(results):
    old = results.out / "figures" / "net" / "gone.svg"
    old.parent.mkdir(parents=True)
    old.write_text("<svg/>")
    write_all_figures(results.store)
    assert not old.exists()


def test_a_sweep_is_drawn_by_depth_without_any_test(tmp_path, tiny):
    results = Results(tiny, tmp_path / "out")
    for method, score in (("mean(layer=0)", 0.1), ("mean(layer=3)", 0.2), ("mean", 0.3)):
        results.store.write(make(method, "A", score), {})
    results.store.remember_suite("a", "A", ("A",))
    names = [path.name for path in write_all_figures(results.store)]
    assert names == ["a-depth.png", "a-depth.svg", "a-cost.png", "a-cost.svg"]
