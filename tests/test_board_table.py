"""A table prints means with spreads for readers and keeps them apart for programs."""

import math
from statistics import fmean, stdev

import pytest

from fusebench.benchmarks.board_table import MISSING, Estimate, Table, estimate


def test_an_estimate_is_mean_and_sample_standard_deviation():
    assert estimate([1.0, 2.0, 6.0]) == pytest.approx((fmean([1, 2, 6]), stdev([1, 2, 6])))
    assert estimate([3.0]) == pytest.approx((3.0, math.nan), nan_ok=True)
    assert estimate([2.0, 2.0]) == (2.0, 0.0)


def test_spreads_are_printed_beside_means_and_stored_beside_columns():
    rows = [{"m": "a", "x": Estimate(1.0, 0.125), "y": 0.5}, {"m": "b", "x": MISSING, "y": 1.0}]
    table = Table.of(["m", "x", "y"], rows)
    assert table.printed().to_dict("list") == {"m": ["a", "b"], "x": ["1.00 ± 0.12", ""], "y": ["0.50", "1.00"]}
    assert table.printed(bare=["x"])["x"].tolist() == ["1.00", ""]
    assert list(table.sortable().columns) == ["m", "x", "x sd", "y"]
    assert table.sortable()["x sd"].tolist() == ["0.12", ""]


def test_a_table_without_spreads_has_no_column_for_them():
    table = Table.of(["m", "x"], [{"m": "a", "x": Estimate(1.0, math.nan)}])
    assert not table.spread
    assert table.sortable().to_dict("list") == table.printed().to_dict("list") == {"m": ["a"], "x": ["1.00"]}
