from __future__ import annotations

import time

import pytest

from fusebench.benchmarks.tasks import available_tasks, find_tasks, load_task, missing_tasks
from fusebench.errors import InputError


def refused(tiny, name, match, **options):
    with pytest.raises(InputError, match=match):
        tiny.load(name, **options)


def test_an_unknown_task_is_answered_with_near_names(tmp_path):
    with pytest.raises(InputError, match=r"no task 'STS_12'. Did you mean 'STS12'"):
        find_tasks(["LeeSTS", "STS_12"], None)
    (tmp_path / "Cranfield").mkdir()
    with pytest.raises(InputError, match="Did you mean 'Cranfield'"):
        find_tasks(["Cranfeld"], tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        find_tasks(["STS12"], tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Banking77Classification", "of type Classification"),
        ("CQADupstackRetrieval", "made of other tasks"),
        ("STS12VisualSTS", "type VisualSTS|about image"),
        ("PublicHealthQA", "no pinned data revision"),
    ],
)
def test_a_task_that_cannot_be_judged_says_why(name, reason):
    with pytest.raises(InputError, match=reason):
        find_tasks([name], None)


def test_a_name_never_leaves_the_data_folder(tiny, tmp_path):
    tiny.write_sts("Pairs", tiny.pairs())
    (tmp_path / "inner").mkdir()
    for name in ("../Pairs", "..", ".", "", str(tmp_path / "Pairs")):
        with pytest.raises(InputError, match="no task"):
            find_tasks([name], tmp_path / "inner")


def test_sources_are_told_apart_and_repeated_names_come_once(tiny, tmp_path):
    tiny.write_sts("STS12", tiny.pairs())
    tiny.write_retrieval("Mine")
    found = find_tasks(["LeeSTS", "STS12", "Mine", "SciFact", "STS12"], tmp_path)
    assert [(s.name, s.type, s.source) for s in found] == [
        ("LeeSTS", "STS", "embedded"),
        ("STS12", "STS", "folder"),
        ("Mine", "Retrieval", "folder"),
        ("SciFact", "Retrieval", "hub"),
    ]
    assert missing_tasks(["LeeSTS", "STS12", "SciFact"], tmp_path) == ["SciFact"]
    assert missing_tasks(["LeeSTS", "STS12"], None) == ["STS12"]


def test_the_list_of_tasks_begins_with_the_embedded_ones():
    names = available_tasks()
    assert names[:2] == ["LeeSTS", "LeeKnownItem"]
    assert {"STS12", "STS22.v2", "SciFact", "NanoNQRetrieval"} <= set(names)
    assert "CQADupstackRetrieval" not in names


def test_a_stock_task_reads_its_folder_and_the_class_keeps_its_data(tiny):
    tiny.write_sts("STS12", tiny.pairs())
    loaded = tiny.load("STS12")
    assert loaded.spec.revision.startswith("sha256:")
    assert (loaded.spec.source, loaded.spec.metric, loaded.spec.splits) == (
        "folder",
        "cosine_spearman",
        ("test",),
    )
    assert loaded.spec.protocol == "sts: all pairs of a split together"
    assert type(loaded.task).metadata.dataset["path"] == "mteb/sts12-sts"
    assert list(loaded.inputs())[:7] == [("text", f"left {i}") for i in range(6)] + [("text", "right 0")]


def test_a_folder_that_mteb_does_not_know_becomes_a_task(tiny):
    tiny.write_retrieval("Mine")
    loaded = tiny.load("Mine")
    inputs = list(loaded.inputs())
    assert inputs[:6] == [("query", f"query {i}") for i in range(2, 8)]  # queries without judgements are not used
    assert inputs[6:8] == [("document", "body 0"), ("document", "Title 1 body 1")]
    assert loaded.spec.metric == "ndcg_at_10"


def test_changed_data_get_another_revision_and_are_read_anew(tiny):
    tiny.write_sts("Mine", tiny.pairs())
    before = tiny.load("Mine")
    tiny.write_sts("Mine", [{**row, "score": 9 - row["score"]} for row in tiny.pairs()])
    after = tiny.load("Mine")
    assert before.spec.revision != after.spec.revision
    assert before.spec.data_sha256 != after.spec.data_sha256


