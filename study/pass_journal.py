"""What a long backbone pass has finished, on disk, so that the same command goes on after it was killed."""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusebench.benchmarks.record import digest
from fusebench.benchmarks.store import Store
from fusebench.errors import InputError
from fusebench.methods.backbone import Backbone
from fusebench.methods.checkpoint import content_sha256, module_state, read_tensors, write_tensors
from fusebench.methods.engine import Arrays, PassStatistics
from fusebench.methods.parts import Fusion
from fusebench.study.plan import Plan

SECONDS = 30.0  # of computing that a chunk holds: what a kill can cost
_SCHEMA = 1  # of the files; another one is another folder
_ABANDONED_SECONDS = 7 * 24 * 3600.0

_LOG = logging.getLogger(__name__)


class PassJournals:
    """The journals of one command, in a folder named by the ids of all of its cells.

    These ids stand for everything that vectors depend on: backbone, code, data, lengths, batches, versions.

    Args:
        plan: of the run.
        store: of its results; damaged chunks go to its quarantine.
    """

    def __init__(self, plan: Plan, store: Store) -> None:
        cells = sorted(cell.spec.spec_id for cell in plan.cells)
        self.folder = store.out / "checkpoints" / f"pass-{digest([_SCHEMA, cells, plan.options.rerun])}"
        self._plan, self._store = plan, store

    def of(self, what: str, fusions: Mapping[str, Fusion], backbone: Backbone) -> PassJournal:
        """The journal of one pass of the run.

        Args:
            what: tells the pass from the others of the run.
            fusions: of the pass, by name; their weights are part of what is kept of them.
            backbone: the frozen one, or one that was tuned.
        """
        tuned = None if backbone is self._plan.backbone else content_sha256(module_state(backbone.model, ""), {})
        names = {name: digest([name, content_sha256(module_state(one, ""), {})]) for name, one in fusions.items()}
        room = int(self._plan.options.training.state_cache_gb * 1e9)
        return PassJournal(self.folder, digest([what, tuned]), names, room=room, store=self._store)

    def forget(self) -> None:
        """Deletes what was kept, once every record is there."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def forget_abandoned(out: Path) -> None:
        """Deletes what no run has come back to for a week."""
        for folder in out.glob("checkpoints/pass-*"):
            if folder.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


class PassJournal:
    """A `methods.engine.Journal` that writes a sealed file whenever so many seconds of work have gathered.

    A pass that is over before leaves nothing. Want of room ends no run: it is logged, and the rest of the pass is not
    kept.

    Args:
        folder: of the files.
        part: with which their names begin.
        names: by fusion, what stands for it and its weights.
        room: in bytes; half of what is free on the disk at most.
        store: whose quarantine takes damaged files.
        seconds: between two files.
    """

    def __init__(
        self,
        folder: Path,
        part: str,
        names: Mapping[str, str],
        *,
        room: int,
        store: Store,
        seconds: float = SECONDS,
    ) -> None:
        self.folder, self.part, self.seconds = folder, part, seconds
        self._names, self._room, self._store = names, room, store
        self._lock = threading.Lock()
        self._inputs: Sequence[np.ndarray] = ()
        self._markers: np.ndarray | None = None
        self._pending: list[np.ndarray] = []
        self._sizes: dict[Path, int] = {}  # of the files that hold rows of this pass
        self._keeping = room > 0
        self._written, self._counted = time.monotonic(), PassStatistics()

    def restore(
        self,
        inputs: Sequence[np.ndarray],
        markers: np.ndarray | None,
        arrays: Arrays,
        statistics: PassStatistics,
    ) -> np.ndarray:
        """Fills the rows of inputs that are kept; a bool an input."""
        self._inputs, self._markers = inputs, markers
        done = np.zeros(len(inputs), dtype=bool)
        paths = sorted(self.folder.glob(f"{self.part}-*.safetensors"))
        row_of = {self._key(row): row for row in range(len(inputs))} if paths else {}
        for path in paths:
            if path in self._sizes:
                continue
            try:
                tensors, facts = read_tensors(path)
            except InputError as error:
                self._set_aside(path, error)
                continue
            labels = {key: self._label(key) for key in arrays}
            if not tensors.keys() >= {"inputs", *labels.values()}:
                continue  # written without a fusion that is wanted now
            rows = np.array([row_of.get(key.tobytes(), -1) for key in tensors["inputs"].numpy()], dtype=np.int64)
            known = rows >= 0
            if not known.any():
                continue
            for key, array in arrays.items():
                array[rows[known]] = tensors[labels[key]].numpy()[known]
            done[rows[known]] = True
            self._sizes[path] = path.stat().st_size
            _add(statistics, facts)
        if done.any():
            _LOG.warning("%d of %d texts are taken over from a run that was interrupted", done.sum(), len(done))
        self._written, self._counted = time.monotonic(), _copy(statistics)
        return done

    def keep(self, batch: np.ndarray, arrays: Callable[[], Arrays], statistics: PassStatistics) -> None:
        """Takes note that these rows are filled, and writes those that wait if it is time."""
        with self._lock:
            self._pending.append(batch)
            if not self._keeping or time.monotonic() - self._written < self.seconds:
                return
            chunk = self._chunk(arrays(), statistics)
        self._write(*chunk)

    def flush(self, arrays: Callable[[], Arrays], statistics: PassStatistics) -> None:
        """Writes the rest of a pass that was long enough to have files."""
        with self._lock:
            if self._keeping and self._pending and self._sizes:
                self._write(*self._chunk(arrays(), statistics))
            self._pending, self._inputs, self._markers = [], (), None

    def _chunk(self, arrays: Arrays, statistics: PassStatistics) -> tuple[np.ndarray, Arrays, dict[str, Any]]:
        """The rows that wait, the arrays that hold them, and what they took."""
        rows, self._pending = np.concatenate(self._pending), []
        facts = _since(statistics, self._counted)
        self._written, self._counted = time.monotonic(), _copy(statistics)
        return rows, arrays, facts

    def _write(self, rows: np.ndarray, arrays: Arrays, facts: dict[str, Any]) -> None:
        keys = np.frombuffer(b"".join(self._key(row) for row in rows), dtype=np.uint8).reshape(len(rows), -1)
        tensors = {self._label(key): torch.from_numpy(array[rows]) for key, array in arrays.items()}
        size = sum(tensor.nbytes for tensor in tensors.values()) + keys.nbytes
        path = self.folder / f"{self.part}-{keys[0].tobytes().hex()}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if sum(self._sizes.values()) + size > self._room or size > shutil.disk_usage(self.folder).free // 2:
                raise InputError("there is no room for it; see --state-cache-gb")
            write_tensors(path, {"inputs": torch.from_numpy(keys.copy()), **tensors}, facts)
            self._sizes[path] = size
        except (InputError, OSError) as error:
            self._keeping = False
            _LOG.warning("the rest of this pass is not kept for the case that it is interrupted: %s", error)

    def _set_aside(self, path: Path, error: InputError) -> None:
        if path.exists():  # else another run has just finished and deleted it
            self._store.reject(path, f"is damaged ({error})")
            self._store.quarantine()
            _LOG.warning("to quarantine: %s, which is computed again: %s", path.name, error)

    def _key(self, row: int) -> bytes:
        marker = b"" if self._markers is None else int(self._markers[row]).to_bytes(8, "big")
        return hashlib.blake2b(marker + self._inputs[row].tobytes(), digest_size=16).digest()

    def _label(self, key: tuple[str, str | int]) -> str:
        kind, what = key
        return f"live.{self._names[str(what)]}" if kind == "live" else f"{kind}.{what}"


def _copy(statistics: PassStatistics) -> PassStatistics:
    return PassStatistics(seconds=statistics.seconds, fusion_seconds=dict(statistics.fusion_seconds))


def _since(now: PassStatistics, before: PassStatistics) -> dict[str, Any]:
    """What was spent between two moments of a pass."""
    fusions = {name: s - before.fusion_seconds.get(name, 0.0) for name, s in now.fusion_seconds.items()}
    return {
        "seconds": now.seconds - before.seconds,
        "fusion_seconds": fusions,
        "effective_batch_tokens": now.effective_batch_tokens,
    }


def _add(statistics: PassStatistics, facts: Mapping[str, Any]) -> None:
    """Counts what a file's rows took when they were computed."""
    statistics.seconds += float(facts["seconds"])
    for name, seconds in dict(facts["fusion_seconds"]).items():
        if name in statistics.fusion_seconds:
            statistics.fusion_seconds[name] += seconds
    statistics.effective_batch_tokens = min(statistics.effective_batch_tokens, int(facts["effective_batch_tokens"]))
