"""Diagnoses on the page: each method's geometry beside its score, quantities by layer, CKA, attention by block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from fusebench.benchmarks.board_rows import age
from fusebench.benchmarks.board_table import Estimate, estimate
from fusebench.benchmarks.diagnosis import DiagnosedMethod, Diagnosis
from fusebench.benchmarks.embedding_space import QUANTITIES, Quantity, Space
from fusebench.benchmarks.record import Record, Spec, digest
from fusebench.benchmarks.report_attention import attention_figure
from fusebench.benchmarks.report_board import Cell, Column, SideTable, estimate_cell, text_cell
from fusebench.benchmarks.report_figure import (
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
from fusebench.benchmarks.report_similarity import similarity_figure
from fusebench.benchmarks.report_trained import TrainingNames

_SCORE = Quantity("score", "score x100", "main score of the task", 2)


class Line(NamedTuple):
    """A row of the table: a method on a backbone, each quantity (and the score, if there is one) over seeds."""

    label: str
    backbone: str
    sweep: str | None
    layer: int | None
    dim: int
    seeds: int
    values: Mapping[Quantity, Estimate]


def diagnosis_sections(diagnoses: Sequence[Diagnosis], records: Sequence[Record]) -> list[Section]:
    """A section a diagnosis; of those that other code or versions made of the same, the newest.

    Two that bear the same title get a piece of their id.
    """
    newest = {
        digest(one.spec.model_dump(mode="json", exclude={"code", "software"})): one
        for one in sorted(diagnoses, key=lambda one: one.environment.created)
    }
    kept = sorted(newest.values(), key=lambda one: (_title(one), one.diagnosis_id))
    titles = [_title(one) for one in kept]
    sections = [diagnosis_section(one, records) for one in kept]
    return [
        replace(section, title=f"{section.title} [{one.diagnosis_id[:6]}]")
        if titles.count(section.title) > 1
        else section
        for one, section in zip(kept, sections, strict=True)
    ]


def _title(held: Diagnosis) -> str:
    return f"Diagnostics: {held.spec.task.name}, {held.spec.backbone.name}"


def diagnosis_section(held: Diagnosis, records: Sequence[Record]) -> Section:
    """The charts and the table of one diagnosis; scores are those of the same methods on the same data."""
    lines = _lines(held, records)
    sizes, spec = held.sizes, held.spec
    drawn = f" (drawn of {sizes.texts_of_task:,})" if sizes.texts_of_task > spec.limit else ""
    text = (
        f"What the vectors look like, of {sizes.texts:,} distinct texts{drawn} of {spec.task.name} read by "
        f"{spec.backbone.name}, and of {sizes.pairs:,} pairs that belong together ({spec.pair_rule}). Conventions: "
        f"{spec.conventions}. Of so many texts, an isotropic distribution would reach an IsoScore of about "
        f"{sizes.texts / (sizes.texts + max(line.dim for line in lines)):.2f}. None of these numbers is a quality by "
        "itself: a collapsed space is perfectly aligned."
    )
    figures = [_depth(lines), similarity_figure(held), attention_figure(held)]
    return Section(
        _title(held),
        text,
        [figure for figure in figures if figure is not None],
        tables={"By method": _table(lines)},
    )


def _lines(held: Diagnosis, records: Sequence[Record]) -> list[Line]:
    """Seeds of one training are one line."""
    names = TrainingNames(held)
    groups: dict[tuple[str, str], list[tuple[DiagnosedMethod, Space]]] = {}
    for method, space in zip(held.spec.methods, held.spaces, strict=True):
        key = names.method(method.method.name, method.trained), names.backbone(method.backbone)
        groups.setdefault(key, []).append((method, space))
    lines = []
    for (label, backbone), own in groups.items():
        method, space = own[0]
        values = {q: estimate([getattr(s, q.field) for _, s in own]) for q in QUANTITIES}
        scores = [score for m, _ in own if (score := _score(m, held, records)) is not None]
        if len(scores) == len(own):
            values[_SCORE] = estimate(scores)
        lines.append(Line(label, backbone, method.sweep, method.layer, space.dim, len(own), values))
    return lines


def _score(method: DiagnosedMethod, held: Diagnosis, records: Sequence[Record]) -> float | None:
    """The newest record's main score x100 of this method on these data in this setting; None without a record."""
    own_backbone = method.backbone is None or (method.trained is not None and method.trained == method.backbone)
    found = [r for r in records if own_backbone and _belongs(r.spec, method, held)]
    return 100 * max(found, key=age).main_score if found else None


