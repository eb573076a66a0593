"""Figures of a board for papers, drawn by matplotlib: intervals, depth, layer weights, quality against cost."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fusebench.benchmarks.atomic import atomic_write
from fusebench.benchmarks.board_rows import Row
from fusebench.benchmarks.board_table import Estimate
from fusebench.benchmarks.board_tests import BoardTests
from fusebench.benchmarks.leaderboard import Board
from fusebench.benchmarks.report_board import scores_by_label
from fusebench.benchmarks.report_cost import Point, encode_seconds, pareto_front
from fusebench.benchmarks.report_figure import COLORS, DASHES, MUTED
from fusebench.benchmarks.report_sweeps import sweeps
from fusebench.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = ("png", "svg")
_WIDTH = 6.5  # inches: the text of a page
_LINES = dict(zip(DASHES, ("-", "--", ":"), strict=True))
_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e7ec",
    "axes.axisbelow": True,
    "savefig.dpi": 200,
    # Names of methods are names, no formulas; text stays text, and equal figures give equal bytes.
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "fusebench",
}

Draw = Callable[["Axes"], None]


def write_figures(
    board: Board, labelled: Sequence[tuple[str, Row]], weights: Mapping[str, Mapping[int, Estimate]], stem: Path
) -> list[Path]:
    """Writes every figure that the board gives, each as PNG and SVG.

    Args:
        board: with or without tests.
        labelled: its rows by their labels.
        weights: what each layer weighs in trained methods, by label.
        stem: the files are `<stem>-<figure>.<format>`.

    Raises:
        InputError: matplotlib is not installed, or the disk refused.
    """
    written = []
    for name, height, draw in _figures(board, labelled, weights):
        for kind, content in _drawn(height, draw).items():
            path = stem.with_name(f"{stem.name}-{name}.{kind}")
            atomic_write(path, content)
            written.append(path)
    return written


def _figures(
    board: Board, labelled: Sequence[tuple[str, Row]], weights: Mapping[str, Mapping[int, Estimate]]
) -> Iterator[tuple[str, float, Draw]]:
    scores = scores_by_label(board)
    tests, blocks = board.tests, labelled[0][1].records[0].spec.backbone.blocks
    if tests is not None and tests.leading is not None:
        yield "scores", 0.9 + 0.17 * len(tests.methods), lambda axes: _intervals(axes, tests)
        if tests.baseline is not None and len(tests.methods) > 1:
            yield "differences", 0.9 + 0.17 * len(tests.methods), lambda axes: _differences(axes, tests)
    leading = (*board.averages, *board.tasks)[len(board.averages) - 1 if board.averages else 0]
    if sweeps(list(scores), blocks):
        yield "depth", 2.8, lambda axes: _depth(axes, scores, leading, blocks)
    if weights:
        yield "layer-weights", 0.8 + 0.28 * len(weights), lambda axes: _weights(axes, weights)
    points = [
        Point(label, "", encode_seconds(row), scores[label][leading])
        for label, row in labelled
        if not math.isnan(scores[label][leading])
    ]
    if len(points) > 1:
        yield "cost", 3.4, lambda axes: _cost(axes, points, leading)


def matplotlib_parts() -> ModuleType:
    """The package `matplotlib`.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise InputError("figures need matplotlib: python -m pip install 'fusebench[report]'.") from error
    return matplotlib


def _drawn(height: float, draw: Draw) -> dict[str, bytes]:
    matplotlib = matplotlib_parts()
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        draw(figure.subplots())
        return {kind: _saved(figure, kind) for kind in FORMATS}


def _saved(figure: Any, kind: str) -> bytes:
    sink = io.BytesIO()
    undated = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(sink, format=kind, metadata=undated)
    return sink.getvalue()


