"""A board says what of its tasks the training may have seen, and scores without that where it was asked for."""

from statistics import fmean, stdev

import pytest

from fusebench.benchmarks.board_files import write_boards
from fusebench.benchmarks.leaderboard import build_boards
from fusebench.benchmarks.store import AskedSuite
from tests.invented_records import make, overlap, trained

AB = AskedSuite("ab", "ab", ("A", "B"))
SEEN = "Test texts that occur in the training or dev texts, case and punctuation aside: "


def board_of(*records):
    (board,) = build_boards(records, [AB])
    return board


def told(board):
    return [text for text in board.caption if text.startswith((SEEN, "Not measured for every trained row"))]


def test_the_caption_counts_texts_and_pairs_of_each_task():
    board = board_of(
        trained("x", "A", overlap=overlap(6, 4)), trained("x", "B", overlap=overlap()), make("mean", "A")
    )
    assert told(board) == [f"{SEEN}A: 6 of 20 texts, both texts of 4 of 10 pairs; none of B."]


def test_a_task_without_pairs_counts_texts_alone():
    held = overlap(1, None, texts=1, pairs=None)
    assert told(board_of(trained("x", "A", overlap=held))) == [f"{SEEN}A: 1 of 1 text."]


def test_rows_that_saw_unequally_much_give_a_span():
    board = board_of(trained("x", overlap=overlap(6, 4)), trained("y", overlap=overlap(9, 4)))
    assert told(board) == [f"{SEEN}A: 6-9 of 20 texts, both texts of 4 of 10 pairs."]


def test_what_was_not_measured_is_not_called_clean():
    board = board_of(trained("x", "A", overlap=overlap()), trained("y", "A"), make("mean", "B"))
    assert told(board) == [
        f"{SEEN}none of A.",
        "Not measured for every trained row, whether its training held test texts: A.",
    ]


def test_a_board_of_training_free_rows_says_nothing_of_overlap():
    board = board_of(make("mean", overlap=overlap(3, 2, 0.5)))
    assert told(board) == []
    assert board.overlap is None


def test_both_scores_of_a_cell_are_over_the_seeds_that_have_both(tmp_path):
    without = {1: 0.4, 2: 0.2, 3: None}
    records = [
        trained("x", "A", 0.5 + seed / 10, seed=seed, overlap=overlap(6, 4, rest)) for seed, rest in without.items()
    ]
    board = board_of(*records, trained("y", "A", 0.8, overlap=overlap(6, 4, 0.75)), trained("y", "B"), make("mean"))
    assert board.overlap.values["method"].tolist() == ["x", "y"]
    assert board.overlap.values["A"].tolist() == pytest.approx([fmean([60, 70]), 80])
    assert board.overlap.values["A without"].tolist() == pytest.approx([fmean([40, 20]), 75])
    assert board.overlap.spreads["A without"].tolist() == pytest.approx([stdev([40, 20]), float("nan")], nan_ok=True)
    assert "B" not in board.overlap.values
    write_boards([board], tmp_path)
    (path,) = tmp_path.glob("leaderboards/*/overlap/*.csv")
    assert path.read_text() == ("method,A,A sd,A without,A without sd\nx,65.00,7.07,30.00,14.14\ny,80.00,,75.00,\n")
    (page,) = (path.read_text() for path in tmp_path.glob("leaderboards/*/*.md"))
    assert "## Without pairs whose two texts were in the training or dev data" in page
