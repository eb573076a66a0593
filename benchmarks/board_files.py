"""Boards as files (Markdown, CSV, LaTeX, an overview) and on the terminal."""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from fusebench.benchmarks.atomic import atomic_write, disk_error
from fusebench.benchmarks.leaderboard import Board
from fusebench.benchmarks.scores_table import to_csv
from fusebench.errors import InputError

_MARK = "<!-- written by `run_bench.py report`; edits are lost -->"
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_LEFT = ("rank", "method")
_GAP = "  "
_FIRST_TO_GO = ("params added", "dims", "encode s", "seeds")


def write_boards(boards: Sequence[Board], out: Path) -> list[Path]:
    """Writes each board as .md, .csv and .tex below `out/leaderboards` and the overview `out/README.md`.

    Board files of earlier reports that these boards do not replace are removed.

    Raises:
        InputError: the disk refused, or `out/README.md` is someone else's.
    """
    require_own_readme(out)
    names = file_names(boards)
    texts: dict[Path, str] = {}
    for board, name in zip(boards, names, strict=True):
        place = out / "leaderboards" / board.folder
        texts[place / f"{name}.md"] = _markdown(board)
        texts[place / f"{name}.csv"] = to_csv(printed(board.table))
        texts[place / f"{name}.tex"] = _latex(board, f"{board.folder}:{name}")
    texts[out / "README.md"] = _readme(boards, names, out.resolve().name)
    for path, text in texts.items():
        atomic_write(path, text)
    _remove_stale(out / "leaderboards", texts)
    return list(texts)


def require_own_readme(out: Path) -> None:
    """Fails if a report into `out` would overwrite a README.md that no report wrote.

    Raises:
        InputError: there is such a file.
    """
    path = out / "README.md"
    try:
        own = not path.exists() or path.read_text(encoding="utf-8", errors="replace").startswith(_MARK)
    except OSError as error:
        raise disk_error("read", path, error) from error
    if not own:
        raise InputError(f"{path} was not written by a report: move it, or name another folder with --out.")


def file_names(boards: Sequence[Board]) -> list[str]:
    """A name for each board, no longer than it takes to tell it from the boards beside it.

    The suite alone if that is enough, else with the aspects that differ, else with a hash as well.
    """
    neighbours: dict[tuple[str, str], list[tuple[str, ...]]] = defaultdict(list)
    for board in boards:
        neighbours[board.folder, board.suite].append(board.aspects)
    short = [_name(board, neighbours[board.folder, board.suite]) for board in boards]
    taken = Counter((board.folder, name) for board, name in zip(boards, short, strict=True))
    return [
        f"{name}-{board.aspects[-1]}" if taken[board.folder, name] > 1 else name
        for board, name in zip(boards, short, strict=True)
    ]