def test_two_folders_of_one_name_are_never_mixed_up(tiny, tmp_path):
    # datasets alone returns the first folder's cached rows for the second when both have a README.md header
    first = tiny.write_retrieval("Mine")
    before = tiny.load("Mine")
    first.rename(tmp_path / "old")
    tiny.write_retrieval("Mine", corpus=[{"_id": "d152", "text": "another"}])
    assert [text for role, text in tiny.load("Mine").inputs() if role == "document"] == ["another"]
    assert before.spec.revision != tiny.load("Mine").spec.revision


def test_the_content_hash_knows_neither_place_nor_format_nor_column_order(tiny, tmp_path):
    tiny.write_sts("A", tiny.pairs())
    (tmp_path / "B").mkdir()
    rows = "".join(f"{p['score']},{p['sentence2']},extra,{p['sentence1']}\n" for p in tiny.pairs())
    (tmp_path / "B" / "test.csv").write_text("score,sentence2,note,sentence1\n" + rows)
    assert tiny.load("A").spec.data_sha256 == tiny.load("B").spec.data_sha256


def test_multilingual_tasks_are_loaded_in_english_only(tiny, tmp_path):
    folder = tmp_path / "STS17"
    rows = [{**row, "lang": lang} for lang in ("en-en", "es-es") for row in tiny.pairs()]
    tiny.write_jsonl(folder / "test.jsonl", rows)
    loaded = tiny.load("STS17")
    assert loaded.spec.subsets == ("en-en",)
    assert len(list(loaded.inputs())) == 12


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_must_be_positive(tiny, limit):
    tiny.write_sts("Mine", tiny.pairs())
    refused(tiny, "Mine", f"limit of {limit}", limit=limit)


def test_a_limit_keeps_the_first_pairs(tiny):
    tiny.write_sts("Mine", tiny.pairs(9))
    assert len(list(tiny.load("Mine", limit=4).inputs())) == 8
    refused(tiny, "Mine", "too few", limit=2)


def test_a_limit_keeps_judged_queries_their_documents_and_twenty_others_each(tiny):
    tiny.write_retrieval("Mine")
    inputs = list(tiny.load("Mine", limit=2).inputs())
    assert [text for role, text in inputs if role == "query"] == ["query 2", "query 3"]
    documents = [text.split()[-1] for role, text in inputs if role == "document"]
    assert documents == [str(i) for i in range(40)] + ["152", "153"]


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"sentence2": "  "}, "sentence2 of row 1 is empty: remove it, or pass --allow-empty-texts"),
        ({"sentence1": None}, "sentence1 of row 1 is empty"),
        ({"score": None}, "score of row 1 is None"),
        ({"score": float("nan")}, "score of row 1 is (nan|None), not a finite number"),
    ],
)
def test_a_bad_sts_row_is_named(tiny, row, match):
    records = tiny.pairs()
    records[1] |= row
    tiny.write_sts("Mine", records)
    refused(tiny, "Mine", rf"task Mine: .*{match}")


def test_scores_without_a_correlation_are_refused(tiny):
    tiny.write_sts("Flat", [{**row, "score": 1} for row in tiny.pairs()])
    refused(tiny, "Flat", "all 6 scores are 1")
    tiny.write_sts("Two", tiny.pairs(2))
    refused(tiny, "Two", "2 pairs are too few")
    tiny.write_sts("Words", [{**row, "score": "high"} for row in tiny.pairs()])
    refused(tiny, "Words", "score of row 0 is 'high'")


