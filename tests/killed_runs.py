"""Runs of the command line in processes of their own, killed at a point, and what the same command makes of it."""

from __future__ import annotations

import functools
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
import traceback
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch

import fusebench
from fusebench.benchmarks.sample_files import read_samples
from fusebench.benchmarks.store import Store
from fusebench.methods.engine import SharedPass
from fusebench.methods.training import TrainingLoop
from fusebench.run_bench import main
from fusebench.study import pass_journal, train
from fusebench.study.pass_journal import PassJournal
from tests.tiny_gate import make_world

# Forks of a server that has imported everything and computed nothing: threads of this process, such as torch's, would
# be missing in a fork of it, which would wait for them for ever.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["mteb", "tests.killed_runs"])

METHODS = "mean,cls,mean+whiten(k=4),scalar-mix+batch-softmax,mlp+batch-softmax"
STEPS = 8
TOLERANCE = 1e-6  # of a score whose texts shared a batch with others
# In which work a run was that last changed such a file, first match.
_PHASES = {
    "checkpoints/pass": "encoding",
    "checkpoints": "training",
    "trained": "training",
    "training": "training",
    "samples": "scoring",
    "mteb": "scoring",
    "runs/.writable": "start",
    "runs/": "scoring",
    "leaderboards": "boards",
    "scores": "boards",
    "tests": "boards",
    "locks/boards": "boards",
}
# What Python tells its audit hooks of that changes a folder; each is told before it happens.
_OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.truncate"}


def world_in(root: Path) -> Path:
    """A tiny backbone, two tiny tasks and training rows."""
    (root / "data").mkdir(parents=True)
    return make_world(root)


def command(world: Path, out: Path, *more: str) -> list[str]:
    """A run of training-free, fitted and trained methods."""
    asked = ["--methods", METHODS, "--tasks", "TinySTS,TinySearch", "--seeds", "0,1", "--out", str(out)]
    asked += ["--backbone", str(world / "models" / "tiny-bert"), "--data-dir", str(world / "data")]
    asked += ["--fit", str(world / "fit.txt"), "--train", "rows.jsonl", "--steps", str(STEPS), "--batch-size", "8"]
    return [*asked, "--device", "cpu", "--batch-tokens", "64", *more]


@dataclass(frozen=True)
class Ended:
    """How a run ended: exit code (negative: the signal), what it said and did."""

    code: int
    said: str
    did: list[str]  # file operations
    seconds: float
    inputs: int  # that went through the backbone and were stored