def _belongs(spec: Spec, method: DiagnosedMethod, held: Diagnosis) -> bool:
    asked = held.spec
    trained = spec.train is not None
    return (
        spec.method.name == method.method.name
        and spec.backbone.weights_sha256 == asked.backbone.weights_sha256
        and spec.task.data_sha256 == asked.task.data_sha256
        and (spec.max_length, spec.dtype, spec.prompts) == (asked.max_length, asked.dtype, asked.prompts)
        and spec.limit is None
        and trained == (method.trained is not None)
        and (method.trained is None or spec.training_id == method.trained.training_id)
        and (spec.fit is None or spec.fit == asked.fit)
        and (trained or spec.seed in (None, asked.seed))
    )


def _table(lines: Sequence[Line]) -> SideTable:
    """A row a method; a mean and its spread where there are several seeds."""
    tuned, seeded = len({line.backbone for line in lines}) > 1, any(line.seeds > 1 for line in lines)
    shown = _shown(lines, any)
    columns = [Column("method", "text"), *([Column("backbone", "text")] if tuned else [])]
    columns += [Column(name, "number") for name in (*(["seeds"] if seeded else []), *(q.name for q in shown), "dims")]
    rows = []
    for line in lines:
        cells = [text_cell(line.label), *([text_cell(line.backbone)] if tuned else [])]
        cells += [Cell(str(line.seeds), "", float(line.seeds), None)] if seeded else []
        cells += [estimate_cell(line.values.get(quantity), quantity.text) for quantity in shown]
        rows.append((*cells, Cell(str(line.dim), "", float(line.dim), None)))
    return SideTable(tuple(columns), tuple(rows))


def _shown(lines: Sequence[Line], which: Callable[[Iterable[bool]], bool]) -> list[Quantity]:
    """The quantities, and before them the score where any of the lines, or all, have one."""
    return [*([_SCORE] if which(_SCORE in line.values for line in lines) else []), *QUANTITIES]


def _depth(lines: Sequence[Line]) -> Figure | None:
    """Curves over layers; None where no pooling was measured at two layers."""
    sweeps: dict[tuple[str, str], dict[int, Line]] = {}
    for line in lines:
        if line.sweep is not None and line.layer is not None:
            sweeps.setdefault((line.sweep, line.backbone), {})[line.layer] = line
    sweeps = {key: dict(sorted(own.items())) for key, own in sweeps.items() if len(own) > 1}
    if not sweeps:
        return None
    go = plotly_parts()
    shown = _shown([line for own in sweeps.values() for line in own.values()], all)
    choice = Choice(
        "Quantity",
        tuple(f"{quantity.name}: {quantity.reading}" for quantity in shown),
        tuple({"yaxis.title.text": quantity.name} for quantity in shown),
    )
    several = len({backbone for _, backbone in sweeps}) > 1
    traces, rows = [], []
    for position, ((sweep, backbone), own) in enumerate(sweeps.items()):
        color, dash = tone(position)
        name = f"{sweep}, {backbone}" if several else sweep
        traces += [
            go.Scatter(
                x=list(own),
                y=rounded([line.values[quantity].mean for line in own.values()]),
                name=mark(name),
                mode="lines+markers",
                line={"color": color, "dash": dash, "width": 2.5},
                marker={"size": 8},
                hovertemplate="layer %{x}: %{y:.4g}",
                meta=[option],
            )
            for option, quantity in enumerate(shown)
        ]
        rows += [
            (name, str(layer), *(f"{line.values[quantity].mean:.4g}" for quantity in shown))
            for layer, line in own.items()
        ]
    last = max(layer for own in sweeps.values() for layer in own)
    layout = {
        "xaxis": {"title": {"text": "layer"}, "dtick": 1, "range": [-0.3, last + 0.3]},
        "yaxis": {"title": {"text": shown[0].name}},
        "hovermode": "x unified",
    }
    return Figure(
        title="Quantities by layer",
        description="One line a pooling; layer 0 is the embedding output.",
        spoken=f"Lines over layers, {shown[0].name} first, of {len(sweeps)} poolings; all numbers are in the table.",
        plot=plot(traces, layout, (choice,)),
        height=380,
        choices=(choice,),
        numbers=Numbers(("pooling", "layer", *(quantity.name for quantity in shown)), tuple(rows)),
    )
