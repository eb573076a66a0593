"""Charts of trainings: losses and dev scores by update, and what each layer weighs at the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from fusebench.benchmarks.board_rows import Row
from fusebench.benchmarks.board_table import Estimate, estimate
from fusebench.benchmarks.report_board import Column, SideTable, estimate_cell, text_cell
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
    tone,
)
from fusebench.benchmarks.report_logs import TrainingCurve, bin_width, binned, mean_curve

Curves = Mapping[str, Sequence[TrainingCurve]]  # by label, a training a seed


def curves_of(labelled: Iterable[tuple[str, Row]], curves: Iterable[TrainingCurve]) -> dict[str, list[TrainingCurve]]:
    """The trainings behind the rows, the trial that was kept of each; rows of the same trainings count once.

    A transform trains nothing, so the row without one, whose label is shorter, gives the name.
    """
    by_id: dict[str, list[TrainingCurve]] = {}
    for curve in curves:
        by_id.setdefault(curve.training_id, []).append(curve)
    found: dict[str, list[TrainingCurve]] = {}
    taken: set[str] = set()
    for label, row in sorted(labelled, key=lambda pair: (len(pair[0]), pair[0])):
        kept = {
            (r.spec.training_id, r.training.learning_rate, r.training.learning_rate_new)
            for r in row.records
            if r.training is not None
        }
        own = [
            curve
            for training_id, *rates in sorted(kept)
            if training_id not in taken
            for curve in by_id.get(training_id, [])
            if all(logged in (None, rate) for logged, rate in zip(curve.learning_rates, rates, strict=True))
        ]
        taken |= {training_id for training_id, *_ in kept}
        if own:
            found[label] = own
    return dict(sorted(found.items()))


def weight_section(curves: Curves) -> Section | None:
    """One small chart a method of what its layers weigh, mean and spread over seeds; None if none was logged."""
    weights = {label: layer_weights(own) for label, own in curves.items()}
    weights = {label: held for label, held in weights.items() if held}
    if not weights:
        return None
    highest = max(
        e.mean + (e.spread if e.spread == e.spread else 0) for held in weights.values() for e in held.values()
    )
    figures = [_weights(label, held, len(_weighed(curves[label])), highest) for label, held in weights.items()]
    text = (
        "What each layer contributes at the last logged update: bars are means over seeds, whiskers ± one standard "
        "deviation of the seeds, the dotted line equal weights. Layer 0 is the embedding output."
    )
    return Section("Learned layer weights", text, figures)


def layer_weights(curves: Iterable[TrainingCurve]) -> dict[int, Estimate]:
    """Mean and spread over the trainings of the weight of each layer that all of them weigh."""
    held = [curve.layer_weights for curve in _weighed(curves)]
    layers = sorted(set.intersection(*map(set, held))) if held else []
    return {layer: estimate([weights[layer] for weights in held]) for layer in layers}


def _weighed(curves: Iterable[TrainingCurve]) -> list[TrainingCurve]:
    return [curve for curve in curves if curve.layer_weights]


def _weights(label: str, held: Mapping[int, Estimate], seeds: int, highest: float) -> Figure:
    go = plotly_parts()
    layers, means = list(held), [e.mean for e in held.values()]
    spreads = [e.spread if e.spread == e.spread else None for e in held.values()]
    known = any(spread is not None for spread in spreads)
    bars = go.Bar(
        x=[str(layer) for layer in layers],
        y=rounded(means),
        error_y={"type": "data", "array": rounded(spreads), "color": MUTED, "thickness": 1.5, "width": 4}
        if known
        else None,
        marker={"color": COLORS[0]},
        hovertemplate="layer %{x}: %{y:.3f}<extra></extra>",
        showlegend=False,
    )
    equal = go.Scatter(
        x=[str(layer) for layer in layers],
        y=[round(1 / len(layers), 4)] * len(layers),
        mode="lines",
        line={"color": MUTED, "width": 1.2, "dash": "dot"},
        hoverinfo="skip",
        showlegend=False,
    )
    layout = {
        "xaxis": {"title": {"text": "layer"}, "type": "category", "showgrid": False},
        "yaxis": {"range": [min(0.0, *means), 1.08 * highest], "nticks": 5},
        "bargap": 0.25,
    }
    heaviest = max(held, key=lambda layer: held[layer].mean)
    return Figure(
        title=label,
        description="1 seed" if seeds == 1 else f"{seeds} seeds",
        spoken=f"Bars of layer weights of {label}; layer {heaviest} weighs most, {held[heaviest].mean:.3f}.",
        plot=plot([bars, equal], layout),
        height=210,
        numbers=Numbers(
            ("layer", "mean weight", "sd over seeds"),
            tuple(
                (str(layer), f"{e.mean:.4f}", "" if e.spread != e.spread else f"{e.spread:.4f}")
                for layer, e in held.items()
            ),
        ),
        small=True,
    )


def curve_section(curves: Curves) -> Section | None:
    """Loss and dev score by update; None where nothing was logged."""
    logged = {label: [c for c in own if c.losses or c.dev_scores] for label, own in curves.items()}
    logged = {label: own for label, own in logged.items() if own}
    if not logged:
        return None
    names, ending = _short(list(logged))
    width = bin_width(curve for own in logged.values() for curve in own)
    kinds = ["loss", "dev score x100"] if any(c.dev_scores for own in logged.values() for c in own) else ["loss"]
    shown = Choice("Shown", tuple(kinds), tuple({"yaxis.title.text": kind} for kind in kinds))
    choices = (shown,) if len(kinds) > 1 else ()
    traces = []
    for position, (label, own) in enumerate(logged.items()):
        lines = ([binned(c.losses, width) for c in own], [{u: 100 * s for u, s in c.dev_scores.items()} for c in own])
        for option in range(len(kinds)):
            traces += _lines(names[label], position, [line for line in lines[option] if line], option)
    binning = f"Each point is the mean loss of {width} updates. " if width > 1 else ""
    figure = Figure(
        title="Training curves",
        description=(
            f"{binning}Thin lines are seeds, thick lines their mean. Losses of different objectives have different "
            f"units.{f' Every method ends in {ending}.' if ending else ''} Click a name to hide it, double-click to "
            "see it alone."
        ),
        spoken=f"Lines of {' and '.join(kinds)} over updates, of {len(logged)} methods; their ends are in the table.",
        plot=plot(traces, {"xaxis": {"title": {"text": "update"}}, "yaxis": {"title": {"text": kinds[0]}}}, choices),
        height=max(420, 150 + 27 * len(logged)),
        choices=choices,
        numbers=_ends(logged, width),
    )
    guided = _guided(logged)
    return Section(
        "How training went", "", [figure], {"What guides logged of the attention": guided} if guided else {}
    )


def _lines(name: str, position: int, lines: Sequence[Mapping[int, float]], option: int) -> list[object]:
    go = plotly_parts()
    color, dash = tone(position)
    alone = len(lines) == 1
    shared = [] if alone else [mean_curve([dict(line) for line in lines])]
    traces = []
    for k, line in enumerate([*shared, *lines]):
        thick = alone or k == 0
        traces.append(
            go.Scatter(
                x=list(line),
                y=rounded(list(line.values())),
                mode="lines+markers" if len(line) < 8 and thick else "lines",
                name=mark(name),
                legendgroup=mark(name),
                showlegend=thick,
                line={"color": color, "dash": dash, "width": 2.2 if thick else 0.9},
                opacity=1 if thick else 0.55,
                hoverinfo=None if thick else "skip",
                hovertemplate=f"{mark(name)}: %{{y:.4g}} at update %{{x}}<extra></extra>" if thick else None,
                meta=[option],
            )
        )
    return traces


def _guided(logged: Curves) -> SideTable | None:
    """First and last logged value of what guides describe, mean and spread over seeds; None without guides."""
    rows = []
    for label, own in logged.items():
        for name in dict.fromkeys(name for curve in own for name in curve.guides):
            held = [curve.guides[name] for curve in own if name in curve.guides]
            ends = [estimate([value[end] for value in held]) for end in (0, 1)]
            cells = (estimate_cell(end, "{:.4f}".format) for end in ends)
            rows.append((text_cell(label), text_cell(name), *cells))
    columns = [Column("method", "text"), Column("guide", "text")]
    columns += [Column("first update", "number"), Column("last update", "number")]
    return SideTable(tuple(columns), tuple(rows)) if rows else None


def _ends(logged: Curves, width: int) -> Numbers:
    rows = []
    for label, own in logged.items():
        losses = [list(binned(c.losses, width).values())[-1] for c in own if c.losses]
        best = [100 * max(c.dev_scores.values()) for c in own if c.dev_scores]
        cells = [f"{fmean(losses):.4g}" if losses else "", f"{fmean(best):.2f}" if best else ""]
        rows.append((label, str(len(own)), str(max(c.updates for c in own)), *cells))
    return Numbers(("method", "trainings", "updates", "last loss", "best dev score x100"), tuple(rows))


def _short(labels: Sequence[str]) -> tuple[dict[str, str], str]:
    """Names without the objective that all of them share, and that objective."""
    endings = {label[label.find("+") :] if "+" in label else "" for label in labels}
    ending = endings.pop() if len(endings) == 1 else ""
    return {label: label.removesuffix(ending) if ending else label for label in labels}, ending
