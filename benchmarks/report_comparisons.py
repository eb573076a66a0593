"""Stored comparisons: which methods a paired test tells apart, as a table, intervals and a matrix."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fusebench.benchmarks.report_figure import COLORS, HEAT, MUTED, Figure, Numbers, Section, mark, plot, plotly_parts
from fusebench.benchmarks.statistics import p_text


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ComparedMethod(_Frozen):
    """A method's score with its interval; `group` has the letters that it shares with those it is not told from."""

    label: str
    score: float
    low: float
    high: float
    group: str = ""


class ComparedPair(_Frozen):
    """Score of `one` less that of `other`, by their labels."""

    one: str
    other: str
    difference: float
    low: float
    high: float
    p: float
    adjusted: float
    effect: float
    detectable: float


class StoredComparison(_Frozen):
    """A file of the folder `comparisons`; scores and differences are fractions.

    `pairs` are every method against `baseline`, adjusted by max-T; or, where it is None, every pair, exploratory,
    adjusted by Benjamini and Hochberg.
    """

    schema_version: Literal[1] = 1
    title: str
    on: str  # task or average
    scheme: Literal["items", "clusters"]
    resamples: int
    baseline: str | None
    methods: tuple[ComparedMethod, ...]
    pairs: tuple[ComparedPair, ...]
    notes: tuple[str, ...] = ()


def read_comparisons(folder: Path) -> tuple[list[StoredComparison], list[tuple[Path, str]]]:
    """The comparisons by file name, and the files that are none, with the reason."""
    found, rejected = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(StoredComparison.model_validate(json.loads(path.read_text(encoding="utf-8"))))
        except ValidationError as error:
            first = error.errors()[0]
            rejected.append((path, f"is no comparison: {'.'.join(map(str, first['loc']))}: {first['msg']}"))
        except (OSError, ValueError) as error:
            rejected.append((path, f"is no comparison: {error}"))
    return found, rejected


def comparison_section(comparisons: Sequence[StoredComparison]) -> Section:
    """All comparisons, or the sentence that says how to make one."""
    if not comparisons:
        return Section(
            "Significance",
            "No comparison is stored here, so nothing on this page says which differences are more than chance: "
            "`run_bench.py compare --baseline METHOD` tests every method against one, `run_bench.py compare A B` two "
            "methods, on the same pairs and queries.",
        )
    figures = [figure for comparison in comparisons for figure in _figures(comparison)]
    return Section("Significance", "Paired tests on the same pairs and queries, over matched seeds.", figures)


def _figures(held: StoredComparison) -> list[Figure]:
    ranked = sorted(held.methods, key=lambda method: -method.score)
    return [_intervals(held, ranked), _matrix(held, ranked) if held.baseline is None else _against(held)]


def _intervals(held: StoredComparison, ranked: Sequence[ComparedMethod]) -> Figure:
    grouped = any(m.group for m in held.methods)
    letters = " Methods that share a letter are not told apart by the test." if grouped else ""
    return Figure(
        title=f"{held.title}: {held.on}",
        description=(
            f"Scores with 95 % intervals ({held.scheme}, {held.resamples:,} resamples). They are of single "
            f"scores, and may overlap where a difference is real.{letters} {' '.join(held.notes)}"
        ).strip(),
        spoken="Scores with intervals, best first; all numbers are in the table.",
        plot=_forest(
            [m.label + (f" ({m.group})" if m.group else "") for m in ranked],
            [(m.score, m.low, m.high) for m in ranked],
            f"{held.on} x100",
        ),
        height=110 + 28 * len(ranked),
        numbers=Numbers(
            ("method", "score", "95 %", "group"),
            tuple(
                (m.label, f"{100 * m.score:.2f}", f"{100 * m.low:.2f} to {100 * m.high:.2f}", m.group) for m in ranked
            ),
        ),
    )


