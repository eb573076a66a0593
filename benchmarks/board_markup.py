"""A board as Markdown and as LaTeX."""

from __future__ import annotations

import re

import pandas as pd

from fusebench.benchmarks.leaderboard import Board

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
        markdown_table(board.scores.printed()),
        "",
        *(f"- {plain(line)}" for line in board.caption),
    ]
    for title, note, table in [
        ("What training took", _OF_TRAINING, board.training),
        ("Without pairs whose two texts were in the training or dev data", _OF_OVERLAP, board.overlap),
    ]:
        if table is not None:
            lines += ["", f"## {title}", "", note, "", markdown_table(table.printed())]
    return "\n".join(lines) + "\n"


def markdown_table(table: pd.DataFrame) -> str:
    """A pipe table of cells that are text."""
    safe = table.map(plain)
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
    escaped = "".join(_LATEX.get(character, character) for character in " ".join(caption.split()))
    text = table.to_latex(
        index=False, escape=True, column_format=align, caption=escaped, label=f"tab:{label}", position="htbp"
    )
    return f"% needs \\usepackage{{booktabs}}\n{text.replace('±', _LATEX['±'])}"
