"""A table whose scores may have a spread: as text for readers, as columns for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import NamedTuple

import pandas as pd

PLUS_MINUS = " ± "


class Estimate(NamedTuple):
    """A mean over seeds and their sample standard deviation (n - 1), which is NaN for a single seed."""

    mean: float
    spread: float


MISSING = Estimate(math.nan, math.nan)


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and spread of one or more values."""
    return Estimate(fmean(values), stdev(values) if len(values) > 1 else math.nan)


@dataclass(frozen=True, eq=False)
class Table:
    """Cells that are text, or numbers with two decimals (NaN where one is missing).

    `spreads` has the same rows and only the columns that may have a spread; NaN where there is none.
    """

    values: pd.DataFrame
    spreads: pd.DataFrame

    @classmethod
    def of(cls, columns: Sequence[str], rows: Sequence[Mapping[str, str | float | Estimate]]) -> Table:
        """A table of rows by column name; a column with an `Estimate` in some row has one in every row."""
        scored = [name for name in columns if any(isinstance(row[name], Estimate) for row in rows)]
        spreads = {name: [cell.spread for row in rows if isinstance(cell := row[name], Estimate)] for name in scored}
        values = [
            [cell.mean if isinstance(cell := row[name], Estimate) else cell for name in columns] for row in rows
        ]
        return cls(pd.DataFrame(values, columns=list(columns)), pd.DataFrame(spreads, dtype="float64"))

    @property
    def spread(self) -> bool:
        """Whether any cell has a spread."""
        return bool(self.spreads.notna().any(axis=None))

    def printed(self, *, bare: Sequence[str] = ()) -> pd.DataFrame:
        """The table as text, `80.10 ± 0.25` where there is a spread; without it in the columns `bare`."""
        text = self.values.map(_cell)
        for name in self.spreads.columns.difference(list(bare)):
            pairs = zip(text[name], self.spreads[name], strict=True)
            text[name] = [cell if math.isnan(sd) else f"{cell}{PLUS_MINUS}{sd:.2f}" for cell, sd in pairs]
        return text.astype("str")

    def sortable(self) -> pd.DataFrame:
        """The table as text with spreads in columns of their own, `<column> sd`, if there are any."""
        columns: dict[str, pd.Series[str]] = {}
        for name, cells in self.values.map(_cell).items():
            columns[str(name)] = cells
            if self.spread and name in self.spreads:
                columns[f"{name} sd"] = self.spreads[name].map(_cell)
        return pd.DataFrame(columns, dtype="str")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.2f}"
    return str(value)
