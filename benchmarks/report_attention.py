"""The chart of attention by block: how evenly it is spread, and what goes to the special tokens."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from fusebench.benchmarks.diagnosis import BackboneAttention, Diagnosis
from fusebench.benchmarks.report_figure import (
    MUTED,
    Choice,
    Figure,
    Numbers,
    mark,
    plot,
    plotly_parts,
    rounded,
    tone,
)
from fusebench.benchmarks.report_trained import TrainingNames


def attention_figure(held: Diagnosis) -> Figure | None:
    """A line a backbone, the mean over seeds; None where no maps were read."""
    if not held.attention:
        return None
    go = plotly_parts()
    shown = _shown(held.attention)
    options = tuple(name for name, _, _ in shown)
    choice = Choice("Shown", options, tuple({"yaxis.title.text": mark(axis)} for _, axis, _ in shown))
    backbones = TrainingNames(held).by_backbone(held.attention, lambda one: one.backbone)
    blocks = [block.block for block in held.attention[0].blocks]
    traces, rows = [], []
    for position, (backbone, own) in enumerate(backbones.items()):
        color, dash = tone(position)
        columns = [
            [fmean(getattr(one.blocks[k], field) for one in own) for k in range(len(blocks))] for *_, field in shown
        ]
        traces += [
            go.Scatter(
                x=blocks,
                y=rounded(column),
                name=mark(backbone),
                mode="lines+markers",
                line={"color": color, "dash": dash, "width": 2.5},
                marker={"size": 8},
                hovertemplate="block %{x}: %{y:.3f}",
                meta=[option],
            )
            for option, column in enumerate(columns)
        ]
        rows += [
            (backbone, str(block), *(f"{column[k]:.4f}" for column in columns)) for k, block in enumerate(blocks)
        ]
    even = held.attention[0].even_share
    traces += [
        go.Scatter(
            x=[blocks[0], blocks[-1]],
            y=rounded([even, even]),
            name="spread evenly",
            mode="lines",
            line={"color": MUTED, "width": 1.2, "dash": "dot"},
            hoverinfo="skip",
            meta=[option],
        )
        for option, (_, _, field) in enumerate(shown)
        if field in ("first_token", "last_token")
    ]
    layout = {
        "xaxis": {"title": {"text": "block"}, "dtick": 1, "range": [blocks[0] - 0.3, blocks[-1] + 0.3]},
        "yaxis": {"title": {"text": mark(shown[0][1])}, "rangemode": "tozero"},
        "hovermode": "x unified",
    }
    return Figure(
        title="Attention by block",
        description=(
            "Means over texts, heads and real queries; the dotted line is a token's share where attention is spread "
            "evenly. The guide mdg is there to lower the cosine of the heads."
        ),
        spoken=f"Lines of {options[0]} first, over blocks; {len(backbones)} backbones; all numbers are in the table.",
        plot=plot(traces, layout, (choice,)),
        height=360,
        choices=(choice,),
        numbers=Numbers(("backbone", "block", *options), tuple(rows)),
    )


def _shown(attention: Sequence[BackboneAttention]) -> list[tuple[str, str, str]]:
    """What may be chosen, its axis, and its field."""
    first, last = attention[0].first_token or "the first token", attention[0].last_token or "the last token"
    shown = [
        ("entropy", "entropy over ln T; 1: evenly spread", "entropy"),
        (f"share of {first}", f"share of the attention that goes to {first}", "first_token"),
        (f"share of {last}", f"share of the attention that goes to {last}", "last_token"),
    ]
    if all(block.head_cosine is not None for one in attention for block in one.blocks):
        shown.append(("cosine of heads", "cosine of what two heads attend to; 1: the same", "head_cosine"))
    return shown
