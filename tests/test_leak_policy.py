from __future__ import annotations

import pytest

from fusebench.benchmarks.record import Overlap
from fusebench.benchmarks.tasks import find_tasks, load_task
from fusebench.errors import InputError
from fusebench.study.dev_rows import load_dev
from fusebench.study.leak_policy import check_leaks
from fusebench.study.leak_words import listed, shortened
from fusebench.study.training_data import RowSource


@pytest.fixture
def rows(tmp_path):
    """A writer of row sets: name, texts of each row."""

    def write(name, *records):
        header = ["a", "p", "n"][: len(records[0])]
        path = tmp_path / name
        path.write_text("\n".join(",".join(record) for record in (header, *records)) + "\n")
        return RowSource([str(path)], None, None).rows(("triplets", "pairs"))

    return write


@pytest.fixture
def own(tiny):
    tiny.write_sts("Own", tiny.pairs(20))
    return tiny.load("Own")


def sts_benchmark(tiny, file, *records):
    """The named set of that file, made of these records."""
    scored = [{"sentence1": left, "sentence2": right, "score": number % 6} for number, (left, right) in records]
    tiny.write_jsonl(tiny.root / "STSBenchmark" / file, scored)


def test_a_training_pair_that_is_a_test_pair_is_refused_with_place_and_ways_out(rows, own):
    found = rows("t.csv", ("x", "y"), ("RIGHT 3", "Left 3!"), ("left 4", "right 4"))
    with pytest.raises(InputError) as refused:
        check_leaks([found], None, [own], drop=False)
    first, *others = str(refused.value).split("\n")
    assert "2 of Own in t.csv" in first
    assert "--drop-leaks" in first
    assert "run without Own" in first
    assert others == [
        "  t.csv row 2 is Own test row 4: RIGHT 3 | Left 3!",
        "  t.csv row 3 is Own test row 5: left 4 | right 4",
    ]


def test_a_dev_pair_is_refused_like_a_training_pair(rows, own):
    dev = rows("d.csv", ("left 3", "right 3"), ("x", "y"))
    with pytest.raises(InputError, match=r"1 of Own in d\.csv"):
        check_leaks([rows("t.csv", ("x", "z"))], dev, [own], drop=False)


def test_ten_leaks_are_listed_and_the_others_counted(rows, own):
    found = rows("t.csv", *[(f"left {i}", f"right {i}") for i in range(13)])
    with pytest.raises(InputError) as refused:
        check_leaks([found], None, [own], drop=False)
    lines = str(refused.value).split("\n")
    assert len(lines) == 1 + 10 + 1
    assert lines[-1] == "  and 3 more"


def test_dropped_rows_leave_the_others_with_a_hash_of_their_own(rows, own):
    train = rows("t.csv", ("a", "b"), ("left 3", "right 3"), ("c", "d"))
    other = rows("o.csv", ("e", "f"))
    dev = rows("d.csv", ("left 4", "right 4"), ("g", "h"), ("i", "j"))
    report = check_leaks([train, other, train], dev, [own], drop=True)
    assert [one.columns for one in report.train] == [
        (("a", "c"), ("b", "d")),
        (("e",), ("f",)),
        (("a", "c"), ("b", "d")),
    ]
    assert report.train[1] is other
    assert report.train[0] == rows("t.csv", ("a", "b"), ("c", "d"))
    assert report.dev.columns == (("g", "i"), ("h", "j"))
    assert "t.csv: 1 of 3 rows are left out, because they are test pairs of Own" in report.notes
    assert report.overlap("Own", [*report.train, report.dev]).known_texts == 0  # nothing of what was left out counts


def test_a_set_of_nothing_but_test_pairs_cannot_be_dropped(rows, own):
    with pytest.raises(InputError, match=r"nothing is left of the rows of t\.csv"):
        check_leaks([rows("t.csv", ("left 3", "right 3"))], None, [own], drop=True)


def test_texts_that_both_have_are_counted_and_never_refused(rows, own):
    train = rows("t.csv", ("left 0", "x"), ("right 0", "left 1"))
    dev = rows("d.csv", ("right 1", "y"), ("z", "w"))
    report = check_leaks([train], dev, [own], drop=False)
    assert (report.train, report.dev) == ((train,), dev)
    expected = {"texts": 40, "pairs": 20, "main_score_without": None}
    assert report.overlap("Own", [train]) == Overlap(known_texts=3, pairs_both_known=1, **expected)
    assert report.overlap("Own", [dev]) == Overlap(known_texts=1, pairs_both_known=0, **expected)
    assert report.overlap("Own", [train, dev]) == Overlap(known_texts=4, pairs_both_known=2, **expected)
    assert report.notes == ("Own: both sentences of 2 of 20 pairs occur in t.csv or d.csv",)
    assert report.without_known(own, [train, dev]) is None


def test_a_retrieval_task_is_counted_in_texts(rows, tiny, own):
    tiny.write_retrieval("Found")
    train = rows("t.csv", ("query 3", "x"))
    report = check_leaks([train], None, [own, tiny.load("Found")], drop=False)
    overlap = report.overlap("Found", [train])
    assert (overlap.known_texts, overlap.pairs, overlap.pairs_both_known) == (1, None, None)
    assert report.notes == ("Found: 1 of 206 texts occur in t.csv", "no text of Own occurs in t.csv")


def test_dev_rows_that_are_trained_on_are_told(rows, own):
    train = rows("t.csv", ("a", "b", "c"), ("d", "e", "f"))
    dev = rows("d.csv", ("B", "a"), ("d", "f"))
    notes = check_leaks([train], dev, [own], drop=False).notes
    assert any("dev rows d.csv: 1 of 2 are training rows too" in note for note in notes)


