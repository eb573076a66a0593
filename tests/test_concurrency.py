"""Processes that write into one results folder at once lose nothing and mix nothing."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pandas as pd

from fusebench.benchmarks.sample_files import read_samples, write_samples
from fusebench.benchmarks.samples import SamplePart, Samples
from fusebench.benchmarks.store import Store
from fusebench.study.boards import rebuild
from tests.invented_records import make

FORK = multiprocessing.get_context("fork")
WRITERS, OWN, SHARED = 8, 3, 2


def records_of(writer):
    """Cells of its own, and cells that every writer writes: other times, the same scores."""
    own = [make(f"m{writer}", f"T{k}", writer / 10) for k in range(OWN)]
    shared = [make("all", f"T{k}", 0.5, created=f"2026-01-0{writer + 1}T00:00:00+00:00") for k in range(SHARED)]
    return [one for pair in zip(own, [*shared, shared[0]], strict=True) for one in pair]


def samples_of(record):
    values = np.full(200, record.main_score, dtype=np.float32)
    part = SamplePart("default", "test", np.arange(200, dtype=np.int32), values)
    return Samples("cosine_spearman", "similarity", record.spec.task.data_sha256, (part,))


def write(out, writer, together):
    store = Store(out)
    together.wait(60)
    store.require_writable()
    for name in ("one", f"of {writer}"):
        store.remember_suite(name, "the same", [f"T{k}" for k in range(OWN)])
    for record in records_of(writer):
        write_samples(out, record, samples_of(record))
        store.write(record, {"writer": [writer] * 1000})
    rebuild(store)


def test_eight_processes_write_records_samples_suites_and_boards_at_once(tmp_path):
    together = FORK.Barrier(WRITERS)
    writers = [FORK.Process(target=write, args=(tmp_path, n, together)) for n in range(WRITERS)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(120)
    assert [process.exitcode for process in writers] == [0] * WRITERS
    store = Store(tmp_path)
    records = store.records()
    assert store.rejected == []
    assert len(records) == WRITERS * OWN + SHARED
    for record in records:
        assert record in [one for writer in range(WRITERS) for one in records_of(writer)]
        assert (read_samples(tmp_path, record).parts[0].values == np.float32(record.main_score)).all()
    assert [suite.name for suite in store.suites()] == sorted(["one", *(f"of {n}" for n in range(WRITERS))])
    # Whoever wrote the boards last had read the records of all.
    assert sorted(pd.read_csv(tmp_path / "scores.csv")["spec_id"]) == sorted(one.spec_id for one in records)
    board = pd.read_csv(next(tmp_path.glob("leaderboards/*/one.csv")))
    assert sorted(board["method"]) == sorted(["all", *(f"m{n}" for n in range(WRITERS))])
    assert list(tmp_path.rglob(".*.tmp")) == []
