"""The simulated schedule of scripts/scale.py against schedules that can be made by hand."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def scale():
    path = Path(__file__).resolve().parents[1] / "scripts" / "scale.py"
    spec = importlib.util.spec_from_file_location("scale_script", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["scale_script"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["scale_script"]


def test_units_wait_for_those_before_them_and_for_gpus(scale):
    unit = scale.Unit
    units = [unit("a", "heads", 1, 5.0), unit("a", "pass", 2, 3.0, (0,)), unit("b", "pass", 1, 4.0)]
    assert scale.simulate(units, 2).ends == [5.0, 8.0, 4.0]
    assert scale.simulate(units, 1 + 2).makespan == 8.0


def test_the_longest_way_to_the_end_goes_first(scale):
    unit = scale.Unit
    units = [unit("a", "pass", 1, 3.0), unit("b", "heads", 1, 2.0), unit("b", "pass", 1, 4.0, (1,))]
    assert scale.simulate(units, 1).ends == [9.0, 2.0, 6.0]


def test_a_unit_larger_than_the_machine_is_refused(scale):
    with pytest.raises(ValueError, match="4 GPUs are needed at once and there are 2"):
        scale.simulate([scale.Unit("a", "pass", 4, 1.0)], 2)


def test_no_schedule_beats_the_work_shared_evenly_and_shards_take_no_less_of_it(scale):
    sharded, whole = scale.units_of(0.1, 1800.0), scale.units_of(0.1, math.inf)
    assert scale.gpu_hours(sharded) > scale.gpu_hours(whole)  # every shard starts once more
    for units in (sharded, whole):
        span = scale.simulate(units, 64).makespan / 3600
        assert span >= scale.gpu_hours(units) / 64
        assert span <= sum(unit.seconds for unit in units) / 3600


def test_models_take_the_gpus_that_hold_them(scale):
    assert [scale.gpus_for(weights, 2) for weights in (1e8, 33e9, 34e9, 70e9)] == [1, 1, 2, 4]
    assert scale.gpus_for(7e9, 16) == 2
