"""A board as Markdown and as LaTeX."""

from __future__ import annotations

import re

import pandas as pd

from fusebench.benchmarks.board_significance import tables_of_tests
from fusebench.benchmarks.leaderboard import Board

Bold = tuple[str, list[bool]] | None

LEFT = ("rank", "method", "regime", "trained on", "states read")  # columns of words

_OF_TRAINING = (
    "Updates, examples and seconds of one seed, all trials counted in; where seeds differ a span, of seconds and dev "
    "scores (x100) the mean."
)
_OF_OVERLAP = "Scores x100 of the whole task and of the task without these pairs, over the same seeds."
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def markdown(board: Board) -> str:
    """The whole page of a board: scores, caption, what training took, scores without known pairs."""
    lines = [
        f"# {plain(board.title)}: {plain(board.backbone)}",
        "",
        markdown_table(board.scores.printed(), bold=_bold(board)),
        "",
        *(f"- {plain(line)}" for line in board.caption),
    ]
    for title, note, table in [
        ("What training took", _OF_TRAINING, board.training),
        ("Without pairs whose two texts were in the training or dev data", _OF_OVERLAP, board.overlap),
    ]:
        if table is not None:
            lines += ["", f"## {title}", "", note, "", markdown_table(table.printed())]
    for title, note, printed in tables_of_tests(board.tests):
        lines += ["", f"## {title}", "", plain(note), "", markdown_table(printed)]
    return "\n".join(lines) + "\n"


def _bold(board: Board) -> Bold:
    """The leading scores of the methods that the test does not tell from the best."""
    if board.tests is None or board.tests.leading is None:
        return None
    best = [
        label for label in board.table["method"] if (own := board.tests.method(str(label))) and own.among_the_best
    ]
    return board.tests.leading, board.table["method"].isin(best).tolist()


def markdown_table(table: pd.DataFrame, bold: Bold = None) -> str:
    """A pipe table of cells that are text; `bold` names a column and says which of its cells are."""
    safe = table.map(plain)
    if bold is not None:
        column, marked = bold
        safe[column] = [f"**{cell}**" if own else cell for cell, own in zip(safe[column], marked, strict=True)]
    safe.columns = pd.Index([plain(name) for name in table.columns])
    align = ["left" if name in LEFT else "right" for name in table.columns]
    # tabulate would turn "80.10" back into a number and print 80.1.
    return str(safe.to_markdown(index=False, disable_numparse=True, colalign=align))


def plain(text: str) -> str:
    """`text` with nothing in it that Markdown or HTML reads as markup."""
    escaped = re.sub(r"([\\|*`\[\]])", r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;")


def latex(board: Board, label: str) -> str:
    """The table of scores with its caption, in booktabs."""
    table = board.scores.printed()
    align = "".join("l" if name in LEFT else "r" for name in table.columns)
    caption = " ".join([f"{board.title}: {board.backbone}.", *board.caption])
    table = table.map(_escaped)
    table.columns = pd.Index([_escaped(name) for name in table.columns])
    if (bold := _bold(board)) is not None:
        column, marked = _escaped(bold[0]), bold[1]
        table[column] = [
            rf"\textbf{{{cell}}}" if own else cell for cell, own in zip(table[column], marked, strict=True)
        ]
    text = table.to_latex(
        index=False,
        escape=False,
        column_format=align,
        caption=_escaped(caption),
        label=f"tab:{label}",
        position="htbp",
    )
    return f"% needs \\usepackage{{booktabs}}\n{text}"


def _escaped(text: str) -> str:
    """`text` as LaTeX prints it."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))
