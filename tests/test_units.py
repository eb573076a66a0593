from __future__ import annotations

import pytest

from fusebench.study.plan import make_plan
from fusebench.study.run import groups_of
from fusebench.study.units import Unit, cells_of, scoring_units
from tests.tiny_gate import make_world, options


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return make_plan(options(make_world(tmp_path_factory.mktemp("units")), "mean", "cls", "max"))


@pytest.mark.parametrize(("parts", "sizes"), [(1, [6]), (2, [2, 4]), (3, [2, 2, 2]), (8, [2, 2, 2])])
def test_scoring_is_divided_into_as_many_units_as_asked_or_as_there_are_methods(plan, parts, sizes):
    units = scoring_units(groups_of(plan.cells), ("TinySTS", "TinySearch"), None, parts)
    assert [len(unit.spec_ids) for unit in units] == sizes
    assert [spec_id for unit in units for spec_id in unit.spec_ids] == [cell.spec.spec_id for cell in plan.cells]


def test_halves_are_the_whole_and_bundles_stay_together():
    unit = Unit("training", (("a", "b"), ("c",), ("d", "e")), ("T",))
    halves = unit.halves()
    assert [half.bundles for half in halves] == [(("a", "b"),), (("c",), ("d", "e"))]
    assert {(half.stage, half.tasks) for half in halves} == {("training", ("T",))}


@pytest.mark.parametrize("unit", [Unit("scoring", (("a", "b"),)), Unit("encoding", (("a",), ("b",)))], ids=str)
def test_a_single_bundle_and_a_shard_cannot_be_divided(unit):
    assert unit.halves() == ()


def test_cells_are_found_by_their_ids_in_the_order_of_the_plan(plan):
    ids = [cell.spec.spec_id for cell in plan.cells]
    assert cells_of(plan, [ids[4], ids[1]]) == [plan.cells[1], plan.cells[4]]
    with pytest.raises(KeyError, match="nowhere"):
        cells_of(plan, [ids[0], "nowhere"])
