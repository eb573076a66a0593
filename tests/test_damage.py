"""What a run clears away in its results folder, and what it leaves alone."""

import os

import pytest
import torch

from fusebench.benchmarks.store import Store
from fusebench.methods.checkpoint import write_tensors
from fusebench.study import saved_methods
from fusebench.study.damage import forget_finished_checkpoints, quarantine_cells, quarantine_trainings
from fusebench.study.options import Options
from tests.test_training_locks import Plan


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def checkpoint(store, name, *trainees):
    path = store.out / "checkpoints" / f"{name}.safetensors"
    write_tensors(path, {"a": torch.ones(3)}, {"names": list(trainees)})
    return path


def test_a_checkpoint_is_forgotten_once_the_weights_of_all_its_trainings_are_there(store, monkeypatch):
    monkeypatch.setattr(saved_methods, "is_intact", lambda folder: folder.name.startswith("done"))
    finished = checkpoint(store, "a", "done-seed0-1", "done-seed1-2-trial1")
    under_way = checkpoint(store, "b", "done-seed0-1", "mlp-seed0-3")
    nobodys = checkpoint(store, "c")
    forget_finished_checkpoints(store.out)
    assert (finished.exists(), under_way.exists(), nobodys.exists()) == (False, True, True)


def test_a_damaged_checkpoint_goes_to_quarantine_and_a_whole_one_stays(store):
    whole, damaged = checkpoint(store, "whole", "x"), checkpoint(store, "damaged", "x")
    content = bytearray(damaged.read_bytes())
    content[-2] ^= 4
    damaged.write_bytes(content)
    (line,) = quarantine_trainings([], store)
    assert line.startswith("checkpoints/damaged.safetensors is damaged (")
    assert "does not hash to its content_sha256" in line
    assert whole.exists()
    assert (store.out / "quarantine" / "checkpoints" / "damaged.safetensors").read_bytes() == content


def test_only_old_temporary_files_of_ours_are_deleted(store):
    names = {
        "runs/.0123456789abcdef.tmp": True,
        ".0123456789abcdef.tmp": True,
        "runs/.mine.tmp": False,
        "mine/.0123456789abcdef.tmp": False,
    }
    for name in names:
        path = store.out / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
        os.utime(path, (0, 0))
    young = store.out / "runs" / ".fedcba9876543210.tmp"
    young.write_text("half")
    assert quarantine_cells(Plan((), Options(out=store.out)), store) == []
    assert {name: not (store.out / name).exists() for name in names} == names
    assert young.exists()
