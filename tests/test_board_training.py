"""A board with trained rows says what they were given, what it took, and where that was not equal."""

from fusebench.benchmarks.board_files import write_boards
from fusebench.benchmarks.leaderboard import build_boards
from fusebench.benchmarks.store import AskedSuite
from tests.invented_records import make, row_set, trained, training, training_spec

A = AskedSuite("a", "a", ("A",))


def board_of(*records):
    (board,) = build_boards(records, [A])
    return board


def line(board, start):
    """The only line of the caption that starts so."""
    (found,) = [text for text in board.caption if text.startswith(start)]
    return found


def test_the_caption_states_the_budget_of_every_trained_row():
    asked = training_spec(
        data=("nli", "stsb-train"),
        limit=500,
        accumulate=2,
        chunk=16,
        precision="bf16",
        dev=row_set("stsb-dev", "scored-pairs", 1500),
        dev_every=100,
        trials=3,
    )
    board = board_of(trained("x", train=asked), make("mean"), make("cls"))
    assert line(board, "Training of every trained row: ") == (
        "Training of every trained row: 3 epochs on rows from nli, stsb-train, the first 500 rows of each; "
        "batch size 64 x 2 batches an update; 16 texts through the backbone at a time; "
        "learning rate 0.001 (new weights), rising over 10 % of the updates, then falling to 0; "
        "3 learning rates tried, the best on the dev rows kept; weight decay 0.01; gradient norm at most 1; "
        "mixed precision in bfloat16; dev: stsb-dev (1500 scored-pairs, a1b2c3d4) every 100 updates."
    )
    assert line(board, "Training-free rows").endswith("2 of 3.")
    assert "float32, frozen; train: nli (300 triplets, a1b2c3d4); fit: none." in line(board, "Setting")


def test_updates_and_the_backbones_learning_rate_are_said_where_they_count():
    asked = training_spec(epochs=None, steps=1)
    told = line(board_of(trained("x", train=asked, regime="finetune")), "Training of every")
    assert "1 update on rows from nli;" in told
    assert "learning rate 0.001 (new weights), 2e-05 (backbone)," in told
    assert "dev: none, the last weights count" in told


def test_a_board_of_training_free_rows_speaks_of_no_training():
    board = board_of(make("mean"))
    assert board.training is None
    assert not [text for text in board.caption if text.startswith(("Training", "Budgets", "Weights"))]


def test_unequal_updates_or_examples_are_said_plainly_and_equal_ones_are_not():
    more = training(updates=20)
    differing = board_of(trained("x"), trained("y", training=more), trained("z"), make("mean"))
    told = "Budgets differ: 15 updates on 900 examples: x, z; 20 updates on 900 examples: y."
    assert told in differing.caption
    equal = board_of(trained("x"), trained("x", seed=2), trained("y"))
    assert not [text for text in equal.caption if text.startswith("Budgets")]


def test_seeds_with_unequal_updates_are_a_span():
    board = board_of(trained("x"), trained("x", seed=2, training=training(updates=18)), trained("y"))
    assert "Budgets differ: 15-18 updates on 900 examples: x; 15 updates on 900 examples: y." in board.caption
    assert board.training.values["updates"].tolist() == ["15-18", "15"]


def test_the_table_of_training_is_a_mean_over_seeds(tmp_path):
    rows = (row_set(kind="pairs", count=4), row_set("stsb-train", "scored-pairs", 7))
    records = [
        trained("x", train=training_spec(rows=rows), seed=seed, training=took)
        for seed, took in {
            1: training(seconds=1.0, best_update=5, dev_score=0.5, learning_rate_new=1e-3),
            2: training(seconds=2.0, best_update=7, dev_score=0.7, learning_rate_new=1e-4),
        }.items()
    ]
    board = board_of(*records, trained("=y"), make("mean"))
    write_boards([board], tmp_path)
    (path,) = tmp_path.glob("leaderboards/*/training/a.csv")
    assert path.read_text() == (
        "method,regime,trained on,states read,updates,examples,trials,trained parameters,training s,"
        "learning rate (backbone),learning rate (new),best update,dev score,dev score sd\n"
        "'=y,frozen,nli (300 triplets),cached token states,15,900,1,1000,12.50,,0.001,last,,\n"
        'x,frozen,"nli (4 pairs), stsb-train (7 scored-pairs)",cached token states,15,900,1,1000,1.50,,'
        '"0.0001, 0.001",5-7,60.00,14.14\n'
    )
    (page,) = (path.read_text() for path in tmp_path.glob("leaderboards/*/a.md"))
    assert "## What training took" in page
    assert "60.00 ± 14.14" in page.split("## What training took")[1]
    assert "## Without pairs" not in page


def test_saved_weights_that_were_not_trained_here_are_named_and_take_no_line():
    board = board_of(trained("x", weights="1a2b3c4d5e", training=None), trained("x"))
    assert board.training.values["method"].tolist() == ["x"]
    assert line(board, "Weights loaded") == (
        "Weights loaded as they were saved, not trained in these runs: x (saved 1a2b3c4d)."
    )


def test_tables_of_training_go_with_their_boards(tmp_path):
    write_boards(build_boards([trained("x")], [A]), tmp_path)
    assert len(list(tmp_path.glob("leaderboards/*/training/a.csv"))) == 1
    write_boards(build_boards([make("mean")], [A]), tmp_path)
    assert list(tmp_path.glob("leaderboards/*/training/*")) == []