@pytest.mark.parametrize("drop", [False, True])
def test_the_sts_benchmark_may_hold_pairs_of_earlier_years_which_get_a_second_score(tiny, drop):
    tiny.write_sts("STS12", tiny.pairs(8))
    records = [(i, (f"left {i}", f"right {i}")) for i in range(3)]
    sts_benchmark(tiny, "train.jsonl", *records)
    train = RowSource(["stsb-train"], tiny.root, None).rows(("scored-pairs",))
    task = tiny.load("STS12")
    report = check_leaks([train], None, [task], drop=drop)
    assert report.train == (train,)
    part = report.without_known(task, [train])
    assert [text for _, text in part.inputs()] == [f"{side} {i}" for side in ("left", "right") for i in range(3, 8)]
    assert "both sentences of 3 of 8 pairs occur in stsb-train; its score is also given without" in report.notes[0]


def test_the_exemption_is_for_these_sets_and_these_tasks_only(tiny, rows, own):
    tiny.write_sts("STS12", tiny.pairs(8))
    sts_benchmark(tiny, "train.jsonl", *[(i, (f"left {i}", f"right {i}")) for i in range(3)])
    train = RowSource(["stsb-train"], tiny.root, None).rows(("scored-pairs",))
    with pytest.raises(InputError, match="3 of Own in stsb-train: leave"):
        check_leaks([train], None, [own, tiny.load("STS12")], drop=False)
    copied = rows("stsb-train.csv", ("left 0", "right 0"))
    with pytest.raises(InputError, match=r"1 of STS12 in stsb-train\.csv"):
        check_leaks([copied], None, [tiny.load("STS12")], drop=False)


def test_a_folder_that_is_called_like_the_sts_benchmark_is_not_exempt(tiny):
    tiny.write_sts("STS12", tiny.pairs(8))
    tiny.write_jsonl(tiny.root / "mine" / "stsb-train" / "a.jsonl", [{"a": "left 0", "b": "right 0"}])
    mine = RowSource([str(tiny.root / "mine" / "stsb-train")], None, None).rows(("pairs",))
    assert mine.spec.name == "stsb-train"
    with pytest.raises(InputError, match="1 of STS12 in stsb-train"):
        check_leaks([mine], None, [tiny.load("STS12")], drop=False)


def test_no_second_score_is_promised_on_too_few_pairs(tiny):
    tiny.write_sts("STS12", tiny.pairs(5))
    sts_benchmark(tiny, "train.jsonl", *[(i, (f"left {i}", f"right {i}")) for i in range(3)])
    train = RowSource(["stsb-train"], tiny.root, None).rows(("scored-pairs",))
    task = tiny.load("STS12")
    report = check_leaks([train], None, [task], drop=False)
    assert report.without_known(task, [train]) is None
    assert report.notes[0].endswith("too few others are left for a score without these")


def test_a_method_that_saw_other_rows_has_no_second_score(tiny, rows):
    tiny.write_sts("STS12", tiny.pairs(8))
    sts_benchmark(tiny, "train.jsonl", *[(i, (f"left {i}", f"right {i}")) for i in range(3)])
    train = RowSource(["stsb-train"], tiny.root, None).rows(("scored-pairs",))
    other, task = rows("o.csv", ("left 0", "y")), tiny.load("STS12")
    report = check_leaks([train, other], None, [task], drop=False)
    assert report.without_known(task, [other]) is None
    assert report.overlap("STS12", [other]).pairs_both_known == 0
    assert report.overlap("STS12", [train]).pairs_both_known == 3


def test_texts_are_shortened_to_one_line_of_sixty_characters():
    assert shortened("a\n b") == "a b"
    assert shortened("x" * 60) == "x" * 60
    assert shortened("x" * 61) == "x" * 57 + "..."


def test_words_are_listed_as_people_do():
    assert [listed(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


def test_real_sets_are_in_the_domain_of_captions(data_dir):
    (source,) = find_tasks(["SICK-R"], data_dir)
    task = load_task(source, limit=30, allow_empty=False)
    train = RowSource(["flickr30k"], data_dir, 100).rows(("pairs",))
    assert check_leaks([train], None, [task], drop=False).notes == (
        "no text of SICK-R occurs in flickr30k",
        "flickr30k: captions, in-domain for SICK-R",
    )


def test_real_leaks_of_the_sts_benchmark_are_refused_or_dropped(data_dir):
    names = ["STS12", "STSBenchmark", "SICK-R", "SciFact"]
    tasks = [load_task(source, limit=None, allow_empty=True) for source in find_tasks(names, data_dir)]
    source = RowSource(["nli", "stsb-train"], data_dir, None)
    train = [source.rows((kind,)) for kind in ("triplets", "scored-pairs")]
    dev = load_dev("stsb-dev", data_dir)
    with pytest.raises(InputError, match=r"12 of STSBenchmark in stsb-train, 120 of SICK-R in stsb-train, 4 of"):
        check_leaks(train, dev, tasks, drop=False)
    report = check_leaks(train, dev, tasks, drop=True)
    assert [one.spec.count for one in (*report.train, report.dev)] == [5697, 5749 - 132, 1500 - 26]
    both = [report.overlap(name, [*report.train, report.dev]).pairs_both_known for name in names]
    assert both[0] == 1225
    assert both[3] is None
    part = report.without_known(tasks[0], [*report.train, report.dev])
    assert len(list(part.inputs())) == 2 * (3108 - 1225)
    assert all(any(name in note for note in report.notes) for name in names)