def _intervals(axes: Axes, tests: BoardTests) -> None:
    column = str(tests.leading)
    ranked = sorted(tests.methods, key=lambda own: (own.scores[column].value, own.label))
    names = [f"{own.label} ({own.group})" for own in ranked]
    held = [(own.scores[column].value, own.scores[column].widest_known) for own in ranked]
    _forest(axes, names, [(value, one.low, one.high) for value, one in held])
    axes.set_xlabel(f"{column} x100, 95 % intervals\nmethods that share a letter are not told apart")


def _differences(axes: Axes, tests: BoardTests) -> None:
    column = str(tests.leading)
    found = [
        (own.label, both.clusters or both.items) for own in tests.methods if (both := own.less_baseline.get(column))
    ]
    found.sort(key=lambda one: (one[1].difference, one[0]))
    names = [f"{label}{' *' if less.adjusted < 0.05 else ''}" for label, less in found]
    _forest(axes, names, [(less.difference, less.low, less.high) for _, less in found])
    axes.axvline(0, color=COLORS[1], linewidth=1)
    axes.set_xlabel(f"less {tests.baseline} on {column}, x100, 95 % intervals\n*: p < 0.05, adjusted for all (max-T)")


def _forest(axes: Axes, names: Sequence[str], values: Sequence[tuple[float, float, float]]) -> None:
    x = [100 * value for value, _, _ in values]
    ends = [[100 * (value - low) for value, low, _ in values], [100 * (high - value) for value, _, high in values]]
    axes.errorbar(x, range(len(names)), xerr=ends, fmt="o", markersize=3, color=COLORS[0], ecolor=MUTED, linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.7, len(names) - 0.3)


def _depth(axes: Axes, scores: Mapping[str, Mapping[str, float]], column: str, blocks: int) -> None:
    for number, sweep in enumerate(sweeps(list(scores), blocks)):
        held = {layer: scores[label][column] for layer, label in sweep.rows.items()}
        known = {layer: score for layer, score in held.items() if not math.isnan(score)}
        dash = _LINES[DASHES[number // len(COLORS) % len(DASHES)]]
        color = COLORS[number % len(COLORS)]
        axes.plot(list(known), list(known.values()), dash, color=color, marker="o", markersize=3, label=sweep.name)
    axes.set_xticks(range(blocks + 1))
    axes.set_xlabel("layer; 0 is the embedding output")
    axes.set_ylabel(f"{column} x100")
    axes.legend(frameon=False)


def _weights(axes: Axes, weights: Mapping[str, Mapping[int, Estimate]]) -> None:
    """Shares of the layers as a map, a row a method."""
    names = list(weights)
    layers = sorted({layer for held in weights.values() for layer in held})
    shares = [[held[layer].mean if layer in held else math.nan for layer in layers] for held in weights.values()]
    axes.grid(visible=False)
    axes.imshow(shares, aspect="auto", cmap="Blues", vmin=0)
    highest = max(share for line in shares for share in line if not math.isnan(share))
    for row, held in enumerate(weights.values()):
        for place, layer in enumerate(layers):
            if layer in held:
                spread = held[layer].spread
                text = f"{held[layer].mean:.2f}" + ("" if math.isnan(spread) else f"±{spread:.2f}")
                dark = held[layer].mean > highest / 2
                axes.text(place, row, text, ha="center", va="center", size=6, color="white" if dark else "black")
    axes.set_xticks(range(len(layers)), [str(layer) for layer in layers])
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("share of a layer at the end of training, mean ± spread over seeds")


def _cost(axes: Axes, points: Sequence[Point], column: str) -> None:
    front = pareto_front(points)
    axes.step(
        [p.cost for p in front], [p.score for p in front], where="post", color=MUTED, linewidth=1, linestyle=":"
    )
    axes.scatter([p.cost for p in points], [p.score for p in points], s=12, color=COLORS[0])
    for point in front:
        axes.annotate(
            point.label, (point.cost, point.score), xytext=(4, 4), textcoords="offset points", size=6, va="bottom"
        )
    axes.margins(x=0.12, y=0.08)
    axes.set_xlabel("seconds to encode the tasks' texts with this method alone; named: not beaten in both")
    axes.set_ylabel(f"{column} x100")
