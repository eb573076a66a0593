from __future__ import annotations

import argparse
import shutil

import pytest

from fusebench.benchmarks.store import Store
from fusebench.errors import InputError
from fusebench.study import replay
from fusebench.study.record_file import changes, read_record
from fusebench.study.saved_methods import is_saved
from tests.tiny_gate import bench, make_world, places
from tests.tiny_models import save


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("replayed"))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def records(world, out):
    return bench(world, out, "first-last", "mean+whiten(k=4)", "scalar-mix+batch-softmax", seeds=(0, 4), limit=40)


def flags(world, record, **changes):
    where = places(world)
    asked = {
        "record": record,
        "anyway": False,
        "data_dir": where.data_dir,
        "backbone": where.backbone,
        "fit": where.fit,
        "train": None,
        "dev": None,
        "weights": None,
        "plugin": [],
    }
    return argparse.Namespace(**{**asked, **changes})


def altered(record_path, folder, **changes):
    """A copy of a record with another specification, which agrees with itself."""
    record = read_record(record_path)
    spec = record.spec.model_copy(update=changes)
    path = folder / "runs" / "a" / "b" / "r.json"
    path.parent.mkdir(parents=True)
    path.write_text(record.model_copy(update={"spec": spec, "spec_id": spec.spec_id}).model_dump_json())
    return path


def test_every_cell_is_what_its_specification_says(world, out, records, capsys):
    paths = sorted(out.glob("runs/*/*/*.json"))
    assert len(paths) == 8
    for path in paths:
        assert replay.show(flags(world, path)) == 0, path.name
        assert "the same" in capsys.readouterr().out


def test_saved_weights_are_found_where_the_run_left_them(world, out, records, tmp_path, capsys):
    (folder, *_) = (path for path in sorted((out / "trained").iterdir()) if is_saved(path))
    found = bench(world, tmp_path, str(folder), seeds=(0,))
    with pytest.raises(InputError, match="name their folder by --weights"):
        replay.show(flags(world, found["scalar-mix+batch-softmax", "TinySTS"]))
    assert replay.show(flags(world, found["scalar-mix+batch-softmax", "TinySTS"], weights=folder)) == 0


def test_other_weights_are_named_and_nothing_is_computed(world, records, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(replay, "make_again", None)
    other = save("bert", tmp_path / "tiny-bert", seed=1)
    assert replay.show(flags(world, records["first-last", "TinySTS"], backbone=str(other))) == 2
    said = capsys.readouterr().out
    assert "changed: backbone.weights_sha256" in said
    assert "changed: backbone.revision" in said
    assert "tokenizer_sha256" not in said
    assert "not replayed" in said


def test_other_data_are_named(world, records, tmp_path, capsys):
    data = shutil.copytree(world / "data", tmp_path / "data")
    path = data / "TinySTS" / "test.jsonl"
    path.write_text(path.read_text().replace("w1", "w2", 1))
    assert replay.show(flags(world, records["first-last", "TinySTS"], data_dir=data)) == 2
    assert "changed: task.data_sha256" in capsys.readouterr().out


def test_other_fit_texts_are_named(world, records, tmp_path, capsys):
    path = tmp_path / "fit.txt"
    path.write_text((world / "fit.txt").read_text() + "\nthe cat")
    assert replay.show(flags(world, records["mean+whiten(k=4)", "TinySTS"], fit=str(path))) == 2
    said = capsys.readouterr().out
    assert "changed: fit.sha256" in said
    assert "changed: fit.count: 40 then, 41 now" in said


def test_other_software_is_named_and_can_be_tried_anyway(world, records, tmp_path, capsys):
    path = altered(records["first-last", "TinySTS"], tmp_path, software={"torch": "0.1"})
    assert replay.show(flags(world, path)) == 2
    assert 'changed: software.torch: "0.1" then' in capsys.readouterr().out
    assert replay.show(flags(world, path, anyway=True)) == 0
    assert "the same, with 6 changed inputs" in capsys.readouterr().out


def test_other_code_is_named_by_its_files_or_says_that_it_cannot(world, records, tmp_path, capsys):
    path = altered(records["first-last", "TinySTS"], tmp_path, code="0" * 64)
    assert replay.show(flags(world, path)) == 2
    said = capsys.readouterr().out
    assert "changed: code: " in said
    assert "changed: source files" in said


def test_another_score_of_the_same_inputs_is_said(world, records, tmp_path, capsys):
    record = read_record(records["first-last", "TinySTS"])
    path = tmp_path / "r.json"
    path.write_text(record.model_copy(update={"main_score": 0.9}).model_dump_json())
    assert replay.show(flags(world, path)) == 1
    assert "ANOTHER SCORE" in capsys.readouterr().out


def test_changes_name_every_field_that_differs(out, records):
    spec = Store(out).records()[0].spec
    other = spec.model_copy(update={"dtype": "float16", "software": {**spec.software, "new": "1"}})
    assert changes(spec, other) == [("dtype", '"float32"', '"float16"'), ("software.new", "null", '"1"')]
    assert changes(spec, spec) == []
