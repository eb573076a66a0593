"""What trackers keep of a training, read back from their own files."""

from __future__ import annotations

import json
import sqlite3
import struct
import sys

import pytest

from fusebench.errors import InputError
from fusebench.study.trackers import TRACKERS
from fusebench.study.training_log import TrainingLog

CONFIG = {"method": "mlp+info-nce", "seed": 1, "learning_rate": 0.5}
CURVES = {"one": {1: 0.5, 2: 0.25, 3: 0.125}, "other": {1: 4.0, 2: 3.0, 3: 2.0}}


@pytest.fixture(autouse=True)
def away_from_home(tmp_path, monkeypatch):
    """Trackers write below a folder of the test and send nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


def track(kind, folder, curves=CURVES):
    """Trainings side by side, each with its own curve of the loss, as the training loop logs them."""
    logs = {name: TrainingLog(folder / name, {**CONFIG, "method": name}, [kind]) for name in curves}
    for update in sorted({update for curve in curves.values() for update in curve}):
        for name, curve in curves.items():
            if update in curve:
                logs[name]({"stage": 0, "update": update, "loss": curve[update]})
    for log in logs.values():
        log.close()


def tensorboard_curve(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {event.step: event.value for event in events.Scalars("loss")}, events


def test_tensorboard_has_the_curve_and_the_configuration_of_each_training(tmp_path):
    pytest.importorskip("tensorboard")
    track("tensorboard", tmp_path / "training")
    for name, curve in CURVES.items():
        found, events = tensorboard_curve(tmp_path / "training" / name)
        assert found == curve
        hyperparameters = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        assert name.encode() in hyperparameters


def test_in_tensorboard_a_training_that_goes_on_replaces_what_lay_behind_its_checkpoint(tmp_path):
    pytest.importorskip("tensorboard")
    track("tensorboard", tmp_path / "training", {"one": {1: 0.5, 2: 0.25, 3: 9.0, 4: 9.0}})
    track("tensorboard", tmp_path / "training", {"one": {3: 0.125}})
    assert tensorboard_curve(tmp_path / "training" / "one")[0] == CURVES["one"]


def wandb_records(file):
    """The records of a run kept offline: blocks of 32 KiB; each piece has a check sum, its length and its kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, record = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 2**15 - at % 2**15 < 7:
            at += 2**15 - at % 2**15
        length, kind = struct.unpack_from("<HB", content, at + 4)
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(record)
            record = b""


def test_wandb_keeps_a_run_a_training_even_while_both_are_open(tmp_path):
    pytest.importorskip("wandb")
    track("wandb", tmp_path / "training")
    found = {}
    for file in tmp_path.glob("wandb/offline-run-*/*.wandb"):
        records = list(wandb_records(file))
        (run,) = (record.run for record in records if record.HasField("run"))
        config = {item.key: json.loads(item.value_json) for item in run.config.update if item.key in CONFIG}
        assert (run.project, config) == ("fusebench", {**CONFIG, "method": run.display_name})
        rows = [record.history.item for record in records if record.HasField("history")]
        told = [{(item.key or item.nested_key[0]): json.loads(item.value_json) for item in row} for row in rows]
        found[run.display_name] = {row["update"]: row["loss"] for row in told}
    assert found == CURVES


def test_wandb_leaves_nothing_in_the_results_folder(tmp_path):
    pytest.importorskip("wandb")
    track("wandb", tmp_path / "training")
    assert {path.name for path in (tmp_path / "training").iterdir()} == {"one.jsonl", "other.jsonl"}


def test_wandb_without_a_login_says_what_to_do(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "online")
    wandb.teardown()  # it reads its settings once a process
    with pytest.raises(InputError, match="run wandb login, or set WANDB_MODE=offline"):
        TrainingLog(tmp_path / "run", CONFIG, ["wandb"])


def test_trackio_keeps_a_run_a_training_even_while_both_are_open(tmp_path, monkeypatch, capsys):
    storage = pytest.importorskip("trackio.sqlite_storage")
    monkeypatch.setattr(storage, "TRACKIO_DIR", tmp_path / "trackio")
    track("trackio", tmp_path / "training")
    with sqlite3.connect(tmp_path / "trackio" / "fusebench.db") as base:
        rows = base.execute("SELECT run_name, step, metrics FROM metrics").fetchall()
        configs = dict(base.execute("SELECT run_name, config FROM configs"))
    found = {
        name: {step: json.loads(numbers)["loss"] for run, step, numbers in rows if run == name} for name in CURVES
    }
    assert found == CURVES
    assert {name: json.loads(config)["method"] for name, config in configs.items()} == {n: n for n in CURVES}
    assert capsys.readouterr().out == "", "what a run prints is its boards"


@pytest.mark.parametrize("kind", TRACKERS)
def test_a_tracker_that_is_not_installed_is_named_with_what_to_do(kind, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard" if kind == "tensorboard" else kind, None)
    with pytest.raises(InputError, match=f"--track {kind}: .*; python -m pip install {kind}"):
        TrainingLog(tmp_path / "run", CONFIG, [kind])
    assert [path.name for path in tmp_path.iterdir()] == ["run.jsonl"]
