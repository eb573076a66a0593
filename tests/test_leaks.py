from __future__ import annotations

import numpy as np
import pytest

from fusebench.benchmarks.record import RowSetSpec
from fusebench.benchmarks.tasks import find_tasks, load_task
from fusebench.study.leaks import LeakedPair, find_leaks, normal_form, task_forms, union
from fusebench.study.training_data import RowSource, TrainRows


def train(*rows):
    kinds = {1: "sentences", 2: "pairs", 3: "triplets"}
    spec = RowSetSpec(name="made up", sha256="", count=len(rows), kind=kinds[len(rows[0])])
    return TrainRows(spec, tuple(zip(*rows, strict=True)), None, None, "test")


def leaks_of(rows, task):
    (found,) = find_leaks(rows, [task_forms(task)])
    return found


def load_rows(name, data_dir, limit, wanted):
    return RowSource([name], data_dir, limit).rows(wanted)


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
    own = leaks_of(rows, tiny.load("Own"))
    assert own.pairs == (
        LeakedPair("Own", "default", "test", 1, (0,)),
        LeakedPair("Own", "default", "test", 2, (1, 2)),
    )
    assert (own.of.task, len(own.of.forms), own.known_texts) == ("Own", 12, 6)
    assert np.flatnonzero(own.both).tolist() == [1, 2]
    assert np.flatnonzero(own.either).tolist() == [1, 2, 4, 5]
    assert len(own.both) == len(own.either) == 6


def test_leaks_are_those_of_a_slow_loop_over_all_pairs(tiny):
    rng = np.random.default_rng(0)
    words = [f"text {number}" for number in range(12)] + ["", "?"]
    draw = lambda: words[rng.integers(len(words))]  # noqa: E731
    records = [{"sentence1": draw(), "sentence2": draw(), "score": float(i)} for i in range(60)]
    tiny.write_sts("Own", records)
    triplets = [(draw(), draw(), draw()) for _ in range(25)]
    own = leaks_of(train(*triplets), tiny.load("Own", allow_empty=True))
    expected = {}
    for row, record in enumerate(records):
        asked = [normal_form(record["sentence1"]), normal_form(record["sentence2"])]
        for number, triplet in enumerate(triplets):
            for i, j in ((0, 1), (0, 2), (1, 2)):
                given = [normal_form(triplet[i]), normal_form(triplet[j])]
                if sorted(asked) == sorted(given) and "" not in asked:
                    expected.setdefault(row, {})[number] = None
    assert {pair.row: dict.fromkeys(pair.train_rows) for pair in own.pairs} == expected
    assert expected
    known = {normal_form(text) for triplet in triplets for text in triplet} - {""}
    counts = [sum(normal_form(record[key]) in known for key in ("sentence1", "sentence2")) for record in records]
    assert own.both.tolist() == [count == 2 for count in counts]
    assert own.either.tolist() == [count > 0 for count in counts]


def test_a_pair_may_have_each_text_from_another_row_set(tiny):
    tiny.write_sts("Own", tiny.pairs(3))
    forms = [task_forms(tiny.load("Own"))]
    (left,), (right,) = (find_leaks(train(texts), forms) for texts in (("left 0", "left 1"), ("right 0", "x")))
    assert not left.both.any()
    assert not right.both.any()
    assert union([left, right]).both.tolist() == [True, False, False]
    assert union([left, right]).known_texts == 3


def test_sentences_leak_no_pairs(tiny):
    tiny.write_sts("Own", tiny.pairs(3))
    own = leaks_of(train(("left 0",), ("right 0",), ("right 2",)), tiny.load("Own"))
    assert own.pairs == ()
    assert own.both.tolist() == [True, False, False]
    assert own.either.tolist() == [True, False, True]


def test_texts_without_letters_never_match(tiny):
    records = [{"sentence1": "?!", "sentence2": "...", "score": 0.0}, *tiny.pairs(4)]
    tiny.write_sts("Own", records)
    own = leaks_of(train(("--", "!!")), tiny.load("Own"))
    assert own.pairs == ()
    assert own.known_texts == 0


def test_a_relevant_document_leaks_with_its_query(tiny):
    tiny.write_retrieval("Own")
    own = leaks_of(train(("query 3", "Body 153"), ("query 4", "body 155")), tiny.load("Own"))
    assert own.both is own.either is None
    assert own.known_texts == 2  # both queries; odd documents have a title, which training lacks
    titled = train(("Title 153 body 153", "query 3"), ("query 2", "body 152"), ("query 5", "body 152"))
    found = leaks_of(titled, tiny.load("Own"))
    assert [(pair.row, pair.train_rows) for pair in found.pairs] == [(0, (1,)), (1, (0,))]


def test_nothing_embedded_leaks_into_the_embedded_tasks():
    sources = find_tasks(["LeeSTS", "LeeKnownItem"], None)
    forms = [task_forms(load_task(source, limit=None, allow_empty=False)) for source in sources]
    for kind in ("sentences", "pairs"):
        leaks = find_leaks(load_rows("lee-background", None, None, (kind,)), forms)
        assert [(task.pairs, task.known_texts) for task in leaks] == [((), 0), ((), 0)]


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
    task = leaks_of(rows, load_task(source, limit=None, allow_empty=True))
    assert (int(task.both.sum()), len(task.both), len(task.pairs)) == (both, pairs, leaked)


def test_the_training_sets_are_clean(data_dir):
    sources = find_tasks(["STS12", "STSBenchmark", "BIOSSES"], data_dir)
    forms = [task_forms(load_task(source, limit=None, allow_empty=True)) for source in sources]
    leaks = find_leaks(load_rows("nli", data_dir, None, ("triplets",)), forms)
    assert [(task.pairs, task.known_texts) for task in leaks] == [((), 0)] * 3
