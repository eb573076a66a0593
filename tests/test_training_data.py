from __future__ import annotations

import csv
import gzip
import json
from itertools import pairwise

import pytest

from fusebench.benchmarks.embedded import fit_articles, fit_sentences
from fusebench.errors import InputError
from fusebench.study.named_sets import set_names
from fusebench.study.training_data import RowSource

EVERY = ("sentences", "pairs", "triplets", "scored-pairs")


def write(tmp_path, name, content):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else "".join(json.dumps(record) + "\n" for record in content)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return str(path)


def load(what, wanted=EVERY, data_dir=None, limit=None):
    return RowSource([what], data_dir, limit).rows(wanted)


def test_the_embedded_sentences_are_those_that_transforms_are_fitted_on():
    rows = load("lee-background", ("sentences",))
    assert rows.columns == (tuple(fit_sentences()),)
    assert (rows.kind, rows.labels, rows.spec.name) == ("sentences", None, "lee-background")


def test_the_embedded_pairs_are_neighbours_and_share_no_sentence():
    rows = load("lee-background", ("pairs",))
    neighbours = {pair for article in fit_articles() for pair in pairwise(article)}
    first, second = rows.columns
    assert set(zip(first, second, strict=True)) <= neighbours
    assert len({*first, *second}) == 2 * rows.spec.count
    assert rows.spec.count > 500


@pytest.mark.parametrize(
    ("name", "content", "kind", "columns"),
    [
        ("a.txt", "one\n\n two \none\n", "sentences", [("one", "two")]),
        ("a.txt.gz", "one\r\ntwo\r\n", "sentences", [("one", "two")]),
        ("a.jsonl", [{"text": "one\u2028line"}, {"text": "two"}], "sentences", [("one\u2028line", "two")]),
        ("a.jsonl", '"one"\n"two"\n', "sentences", [("one", "two")]),
        (
            "a.csv",
            'question,answer\none,two\n"three, four","fi\nve"\n',
            "pairs",
            [("one", "three, four"), ("two", "fi\nve")],
        ),
        ("a.tsv", "id\ta\tb\n1\tone\ttwo\n", "pairs", [("one",), ("two",)]),
        ("a.jsonl.gz", [{"a": "one", "b": "two", "c": "three"}], "triplets", [("one",), ("two",), ("three",)]),
        ("a.csv", "\ufeffsent0,sent1,hard_neg,note\none,two,three,x\n", "triplets", [("one",), ("two",), ("three",)]),
        ("a.jsonl", [{"negative": "three", "anchor": "one", "positive": "two", "from": "x"}], "triplets", None),
    ],
)
def test_columns_decide_the_kind(tmp_path, name, content, kind, columns):
    rows = load(write(tmp_path, name, content))
    assert rows.kind == kind
    assert rows.columns == tuple(columns or [("one",), ("two",), ("three",)])
    assert rows.labels is None
    assert rows.spec.count == len(rows.columns[0])


def test_scores_are_rescaled_and_the_scale_is_kept(tmp_path):
    records = [{"a": f"left {i}", "b": f"right {i}", "score": score} for i, score in enumerate([1, 5, 2.0])]
    rows = load(write(tmp_path, "a.jsonl", records))
    assert (rows.kind, rows.labels, rows.scale) == ("scored-pairs", (0.0, 1.0, 0.25), (1.0, 5.0))


def test_scores_from_zero_to_one_stay_as_they_are(tmp_path):
    rows = load(write(tmp_path, "a.csv", "a,b,score\none,two,0.25\nthree,four,0.5\n"))
    assert (rows.labels, rows.scale) == ((0.25, 0.5), (0.0, 1.0))


def test_the_scale_does_not_depend_on_the_limit(tmp_path):
    path = write(tmp_path, "a.csv", "a,b,score\none,two,2\nthree,four,4\nfive,six,0\n")
    assert load(path, limit=2).labels == load(path).labels[:2] == (0.5, 1.0)


def test_a_limit_takes_the_first_rows(tmp_path):
    path = write(tmp_path, "a.csv", "a,b\none,two\nthree,four\nfive,six\n")
    rows = load(path, limit=2)
    assert rows.columns == (("one", "three"), ("two", "four"))
    assert rows.spec.count == 2
    assert rows.spec.sha256 != load(path).spec.sha256
    assert load(path, limit=99).spec == load(path).spec
    with pytest.raises(InputError, match="limit of 0"):
        load(path, limit=0)


