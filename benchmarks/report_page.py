"""The HTML page of a report: one file that asks nothing of the network and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from fusebench.benchmarks.report_board import BoardTable, SideTable
from fusebench.benchmarks.report_figure import DARK_FOR_LIGHT, Section, plotly_script

_HERE = Path(__file__).parent


@dataclass(frozen=True, eq=False)
class BoardPage:
    """A board: its leaderboard, its charts, and what is said of its trainings and of pairs
    that they saw."""

    title: str
    backbone: str
    chips: tuple[str, ...]
    told_apart: str  # from boards of the same backbone and suite
    caption: tuple[str, ...]
    table: BoardTable
    files: Mapping[str, str]  # Markdown, CSV, LaTeX of the same board: address by name
    sections: Sequence[Section]
    training: SideTable | None
    overlap: SideTable | None


@dataclass(frozen=True, eq=False)
class Page:
    """Everything on the page; `facts` are numbers by what they count."""

    name: str
    facts: Mapping[str, str]
    boards: Sequence[BoardPage]
    sections: Sequence[Section]
    rejected: Sequence[tuple[str, str]]
    records: Mapping[str, Any]


def render(page: Page) -> str:
    """The page. Whatever stands in a name is text in it: values are escaped, and no other script may run.

    Raises:
        InputError: plotly is not installed.
    """
    plotly, own = plotly_script(), _asset("report_page.js")
    templates = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"with_code": _with_code, "breakable": _breakable}
    sections = [*(section for board in page.boards for section in board.sections), *page.sections]
    figures = [figure for section in sections for figure in section.figures]
    numbers = {id(figure): number for number, figure in enumerate(figures)}
    text = templates.get_template("report_page.html").render(
        page=page,
        style=_asset("report_page.css"),
        scripts=[plotly, own],
        policy=" ".join(_source(script) for script in (plotly, own)),
        number_of=lambda figure: numbers[id(figure)],
        charts=[figure.data for figure in figures],
        dark_for_light=DARK_FOR_LIGHT,
    )
    return text.rstrip() + "\n"


def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8").strip()


def _with_code(text: str) -> Markup:
    """The text, with what stands in `backticks` marked as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _breakable(text: str) -> Markup:
    """The text, which a narrow column may break before a part or its parameters."""
    return Markup(re.sub(r"([+(])", r"<wbr>\1", str(escape(text))))


def _source(script: str) -> str:
    """How a content security policy names a script that may run."""
    # A browser reads every line end in a page as \n before it takes the hash.
    read = script.replace("\r\n", "\n").replace("\r", "\n")
    return f"'sha256-{base64.b64encode(hashlib.sha256(read.encode()).digest()).decode()}'"
