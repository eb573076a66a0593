from __future__ import annotations

import numpy as np
import pytest

from fusebench.benchmarks.record import TextSetSpec
from fusebench.benchmarks.tasks import find_tasks, load_task
from fusebench.study.leaks import LeakedPair, find_leaks, normal_form
from fusebench.study.training_data import TrainRows, load_rows


def train(*rows):
    kinds = {1: "sentences", 2: "pairs", 3: "triplets"}
    spec = TextSetSpec(name="made up", sha256="", count=len(rows))
    return TrainRows(spec, kinds[len(rows[0])], tuple(zip(*rows, strict=True)), None, None, "test")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A plane is taking off.", "a  plane is taking off !"),
        ("They don't know", "they do n't know"),
        (
            "The chairman\u2019s speech was long",
            "the chairman\u201a \u00e4\u00f4s speech was long",
        ),  # a quotation mark damaged in the source
        ("snake_case", "snake case"),
    ],
)
def test_case_space_and_punctuation_are_irrelevant(one, other):
    assert normal_form(one) == normal_form(other) != ""


def test_letters_of_other_scripts_count():
    assert normal_form("東京 2020") != normal_form("京都 2020")
    assert normal_form("Привет, мир!") == "приветмир"


def test_a_pair_leaks_in_either_order_and_in_any_two_columns(tiny):
    tiny.write_sts("Own", tiny.pairs(6))
    rows = train(
        ("Right 1!", "left 1", "x"),
        ("y", "left 2", "right 2"),
        ("LEFT 2", "z", "right 2."),
        ("left 4", "left 5", "z"),
    )
    leaks = find_leaks(rows, [tiny.load("Own")])
    assert leaks.pairs == (
        LeakedPair("Own", "default", "test", 1, (0,)),
        LeakedPair("Own", "default", "test", 2, (1, 2)),
    )
    (own,) = leaks.tasks
    assert (own.task, own.texts, own.known_texts) == ("Own", 12, 6)
    assert np.flatnonzero(own.both).tolist() == [1, 2]
    assert np.flatnonzero(own.either).tolist() == [1, 2, 4, 5]
    assert len(own.both) == len(own.either) == 6


def test_sentences_leak_no_pairs(tiny):
    tiny.write_sts("Own", tiny.pairs(3))
    leaks = find_leaks(train(("left 0",), ("right 0",), ("right 2",)), [tiny.load("Own")])
    assert leaks.pairs == ()
    assert leaks.tasks[0].both.tolist() == [True, False, False]
    assert leaks.tasks[0].either.tolist() == [True, False, True]


def test_texts_without_letters_never_match(tiny):
    records = [{"sentence1": "?!", "sentence2": "...", "score": 0.0}, *tiny.pairs(4)]
    tiny.write_sts("Own", records)
    leaks = find_leaks(train(("--", "!!")), [tiny.load("Own")])
    assert leaks.pairs == ()
    assert leaks.tasks[0].known_texts == 0


def test_a_relevant_document_leaks_with_its_query(tiny):
    tiny.write_retrieval("Own")
    leaks = find_leaks(train(("query 3", "Body 153"), ("query 4", "body 155")), [tiny.load("Own")])
    (own,) = leaks.tasks
    assert own.both is own.either is None
    assert own.known_texts == 2  # both queries; odd documents have a title, which training lacks
    titled = train(("Title 153 body 153", "query 3"), ("query 2", "body 152"), ("query 5", "body 152"))
    found = find_leaks(titled, [tiny.load("Own")])
    assert [(pair.row, pair.train_rows) for pair in found.pairs] == [(0, (1,)), (1, (0,))]


def test_nothing_embedded_leaks_into_the_embedded_tasks():
    tasks = [
        load_task(source, limit=None, allow_empty=False) for source in find_tasks(["LeeSTS", "LeeKnownItem"], None)
    ]
    for kind in ("sentences", "pairs"):
        leaks = find_leaks(load_rows("lee-background", None, None, (kind,)), tasks)
        assert leaks.pairs == ()
        assert [task.known_texts for task in leaks.tasks] == [0, 0]


@pytest.mark.parametrize(
    ("name", "both", "pairs", "leaked"),
    [
        ("STS12", 1030, 3108, 1003),
        ("STS14", 1900, 3750, 1861),
        ("STS15", 1109, 3000, 1102),
        ("STSBenchmark", 62, 1379, 12),
    ],
)
def test_known_overlap_of_the_sts_benchmark_with_earlier_years(data_dir, name, both, pairs, leaked):
    rows = load_rows("stsb-train", data_dir, None, ("scored-pairs",))
    (source,) = find_tasks([name], data_dir)
    leaks = find_leaks(rows, [load_task(source, limit=None, allow_empty=True)])
    (task,) = leaks.tasks
    assert (int(task.both.sum()), len(task.both), len(leaks.pairs)) == (both, pairs, leaked)


def test_the_training_sets_are_clean(data_dir):
    tasks = [
        load_task(source, limit=None, allow_empty=True)
        for source in find_tasks(["STS12", "STSBenchmark", "BIOSSES"], data_dir)
    ]
    leaks = find_leaks(load_rows("nli", data_dir, None, ("triplets",)), tasks)
    assert leaks.pairs == ()
    assert [task.known_texts for task in leaks.tasks] == [0, 0, 0]
