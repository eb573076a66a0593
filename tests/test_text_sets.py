from __future__ import annotations

import gzip
import json
import random

import pytest

from fusebench.benchmarks.embedded import fit_sentences
from fusebench.errors import InputError
from fusebench.study.text_sets import DEFAULT, load_texts, read_texts

TEXTS = ["a cat", "a dog, and a mat", 'she said "mat"', "Größe 日本"]


def _content(kind):
    if kind == "txt":
        return "".join(text + "\n" for text in TEXTS)
    if kind == "jsonl":
        return "".join(json.dumps({"id": i, "text": text}, ensure_ascii=False) + "\n" for i, text in enumerate(TEXTS))
    quoted = ['"' + text.replace('"', '""') + '"' for text in TEXTS]
    comma = "," if kind == "csv" else "\t"
    return f"text{comma}label\n" + "".join(f"{text}{comma}good\n" for text in quoted)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "tsv"])
def test_each_kind_of_file_gives_the_same_texts_gzipped_or_not(tmp_path, kind, packed):
    raw = _content(kind).encode()
    file = tmp_path / f"set.{kind}{'.gz' if packed else ''}"
    file.write_bytes(gzip.compress(raw) if packed else raw)
    assert list(dict.fromkeys(text for text in read_texts(file) if text)) == TEXTS
    assert load_texts(str(file), None).texts == tuple(TEXTS)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "tsv"])
def test_line_ends_and_a_byte_order_mark_are_no_part_of_a_text(tmp_path, kind, end):
    file = tmp_path / f"set.{kind}"
    file.write_bytes(b"\xef\xbb\xbf" + _content(kind).replace("\n", end).encode())
    assert load_texts(str(file), None).texts == tuple(TEXTS)


@pytest.mark.parametrize(
    ("kind", "sign"),
    [("txt", "\u2028"), ("txt", "\x85"), ("txt", "\x0b"), ("txt", "\x1c"), ("jsonl", "\u2028"), ("jsonl", "\x85")],
)
def test_only_a_line_feed_ends_a_line(tmp_path, kind, sign):
    text = f"one{sign}text"
    escaped = json.dumps({"text": text}, ensure_ascii=False)
    (tmp_path / f"set.{kind}").write_text(escaped if kind == "jsonl" else text, encoding="utf-8", newline="")
    assert load_texts(str(tmp_path / f"set.{kind}"), None).texts == (text,)


def test_every_text_column_counts_and_labels_do_not(tmp_path):
    rows = [{"_id": "q", "premise": "a cat", "hypotheses": ["a dog", "a mat"], "label": "entailment", "score": 3}]
    (tmp_path / "set.jsonl").write_text(json.dumps(rows[0]) + "\n\n")
    (tmp_path / "set.csv").write_text("premise,hypothesis,label,split\na cat,a dog,neutral,train\n")
    assert load_texts(str(tmp_path / "set.jsonl"), None).texts == ("a cat", "a dog", "a mat")
    assert load_texts(str(tmp_path / "set.csv"), None).texts == ("a cat", "a dog")


def test_a_name_is_a_folder_or_a_file_below_train(tmp_path):
    folder = tmp_path / "train" / "captions"
    folder.mkdir(parents=True)
    (folder / "b.txt").write_text("second\n")
    (folder / "a.txt").write_text("first\n")
    (folder / "LICENSE").write_text("not a text\n")
    (tmp_path / "train" / "lone.txt").write_text("alone\n")
    found = load_texts("captions", tmp_path)
    assert found.texts == ("first", "second")
    assert (found.spec.name, found.spec.count) == ("captions", 2)
    assert load_texts("lone.txt", tmp_path).texts == ("alone",)


def test_repeated_and_blank_texts_count_once_or_not_at_all(tmp_path):
    (tmp_path / "set.txt").write_text("b\n\na\n  b \n\t\nb\n")
    found = load_texts(str(tmp_path / "set.txt"), None)
    assert found.texts == ("b", "a")
    assert found.spec.count == 2


def test_the_hash_follows_the_texts_and_not_where_they_lie(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "here" / "set.txt").write_text("a\nb\n")
    (tmp_path / "there" / "set.txt").write_text("a\nb\n\na\n")
    (tmp_path / "there" / "other.txt").write_text("b\na\n")
    here = load_texts(str(tmp_path / "here" / "set.txt"), None)
    there = load_texts(str(tmp_path / "there" / "set.txt"), None)
    other = load_texts(str(tmp_path / "there" / "other.txt"), None)
    assert here.spec == there.spec
    assert other.spec.sha256 != here.spec.sha256, "the order of the texts can move a sum of floats"
    assert load_texts(str(tmp_path / "here" / ".." / "here"), None).spec.name == "here"


def test_texts_cannot_be_moved_across_their_borders_unnoticed(tmp_path):
    (tmp_path / "one.jsonl").write_text('["a", "b c"]')
    (tmp_path / "two.jsonl").write_text('["a b", "c"]')
    hashes = {load_texts(str(tmp_path / name), None).spec.sha256 for name in ("one.jsonl", "two.jsonl")}
    assert len(hashes) == 2


def test_the_embedded_set_needs_no_file():
    found = load_texts(DEFAULT, None)
    assert found.texts == tuple(dict.fromkeys(fit_sentences()))
    assert found.spec.count == len(found.texts) > 1000


def _bit_flip(raw):
    spoilt = bytearray(raw)
    spoilt[len(raw) // 2] ^= 0xFF
    return bytes(spoilt)


_TEXT = "".join(f"{random.Random(i).random()}\n" for i in range(99)).encode()
_BAD = {
    "empty.txt": (b"", "holds no text"),
    "blank.txt": (b" \n\n\t\n", "holds no text"),
    "header.csv": (b"text\n", "holds no text"),
    "labels.csv": (b"label\nx\n", "holds no text"),
    "numbers.jsonl": (b'{"score": 1}\n', "holds no text"),
    "binary.txt": (bytes(range(256)), "cannot be read as txt"),
    "half.jsonl": (b'{"text": "a"}\n{"text": ', "cannot be read as jsonl"),
    "deep.jsonl": (b"[" * 100_000, "cannot be read as jsonl"),
    "quote.csv": (b'text\n"a" b\n', "cannot be read as csv"),
    "plain.txt.gz": (b"not packed", "cannot be read as txt"),
    "cut.txt.gz": (gzip.compress(_TEXT)[:-12], "cannot be read as txt"),
    "flipped.txt.gz": (_bit_flip(gzip.compress(_TEXT)), "cannot be read as txt"),
    "table.parquet": (b"PAR1", "texts are read from"),
}


@pytest.mark.parametrize("name", _BAD)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path, name):
    content, words = _BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as refusal:
        load_texts(str(tmp_path / name), None)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("name", "words"), [("nowhere", "no such text set"), ("", "is empty"), (" ", "is empty")])
def test_a_set_that_is_not_there_is_refused(tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lying-about.txt").write_text("a text\n")
    with pytest.raises(InputError, match=words):
        load_texts(name, tmp_path)
