"""The heat map of linear CKA between the layers of a pooling."""

from __future__ import annotations

from statistics import fmean

from fusebench.benchmarks.diagnosis import Diagnosis, LayerSimilarity
from fusebench.benchmarks.report_figure import HEAT, Choice, Figure, Numbers, plot, plotly_parts
from fusebench.benchmarks.report_trained import FROZEN, TrainingNames


def similarity_figure(held: Diagnosis) -> Figure | None:
    """One matrix a pooling and backbone, the mean over seeds; None where there is none."""
    named: dict[str, list[LayerSimilarity]] = {}
    for backbone, own in TrainingNames(held).by_backbone(held.similarities, lambda one: one.backbone).items():
        for one in own:
            name = one.sweep if backbone == FROZEN else f"{one.sweep}, {backbone}"
            named.setdefault(name, []).append(one)
    if not named:
        return None
    go = plotly_parts()
    choices = (Choice("Pooling", tuple(named)),) if len(named) > 1 else ()
    traces, rows, least = [], [], []
    every = sorted({layer for own in named.values() for layer in own[0].layers})
    for option, (name, own) in enumerate(named.items()):
        layers = own[0].layers
        places = range(len(layers))
        cka = [[fmean(one.cka[i][j] for one in own) for j in places] for i in places]
        traces.append(
            go.Heatmap(
                x=[str(layer) for layer in layers],
                y=[str(layer) for layer in layers],
                z=[[round(value, 4) for value in row] for row in cka],
                text=[[f"{value:.2f}" for value in row] for row in cka],
                texttemplate="%{text}",
                hovertemplate="layers %{y} and %{x}: %{z:.3f}<extra></extra>",
                zmin=0,
                zmax=1,
                colorscale=HEAT,
                xgap=2,
                ygap=2,
                colorbar={"title": {"text": "CKA", "side": "top"}, "thickness": 12, "len": 0.9, "outlinewidth": 0},
                meta=[option],
            )
        )
        for layer, row in zip(layers, cka, strict=True):
            of_layer = dict(zip(layers, row, strict=True))
            cells = (f"{of_layer[other]:.4f}" if other in of_layer else "" for other in every)
            rows.append((name, str(layer), *cells))
        value, i, j = min((cka[i][j], i, j) for i in places for j in places)
        least.append(f"{name}: {value:.2f} between layers {layers[i]} and {layers[j]}")
    axis = {"title": {"text": "layer"}, "type": "category", "showgrid": False}
    return Figure(
        title="Similarity of layers",
        description=(
            "Linear CKA of every two layers over the same texts: 1 where they differ by a rotation and a scale only. "
            "A block of strong colour is layers that say much the same."
        ),
        spoken=f"Heat map of linear CKA between layers. Lowest of {'; of '.join(least)}.",
        plot=plot(traces, {"xaxis": axis, "yaxis": axis}, choices),
        height=150 + 34 * len(every),
        choices=choices,
        numbers=Numbers(("pooling", "layer", *(str(layer) for layer in every)), tuple(rows)),
    )