def start(arguments: list[str], folder: Path, out: Path, *, kill_at: int | None = None) -> BaseProcess:
    """Starts the command line in a process that writes what it says and does into `folder`.

    Checkpoints are written after every update, and what a pass has finished after every batch.

    Args:
        kill_at: the file operation below `out`, by number, before which the process kills itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    child = SERVER.Process(target=_as_told, args=(arguments, folder, out, kill_at))
    child.start()
    return child


def _as_told(arguments: list[str], folder: Path, out: Path, kill_at: int | None) -> None:
    torch.set_num_threads(1)
    with ExitStack() as files:
        said, did, passed = (
            files.enter_context((folder / f"{name}.txt").open("w", buffering=1)) for name in ("said", "did", "passed")
        )
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        sys.stdout = sys.stderr = said  # those of a test are not the descriptors
        _count_operations(str(out), did, kill_at)
        train.TrainingLoop = functools.partial(TrainingLoop, checkpoint_seconds=0.0)  # type: ignore[misc]
        pass_journal.PassJournal = functools.partial(PassJournal, seconds=0.0)  # type: ignore[misc]
        _count_inputs(passed)
        code = 70
        try:
            code = main(arguments)
        except BaseException:
            traceback.print_exc()
        os._exit(code)


def _count_inputs(passed) -> None:
    keep = SharedPass._keep

    def counting(self, states, rows):
        keep(self, states, rows)
        passed.write(f"{len(rows)}\n")

    SharedPass._keep = counting  # type: ignore[method-assign]


def _count_operations(below: str, did, kill_at: int | None) -> None:
    count = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal count
        if event not in _OPERATIONS or not str(arguments[0]).startswith(below):
            return
        if event == "open" and not _changes(arguments):
            return
        count += 1
        did.write(f"{event} {Path(str(arguments[0])).relative_to(below)}\n")
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _changes(arguments: tuple) -> bool:
    flags = arguments[2] if len(arguments) > 2 else 0
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_DIRECTORY))


def end(child: BaseProcess, folder: Path, started: float, *, kill_after: float | None = None) -> Ended:
    """Waits for a process, or kills it after so many seconds."""
    if kill_after is not None:
        time.sleep(max(0.0, started + kill_after - time.monotonic()))
        child.kill()
    child.join()
    assert child.exitcode is not None
    said, did, passed = (_text(folder / f"{name}.txt") for name in ("said", "did", "passed"))
    inputs = sum(map(int, passed.split()))
    return Ended(child.exitcode, said, did.splitlines(), time.monotonic() - started, inputs)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def run(arguments: list[str], folder: Path, out: Path, **kill: float | None) -> Ended:
    """Runs the command line in a process of its own; `kill` is `kill_at` of `start` or `kill_after` of `end`."""
    started = time.monotonic()
    child = start(arguments, folder, out, kill_at=kill.get("kill_at"))  # type: ignore[arg-type]
    return end(child, folder, started, kill_after=kill.get("kill_after"))


def run_from_python(world: Path, out: Path, methods: list[str]) -> None:
    """`fusebench.run` of some of the methods, for a process of its own: its exit code is 0 if all rows came back."""
    torch.set_num_threads(1)
    places = {"backbone": world / "models" / "tiny-bert", "data_dir": world / "data", "fit": world / "fit.txt"}
    training = {"train": "rows.jsonl", "steps": STEPS, "batch_size": 8}
    more = {"tasks": ["TinySTS", "TinySearch"], "device": "cpu", "batch_tokens": 64, "out": out}
    frame = fusebench.run(methods, **places, **training, **more)
    os._exit(0 if set(frame["method"]) == set(methods) else 1)


@dataclass(frozen=True)
class Kept:
    """All of a results folder that must not depend on whether a run was killed."""

    records: dict
    numbers: dict  # scores and samples: arrays by cell
    weights: dict
    logs: dict


def kept(out: Path) -> Kept:
    """What lies in a results folder, less times and places.

    Raises:
        AssertionError: a file there is damaged.
    """
    store = Store(out)
    records = store.records()
    assert store.rejected == [], store.rejected
    held, numbers = {}, {}
    for record in records:
        measured = {"cost", "environment", "training", "scores", "main_score"}
        rest = record.model_dump(mode="json", exclude=measured)
        training = record.training and record.training.model_dump(mode="json", exclude={"seconds"})
        parts = read_samples(out, record).parts
        held[record.spec_id] = {**rest, "training": training, "items": [part.items.tolist() for part in parts]}
        scores = [record.main_score, *(score.value for score in record.scores)]
        numbers[record.spec_id] = np.concatenate([scores, *(part.values for part in parts)])
    weights = {path.parent.name: path.read_bytes() for path in out.glob("trained/*/weights.safetensors")}
    logs = {path.name: _events(path) for path in sorted(out.glob("training/*.jsonl"))}
    return Kept(held, numbers, weights, logs)


def _events(path: Path) -> list[dict]:
    return [event for line in path.read_text().splitlines() if "config" not in (event := json.loads(line))]


@dataclass(frozen=True)
class Point:
    """A kill and what came of it; `lost` is empty if nothing was."""

    kind: str  # "operation" or "time"
    at: float  # number of the operation, or seconds
    before: str  # the operation that was about to happen, or the last one that had
    phase: str  # what it was at
    records: int  # on disk after the kill
    passed: float  # share of the inputs that had gone through the backbone, of both passes
    redone: float  # share that went through it twice
    checkpoint: bool  # a training was under way
    difference: float  # the largest of a score or sample from the uninterrupted run
    lost: str


def survey(world: Path, expected: Kept, whole: Ended, folder: Path, **kill: float | None) -> Point:
    """Kills a run, runs the same command again and compares with an uninterrupted run, which ended as `whole`.

    The folder is deleted again.
    """
    out = folder / "out"
    ((kind, at),) = kill.items()
    killed = run(command(world, out), folder / "first", out, **kill)
    did = killed.did
    finished = {path: path.read_bytes() for path in out.glob("runs/*/*/*.json")}
    under_way = bool(list(out.glob("checkpoints/*.safetensors")))
    again = run(command(world, out), folder / "second", out)
    losses, difference = _losses(killed, again, finished, out, expected)
    point = Point(
        kind={"kill_at": "operation", "kill_after": "time"}[kind],
        at=float(at or 0),
        before=did[-1] if did else "nothing yet",
        phase=_phase(did),
        records=len(finished),
        passed=killed.inputs / whole.inputs,
        redone=(killed.inputs + again.inputs - whole.inputs) / whole.inputs,
        checkpoint=under_way,
        difference=difference,
        lost="; ".join(losses),
    )
    shutil.rmtree(folder)
    return point


def _phase(did: list[str]) -> str:
    for path in (line.split(" ", 1)[1] for line in reversed(did)):
        for start, phase in _PHASES.items():
            if path.startswith(start):
                return phase
    return "start"


def _losses(
    killed: Ended, again: Ended, finished: dict[Path, bytes], out: Path, expected: Kept
) -> tuple[list[str], float]:
    if killed.code not in (-signal.SIGKILL, 0):
        return [f"the run failed before it was killed: {killed.said[-300:]}"], math.nan
    if again.code != 0:
        return [f"the same command ended with {again.code}: {again.said[-300:]}"], math.nan
    lost = []
    if "to quarantine" in again.said:
        lost.append("a half-written file was there")
    if any(path.read_bytes() != content for path, content in finished.items()):
        lost.append("a finished record was computed again")
    if list(out.glob("checkpoints/[!.]*")):  # temporary files of the killed go after an hour
        lost.append("a checkpoint was left over")
    found = kept(out)
    lost += [
        f"other {name}" for name in ("records", "weights", "logs") if getattr(found, name) != getattr(expected, name)
    ]
    if "other records" in lost:
        return lost, math.nan
    difference = max(float(np.abs(found.numbers[cell] - held).max()) for cell, held in expected.numbers.items())
    if difference > TOLERANCE:
        lost.append("other scores")
    return lost, difference


def points(seed: int, count: int, whole: Ended) -> list[dict[str, float]]:
    """Seeded kill points, by turns at a file operation and at a time of an uninterrupted run."""
    draw = random.Random(seed)
    return [
        {"kill_at": draw.randrange(1, len(whole.did) + 1)}
        if number % 2 == 0
        else {"kill_after": draw.uniform(0, whole.seconds)}
        for number in range(count)
    ]
