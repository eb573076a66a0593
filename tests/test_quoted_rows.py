from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from docs.generator.boards import WrittenBoard, written_boards
from docs.generator.quoted_rows import letters, quoted, renewed
from fusebench.benchmarks.baseline import read_baseline

ROOT = Path(__file__).resolve().parents[1]
GUIDE = sorted(ROOT.glob("docs/guide/*.md"))


def row(rank, method, score, group, spread="", seeds=""):
    cells = {"rank": rank, "method": method, "seeds": seeds, "STS12": score, "STS12 sd": spread, "SICK-R": score}
    return {**cells, "STS avg": score, "STS avg sd": spread, "95 %": f"{score} to 99", "group": group, "dims": "3"}


BOARD = WrittenBoard(
    "a board",
    (),
    (
        row("1", "hire", "70.00", "ab", spread="0.10", seeds="3"),
        row("= mean (cosine)", "mean-sqrt-len", "69.00", ""),
        row("2", "mean", "69.00", "b-d"),
        row("3", "max", "60.00", "b"),
        row("4", "cls", "55.00", "a"),
        row("5", "layer-mean", "50.00", "c e"),
        row("6", "sbert-wk", "40.00", "f"),
    ),
    Path("x-frozen.md"),
)


def test_a_quote_has_the_leading_rows_an_equal_one_and_one_told_apart_from_the_first():
    assert quoted(BOARD) == [
        "rank             method         seeds       STS avg         95 %  group",
        "1                hire               3  70.00 ± 0.10  70.00 to 99     ab",
        "= mean (cosine)  mean-sqrt-len                69.00  69.00 to 99",
        "2                mean                         69.00  69.00 to 99    b-d",
        "3                max                          60.00  60.00 to 99      b",
        "5                layer-mean                   50.00  50.00 to 99    c e",
    ]


def test_what_is_quoted_follows_the_board_and_the_rest_of_a_page_stays():
    page = "before\n<!-- rows of x-*.csv -->\nstale\n<!-- end of rows -->\nafter\n"
    now = renewed(page, [BOARD])
    assert re.fullmatch("before\n<!-- rows of x-.* hire .*<!-- end of rows -->\nafter\n", now, re.DOTALL)
    assert renewed(now, [BOARD]) == now
    changed = replace(BOARD, rows=tuple({**one, "STS avg": "1.00"} for one in BOARD.rows))
    assert renewed(now, [changed]) != now


@pytest.mark.parametrize("boards", [[], [BOARD, BOARD]], ids=["none", "two"])
def test_a_quote_of_no_board_or_of_several_is_an_error(boards):
    with pytest.raises(ValueError, match=f"{len(boards)} boards are named x"):
        renewed("<!-- rows of x*.csv --><!-- end of rows -->".replace("><", ">\n<"), boards)


def test_a_board_without_tests_is_not_quoted():
    untested = replace(BOARD, rows=tuple({**one, "group": ""} for one in BOARD.rows))
    with pytest.raises(ValueError, match="run report --test"):
        quoted(untested)


@pytest.mark.parametrize(
    ("group", "expected"),
    [("a", "a"), ("ab", "ab a b"), ("h j", "h j"), ("m-o rs", "m n o rs r s"), ("y-ab", "y z aa ab")],
)
def test_letters_are_read_as_they_are_written(group, expected):
    assert letters(group) == set(expected.split())


# ---- the pages themselves


def test_the_pages_quote_the_committed_boards():
    """When it fails: python -m docs.generator.quoted_rows"""
    boards = written_boards(ROOT / "results")
    pages = [page.read_text(encoding="utf-8") for page in GUIDE]
    assert any("<!-- rows of " in page for page in pages)
    assert [renewed(page, boards) for page in pages] == pages


def test_every_score_that_the_readme_tells_stands_on_a_committed_board():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    told = set(
        re.findall(
            r"(?<![\d.])\d\d\.\d\d(?![\d.])", text[text.index("What it teaches") : text.index("gate --baseline")]
        )
    )
    boards = written_boards(ROOT / "results")
    assert len(told) > 10
    assert told <= {cell for board in boards for one in board.rows for cell in one.values()}


def tables(text):
    """Lines of a page's fixed-width tables, split into cells, by what stands first in their header."""
    for block in re.findall(r"```text\n(.*?)```", text, re.DOTALL):
        lines = [re.split(r"\s{2,}", line.strip()) for line in block.splitlines()]
        header = next((line for line in lines if {"LeeSTS", "A - B"} & set(line)), None)
        if header:
            yield [
                dict(zip(header, line, strict=True)) for line in lines if len(line) == len(header) and line != header
            ]


def test_the_first_scores_that_a_reader_sees_are_those_that_the_gate_holds():
    cells = read_baseline(ROOT / "results" / "baselines" / "embedded.json").cells
    held = {(cell.method, cell.task): f"{100 * cell.score:.2f}" for cell in cells}
    board, compared = tables((ROOT / "docs" / "guide" / "start.md").read_text(encoding="utf-8"))
    assert len(board) == 5
    for one in board:
        assert (one["LeeSTS"], one["LeeKnownItem"]) == (
            held[one["method"], "LeeSTS"],
            held[one["method"], "LeeKnownItem"],
        )
        assert float(one["overall"]) == pytest.approx(
            (float(one["LeeSTS"]) + float(one["LeeKnownItem"])) / 2, abs=0.011
        )
    for one in compared[:2]:
        assert (one["A"], one["B"]) == (held["cls", one["task"]], held["mean", one["task"]])
        assert float(one["A - B"]) == pytest.approx(float(one["A"]) - float(one["B"]), abs=0.011)