def test_empty_texts_are_counted_when_allowed(tiny):
    records = tiny.pairs()
    records[1]["sentence1"], records[2]["sentence2"] = "", None
    tiny.write_sts("Mine", records)
    loaded = tiny.load("Mine", allow_empty=True)
    assert loaded.empty_texts == 2
    assert ("text", "") in list(loaded.inputs())


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        ({"corpus": [{"_id": "a", "text": "x"}, {"_id": "a", "text": "y"}]}, "document id 'a' occurs twice"),
        ({"queries": [{"_id": "q", "text": "x"}] * 2}, None),
        ({"qrels": [{"query-id": "nobody", "corpus-id": "d1", "score": 1}]}, "names the query 'nobody'"),
        ({"qrels": [{"query-id": "q1", "corpus-id": "d1", "score": 0}]}, "no query has a relevant document"),
        (
            {"qrels": [{"query-id": "q1", "corpus-id": "gone", "score": 1}]},
            "no query has a relevant document",
        ),
        ({"qrels": [{"query-id": "q1", "corpus-id": "d1", "score": "yes"}]}, "cannot be read"),
        ({"corpus": [{"_id": "d1", "text": " "}]}, "document d1 is empty"),
        ({"corpus": []}, "corpus.jsonl is empty"),
    ],
)
def test_bad_retrieval_data_are_named(tiny, parts, match):
    if match is None:
        parts["qrels"], match = (
            [{"query-id": "q", "corpus-id": "d1", "score": 1}],
            "query id 'q' occurs twice",
        )
    elif "qrels" not in parts:
        parts["qrels"] = [
            {"query-id": "q1", "corpus-id": parts["corpus"][0]["_id"] if parts["corpus"] else "d", "score": 1}
        ]
    tiny.write_retrieval("Mine", **parts)
    refused(tiny, "Mine", match)


def test_a_judged_document_may_be_missing_and_a_title_may_be_null(tiny):
    qrels = [{"query-id": "q1", "corpus-id": c, "score": 1} for c in ("d1", "gone")]
    corpus = [{"_id": "d1", "title": None, "text": "x"}, {"_id": "d2", "title": "T", "text": "y"}]
    tiny.write_retrieval("Mine", qrels=qrels, corpus=corpus)
    inputs = list(tiny.load("Mine").inputs())
    assert inputs == [("query", "query 1"), ("document", "x"), ("document", "T y")]


def test_a_broken_line_is_named_with_file_and_number(tiny, tmp_path):
    tiny.write_retrieval("Mine")
    with (tmp_path / "Mine" / "corpus.jsonl").open("a") as stream:
        stream.write('{"_id": "x", "text": "cut of')
    refused(tiny, "Mine", r"corpus.jsonl line 201 is not JSON")


@pytest.mark.parametrize("name", ["STS12", "SciFact"])
def test_without_a_network_the_way_out_is_named_quickly(tiny, name):
    start = time.perf_counter()
    refused(tiny, name, rf"task {name}: cannot get mteb/.* from the hub .*--data-dir")
    assert time.perf_counter() - start < 15


def test_an_unreachable_hub_is_asked_once(tiny, monkeypatch):
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    start = time.perf_counter()
    refused(tiny, "STS13", "cannot get mteb/sts13-sts from the hub")
    assert time.perf_counter() - start < 8
    assert datasets.config.HF_HUB_OFFLINE is constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("STS15", {"text": 2 * 3000}),
        ("SICK-R", {"text": 2 * 9927}),
        ("SciFact", {"query": 300, "document": 5183}),
    ],
)
def test_real_data_have_the_published_size(data_dir, name, roles):
    inputs = list(load_task(find_tasks([name], data_dir)[0], limit=None, allow_empty=False).inputs())
    assert {role: sum(r == role for r, _ in inputs) for role in roles} == roles
    assert len(inputs) == sum(roles.values())


def test_a_parquet_folder_is_read_like_jsonl_but_formats_are_not_mixed(tiny):
    import pandas as pd

    tiny.write_retrieval("Lines")
    folder = tiny.write_retrieval("Tables")
    for part in ("corpus", "queries", "qrels/test"):
        pd.read_json(folder / f"{part}.jsonl", lines=True).to_parquet(folder / f"{part}.parquet")
    header = (folder / "README.md").read_text()
    (folder / "README.md").write_text(header.replace(".jsonl", ".parquet"))
    assert tiny.load("Tables").spec.data_sha256 == tiny.load("Lines").spec.data_sha256
    (folder / "README.md").write_text(header.replace("corpus.jsonl", "corpus.parquet"))
    refused(tiny, "Tables", r"Tables mixes .json and .parquet: use one format")