def test_the_hash_covers_kind_texts_and_labels(tmp_path):
    same = "a,b,score\none,two,1\nthree,four,0\n"
    first, second = (load(write(tmp_path, name, same)) for name in ("a.csv", "b.csv"))
    assert first.spec.sha256 == second.spec.sha256
    assert first.spec.name == "a.csv"
    other = [
        load(write(tmp_path, "c.csv", same.replace("four", "fore"))),
        load(write(tmp_path, "d.csv", same.replace(",1", ",0.5"))),
        load(write(tmp_path, "e.csv", "a,b\none,two\nthree,four\n")),
    ]
    assert len({rows.spec.sha256 for rows in (first, *other)}) == 4


def test_triplets_serve_as_pairs_and_as_sentences(tmp_path):
    path = write(tmp_path, "a.csv", "a,p,n\none,two,three\none,four,five\n")
    assert load(path, ("pairs",)).columns == (("one", "one"), ("two", "four"))
    assert load(path, ("sentences",)).columns == (("one", "two", "three", "four", "five"),)
    assert load(path, ("pairs", "triplets")).kind == "triplets"


def test_other_kinds_are_refused_with_what_is_needed(tmp_path):
    scored = write(tmp_path, "a.csv", "a,b,score\none,two,1\n")
    for wanted in ("sentences", "pairs", "triplets"):
        with pytest.raises(InputError, match=f"holds scored-pairs, but the objective reads {wanted}"):
            load(scored, (wanted,))
    with pytest.raises(InputError, match="holds sentences, but the objective reads pairs or triplets"):
        load(write(tmp_path, "b.txt", "one\n"), ("pairs", "triplets"))


def test_pairs_with_labels_in_words_are_never_positives(tmp_path):
    records = [{"premise": "one", "hypothesis": "two", "label": "contradiction"}]
    path = write(tmp_path, "a.jsonl", records)
    assert load(path, ("sentences",)).columns == (("one", "two"),)
    with pytest.raises(InputError, match="'label' is no number"):
        load(path, ("pairs",))


def test_members_of_a_group_make_pairs_far_apart_in_the_order(tmp_path):
    groups = [
        {"captions": ["a1", "a2", "a2", "a3", "a4", "a5"]},
        {"captions": ["b1", "b2", "b3"]},
        {"captions": ["c1"]},
    ]
    path = write(tmp_path, "a.jsonl", groups)
    assert load(path, ("pairs",)).columns == (("a1", "b1", "a3"), ("a2", "b2", "a4"))
    assert load(path, ("sentences",)).spec.count == 9


def test_a_folder_is_read_as_one_file(tmp_path):
    write(tmp_path, "set/b.txt", "three\none\n")
    write(tmp_path, "set/a.txt.gz", "one\ntwo\n")
    write(tmp_path, "set/README.md", "no text")
    assert load(str(tmp_path / "set")).columns == (("one", "two", "three"),)


def test_a_folder_below_the_data_folder_is_found_by_name(tmp_path):
    write(tmp_path, "train/own/a.csv", "a,b\none,two\n")
    rows = load("own", data_dir=tmp_path)
    assert (rows.kind, rows.spec.name, rows.source) == ("pairs", "own", "own")


def test_a_changed_file_gives_changed_rows(tmp_path):
    path = write(tmp_path, "a.csv", "a,b\none,two\n")
    before = load(path)
    write(tmp_path, "a.csv", "a,b\none,too\n")
    assert load(path).columns == (("one",), ("too",))
    assert load(path).spec != before.spec


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "a,b\none,two\nthree,\n", "row 2 has no text in column 'b'"),
        ("a.csv", "a,b\none\n", "row 1 has no text in column 'b'"),
        ("a.csv", "a,b\none,two,three\n", "row 1 is no object"),
        ("a.csv", 'a,b\none,"two\n', "cannot be read as csv"),
        ("a.csv", "a,b,c,d\none,two,three,four\n", "it has 4 .a, b, c, d"),
        ("a.csv", "score\n1\n", "it has 0"),
        ("a.csv", "a,b\n", "holds no rows|it has 0"),
        ("a.txt", "\n\n", "holds no rows"),
        ("a.jsonl", '{"a": "one"\n', "cannot be read as jsonl"),
        ("a.jsonl", [{"a": "one", "b": "two"}, {"a": "three"}], "row 2 has no text in column 'b'"),
        ("a.jsonl", [["one", "two"]], "row 1 is no object"),
        (
            "a.jsonl",
            [{"a": "x", "b": "y", "score": 1}, {"a": "x", "b": "y"}],
            "row 2 has no number in column 'score'",
        ),
        ("a.csv", "a,b,score\none,two,3\nthree,four,3\n", "all scores are 3"),
        ("a.jsonl", [{"a": ["x", "y"]}, {"a": ["x", 3]}], "row 2 has no list of texts in column 'a'"),
        ("a.jsonl", [{"a": ["x", "y"]}, {"a": 3}], "row 2 has no list of texts in column 'a'"),
        ("a.jsonl", [{"a": ["x", "y"]}, {"a": "x"}], "row 1 has no text in column 'a'"),
        ("a.jsonl", [{"a": ["x"], "b": "y"}, {"a": ["z"]}], "row 2 has no text in column 'b'"),
        ("a.txt.gz", "", "cannot be read as txt|holds no rows"),
        ("a.pdf", "one", "rows are read from"),
        ("set/README.md", "one", "no such set|holds no file"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, name, content, message):
    path = write(tmp_path, name, content)
    with pytest.raises(InputError, match=message):
        load(str(tmp_path / "set") if name.startswith("set/") else path)


