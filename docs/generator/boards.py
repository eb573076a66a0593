"""What the boards in results say of the methods that a part belongs to."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fusebench.errors import InputError
from fusebench.methods.grammar import parse

_NOT_SCORES = ("rank", "method", "dims", "params added", "encode s")


@dataclass(frozen=True)
class WrittenBoard:
    """A board as `report` has written it.

    Attributes:
        title: suite and backbone.
        setting: what of its caption says how rows were made.
        rows: its cells by column, in order of rank.
        file: the whole board in Markdown.
    """

    title: str
    setting: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    file: Path


def written_boards(results: Path) -> list[WrittenBoard]:
    """Every board below `results/leaderboards`, by file name."""
    return [_read(table) for table in sorted(results.glob("leaderboards/*/*.csv"))]


def rows_of(board: WrittenBoard, part: str) -> list[dict[str, str]]:
    """The rows whose method has this part, and not those that cosine cannot tell from another row."""
    return [row for row in board.rows if row["rank"].isdigit() and part in _parts(row["method"])]


def table(board: WrittenBoard, part: str) -> list[str]:
    """These rows as lines of Markdown, scores with their spread over seeds; `mean` is among them, to compare with."""
    found = rows_of(board, part)
    if not found:
        return []
    rows = [row for row in board.rows if row in found or row["method"] == "mean"]
    names = [name for name in board.rows[0] if name not in _NOT_SCORES and not name.endswith(" sd")]
    names.sort(key=lambda name: not name.endswith((" avg", "overall", "95 %", "group")))
    header = ["method", "rank", *names]
    lines = ["```{container} numbers", f"| {' | '.join(header)} |", f"| --- |{' ---: |' * (len(header) - 1)}"]
    ranked = sum(row["rank"].isdigit() for row in board.rows)
    for row in rows:
        cells = [f"`{row['method']}`", f"{row['rank']} of {ranked}", *(_cell(row, name) for name in names)]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "```"]


def _cell(row: dict[str, str], name: str) -> str:
    spread = row.get(f"{name} sd")
    return f"{row[name]} ± {spread}" if spread else row[name]


def _parts(sentence: str) -> Iterator[str]:
    try:
        yield from (part.name for part in parse(sentence).parts)
    except InputError as error:
        raise ValueError(f"a board holds '{sentence}', which is no method: {error}") from error


def _read(file: Path) -> WrittenBoard:
    page = file.with_suffix(".md")
    lines = page.read_text(encoding="utf-8").splitlines()
    said = [line[2:] for line in lines if line.startswith(("- Setting:", "- Training of"))]
    with file.open(encoding="utf-8", newline="") as stream:
        rows = [{name: cell.lstrip("'") for name, cell in row.items()} for row in csv.DictReader(stream)]
    return WrittenBoard(lines[0].removeprefix("# "), tuple(said), tuple(rows), page)
