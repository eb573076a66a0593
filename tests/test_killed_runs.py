"""A run that is killed by force loses nothing: the same command goes on and ends where it would have ended."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

from fusebench.benchmarks.store import Store
from tests.killed_runs import (
    SERVER,
    TOLERANCE,
    Point,
    command,
    end,
    kept,
    points,
    run,
    run_from_python,
    start,
    survey,
    world_in,
)


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
    point = survey(made, expected, whole, tmp_path / "killed", **kill)
    assert isinstance(point, Point)
    assert point.lost == "", point


def test_a_run_killed_while_it_encodes_passes_no_text_twice_but_those_in_work(world, tmp_path):
    made, expected, whole = world
    files = [number for number, line in enumerate(whole.did, 1) if re.match(r"os.rename checkpoints/pass-", line)]
    point = survey(made, expected, whole, tmp_path / "killed", kill_at=files[len(files) * 3 // 4])
    assert (point.phase, point.lost, point.difference) == ("encoding", "", 0.0)
    assert point.passed > 0.5
    assert point.redone < 0.1


def test_eight_runs_from_python_of_the_same_cells_lose_nothing_and_train_once(world, tmp_path):
    made, expected, _ = world
    out, methods = tmp_path / "out", ["mean", "scalar-mix+batch-softmax"]
    children = [SERVER.Process(target=run_from_python, args=(made, out, methods)) for _ in range(8)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 8
    found = kept(out)
    assert len(found.records) == 4
    assert found.records == {cell: expected.records[cell] for cell in found.records}
    assert found.weights == {name: expected.weights[name] for name in found.weights}
    assert found.logs == {
        name: expected.logs[name] for name in found.logs
    }  # a second training would have added to it
    assert len(found.weights) == len(found.logs) == 1
    for cell, numbers in found.numbers.items():
        np.testing.assert_allclose(numbers, expected.numbers[cell], rtol=0, atol=TOLERANCE)


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