def test_files_of_several_kinds_are_not_mixed(tmp_path):
    write(tmp_path, "set/a.csv", "a,b\none,two\n")
    write(tmp_path, "set/b.txt", "one\n")
    with pytest.raises(InputError, match=r"a\.csv: pairs, b\.txt: sentences\); name one of them"):
        load(str(tmp_path / "set"))


def test_an_unknown_set_is_refused_with_the_names_there_are():
    with pytest.raises(
        InputError, match=r"no such set .*lee-background, nli, stsb-train, stsb-dev, wiki1m, flickr30k"
    ):
        load("nil")


@pytest.mark.parametrize("name", ["nli", "stsb-train", "stsb-dev", "wiki1m", "flickr30k"])
def test_a_named_set_that_cannot_be_had_says_where_to_put_it(name, tmp_path):
    with pytest.raises(InputError, match=r"into (train|STSBenchmark)/.* below --data-dir"):
        load(name, data_dir=tmp_path)


def test_the_hub_stands_in_for_a_missing_folder(monkeypatch):
    import datasets

    table = datasets.Dataset.from_dict(
        {"negative": ["three"], "anchor": ["one"], "positive": ["two"], "other": ["x"]}
    )
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or table)
    rows = load("nli", ("triplets",))
    assert rows.columns == (("one",), ("two",), ("three",))
    assert rows.source == "hub: sentence-transformers/all-nli, triplet"
    assert asked == [(("sentence-transformers/all-nli", "triplet"), {"split": "train"})]


def test_the_hub_gives_the_dev_part_as_such(monkeypatch):
    import datasets

    table = datasets.Dataset.from_dict({"sentence1": ["one"], "sentence2": ["two"], "score": [4.0]})
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or table)
    assert load("stsb-dev").labels == (0.8,)
    assert load("stsb-train").labels == (0.8,)
    path = ("mteb/stsbenchmark-sts", None)
    assert asked == [(path, {"split": "validation"}), (path, {"split": "train"})]


def test_of_several_sets_the_first_that_holds_the_best_kind_as_it_is_serves(tmp_path):
    names = [
        write(tmp_path, "t.csv", "a,p,n\none,two,three\n"),
        write(tmp_path, "p.csv", "a,b\nfour,five\n"),
        write(tmp_path, "q.csv", "a,b\nsix,seven\n"),
        write(tmp_path, "s.csv", "a,b,score\none,two,0.5\n"),
    ]
    source = RowSource(names, None, None)
    for wanted, name, kind in [
        (("triplets", "pairs"), "t.csv", "triplets"),
        (("pairs", "triplets"), "p.csv", "pairs"),  # not the triplets of the first set, cut to pairs
        (("scored-pairs", "pairs"), "s.csv", "scored-pairs"),
        (("sentences",), "t.csv", "sentences"),  # no set holds sentences as they are
    ]:
        assert (source.rows(wanted).spec.name, source.rows(wanted).kind) == (name, kind)


def test_sentences_as_they_are_win_over_taking_an_earlier_set_apart(tmp_path):
    names = [write(tmp_path, "t.csv", "a,p,n\none,two,three\n"), write(tmp_path, "s.txt", "four\n")]
    assert RowSource(names, None, None).rows(("sentences",)).columns == (("four",),)


def test_what_no_set_holds_is_refused_with_what_each_holds(tmp_path):
    names = [write(tmp_path, "t.csv", "a,p,n\none,two,three\n"), write(tmp_path, "s.txt", "four\n")]
    with pytest.raises(
        InputError, match=r"--train t\.csv holds triplets and s\.txt holds sentences, but angle reads scored-pairs"
    ):
        RowSource(names, None, None).rows(("scored-pairs",), reader="angle")
    for nothing in ([], [""], [" "]):
        with pytest.raises(InputError, match="--train is empty"):
            RowSource(nothing, None, None)


