"""The chart of quality against cost, with the methods that no other beats in both."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from fusebench.benchmarks.board_rows import Row
from fusebench.benchmarks.leaderboard import Board
from fusebench.benchmarks.report_board import regime_of, scores_by_label
from fusebench.benchmarks.report_figure import (
    COLORS,
    MUTED,
    Choice,
    Figure,
    Numbers,
    Section,
    mark,
    plot,
    plotly_parts,
    rounded,
)

_KINDS = {
    "training-free": (COLORS[0], "circle"),
    "trained head": (COLORS[1], "diamond"),
    "fine-tuned": (COLORS[2], "square"),
}
_APART, _APART_ACROSS = 0.05, 0.22  # of the chart's height and width, from name to name
_NEAR_AXIS = 0.3


class Point(NamedTuple):
    """A method by what it costs and what it scores."""

    label: str
    kind: str
    cost: float
    score: float


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats: none is as cheap and as good and better in one; from cheap to dear."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.score, p.label)):
        if not front or point.score > front[-1].score or point[2:] == front[-1][2:]:
            front.append(point)
    return front


class _Cost(NamedTuple):
    name: str
    unit: str
    of: Callable[[Row], float]
    log: bool


_COSTS = (
    _Cost(
        "encode seconds",
        "seconds to encode the tasks' texts with this method alone",
        lambda r: encode_seconds(r),
        False,
    ),
    _Cost(
        "seconds beyond the shared pass",
        "seconds beyond the backbone's pass, which all methods share",
        lambda r: encode_seconds(r, shared=False),
        True,
    ),
    _Cost("dimensions", "dimensions of a vector", lambda r: float(r.records[-1].out_dim), False),
    _Cost(
        "parameters added", "parameters added to the backbone", lambda r: float(r.records[-1].added_parameters), True
    ),
)


def cost_section(board: Board, labelled: Sequence[tuple[str, Row]]) -> Section | None:
    """The chart of those methods that have every task of the board; None where there are fewer than two."""
    complete = [(label, row) for label, row in labelled if set(row.cells) == set(board.tasks)]
    if len(complete) < 2:
        return None
    held = scores_by_label(board)
    scores = [*board.averages[::-1], *board.tasks]
    choices = (
        Choice(
            "Cost", tuple(c.name for c in _COSTS), tuple(_axis(c, [c.of(row) for _, row in complete]) for c in _COSTS)
        ),
        Choice("Score", tuple(scores), tuple({"yaxis.title.text": f"{mark(score)} x100"} for score in scores)),
    )
    traces, lines = [], []
    for i, cost in enumerate(_COSTS):
        for j, score in enumerate(scores):
            points = [Point(label, regime_of(row), cost.of(row), held[label][score]) for label, row in complete]
            points = [point for point in points if not math.isnan(point.score)]
            front = pareto_front(points)
            traces += _traces(points, front, [i, j], cost.log)
            if j == 0:
                lines += [(cost.name, p.label, f"{p.cost:.4g}", f"{p.score:.2f}") for p in front]
    layout = {
        "xaxis": _nested(choices[0].layouts[0]) | {"automargin": True},
        "yaxis": {"title": {"text": f"{mark(scores[0])} x100"}},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }
    dearest = [line[1] for line in lines if line[0] == _COSTS[0].name]
    figure = Figure(
        title="Score over cost",
        description=(
            "Up and to the left is better. The stepped line joins the methods that no other beats in both; the "
            "difference between neighbours may be chance."
        ),
        spoken=f"Scatter of {scores[0]} over {_COSTS[0].name}. Not beaten in both: {', '.join(dearest)}.",
        plot=plot(traces, layout, choices),
        height=460,
        choices=choices,
        numbers=Numbers(("cost", "method on the front", "its cost", scores[0]), tuple(lines)),
    )
    return Section("Quality against cost", "What a higher score costs: time, width, weights.", [figure])


def _traces(points: Sequence[Point], front: Sequence[Point], meta: list[int], log: bool) -> list[Any]:
    if not points:
        return []
    go = plotly_parts()
    traces = [
        go.Scatter(
            x=rounded([_place(p.cost, log) for p in front]),
            y=rounded([p.score for p in front]),
            mode="lines",
            line={"shape": "hv", "color": MUTED, "width": 1.5, "dash": "dot"},
            name="not beaten in both",
            hoverinfo="skip",
            meta=meta,
        )
    ]
    named = _named(front, points, log)
    for kind, (color, symbol) in _KINDS.items():
        own = [p for p in points if p.kind == kind]
        if own:
            traces.append(
                go.Scatter(
                    x=rounded([_place(p.cost, log) for p in own]),
                    y=rounded([p.score for p in own]),
                    mode="markers+text",
                    marker={"color": color, "symbol": symbol, "size": 10, "opacity": 0.85},
                    name=kind,
                    text=[mark(p.label) if p.label in named else "" for p in own],
                    textposition=[named.get(p.label, "top left") for p in own],
                    cliponaxis=False,
                    customdata=[[mark(p.label), f"{p.cost:.4g}"] for p in own],
                    hovertemplate="%{customdata[0]}<br>%{y:.2f} for %{customdata[1]}<extra></extra>",
                    meta=meta,
                )
            )
    return traces


def _named(front: Sequence[Point], points: Sequence[Point], log: bool) -> dict[str, str]:
    """Whose names are written, best first, and on which side: no two so near that they overlap.

    Above and to the left of the front there is no point, so names stand there, unless the axis is near.
    """
    places = [(_place(p.cost, log), p.score) for p in points]
    left, width = min(x for x, _ in places), _extent([x for x, _ in places])
    height = _extent([y for _, y in places])
    named: dict[str, str] = {}
    taken: list[tuple[float, float]] = []
    for point in reversed(front):
        x, y = (_place(point.cost, log) - left) / width, point.score / height
        if all(abs(y - other) > _APART or abs(x - before) > _APART_ACROSS for before, other in taken):
            named[point.label] = "top right" if x < _NEAR_AXIS else "top left"
            taken.append((x, y))
    return named


def _extent(values: Sequence[float]) -> float:
    return max(values) - min(values) or 1.0


def _axis(cost: _Cost, values: Sequence[float]) -> dict[str, Any]:
    """The x axis; many costs span powers of ten and start at 0, where a logarithm does not."""
    patch: dict[str, Any] = {"xaxis.title.text": cost.unit, "xaxis.tickvals": None, "xaxis.ticktext": None}
    if cost.log:
        decades = range(_lowest(values), math.ceil(math.log10(max(*values, 1))) + 1)
        ticks = [0.0, *(10.0**k for k in decades)]
        patch["xaxis.tickvals"] = [round(_place(tick, True), 4) for tick in ticks]
        patch["xaxis.ticktext"] = [f"{tick:,.10g}" for tick in ticks]
    return patch


def _lowest(values: Sequence[float]) -> int:
    return 0 if max(values) < 100 else 1


def _nested(patch: dict[str, Any] | Any) -> dict[str, Any]:
    return {
        "title": {"text": patch["xaxis.title.text"]},
        "tickvals": patch["xaxis.tickvals"],
        "ticktext": patch["xaxis.ticktext"],
    }


def _place(cost: float, log: bool) -> float:
    return math.log10(1 + cost) if log else cost


def encode_seconds(row: Row, *, shared: bool = True) -> float:
    """Seconds to encode the texts of a row's tasks with this method alone, or those beyond the shared pass."""
    return sum(
        fmean(r.cost.pass_seconds * shared + r.cost.fusion_seconds for r in records) for records in row.cells.values()
    )
