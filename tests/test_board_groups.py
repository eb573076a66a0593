"""Trained rows share a board if they were trained alike; training-free rows stand beside all of them."""

import pytest

from fusebench.benchmarks.leaderboard import boards_showing, build_boards
from fusebench.benchmarks.store import AskedSuite
from tests.invented_records import make, row_set, trained, training_spec

A = AskedSuite("a", "a", ("A",))
AB = AskedSuite("ab", "ab", ("A", "B"))


def methods(records, suite=A):
    return sorted(sorted(board.table["method"]) for board in build_boards(records, [suite]))


@pytest.mark.parametrize(
    "change",
    [
        {"data": ("stsb-train",)},
        {"limit": 10},
        {"epochs": 4},
        {"epochs": None, "steps": 9},
        {"batch_size": 32},
        {"learning_rate": 1e-5},
        {"learning_rate_new": 1e-4},
        {"weight_decay": 0.0},
        {"warmup": 0.0},
        {"max_grad_norm": 5.0},
        {"accumulate": 2},
        {"chunk": 8},
        {"precision": "bf16"},
        {"dev": row_set("stsb-dev", "scored-pairs")},
        {"dev_every": 5},
        {"trials": 2},
    ],
)
def test_rows_that_were_trained_differently_never_share_a_board(change):
    records = [trained("x"), trained("y", train=training_spec(**change)), make("mean")]
    assert methods(records) == [["mean", "x"], ["mean", "y"]]
    digests = {board.aspects[-1] for board in build_boards(records, [A])}
    assert len(digests) == 2


def test_frozen_and_finetuned_rows_never_share_a_board():
    assert methods([trained("x"), trained("y", regime="finetune"), make("mean")]) == [["mean", "x"], ["mean", "y"]]


def test_rows_read_and_code_may_differ_between_the_methods_of_a_board():
    scored = training_spec(rows=(row_set(kind="scored-pairs", digest="ff"),), code="other")
    assert methods([trained("x"), trained("y", train=scored)]) == [["x", "y"]]


@pytest.mark.parametrize(
    "change",
    [
        {"max_length": 64},
        {"dtype": "bfloat16"},
        {"limit": 5},
        {"prompts": {"query": "q"}},
        {"backbone": {"name": "b"}},
    ],
)
def test_training_free_rows_stand_beside_no_trained_row_of_another_setting(change):
    assert methods([make("mean", **change), trained("x")]) == [["mean"], ["x"]]


def test_training_free_rows_have_a_board_of_their_own_only_where_no_other_shows_them():
    assert methods([make("mean"), make("cls")]) == [["cls", "mean"]]
    assert methods([make("mean"), make("cls"), trained("x")]) == [["cls", "mean", "x"]]
    older = make("cls", data="older", created="2025-01-01T00:00:00Z")
    assert methods([make("mean"), older, trained("x")]) == [["cls"], ["mean", "x"]]


def test_a_trained_row_of_one_task_does_not_split_the_training_free_rows():
    records = [make(m, t) for m in ("mean", "cls") for t in "AB"]
    (board,) = build_boards([*records, trained("x", "B")], [AB])
    assert sorted(board.table["method"]) == ["cls", "mean", "x"]
    assert board.tasks == ("A", "B")


def test_saved_weights_are_a_row_beside_the_same_method_trained_anew():
    records = [trained("x"), trained("x", weights="1a2b3c4d5e"), make("mean")]
    assert methods(records) == [["mean", "x", "x (saved 1a2b3c4d)"]]


def test_saved_weights_of_unknown_training_have_a_board_of_their_own_that_says_so():
    saved = trained("x", weights="1a2b3c4d5e", train=None, training=None)
    boards = build_boards([saved, trained("y"), make("mean")], [A])
    rows = [sorted(board.table["method"]) for board in boards]
    assert sorted(rows) == [["mean", "x (saved 1a2b3c4d)"], ["mean", "y"]]
    caption = " ".join(boards[rows.index(["mean", "x (saved 1a2b3c4d)"])].caption)
    assert "Training: not recorded" in caption


def test_the_boards_of_a_run_are_those_of_its_trained_cells_else_of_its_training_free_ones():
    short, long = trained("x"), trained("x", train=training_spec(epochs=9))
    mean, other = make("mean"), make("mean", max_length=64)
    boards = build_boards([short, long, mean, other], [A, AB])

    def shown(*records):
        held = boards_showing(boards, [record.spec for record in records], [A])
        return [(board.suite, len(board.spec_ids & {short.spec_id}), "len64" in board.aspects) for board in held]

    assert shown(mean, short) == [("a", 1, False)]
    assert sorted(shown(mean)) == [("a", 0, False), ("a", 1, False)]
    assert shown(other) == [("a", 0, True)]
    assert shown() == []
