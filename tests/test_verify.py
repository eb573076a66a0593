from __future__ import annotations

import argparse

import pytest

from fusebench.errors import InputError
from fusebench.study import verify
from fusebench.study.record_file import read_record
from tests.tiny_gate import bench, make_world, places

LAYERED = ("mean(layer=1)", "last-k-sum(k=2)+whiten(k=4)", "scalar-mix+batch-softmax")
POOLINGS = ("mean", "cls", "max", "last-token", "weighted-mean", "mean-sqrt-len")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("verified"))


@pytest.fixture(scope="module")
def records(world, tmp_path_factory):
    methods = (*POOLINGS, "mean+normalize", *LAYERED, "max-mean", "squeeze-gate+batch-softmax")
    return bench(world, tmp_path_factory.mktemp("results"), *methods)


def flags(world, record, **changes):
    where = places(world)
    asked = {
        "record": record,
        "data_dir": where.data_dir,
        "backbone": where.backbone,
        "fit": where.fit,
        "train": None,
        "dev": None,
        "weights": None,
        "plugin": [],
    }
    return argparse.Namespace(**{**asked, **changes})


@pytest.mark.parametrize("task", ["TinySTS", "TinySearch"])
@pytest.mark.parametrize("method", [*POOLINGS, "mean+normalize", *LAYERED])
def test_stock_tools_give_the_score_of_all_that_they_have_modules_for(world, records, method, task, capsys):
    assert verify.show(flags(world, records[method, task])) == 0
    assert capsys.readouterr().out.count("agrees") == 2


@pytest.mark.parametrize("task", ["TinySTS", "TinySearch"])
@pytest.mark.parametrize(
    ("method", "why"),
    [("max-mean", "modules of its own for max-mean"), ("squeeze-gate+batch-softmax", "of its own for squeeze-gate")],
)
def test_what_sentence_transformers_cannot_say_goes_through_stock_mteb_alone(
    world, records, method, task, why, capsys
):
    assert verify.show(flags(world, records[method, task])) == 0
    said = capsys.readouterr().out
    assert said.count("agrees") == 1
    assert "cannot express it: " in said
    assert why in said


def test_prompts_reach_both_ways(world, tmp_path, capsys):
    from fusebench.benchmarks.record import Prompts

    prompts = Prompts(text="w1 ", query="w2 w3 ", document="w4 ")
    for task, path in bench(world, tmp_path, "mean", prompts=prompts).items():
        assert verify.show(flags(world, path)) == 0, task
        assert capsys.readouterr().out.count("agrees") == 2


def test_a_record_with_another_score_is_found_out(world, records, tmp_path, capsys):
    record = read_record(records["mean", "TinySTS"]).model_copy(update={"main_score": 0.5})
    (tmp_path / "r.json").write_text(record.model_dump_json())
    assert verify.show(flags(world, tmp_path / "r.json")) == 1
    assert capsys.readouterr().out.count("DIFFERS") == 2


def test_weights_that_are_gone_are_asked_for(world, records, tmp_path):
    path = tmp_path / "runs" / "a" / "b" / "r.json"
    path.parent.mkdir(parents=True)
    path.write_text(records["scalar-mix+batch-softmax", "TinySTS"].read_text())
    with pytest.raises(InputError, match="name their folder by --weights"):
        verify.show(flags(world, path))


@pytest.mark.parametrize(
    ("text", "said"), [(None, "there is no record"), ("{", "truncated"), ("{}", "schema version")]
)
def test_a_file_without_a_record_is_refused(world, tmp_path, text, said):
    if text is not None:
        (tmp_path / "r.json").write_text(text)
    with pytest.raises(InputError, match=said):
        verify.show(flags(world, tmp_path / "r.json"))
