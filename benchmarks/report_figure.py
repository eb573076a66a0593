"""A chart of the HTML report: what plotly draws, what may be chosen, and the same in words and numbers."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fusebench.benchmarks.report_board import SideTable
from fusebench.errors import InputError

if TYPE_CHECKING:
    from types import ModuleType

# Colours of lines and marks on white, and what takes their place on black; told apart by the colour-blind.
DARK_FOR_LIGHT = {
    "#0b66b0": "#6ab7f5",
    "#c24e00": "#ff9d5c",
    "#00775a": "#43cfa5",
    "#92459b": "#dba0e6",
    "#8a6400": "#e6c155",
    "#b32045": "#ff8fa3",
    "#2b7f97": "#79d7ee",
    "#59626d": "#a9b4c0",
    # The scale of heat maps, from low to high.
    "#f1f5f9": "#1a2430",
    "#a9cbe8": "#28567c",
    "#0b4f8a": "#8fd0ff",
}
COLORS = tuple(DARK_FOR_LIGHT)[:8]
MUTED = COLORS[-1]
HEAT = [[0.0, "#f1f5f9"], [0.5, "#a9cbe8"], [1.0, "#0b4f8a"]]
DASHES = ("solid", "dash", "dot")


@dataclass(frozen=True)
class Choice:
    """A list to choose from; `layouts` has what each option changes in the layout."""

    label: str
    options: tuple[str, ...]
    layouts: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Numbers:
    """What a chart shows, as a table of text."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class Figure:
    """A chart.

    Attributes:
        title: A few words.
        description: What it shows and how to read it, in sentences.
        spoken: What a reader who cannot see it is told; its numbers are in `numbers`.
        plot: `data` and `layout` as plotly's JSON has them. A trace's `meta` names, for each choice, the option that
            it belongs to; -1: to all.
        choices: In the order of the traces' `meta`.
        numbers: The same as a table, or None.
    """

    title: str
    description: str
    spoken: str
    plot: Mapping[str, Any]
    height: int
    choices: tuple[Choice, ...] = ()
    numbers: Numbers | None = None
    small: bool = False  # one of many that stand side by side

    @property
    def data(self) -> dict[str, Any]:
        """What the page needs to draw it."""
        return {"plot": self.plot, "choices": [list(choice.layouts) for choice in self.choices]}


@dataclass(frozen=True, eq=False)
class Section:
    """Charts and tables, by their headings, under one heading; a sentence or two tells what to make of them."""

    title: str
    text: str
    figures: Sequence[Figure] = field(default_factory=tuple)
    tables: Mapping[str, SideTable] = field(default_factory=dict)


def plotly_parts() -> ModuleType:
    """`plotly.graph_objects`, which refuses properties that plotly does not know.

    Raises:
        InputError: plotly is not installed.
    """
    try:
        from plotly import graph_objects
    except ImportError as error:
        raise InputError("the HTML report needs plotly: python -m pip install 'fusebench[report]'.") from error
    return graph_objects


def plotly_script() -> str:
    """The JavaScript of the installed plotly, to be put into a page.

    Raises:
        InputError: plotly is not installed.
    """
    plotly_parts()
    from plotly.offline import get_plotlyjs

    script = str(get_plotlyjs())
    if "</script" in script.lower() or "<!--" in script:
        raise InputError("the script of this version of plotly cannot stand in a page: install the pinned version.")
    return script


def plot(traces: Sequence[Any], layout: Mapping[str, Any], choices: Sequence[Choice] = ()) -> dict[str, Any]:
    """Plotly's JSON of a chart, with the first option of each choice shown."""
    drawn: dict[str, Any] = json.loads(plotly_parts().Figure(list(traces), dict(layout)).to_json())
    drawn["layout"].pop("template", None)  # the page brings its own, light and dark
    for trace in drawn["data"]:
        trace["visible"] = all(own in (-1, 0) for own in trace.get("meta", [])[: len(choices)])
    return drawn


def mark(text: str) -> str:
    """`text` for names and labels in a chart, where plotly reads a few HTML tags."""
    return html.escape(text, quote=False)


def tone(position: int) -> tuple[str, str]:
    """The colour and the dash of the line at this position of many."""
    return COLORS[position % len(COLORS)], DASHES[position // len(COLORS) % len(DASHES)]


def rounded(values: Sequence[float | None], digits: int = 4) -> list[float | None]:
    """The values to so many significant digits: charts show no more, and the page stays small."""
    return [None if value is None else float(f"{value:.{digits}g}") for value in values]
