"""Two runs in one results folder take turns at what both would train, and nobody waits for the dead."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import filelock
import pytest

from fusebench.benchmarks.lock import locked
from fusebench.errors import InputError
from fusebench.study.options import Options
from fusebench.study.training_locks import trainings_locked
from tests.invented_records import trained

FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Sentence:
    """As much of a method as its name."""

    name: str
    trained: bool = True

    @property
    def stem(self):
        return self


@dataclass(frozen=True)
class Cell:
    method: Sentence
    spec: object
    saved: object = None


@dataclass(frozen=True)
class Plan:
    cells: tuple
    options: Options


def plan_of(out, *seeds, rerun=False):
    cells = tuple(Cell(Sentence("hire+batch-softmax"), trained(seed=seed).spec) for seed in seeds)
    return Plan(cells, Options(out=out, rerun=rerun))


def hold(path, ready, end):
    with locked(path):
        ready.set()
        end.wait(60)


@pytest.fixture
def holder(tmp_path):
    """Starts a process that holds the lock of a file."""
    started = []

    def start(path):
        ready, end = FORK.Event(), FORK.Event()
        process = FORK.Process(target=hold, args=(path, ready, end))
        process.start()
        started.append(process)
        assert ready.wait(60)
        return process, end

    yield start
    for process in started:
        process.kill()
        process.join()


def test_the_second_waits_until_the_first_is_done(tmp_path, holder):
    path, said = tmp_path / "deep" / "a.lock", []
    process, end = holder(path)
    with locked(path, waiting=lambda: (said.append("waiting"), end.set())):
        process.join()
        assert process.exitcode == 0
    assert said == ["waiting"]


def test_the_lock_of_a_killed_process_is_free(tmp_path, holder):
    path = tmp_path / "a.lock"
    process, _ = holder(path)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with locked(path, waiting=lambda: pytest.fail("waits for the dead")):
        pass


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSYS, r"file system without locks.*--out"),
        (errno.ENOLCK, r"file system without locks.*--out"),
        (errno.EROFS, r"cannot lock .*--out"),
    ],
)
def test_a_file_system_without_locks_is_refused_in_words(tmp_path, monkeypatch, number, said):
    def refuse(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(InputError, match=said), locked(tmp_path / "a.lock"):
        pass


def test_each_training_that_is_to_be_done_is_locked_once(tmp_path):
    plan = plan_of(tmp_path, 1, 2, 1)
    with trainings_locked(plan, set()) as folders:
        assert len(folders) == 2
        for path in (tmp_path / "locks").iterdir():
            with pytest.raises(filelock.Timeout):
                filelock.FileLock(path).acquire(timeout=0)
    for path in (tmp_path / "locks").iterdir():
        with filelock.FileLock(path).acquire(timeout=0):
            pass


def test_what_is_finished_or_trained_meanwhile_is_not_locked(tmp_path, monkeypatch):
    plan = plan_of(tmp_path, 1, 2)
    with trainings_locked(plan, {plan.cells[0].spec.spec_id}) as folders:
        assert [folder.name.split("-seed")[1][0] for folder in folders] == ["2"]
    monkeypatch.setattr("fusebench.study.saved_methods.is_intact", lambda folder: True)
    with trainings_locked(plan, set()) as folders:
        assert folders == []
        for path in (tmp_path / "locks").iterdir():
            with filelock.FileLock(path).acquire(timeout=0):
                pass
    with trainings_locked(plan_of(tmp_path, 1, rerun=True), set()) as folders:
        assert len(folders) == 1


def test_a_run_says_what_it_waits_for(tmp_path, holder):
    plan, said = plan_of(tmp_path, 1), []
    path = Path(tmp_path, "locks", f"{plan.cells[0].spec.training_id}.lock")
    _, end = holder(path)
    with trainings_locked(plan, set(), lambda name: (said.append(name), end.set())) as folders:
        assert len(folders) == 1
    assert said == ["hire+batch-softmax"]