def test_a_name_that_no_file_can_have_is_refused():
    with pytest.raises(InputError, match="cannot be looked up"):
        load("x" * 300)


def test_a_set_is_read_once_for_all_objectives(tmp_path):
    path = write(tmp_path, "a.csv", "a,p,n\none,two,three\n")
    source = RowSource([path, path], None, None)
    (tmp_path / "a.csv").unlink()
    assert source.rows(("pairs",)) is source.rows(("pairs",))
    assert source.rows(("pairs",)).columns == source.rows(("triplets",)).columns[:2]


def test_whole_numbers_as_labels_are_not_taken_for_scores(tmp_path):
    records = [{"premise": "one", "hypothesis": f"two {label}", "label": label} for label in (0, 1, 2)]
    with pytest.raises(InputError, match="may be classes"):
        load(write(tmp_path, "a.jsonl", records))
    same = [{"a": "one", "b": f"two {label}", "label": label} for label in (0, 1)]
    assert load(write(tmp_path, "b.jsonl", same)).labels == (0.0, 1.0)


def test_rows_that_are_left_out_change_count_and_hash(tmp_path):
    rows = load(write(tmp_path, "a.csv", "a,b,score\none,two,0.1\nthree,four,0.2\nfive,six,0.3\n"))
    left = rows.without([1])
    same = load(write(tmp_path, "a.csv", "a,b,score\none,two,0.1\nfive,six,0.3\n"))
    assert left == same
    assert (left.spec.count, left.labels) == (2, (0.1, 0.3))
    with pytest.raises(InputError, match=r"nothing is left of the rows of a\.csv"):
        rows.without(range(3))


def test_the_specification_names_the_kind(tmp_path):
    assert load(write(tmp_path, "a.csv", "a,b\none,two\n")).spec.kind == "pairs"


def test_groups_number_equal_first_texts(tmp_path):
    rows = load(write(tmp_path, "a.csv", "a,b\none,two\nthree,four\none,five\n"))
    assert rows.groups() == (0, 1, 0)


def test_local_files_are_read_without_datasets(monkeypatch, data_dir):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    assert load("nli", ("triplets",), data_dir).spec.count == 5697


def test_real_triplets_are_the_rows_of_the_file(data_dir):
    rows = load("nli", ("triplets",), data_dir)
    with (data_dir / "train/SNLI-dev-test/triplets.csv").open(encoding="utf-8", newline="") as stream:
        records = list(csv.DictReader(stream))
    assert list(zip(*rows.columns, strict=True)) == [(r["sent0"], r["sent1"], r["hard_neg"]) for r in records]
    assert load("nli", ("pairs",), data_dir).columns == rows.columns[:2]


def test_real_scored_pairs_are_fifths(data_dir):
    rows = load("stsb-train", ("scored-pairs",), data_dir)
    lines = (data_dir / "STSBenchmark/train.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert rows.spec.count == 5749
    assert rows.scale == (0.0, 5.0)
    assert rows.labels == pytest.approx([record["score"] / 5 for record in records])
    assert rows.columns[1] == tuple(record["sentence2"].strip() for record in records)


@pytest.mark.parametrize(
    ("name", "wanted", "count"),
    [
        ("wiki1m", "sentences", 55437),
        ("flickr30k", "pairs", 57665),
        ("nltk-sentences", "sentences", 115649),
        ("wordnet-glosses", "sentences", 161105),
        ("SNLI-dev-test/pairs.jsonl.gz", "sentences", 25396),
    ],
)
def test_real_sets_have_their_counts(data_dir, name, wanted, count):
    rows = load(name, (wanted,), data_dir)
    assert (rows.kind, rows.spec.count) == (wanted, count)


def test_flickr_pairs_describe_one_picture_and_share_no_caption_there(data_dir):
    rows = load("flickr30k", ("pairs",), data_dir, limit=3)
    with gzip.open(data_dir / "train/Flickr30k-captions/train.jsonl.gz", "rt", encoding="utf-8") as stream:
        captions = [json.loads(next(stream))["captions"] for _ in range(3)]
    assert list(zip(*rows.columns, strict=True)) == [(c[0].strip(), c[1].strip()) for c in captions]


def test_every_named_set_is_documented():
    assert all(f"`{name}`" in RowSource.__doc__ for name in set_names())
