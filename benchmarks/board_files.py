"""Boards as files (Markdown, CSV, LaTeX, an overview) and on the terminal."""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from fusebench.benchmarks.atomic import atomic_write, disk_error
from fusebench.benchmarks.board_markup import LEFT, latex, markdown, markdown_table, plain
from fusebench.benchmarks.board_significance import GROUP, INTERVAL, frame_of_tests
from fusebench.benchmarks.board_table import PLUS_MINUS
from fusebench.benchmarks.leaderboard import Board
from fusebench.benchmarks.mirror import shown_place
from fusebench.benchmarks.scores_table import to_csv
from fusebench.errors import InputError

_MARK = "<!-- written by `run_bench.py report`; edits are lost -->"
_GAP = "  "
_FIRST_TO_GO = ("params added", "dims", "encode s", "seeds")
_TASK_SPREADS = "± of single tasks"


def write_boards(boards: Sequence[Board], out: Path) -> list[Path]:
    """Writes each board as .md, .csv and .tex below `out/leaderboards` and the overview `out/README.md`.

    What training took, scores without known pairs, and intervals and tests are CSV files in the folders `training`,
    `overlap` and `tests` beside it. Board files of earlier reports that these boards do not replace are removed.

    Raises:
        InputError: the disk refused, or `out/README.md` is someone else's.
    """
    require_own_readme(out)
    names = file_names(boards)
    texts: dict[Path, str] = {}
    for board, name in zip(boards, names, strict=True):
        place = out / "leaderboards" / board.folder
        texts[place / f"{name}.md"] = markdown(board)
        texts[place / f"{name}.csv"] = to_csv(board.scores.sortable())
        texts[place / f"{name}.tex"] = latex(board, f"{board.folder}:{name}")
        for folder, table in (("training", board.training), ("overlap", board.overlap)):
            if table is not None:
                texts[place / folder / f"{name}.csv"] = to_csv(table.sortable())
        if board.tests is not None:
            texts[place / "tests" / f"{name}.csv"] = to_csv(frame_of_tests(board.tests))
    texts[out / "README.md"] = _readme(boards, names, shown_place(out))
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


def _readme(boards: Sequence[Board], names: Sequence[str], folder: str) -> str:
    lines = [
        _MARK,
        "# Results",
        "",
        "- `runs/`: a JSON record for each backbone, task, method and seed; all else follows from them",
        "- `mteb/`: the same cells as mteb's own result files",
        "- `samples/`: the same cells by sample: similarities of pairs, metrics of queries; no text, no label",
        "- `training/`, `trained/`: the log of each training and the weights that it gave, if anything was trained",
        "- `suites/`: which tasks were asked for together",
        "- `tests/`: intervals of the scores of each board, and what paired tests say of its methods",
        "- `leaderboards/`: the boards below as Markdown, CSV and LaTeX; beside them, in `tests/`, all numbers of "
        "the tests, and of trained methods, in `training/` and `overlap/`, what training took and scores without "
        "known pairs",
        "- `protocols/`: the tables of other studies' protocols, if any was run",
        "- `quarantine/`: files that could not be trusted, if any were moved away",
        "",
        f"To make the boards and this page anew: `python run_bench.py report --out {shlex.quote(folder)}`",
        "",
        "## Boards" if boards else "There are no boards yet: no finished record belongs to a suite.",
    ]
    for board, name in zip(boards, names, strict=True):
        link = f"leaderboards/{board.folder}/{name}"
        tested = [column for column in (INTERVAL, GROUP) if column in board.table]
        shown = ["rank", "method", *(board.averages or board.tasks), *tested]
        top = board.scores.printed().loc[:, shown].head(5)
        lines += ["", f"### {plain(board.title)}: {plain(board.backbone)}", "", markdown_table(top), ""]
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
    """Prints the board; where the console is too narrow, spreads and columns go and a line below names them.

    Names of methods are never cut or wrapped: a rich Table would, once nothing else is left to shrink.
    Without a terminal the output is plain text.
    """
    shown, hidden = _fitting(board, console.width)
    console.print(Text(f"{board.title}: {board.backbone}", style="bold"), soft_wrap=True)
    for number, cells in enumerate(zip(*map(_aligned, shown), strict=True)):
        line = _GAP.join(cells).rstrip()
        console.print(Text(line, style="" if number else "bold underline"), soft_wrap=True)
    if hidden:
        console.print(Text(f"Not shown at this width: {', '.join(hidden)}."), soft_wrap=True)
    for line in board.caption:
        console.print(Text(line, style="dim"), soft_wrap=True)


def _fitting(board: Board, width: int) -> tuple[list[list[str]], list[str]]:
    """Leaves out costs first, then spreads and averages of types, then tasks from the right, until the rest fits."""
    shown, hidden = _columns(board), []
    spreads = [_TASK_SPREADS] * board.scores.spread
    for name in [*_FIRST_TO_GO, *spreads, *board.averages[:-1], *reversed(board.tasks), *board.averages[-1:]]:
        if sum(map(_width, shown)) + len(_GAP) * (len(shown) - 1) <= width:
            break
        hidden += [name] * (name == _TASK_SPREADS or name in [column[0] for column in shown])
        bare = board.tasks if _TASK_SPREADS in hidden else ()
        shown = [column for column in _columns(board, bare) if column[0] not in hidden]
    return shown, hidden


def _columns(board: Board, bare: Sequence[str] = ()) -> list[list[str]]:
    """Heading and cells of each column; cells without a spread leave its place empty, so that means line up."""
    columns = []
    for name, series in board.scores.printed(bare=bare).items():
        cells = list(series)
        if name in board.scores.spreads:
            tails = [len(cell) - cell.index(PLUS_MINUS) if PLUS_MINUS in cell else 0 for cell in cells]
            cells = [cell + " " * (max(tails) - tail) for cell, tail in zip(cells, tails, strict=True)]
        columns.append([str(name), *cells])
    return columns


def _width(column: list[str]) -> int:
    return max(map(cell_len, column))


def _aligned(column: list[str]) -> list[str]:
    width = _width(column)
    if column[0] in LEFT:
        return [cell + " " * (width - cell_len(cell)) for cell in column]
    return [" " * (width - cell_len(cell)) + cell for cell in column]