def _name(board: Board, of_neighbours: list[tuple[str, ...]]) -> str:
    every = list(zip(*of_neighbours, strict=True))[:-1]
    differing = [
        own
        for own, values in zip(board.aspects, every, strict=False)
        # A smoke run says so even where it stands alone.
        if own and (len(set(values)) > 1 or re.fullmatch(r"first\d+", own))
    ]
    return "-".join([board.suite, *differing])


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text: scores with two decimals, blanks for what is missing."""
    rows = [[_cell(value) for value in row] for row in table.itertuples(index=False, name=None)]
    return pd.DataFrame(rows, columns=table.columns, dtype="str")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.2f}"
    return str(value)


def _markdown(board: Board) -> str:
    lines = [
        f"# {_plain(board.title)}: {_plain(board.backbone)}",
        "",
        _markdown_table(printed(board.table)),
        "",
    ]
    lines += [f"- {_plain(line)}" for line in board.caption]
    return "\n".join(lines) + "\n"


def _markdown_table(table: pd.DataFrame) -> str:
    safe = table.map(_plain)
    safe.columns = pd.Index([_plain(name) for name in table.columns])
    align = ["left" if name in _LEFT else "right" for name in table.columns]
    # tabulate would turn "80.10" back into a number and print 80.1.
    return str(safe.to_markdown(index=False, disable_numparse=True, colalign=align))


def _plain(text: str) -> str:
    """`text` with nothing in it that Markdown or HTML reads as markup."""
    escaped = re.sub(r"([\\|*`])", r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;")


def _latex(board: Board, label: str) -> str:
    table = printed(board.table)
    align = "".join("l" if name in _LEFT else "r" for name in table.columns)
    caption = " ".join([f"{board.title}: {board.backbone}.", *board.caption])
    escaped = "".join(_LATEX.get(character, character) for character in " ".join(caption.split()))
    text = table.to_latex(
        index=False, escape=True, column_format=align, caption=escaped, label=f"tab:{label}", position="htbp"
    )
    return f"% needs \\usepackage{{booktabs}}\n{text}"


def _readme(boards: Sequence[Board], names: Sequence[str], folder: str) -> str:
    lines = [
        _MARK,
        "# Results",
        "",
        "- `runs/`: a JSON record for each backbone, task, method and seed; all else follows from them",
        "- `mteb/`: the same cells as mteb's own result files",
        "- `suites/`: which tasks were asked for together",
        "- `leaderboards/`: the boards below as Markdown, CSV and LaTeX",
        "- `quarantine/`: files that could not be trusted, if any were moved away",
        "",
        f"To make the boards and this page anew: `python run_bench.py report --out {shlex.quote(folder)}`",
        "",
        "## Boards" if boards else "There are no boards yet: no finished record belongs to a suite.",
    ]
    for board, name in zip(boards, names, strict=True):
        link = f"leaderboards/{board.folder}/{name}"
        shown = ["rank", "method", *(board.averages or board.tasks)]
        top = printed(board.table).loc[:, shown].head(5)
        lines += ["", f"### {_plain(board.title)}: {_plain(board.backbone)}", "", _markdown_table(top), ""]
        more = len(board.table) - len(top)
        rest = f"The first {len(top)} of {len(board.table)} rows. " if more else ""
        lines.append(f"{rest}Whole board: [{name}.md]({link}.md), [CSV]({link}.csv), [LaTeX]({link}.tex)")
    return "\n".join(lines) + "\n"


def _remove_stale(folder: Path, kept: Iterable[Path]) -> None:
    kept = set(kept)
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".md", ".csv", ".tex"} and path.is_file() and path not in kept:
            try:
                path.unlink()
            except OSError as error:
                raise disk_error("remove", path, error) from error


def print_board(board: Board, console: Console) -> None:
    """Prints the board; where the console is too narrow, columns go and a line below names them.

    Names of methods are never cut or wrapped: a rich Table would, once nothing else is left to shrink.
    Without a terminal the output is plain text.
    """
    columns = [[str(name), *cells] for name, cells in printed(board.table).items()]
    shown, hidden = _fitting(columns, board, console.width)
    console.print(Text(f"{board.title}: {board.backbone}", style="bold"), soft_wrap=True)
    for number, cells in enumerate(zip(*map(_aligned, shown), strict=True)):
        line = _GAP.join(cells).rstrip()
        console.print(Text(line, style="" if number else "bold underline"), soft_wrap=True)
    if hidden:
        console.print(Text(f"Not shown at this width: {', '.join(hidden)}."), soft_wrap=True)
    for line in board.caption:
        console.print(Text(line, style="dim"), soft_wrap=True)


def _fitting(columns: list[list[str]], board: Board, width: int) -> tuple[list[list[str]], list[str]]:
    """Leaves out costs first, then the averages of types, then tasks from the right, until the rest fits."""
    shown, hidden = list(columns), []
    for name in [*_FIRST_TO_GO, *board.averages[:-1], *reversed(board.tasks), *board.averages[-1:]]:
        if sum(map(_width, shown)) + len(_GAP) * (len(shown) - 1) <= width:
            break
        hidden += [column[0] for column in shown if column[0] == name]
        shown = [column for column in shown if column[0] != name]
    return shown, hidden


def _width(column: list[str]) -> int:
    return max(map(cell_len, column))


def _aligned(column: list[str]) -> list[str]:
    width = _width(column)
    if column[0] in _LEFT:
        return [cell + " " * (width - cell_len(cell)) for cell in column]
    return [" " * (width - cell_len(cell)) + cell for cell in column]
