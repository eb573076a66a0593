"""A run that is killed by force loses nothing: the same command goes on and ends where it would have ended."""

from __future__ import annotations

import time

import pytest

from fusebench.benchmarks.store import Store
from tests.killed_runs import Point, command, end, kept, points, run, start, survey, world_in


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The tiny world, what an uninterrupted run in it leaves, and how it ended."""
    root = tmp_path_factory.mktemp("killed")
    made = world_in(root / "world")
    whole = run(command(made, root / "whole"), root / "said", root / "whole")
    assert whole.code == 0, whole.said
    return made, kept(root / "whole"), whole


@pytest.mark.parametrize("number", range(3))
def test_nothing_is_lost_wherever_a_run_is_killed(number, world, tmp_path):
    made, expected, whole = world
    kill = points(20260101, 3, whole)[number]
    point = survey(made, expected, tmp_path / "killed", **kill)
    assert isinstance(point, Point)
    assert point.lost == "", point


def test_runs_of_one_command_at_once_share_the_work_and_spoil_nothing(world, tmp_path):
    made, expected, _ = world
    out, started = tmp_path / "out", time.monotonic()
    processes = {number: start(command(made, out), tmp_path / str(number), out) for number in range(2)}
    ended = [end(child, tmp_path / str(number), started) for number, child in processes.items()]
    assert [one.code for one in ended] == [0, 0], [one.said for one in ended]
    assert any("another run is training" in one.said for one in ended)
    assert sum("4 trainings" in one.said for one in ended) == 1
    found = kept(out)
    assert found.records == expected.records
    assert found.weights == expected.weights
    assert found.logs == expected.logs
    assert len((out / "scores.csv").read_text().splitlines()) == 1 + sum(len(r.scores) for r in Store(out).records())
