from __future__ import annotations

import json

import pytest

from fusebench.benchmarks.hub_layout import (
    check_folder,
    data_files,
    folder_revision,
    folder_type,
    unreadable_line,
)
from fusebench.errors import InputError

RETRIEVAL_HEADER = """---
configs:
- config_name: corpus
  data_files: [{split: corpus, path: corpus.jsonl}]
- config_name: queries
  data_files: [{split: queries, path: queries.jsonl}]
- config_name: default
  data_files: [{split: test, path: qrels/test.jsonl}]
---
"""


def write_jsonl(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")


@pytest.fixture
def retrieval(tmp_path):
    folder = tmp_path / "data" / "Tiny"
    write_jsonl(folder / "corpus.jsonl", [{"_id": str(i), "title": "t", "text": f"doc {i}"} for i in range(5)])
    write_jsonl(folder / "queries.jsonl", [{"_id": f"q{i}", "text": f"query {i}"} for i in range(3)])
    write_jsonl(folder / "qrels" / "test.jsonl", [{"query-id": "q1", "corpus-id": "1", "score": 1}])
    (folder / "README.md").write_text(RETRIEVAL_HEADER)
    return folder


@pytest.fixture
def sts(tmp_path):
    folder = tmp_path / "data" / "Pairs"
    write_jsonl(folder / "test.jsonl", [{"sentence1": "a", "sentence2": "b", "score": 1.5}])
    return folder


def check(folder, task_type="Retrieval", splits=("test",), subsets=("default",)):
    check_folder(task_type, folder, splits, subsets)


def test_good_folders_pass(retrieval, sts):
    check(retrieval)
    check(sts, "STS")
    assert (folder_type(retrieval), folder_type(sts)) == ("Retrieval", "STS")


def test_the_revision_depends_on_names_and_bytes_of_data_files_only(retrieval, tmp_path):
    before = folder_revision(retrieval)
    assert before.startswith("sha256:")
    moved = retrieval.rename(tmp_path / "elsewhere")
    (moved / "notes.txt").write_text("not data")
    (moved / "unlisted.jsonl").write_text("{}")
    assert folder_revision(moved) == before
    (moved / "corpus.jsonl").write_text((moved / "corpus.jsonl").read_text().replace("doc 3", "doc 4"))
    assert folder_revision(moved) != before


def test_the_revision_changes_when_the_header_points_elsewhere(retrieval):
    write_jsonl(retrieval / "qrels" / "dev.jsonl", [{"query-id": "q2", "corpus-id": "1", "score": 1}])
    before = folder_revision(retrieval)
    (retrieval / "README.md").write_text(RETRIEVAL_HEADER.replace("qrels/test", "qrels/dev"))
    assert folder_revision(retrieval) != before


def test_a_link_out_of_the_folder_is_refused(retrieval, tmp_path):
    secret = tmp_path / "secret.jsonl"
    secret.write_text("{}")
    (retrieval / "corpus.jsonl").unlink()
    (retrieval / "corpus.jsonl").symlink_to(secret)
    with pytest.raises(InputError, match=r"corpus.jsonl is a link that leads out .* copy"):
        folder_revision(retrieval)


@pytest.mark.parametrize("pattern", ["../x.jsonl", "/etc/passwd", "hf://datasets/a/b", "https://a.org/x.jsonl"])
def test_the_header_cannot_name_a_file_outside(sts, pattern):
    (sts / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files: '{pattern}'\n---\n")
    with pytest.raises(InputError, match="only files in the folder are read"):
        data_files(sts)


def test_the_forms_of_data_files_that_the_hub_allows(sts):
    for form in ("test.jsonl", "[test.jsonl]", "'*.jsonl'", "[{split: test, path: [test.jsonl]}]"):
        (sts / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files: {form}\n---\n")
        assert [file.path.name for file in data_files(sts)] == ["test.jsonl"]
        check(sts, "STS")


def test_each_bad_folder_is_named(retrieval, tmp_path):
    with pytest.raises(InputError, match=r"nowhere does not exist: give"):
        check(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no data file"):
        check(tmp_path / "empty")
    (retrieval / "README.md").write_text("---\nconfigs: [}\n---\n")
    with pytest.raises(InputError, match=r"header of .*README.md is not valid YAML"):
        check(retrieval)


@pytest.mark.parametrize(("part", "config"), [("corpus", "corpus"), ("queries", "queries"), ("default", "qrels")])
def test_half_a_data_set_is_named(retrieval, part, config):
    (retrieval / "README.md").write_text(RETRIEVAL_HEADER.replace(f"config_name: {part}", "config_name: other"))
    with pytest.raises(InputError, match=f"has no '{config}'"):
        check(retrieval)


def test_a_listed_but_absent_file_is_named(retrieval):
    (retrieval / "queries.jsonl").unlink()
    with pytest.raises(InputError, match=r"names queries.jsonl, but no such file"):
        check(retrieval)


def test_wrong_columns_are_listed_with_the_needed_ones(retrieval, sts):
    write_jsonl(retrieval / "queries.jsonl", [{"qid": "1", "text": "x"}])
    with pytest.raises(InputError, match=r"queries.jsonl has the columns qid, text but needs _id, text: .* _id"):
        check(retrieval)
    write_jsonl(sts / "test.jsonl", [{"a": "x", "b": "y", "score": 1}])
    with pytest.raises(InputError, match="has the columns a, b, score but needs sentence1, sentence2, score"):
        check(sts, "STS")
    (sts / "test.jsonl").unlink()
    (sts / "test.csv").write_text("sentence1,label\nx,1\n")
    with pytest.raises(InputError, match=r"test.csv has the columns sentence1, label"):
        check(sts, "STS")


def test_a_wrong_split_is_answered_with_the_ones_there(retrieval):
    (retrieval / "README.md").write_text(
        RETRIEVAL_HEADER.replace("[{split: test,", "[{split: dev, path: corpus.jsonl}, {split: train,")
    )
    with pytest.raises(InputError, match="has no split 'test', only: dev, train"):
        check(retrieval)


def test_an_empty_file_is_named(retrieval):
    (retrieval / "corpus.jsonl").write_text("\n")
    with pytest.raises(InputError, match=r"corpus.jsonl is empty"):
        check(retrieval)


def test_a_line_that_is_not_json_is_named_with_its_number(retrieval):
    with (retrieval / "corpus.jsonl").open("a") as stream:
        stream.write('{"_id": "9", "te')
    assert "corpus.jsonl line 6 is not JSON" in unreadable_line(retrieval)
    (retrieval / "queries.jsonl").write_text("[1]\n")
    with pytest.raises(InputError, match=r"queries.jsonl line 1 is not a JSON object"):
        check(retrieval)
