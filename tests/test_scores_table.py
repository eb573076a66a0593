"""The flat table of scores has the columns it promises and loses no digit."""

import csv
import random

import pandas as pd
import pytest

from fusebench.benchmarks.board_tests import Interval, ScoreWithInterval
from fusebench.benchmarks.record import Score, TextSetSpec
from fusebench.benchmarks.scores_table import scores_frame, write_scores
from tests.invented_records import make, overlap, row_set, trained, training, training_spec

HEADER = (
    "spec_id,backbone,backbone_revision,method,task,subset,split,metric,is_main,seed,score,low,high,low_clusters,high_clusters,"
    "max_length,dtype,regime,train,limit,fit,train_kinds,train_rows,epochs,steps,batch_size,learning_rate,"
    "learning_rate_new,trials,dev,weights_sha256,updates,examples,training_seconds,chosen_learning_rate,"
    "chosen_learning_rate_new,best_update,dev_score,texts,known_texts,pairs,pairs_both_known,main_score_without"
)


def test_a_row_is_one_score_with_exactly_the_promised_columns(tmp_path):
    main = Score(subset="en", split="test", metric="cosine_spearman", value=0.1 + 0.2, is_main=True)
    side = Score(subset="en", split="test", metric="euclidean", value=1e-17, is_main=False)
    wiki = TextSetSpec(name="wiki", sha256="s", count=3)
    seeded = make(seed=7, limit=5, fit=wiki, scores=(side, main))
    write_scores([seeded], tmp_path)
    head, *rows = (tmp_path / "scores.csv").read_text().splitlines()
    start = f"{seeded.spec_id},org/net,0123456789abcdef,mean,A,en,test,"
    assert head == HEADER
    assert rows == [
        f"{start}cosine_spearman,true,7,0.30000000000000004,,,,,128,float32,training-free,,5,wiki" + "," * 22,
        f"{start}euclidean,false,7,1e-17,,,,,128,float32,training-free,,5,wiki" + "," * 22,
    ]


def test_a_trained_cell_says_what_was_asked_what_it_took_and_what_it_may_have_seen(tmp_path):
    rows = (row_set(), row_set("stsb-train", "scored-pairs", 70))
    asked = training_spec(rows=rows, steps=40, epochs=None, dev=row_set("stsb-dev", "scored-pairs"), trials=3)
    took = training(best_update=9, dev_score=0.75, learning_rate=3e-5, learning_rate_new=0.1 + 0.2)
    record = trained(train=asked, training=took, overlap=overlap(4, 2, 0.25), weights="ab" * 32)
    write_scores([record], tmp_path)
    (row,) = csv.DictReader((tmp_path / "scores.csv").open())
    assert list(row.values())[17:] == [
        *["frozen", "nli+stsb-train", "", "", "triplets+scored-pairs", "300+70", "", "40", "64", "2e-05", "0.001"],
        *["3", "stsb-dev", "ab" * 32, "15", "900", "12.5", "3e-05", "0.30000000000000004", "9", "0.75"],
        *["20", "4", "10", "2", "0.25"],
    ]


def test_no_seed_no_limit_and_no_training_are_empty_cells(tmp_path):
    write_scores([make(), make(seed=1)], tmp_path)
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert [(row["seed"], row["limit"], row["train"]) for row in rows] == [("", "", ""), ("1", "", "")]


def test_every_score_reads_back_exactly(tmp_path):
    values = [random.Random(0).random() * 10.0**-power for power in range(20)]
    records = [make(task=f"T{number:02}", value=value) for number, value in enumerate(values)]
    write_scores(records, tmp_path)
    assert [float(row["score"]) for row in csv.DictReader((tmp_path / "scores.csv").open())] == values


def test_the_order_of_the_records_does_not_matter(tmp_path):
    records = [make(method=m, task=t, seed=s) for m in "ba" for t in "BA" for s in (None, 2, 10)]
    written = set()
    for seed in range(3):
        random.Random(seed).shuffle(records)
        write_scores(records, tmp_path)
        written.add((tmp_path / "scores.csv").read_bytes())
    assert len(written) == 1


@pytest.mark.parametrize("name", ["=1+1", "+a", "-a", "@a"])
def test_a_name_that_a_spreadsheet_would_run_is_quoted(tmp_path, name):
    write_scores([make(method=name, task="a=b", value=-0.5)], tmp_path)
    (row,) = csv.DictReader((tmp_path / "scores.csv").open())
    assert (row["method"], row["task"], row["score"]) == (f"'{name}", "a=b", "-0.5")


def test_no_records_give_a_header_alone(tmp_path):
    write_scores([], tmp_path)
    assert (tmp_path / "scores.csv").read_text() == HEADER + "\n"
    assert scores_frame([]).shape == (0, 43)


def test_the_interval_of_a_tested_cell_stands_beside_its_main_score_and_in_both_files(tmp_path):
    main = Score(subset="en", split="test", metric="cosine_spearman", value=0.5, is_main=True)
    side = Score(subset="en", split="test", metric="euclidean", value=0.4, is_main=False)
    tested, other = make(scores=(main, side)), make(task="B")
    interval = ScoreWithInterval(value=0.5, items=Interval(low=0.4, high=0.6), clusters=Interval(low=0.3, high=0.7))
    write_scores([tested, other], tmp_path, {tested.spec_id: interval})
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    shown = {
        (row["task"], row["metric"]): [row[name] for name in ("low", "high", "low_clusters", "high_clusters")]
        for row in rows
    }
    assert shown.pop(("A", "cosine_spearman")) == ["0.4", "0.6", "0.3", "0.7"]
    assert set(map(tuple, shown.values())) == {("", "", "", "")}
    assert len(shown) == 2
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "scores.parquet"),
        scores_frame([tested, other], {tested.spec_id: interval}),
        check_dtype=False,
    )


def test_an_interval_of_the_mean_of_several_main_scores_stands_beside_none_of_them():
    parts = [
        Score(subset=name, split="test", metric="cosine_spearman", value=0.5, is_main=True) for name in ("a", "b")
    ]
    record = make(scores=tuple(parts))
    interval = ScoreWithInterval(value=0.5, items=Interval(low=0.4, high=0.6), clusters=None)
    assert scores_frame([record], {record.spec_id: interval})["low"].isna().all()
