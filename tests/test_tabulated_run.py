"""A run from Python is the run of the command line."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import fusebench
from fusebench.errors import InputError
from fusebench.methods import registry
from fusebench.run_bench import main
from tests.test_command_line import PLUGIN
from tests.tiny_gate import make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def settings(world, out):
    return {
        "backbone": world / "models" / "tiny-bert",
        "tasks": ["TinySTS", "TinySearch"],
        "data_dir": world / "data",
        "fit": world / "fit.txt",
        "out": out,
    }


def test_it_returns_the_rows_that_the_command_line_writes(world, tmp_path, capsys):
    asked = settings(world, tmp_path / "a")
    more = {"seeds": [0, 1], "train": ["rows.jsonl"], "steps": 2, "batch_size": 8, "drop_leaks": True, "rerun": False}
    methods = ["mean(layer=1)", "cls+whiten(k=3,eps=0.1)", "scalar-mix"]
    frame = fusebench.run(methods, **asked, **more)
    assert capsys.readouterr().out == ""
    words = [word for name in ("backbone", "fit") for word in (f"--{name}", str(asked[name]))]
    words += ["--tasks", "TinySTS,TinySearch", "--data-dir", str(world / "data"), "--out", str(tmp_path / "b")]
    words += ["--seeds", "0,1", "--train", "rows.jsonl", "--steps", "2", "--batch-size", "8", "--drop-leaks"]
    assert main(["--methods", *methods, *words]) == 0
    written = pd.read_csv(tmp_path / "b" / "scores.csv")
    assert frame["spec_id"].tolist() == written["spec_id"].tolist()
    np.testing.assert_allclose(frame["score"], written["score"], rtol=0, atol=1e-6)
    assert (tmp_path / "a" / "scores.csv").is_file()


def test_finished_cells_are_kept_and_only_those_asked_for_are_returned(world, tmp_path):
    first = fusebench.run("mean", **settings(world, tmp_path))
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*/*.json")}
    fusebench.run("cls", **settings(world, tmp_path))
    pd.testing.assert_frame_equal(fusebench.run(["mean"], **settings(world, tmp_path)), first)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert set(first["method"]) == {"mean"}


def test_a_failed_cell_is_a_warning_and_the_others_are_returned(world, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_CARDS", dict(registry._CARDS))
    (tmp_path / "plugin.py").write_text(PLUGIN)
    asked = {**settings(world, tmp_path / "out"), "tasks": "TinySTS", "plugin": tmp_path / "plugin.py"}
    with pytest.warns(RuntimeWarning, match="not in the table: gone-wrong on TinySTS"):
        frame = fusebench.run(["gone-wrong", "mean"], **asked)
    assert set(frame["method"]) == {"mean"}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"taks": ["STS12"]}, "there is no flag 'taks' .did you mean 'tasks'"),
        ({"limit": "many"}, "invalid int value: 'many'"),
        ({"dry_run": True}, "dry_run says what a terminal shows"),
        ({"sweep": "grid.toml"}, "a sweep is many runs"),
        ({"backbone": "./nowhere"}, "there is no such folder"),
        ({"regime": "thawed"}, "invalid choice: 'thawed'"),
    ],
)
def test_what_cannot_be_used_is_an_input_error_and_no_exit(options, why, tmp_path):
    with pytest.raises(InputError, match=why):
        fusebench.run("mean", **{"out": tmp_path, **options})


def test_locks_that_other_machines_do_not_see_are_told(world, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("fusebench.study.shared_folder.locks_are_local", lambda path: path == tmp_path)
    fusebench.run("mean", **settings(world, tmp_path))
    assert "hold on this machine alone" in caplog.text
