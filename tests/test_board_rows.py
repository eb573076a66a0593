"""A row is a method with what it was fitted and trained on, and its label says what tells it from others."""

from fusebench.benchmarks.board_rows import method_rows, row_labels
from fusebench.benchmarks.record import TextSetSpec
from tests.invented_records import make, row_set, trained, training, training_spec


def labels(*records):
    return sorted(row_labels(method_rows(list(records))))


def on(*rows, method="x", **changes):
    return trained(method, train=training_spec(rows=rows), **changes)


def test_rows_trained_on_are_named_only_where_a_method_was_trained_on_several():
    pairs, triplets = row_set(kind="pairs"), row_set(kind="triplets")
    assert labels(on(pairs), on(triplets, method="y")) == ["x", "y"]
    assert labels(on(pairs), on(triplets), on(pairs, method="y")) == [
        "x [train: nli pairs]",
        "x [train: nli triplets]",
        "y",
    ]


def test_sets_of_one_name_and_kind_are_told_apart_by_hash():
    one, two = row_set(digest="11112222aa"), row_set(digest="33334444bb")
    stsb = row_set("stsb", "scored-pairs", digest="5555666677")
    assert labels(on(one), on(two)) == ["x [train: nli triplets 11112222]", "x [train: nli triplets 33334444]"]
    assert labels(on(one, stsb), on(one)) == ["x [train: nli triplets, stsb scored-pairs]", "x [train: nli triplets]"]


def test_fit_saved_weights_and_training_are_said_together():
    wiki, news = (TextSetSpec(name=name, sha256=name, count=9) for name in ("wiki", "news"))
    saved = on(row_set(), weights="1a2b3c4d5e", fit=wiki)
    assert labels(saved, make("mean+whiten", fit=news)) == [
        "mean+whiten [fit: news]",
        "x (saved 1a2b3c4d) [fit: wiki]",
    ]


def test_the_newest_record_of_a_seed_and_choice_of_rows_counts():
    old = on(row_set(), value=0.1, code="a", created="2025-01-01T00:00:00Z")
    new, second = on(row_set(), value=0.3, code="b"), on(row_set(), value=0.5, seed=2)
    (row,) = method_rows([new, old, second])
    assert sorted(record.main_score for record in row.cells["A"]) == [0.3, 0.5]


def test_what_a_training_took_is_counted_once_a_seed_however_many_tasks_it_was_scored_on():
    took = {seed: training(seconds=float(seed)) for seed in (2, 1)}
    (row,) = method_rows([on(row_set(), task=t, seed=s, training=took[s]) for s in took for t in "ABC"])
    assert [one.seconds for one in row.trainings] == [1.0, 2.0]
