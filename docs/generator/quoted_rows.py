"""Rows of a committed board that a written page quotes: between two comments, and written anew when boards change.

    python -m docs.generator.quoted_rows

The first comment names the board's file by a pattern below results/leaderboards.
"""

from __future__ import annotations

import re
from pathlib import Path
from string import ascii_lowercase

from docs.generator.boards import WrittenBoard, written_boards

_ROOT = Path(__file__).resolve().parents[2]
_NAMES = [*ascii_lowercase, *(a + b for a in ascii_lowercase for b in ascii_lowercase)]
_QUOTE = re.compile(r"<!-- rows of (?P<pattern>\S+) -->\n.*?<!-- end of rows -->", re.DOTALL)


def renewed(page: str, boards: list[WrittenBoard]) -> str:
    """A page whose quotes are what the boards say now.

    Raises:
        ValueError: if a quote's pattern is that of no board or of several, or a board cannot be quoted.
    """

    def quote(match: re.Match[str]) -> str:
        pattern = match["pattern"]
        found = [board for board in boards if board.file.with_suffix(".csv").match(pattern)]
        if len(found) != 1:
            raise ValueError(f"{len(found)} boards are named {pattern}")
        lines = "\n".join(quoted(found[0]))
        return f"<!-- rows of {pattern} -->\n```text\n{lines}\n```\n<!-- end of rows -->"

    return _QUOTE.sub(quote, page)


def quoted(board: WrittenBoard) -> list[str]:
    """The three leading rows, the first that cosine cannot tell from another, and one told apart from the leading.

    Raises:
        ValueError: if the board's differences are not tested, or none of these rows is there.
    """
    ranked = [row for row in board.rows if row["rank"].isdigit()]
    if not all(row.get("group") for row in ranked):
        raise ValueError(f"{board.file.name} has rows without letters; run report --test")
    equal = next((row for row in board.rows if not row["rank"].isdigit()), None)
    apart = next((row for row in ranked if not letters(row["group"]) & letters(ranked[0]["group"])), None)
    if equal is None or apart is None:
        raise ValueError(f"{board.file.name} has no row that equals another, or none told apart from the first")
    chosen = [row for row in board.rows if row in [*ranked[:3], equal, apart]]
    average = next(name for name in board.rows[0] if name.endswith(" avg"))
    columns = ["rank", "method", "seeds", average, "95 %", "group"]  # as many as a page shows at once
    table = [columns, *([_cell(row, name) for name in columns] for row in chosen)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(_set(line, widths)).rstrip() for line in table]


def letters(group: str) -> set[str]:
    """The letters of a cell such as `a`, `h j`, `b-e` or `aa ad`; `ab` may be two letters or one, so it is both."""
    found: set[str] = set()
    for piece in group.split():
        first, _, last = piece.partition("-")
        found |= set(_NAMES[_NAMES.index(first) : _NAMES.index(last) + 1]) if last else {piece, *piece}
    return found


def _cell(row: dict[str, str], name: str) -> str:
    spread = row.get(f"{name} sd")
    return f"{row[name]} ± {spread}" if spread else row[name]


def _set(line: list[str], widths: list[int]) -> list[str]:
    """Rank and method begin, all others end at the same place."""
    sides = ["<", "<", *(">" for _ in line[2:])]
    return [f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True)]


def main() -> None:
    """Writes the quotes of all written pages anew."""
    boards = written_boards(_ROOT / "results")
    for page in sorted(_ROOT.glob("docs/guide/*.md")):
        before = page.read_text(encoding="utf-8")
        if (after := renewed(before, boards)) != before:
            page.write_text(after, encoding="utf-8")
            print(f"renewed: {page.relative_to(_ROOT)}")


if __name__ == "__main__":
    main()