def _against(held: StoredComparison) -> Figure:
    pairs = sorted(held.pairs, key=lambda pair: -pair.difference)
    how = f"p adjusted for all {len(held.pairs)} comparisons by max-T"
    return Figure(
        title=f"Differences from {held.baseline} on {held.on}",
        description=f"Method less {held.baseline}, x100, with 95 % intervals; behind the name {how}.",
        spoken=f"Differences with intervals, best first; {how}; all numbers are in the table.",
        plot=_forest(
            [f"{pair.one} (p {p_text(pair.adjusted, held.resamples)})" for pair in pairs],
            [(pair.difference, pair.low, pair.high) for pair in pairs],
            f"less {held.baseline}, on {held.on} x100",
            zero=True,
        ),
        height=110 + 28 * len(pairs),
        numbers=_numbers(held),
    )


def _forest(
    labels: Sequence[str], values: Sequence[tuple[float, float, float]], axis: str, zero: bool = False
) -> dict[str, Any]:
    trace = plotly_parts().Scatter(
        x=[round(100 * value, 3) for value, _, _ in values],
        y=[mark(label) for label in labels],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [round(100 * (high - value), 3) for value, _, high in values],
            "arrayminus": [round(100 * (value - low), 3) for value, low, _ in values],
            "color": MUTED,
        },
        mode="markers",
        marker={"color": COLORS[0], "size": 10},
        hovertemplate="%{y}: %{x:.2f}<extra></extra>",
        showlegend=False,
    )
    line = {
        "type": "line",
        "x0": 0,
        "x1": 0,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": COLORS[1], "width": 1.5},
    }
    layout = {
        "xaxis": {"title": {"text": mark(axis)}},
        "yaxis": {"autorange": "reversed", "automargin": True, "type": "category"},
        "shapes": [line] if zero else [],
    }
    return plot([trace], layout)


def _matrix(held: StoredComparison, ranked: Sequence[ComparedMethod]) -> Figure:
    go = plotly_parts()
    found = {(pair.one, pair.other): (pair, 1) for pair in held.pairs}
    found |= {(pair.other, pair.one): (pair, -1) for pair in held.pairs}
    labels = [m.label for m in ranked]
    cells = [[found.get((row, column)) for column in labels] for row in labels]
    trace = go.Heatmap(
        x=[mark(label) for label in labels],
        y=[mark(label) for label in labels],
        z=[
            [None if cell is None else round(1 - min(cell[0].adjusted / 0.1, 1.0), 4) for cell in line]
            for line in cells
        ],
        text=[
            ["" if cell is None else f"{100 * cell[1] * cell[0].difference:+.2f}" for cell in line] for line in cells
        ],
        customdata=[
            ["" if cell is None else mark(f"p {p_text(cell[0].adjusted, held.resamples)}") for cell in line]
            for line in cells
        ],
        texttemplate="%{text}",
        hovertemplate="%{y} %{x}: %{text}, adjusted %{customdata}<extra></extra>",
        zmin=0,
        zmax=1,
        colorscale=HEAT,
        showscale=False,
        hoverongaps=False,
        xgap=2,
        ygap=2,
    )
    layout = {
        "xaxis": {"side": "top", "type": "category", "automargin": True, "showgrid": False},
        "yaxis": {"autorange": "reversed", "automargin": True, "type": "category", "showgrid": False},
    }
    how = "EXPLORATORY: every pair, p adjusted by Benjamini and Hochberg; a small p is a hint for a next test"
    return Figure(
        title=f"Differences on {held.on}",
        description=f"Row less column, x100; {how}. The darker, the smaller the adjusted p (no colour from 0.1 up).",
        spoken=f"Matrix of differences; {how}; all numbers are in the table.",
        plot=plot([trace], layout),
        height=150 + 28 * len(labels),
        numbers=_numbers(held),
    )


def _numbers(held: StoredComparison) -> Numbers:
    return Numbers(
        ("A", "B", "A - B", "95 %", "p", "p adjusted", "d", "detectable"),
        tuple(
            (
                *(pair.one, pair.other, f"{100 * pair.difference:+.2f}"),
                f"{100 * pair.low:.2f} to {100 * pair.high:.2f}",
                *(p_text(pair.p, held.resamples), p_text(pair.adjusted, held.resamples)),
                *(f"{pair.effect:+.3f}", f"{100 * pair.detectable:.2f}"),
            )
            for pair in sorted(held.pairs, key=lambda pair: pair.adjusted)
        ),
    )
