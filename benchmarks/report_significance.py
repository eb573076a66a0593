"""Charts of a board's tests: intervals, differences from the baseline, a matrix of all pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusebench.benchmarks.board_significance import spoken
from fusebench.benchmarks.board_tests import BoardTests, Difference, Interval
from fusebench.benchmarks.report_figure import (
    COLORS,
    HEAT,
    MUTED,
    Choice,
    Figure,
    Numbers,
    Section,
    mark,
    plot,
    plotly_parts,
)
from fusebench.benchmarks.statistics import p_text

_UNTESTED = (
    "The differences on this board are not tested, so nothing here says which of them are more than chance: with the "
    "data at hand, `run_bench.py report --test` does it; `run_bench.py compare A B` tests two methods."
)
_MOST_IN_MATRIX = 24  # methods; of more, the best are shown, and all are in the table


def significance_section(tests: BoardTests | None) -> Section:
    """What the tests of a board say, or the sentence that says how to make them."""
    if tests is None:
        return Section("Significance", _UNTESTED)
    drawn = "clusters of items that share texts" if tests.clustered else "items"
    text = (
        f"Paired tests on the same pairs and queries, from {tests.resamples:,} resamples of {drawn}; seeds, where a "
        "method has several, are resampled with them."
    )
    figures = [_intervals(tests)]
    if tests.baseline is not None and len(tests.methods) > 1:
        figures.append(_against(tests))
    if tests.pairs:
        figures.append(_matrix(tests))
    return Section("Significance", text, figures)


def _columns(tests: BoardTests) -> list[str]:
    """Averages before tasks, as the leaderboard has them."""
    return list(tests.methods[0].scores)[::-1]


def _intervals(tests: BoardTests) -> Figure:
    columns = _columns(tests)
    traces, rows = [], []
    for option, column in enumerate(columns):
        ranked = sorted(tests.methods, key=lambda own: (-own.scores[column].value, own.label))
        lettered = column == tests.leading
        labels = [own.label + (f" ({own.group})" if lettered and own.group else "") for own in ranked]
        intervals = [own.scores[column].widest_known for own in ranked]
        values = [own.scores[column].value for own in ranked]
        traces.append(_forest(labels, values, intervals, option))
        rows += [
            (column, own.label, f"{100 * value:.2f}", spoken(interval), own.group if lettered else "")
            for own, value, interval in zip(ranked, values, intervals, strict=True)
        ]
    choices = (Choice("Score", tuple(columns), tuple(_axis(f"{column} x100") for column in columns)),)
    letters = " Behind a name the letters of its groups: methods that share one are not told apart."
    return Figure(
        title="Scores with intervals",
        description=(
            "95 % intervals of single scores, which may overlap where a difference is real."
            + letters * (tests.leading is not None)
        ),
        spoken="Scores with intervals, best first; all numbers are in the table.",
        plot=plot(traces, _layout(choices), choices),
        height=110 + 24 * len(tests.methods),
        choices=choices,
        numbers=Numbers(("score", "method", "x100", "95 %", "group"), tuple(rows)),
    )


def _against(tests: BoardTests) -> Figure:
    columns = _columns(tests)
    how = f"p adjusted for all {len(tests.methods) - 1} methods by max-T"
    traces, rows = [], []
    for option, column in enumerate(columns):
        found = [
            (own.label, both.clusters or both.items)
            for own in tests.methods
            if (both := own.less_baseline.get(column)) is not None
        ]
        found.sort(key=lambda one: (-one[1].difference, one[0]))
        labels = [f"{label} (p {p_text(less.adjusted, tests.resamples)})" for label, less in found]
        values = [less.difference for _, less in found]
        traces.append(_forest(labels, values, [Interval(low=one.low, high=one.high) for _, one in found], option))
        rows += [(column, label, *_cells(less, tests.resamples)) for label, less in found]
    choices = (
        Choice("Score", tuple(columns), tuple(_axis(f"less {tests.baseline}, {column} x100") for column in columns)),
    )
    zero = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1}
    return Figure(
        title=f"Differences from {tests.baseline}",
        description=f"Method less {tests.baseline}, x100, with 95 % intervals; behind the name {how}.",
        spoken=f"Differences with intervals, best first; {how}; all numbers are in the table.",
        plot=plot(
            traces, {**_layout(choices), "shapes": [zero | {"line": {"color": COLORS[1], "width": 1.5}}]}, choices
        ),
        height=110 + 24 * len(tests.methods),
        choices=choices,
        numbers=Numbers(("score", "method", "difference", "95 %", "p", "p max-T", "d", "detectable"), tuple(rows)),
    )


def _forest(labels: Sequence[str], values: Sequence[float], intervals: Sequence[Interval], option: int) -> Any:
    return plotly_parts().Scatter(
        x=[round(100 * value, 3) for value in values],
        y=[mark(label) for label in labels],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [round(100 * (one.high - value), 3) for value, one in zip(values, intervals, strict=True)],
            "arrayminus": [round(100 * (value - one.low), 3) for value, one in zip(values, intervals, strict=True)],
            "color": MUTED,
        },
        mode="markers",
        marker={"color": COLORS[0], "size": 9},
        hovertemplate="%{y}: %{x:.2f}<extra></extra>",
        showlegend=False,
        meta=[option],
    )


def _axis(title: str) -> dict[str, str]:
    return {"xaxis.title.text": mark(title)}


def _layout(choices: Sequence[Choice]) -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": choices[0].layouts[0]["xaxis.title.text"]}},
        "yaxis": {"autorange": "reversed", "automargin": True, "type": "category"},
    }


def _matrix(tests: BoardTests) -> Figure:
    assert tests.leading is not None
    column = tests.leading
    ranked = sorted(tests.methods, key=lambda own: (-own.scores[column].value, own.label))
    labels = [own.label for own in ranked[:_MOST_IN_MATRIX]]
    found = {(pair.one, pair.other): (pair.tested, 1) for pair in tests.pairs}
    found |= {(pair.other, pair.one): (pair.tested, -1) for pair in tests.pairs}
    cells = [[found.get((row, other)) for other in labels] for row in labels]
    trace = plotly_parts().Heatmap(
        x=[mark(label) for label in labels],
        y=[mark(label) for label in labels],
        z=[
            [None if one is None else round(1 - min(one[0].adjusted / 0.1, 1.0), 4) for one in line] for line in cells
        ],
        text=[["" if one is None else f"{100 * one[1] * one[0].difference:+.1f}" for one in line] for line in cells],
        customdata=[
            ["" if one is None else mark(f"p {p_text(one[0].adjusted, tests.resamples)}") for one in line]
            for line in cells
        ],
        texttemplate="%{text}",
        hovertemplate="%{y} less %{x}: %{text}, adjusted %{customdata}<extra></extra>",
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
    shown = f" The best {len(labels)} of {len(ranked)} methods; all pairs are in the table." * (
        len(labels) < len(ranked)
    )
    pairs = sorted(tests.pairs, key=lambda pair: pair.tested.adjusted)
    return Figure(
        title=f"Every pair on {column}",
        description=(
            f"Row less column, x100; {how}. The darker, the smaller the adjusted p (no colour from 0.1 up).{shown}"
        ),
        spoken=f"Matrix of differences; {how}; all numbers are in the table.",
        plot=plot([trace], layout),
        height=190 + 26 * len(labels),
        numbers=Numbers(
            ("A", "B", "A - B", "95 %", "p", "p adjusted", "d", "detectable"),
            tuple((pair.one, pair.other, *_cells(pair.tested, tests.resamples)) for pair in pairs),
        ),
    )


def _cells(less: Difference, resamples: int) -> tuple[str, ...]:
    return (
        f"{100 * less.difference:+.2f}",
        spoken(Interval(low=less.low, high=less.high)),
        *(p_text(less.p, resamples), p_text(less.adjusted, resamples)),
        *(f"{less.effect:+.3f}", f"{100 * less.detectable:.2f}"),
    )
