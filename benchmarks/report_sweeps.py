"""Charts of sweeps: the same pooling of every layer, as heat maps and as curves over depth."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fusebench.benchmarks.board_rows import Row
from fusebench.benchmarks.leaderboard import Board
from fusebench.benchmarks.report_board import scores_by_label
from fusebench.benchmarks.report_figure import (
    HEAT,
    Choice,
    Figure,
    Numbers,
    Section,
    mark,
    plot,
    plotly_parts,
    rounded,
    tone,
)

_OF_LAYER = re.compile(r"(?P<fusion>[\w-]+)\(layer=(?P<layer>\d+)\)(?P<rest>.*)", re.S)


@dataclass(frozen=True)
class Sweep:
    """One pooling and its transforms, by layer: the label of the row that reads it."""

    name: str
    rows: Mapping[int, str]


def sweeps(labels: Sequence[str], blocks: int) -> list[Sweep]:
    """The poolings that at least two rows `x(layer=k)` have; the row `x` is the last layer's."""
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for label in labels:
        if parsed := _OF_LAYER.fullmatch(label):
            found[parsed["fusion"] + parsed["rest"]][int(parsed["layer"])] = label
    of_last = {name: {blocks: name} if name in labels else {} for name in found}
    return [
        Sweep(name, dict(sorted((of_last[name] | rows).items())))
        for name, rows in sorted(found.items())
        if len(rows) > 1
    ]


def sweep_section(board: Board, rows: Sequence[Row]) -> Section | None:
    """Heat map and depth curves of each sweep of the board; None where it has none."""
    blocks = rows[0].records[0].spec.backbone.blocks
    scores = scores_by_label(board)
    found = sweeps(list(scores), blocks)
    if not found:
        return None
    columns = [*board.tasks, *board.averages]
    held = {
        sweep.name: {
            column: {layer: scores[label][column] for layer, label in sweep.rows.items()} for column in columns
        }
        for sweep in found
    }
    figures = [_depth(held, columns, blocks), *(_heat_map(name, scores, blocks) for name, scores in held.items())]
    text = (
        f"What a single layer is worth: the same pooling read from layer 0 (the embedding output) to layer {blocks} "
        "(the last). A missing layer was not run."
    )
    return Section("Layer by layer", text, figures)


def _depth(held: Mapping[str, Mapping[str, Mapping[int, float]]], columns: Sequence[str], blocks: int) -> Figure:
    go = plotly_parts()
    ordered = columns[::-1]  # averages first: they are what is looked at first
    traces, peaks = [], []
    for position, (name, scores) in enumerate(held.items()):
        color, dash = tone(position)
        best = max(_known(scores[ordered[0]]), key=scores[ordered[0]].__getitem__, default=None)
        peaks.append(f"{name}: layer {best}" if best is not None else f"{name}: no layer has this score")
        for option, column in enumerate(ordered):
            layers = _known(scores[column])
            traces.append(
                go.Scatter(
                    x=layers,
                    y=rounded([scores[column][layer] for layer in layers]),
                    name=mark(name),
                    mode="lines+markers",
                    line={"color": color, "dash": dash, "width": 2.5},
                    marker={"size": 8},
                    hovertemplate="layer %{x}: %{y:.2f}",
                    meta=[option],
                )
            )
    choices = (Choice("Score", tuple(ordered)),)
    layout = {
        "xaxis": {"title": {"text": "layer"}, "dtick": 1, "range": [-0.3, blocks + 0.3]},
        "yaxis": {"title": {"text": "score x100"}},
        "hovermode": "x unified",
    }
    return Figure(
        title="Score by depth",
        description="One line a pooling. Where a line bends down before its end, the last layer is not the best one.",
        spoken=f"Lines of score over layer, of {ordered[0]} first. Best layer: {'; '.join(peaks)}.",
        plot=plot(traces, layout, choices),
        height=380,
        choices=choices,
    )


def _heat_map(name: str, scores: Mapping[str, Mapping[int, float]], blocks: int) -> Figure:
    go = plotly_parts()
    columns, layers = list(scores), list(range(blocks + 1))
    values = [[_shown(scores[column].get(layer)) for layer in layers] for column in columns]
    best = [max((value for value in line if value is not None), default=None) for line in values]
    below = [
        [None if value is None or top is None else value - top for value in line]
        for line, top in zip(values, best, strict=True)
    ]
    trace = go.Heatmap(
        x=[str(layer) for layer in layers],
        y=[mark(column) for column in columns],
        z=[rounded(line) for line in below],
        text=[["" if value is None else f"{value:.1f}" for value in line] for line in values],
        customdata=[["" if value is None else f"{value:.2f}" for value in line] for line in values],
        texttemplate="%{text}",
        hovertemplate="%{y}, layer %{x}: %{customdata}<br>%{z:.2f} to the best layer<extra></extra>",
        hoverongaps=False,
        colorscale=HEAT,
        xgap=2,
        ygap=2,
        colorbar={"title": {"text": "to best", "side": "top"}, "thickness": 12, "len": 0.9, "outlinewidth": 0},
    )
    layout = {
        "xaxis": {"title": {"text": "layer"}, "type": "category", "showgrid": False},
        "yaxis": {"autorange": "reversed", "showgrid": False, "automargin": True},
    }
    peaks = [
        f"{column}: layer {line.index(top)}"
        for column, line, top in zip(columns, values, best, strict=True)
        if top is not None
    ]
    return Figure(
        title=f"{name}, layer by task",
        description="Each cell is the score x100; its colour is the distance to the best layer of the same row.",
        spoken=f"Heat map of scores by layer and task. Best layer of {'; of '.join(peaks)}.",
        plot=plot([trace], layout),
        height=130 + 34 * len(columns),
        numbers=Numbers(
            ("layer", *columns),
            tuple(
                (str(layer), *("" if line[k] is None else f"{line[k]:.2f}" for line in values))
                for k, layer in enumerate(layers)
            ),
        ),
    )


def _known(scores: Mapping[int, float]) -> list[int]:
    return [layer for layer, score in scores.items() if not math.isnan(score)]


def _shown(score: float | None) -> float | None:
    return None if score is None or math.isnan(score) else score
