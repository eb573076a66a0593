"""The flat table of scores has the columns it promises and loses no digit."""

import csv
import random

import pytest

from fusebench.benchmarks.record import (
    BackboneSpec,
    Cost,
    Counts,
    Environment,
    MethodSpec,
    Prompts,
    Record,
    Score,
    Spec,
    TaskSpec,
    TextSetSpec,
)
from fusebench.benchmarks.scores_table import scores_frame, write_scores_csv

HEADER = (
    "spec_id,backbone,backbone_revision,method,task,subset,split,metric,is_main,seed,score,"
    "max_length,dtype,regime,train,limit"
)


def make(method="mean", task="A", value=0.5, **changes):
    """A record of made-up numbers; `changes` are fields of Spec, TaskSpec, Cost, Environment or Record."""
    net = {"name": "org/net", "revision": "0123456789abcdef", "weights_sha256": "w", "tokenizer_sha256": "t"}
    net |= {"architecture": "BertModel", "blocks": 6, "dim": 384, "final_norm": "none", "remote_code": False}
    net |= changes.pop("backbone", {})
    kind = changes.pop("type", "STS")
    metric = {"STS": "cosine_spearman", "Retrieval": "ndcg_at_10"}[kind]
    judged = {"name": task, "type": kind, "source": "embedded", "revision": "1", "metric": metric}
    judged |= {
        "data_sha256": changes.pop("data", f"data of {task}"),
        "splits": ("test",),
        "subsets": ("default",),
    }
    spec = Spec(
        backbone=BackboneSpec(**net),
        method=MethodSpec(name=method, parts=()),
        task=TaskSpec(**judged, protocol=f"{kind}: as mteb"),
        seed=changes.pop("seed", None),
        regime=changes.pop("regime", "training-free"),
        train=changes.pop("train", None),
        fit=changes.pop("fit", None),
        prompts=Prompts(**changes.pop("prompts", {})),
        max_length=changes.pop("max_length", 128),
        max_length_source="model config",
        dtype=changes.pop("dtype", "float32"),
        device="cpu",
        padding_side="right",
        batch_tokens=4096,
        limit=changes.pop("limit", None),
        software={"mteb": "2.26.24"},
        code=changes.pop("code", "c0de"),
    )
    score = {"subset": "default", "split": "test", "metric": metric, "value": value, "is_main": True}
    cost = {"pass_seconds": 2.0, "fusion_seconds": 0.25, "scoring_seconds": 0.1, "peak_memory_mb": 1.0}
    stamp = {
        "created": changes.pop("created", "2026-01-01T00:00:00+00:00"),
        "platform": "Linux",
        "python": "3.11",
    }
    stamp |= {"processor": "x86", "git_commit": None, "git_dirty": None, "versions": {}}
    return Record.of(
        spec,
        scores=changes.pop("scores", (Score(**score),)),
        main_score=value,
        out_dim=changes.pop("out_dim", 384),
        added_parameters=0,
        equal_to=changes.pop("equal_to", None),
        counts=Counts(texts=10, distinct_texts=9, truncated_texts=0, empty_texts=0),
        cost=Cost(**cost, effective_batch_tokens=4096, threads=2),
        environment=Environment(**(stamp | changes)),
    )


def test_a_row_is_one_score_with_exactly_the_promised_columns(tmp_path):
    main = Score(subset="en", split="test", metric="cosine_spearman", value=0.1 + 0.2, is_main=True)
    side = Score(subset="en", split="test", metric="euclidean", value=1e-17, is_main=False)
    train = TextSetSpec(name="nli", sha256="s", count=3)
    seeded = make(seed=7, limit=5, train=train, regime="frozen", scores=(side, main))
    write_scores_csv([seeded], tmp_path / "scores.csv")
    head, *rows = (tmp_path / "scores.csv").read_text().splitlines()
    start = f"{seeded.spec_id},org/net,0123456789abcdef,mean,A,en,test,"
    assert head == HEADER
    assert rows == [
        f"{start}cosine_spearman,true,7,0.30000000000000004,128,float32,frozen,nli,5",
        f"{start}euclidean,false,7,1e-17,128,float32,frozen,nli,5",
    ]


def test_no_seed_no_limit_and_no_training_are_empty_cells(tmp_path):
    write_scores_csv([make(), make(seed=1)], tmp_path / "scores.csv")
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert [(row["seed"], row["limit"], row["train"]) for row in rows] == [("", "", ""), ("1", "", "")]


def test_every_score_reads_back_exactly(tmp_path):
    values = [random.Random(0).random() * 10.0**-power for power in range(20)]
    records = [make(task=f"T{number:02}", value=value) for number, value in enumerate(values)]
    write_scores_csv(records, tmp_path / "scores.csv")
    assert [float(row["score"]) for row in csv.DictReader((tmp_path / "scores.csv").open())] == values


def test_the_order_of_the_records_does_not_matter(tmp_path):
    records = [make(method=m, task=t, seed=s) for m in "ba" for t in "BA" for s in (None, 2, 10)]
    written = set()
    for seed in range(3):
        random.Random(seed).shuffle(records)
        write_scores_csv(records, tmp_path / "scores.csv")
        written.add((tmp_path / "scores.csv").read_bytes())
    assert len(written) == 1


@pytest.mark.parametrize("name", ["=1+1", "+a", "-a", "@a"])
def test_a_name_that_a_spreadsheet_would_run_is_quoted(tmp_path, name):
    write_scores_csv([make(method=name, task="a=b", value=-0.5)], tmp_path / "scores.csv")
    (row,) = csv.DictReader((tmp_path / "scores.csv").open())
    assert (row["method"], row["task"], row["score"]) == (f"'{name}", "a=b", "-0.5")


def test_no_records_give_a_header_alone(tmp_path):
    write_scores_csv([], tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text() == HEADER + "\n"
    assert scores_frame([]).shape == (0, 16)
