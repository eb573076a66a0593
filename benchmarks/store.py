"""The results folder: finished records, mteb's own result files, the suites asked for."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from fusebench.benchmarks.atomic import atomic_write, disk_error, slug
from fusebench.benchmarks.record import Record
from fusebench.benchmarks.record_checks import flaw_of, parse_record, reason_for, refuse_constant
from fusebench.errors import InputError

__all__ = ["AskedSuite", "Store", "slug"]

T = TypeVar("T")


@dataclass(frozen=True)
class AskedSuite:
    """A named list of tasks that some run asked for; a board shows how many of them it has."""

    name: str
    title: str
    tasks: tuple[str, ...]


class Store:
    """The folder `out`; nothing is created before the first write.

    A file that cannot be trusted is never used and never deleted: `rejected` lists it with the reason.
    """

    def __init__(self, out: Path) -> None:
        try:
            is_other = out.exists() and not out.is_dir()
        except OSError as error:
            raise disk_error("look at", out, error) from error
        if is_other:
            raise InputError(f"{out} is a file: name a folder for the results with --out.")
        self.out = out
        self._rejected: dict[Path, str] = {}

    @property
    def rejected(self) -> list[tuple[Path, str]]:
        """The files refused by the reads so far, and why."""
        return sorted(self._rejected.items())

    def require_writable(self) -> None:
        """Fails now, and not after an hour of computing, if nothing can be written.

        Raises:
            InputError: the folder cannot be made or written to.
        """
        probe = self.out / "runs" / ".writable"
        atomic_write(probe, "")
        probe.unlink(missing_ok=True)

    def write(self, record: Record, mteb_result: dict[str, Any]) -> None:
        """Stores a finished cell; mteb's result goes first: a record on disk means that all of it is there.

        Raises:
            InputError: the disk refused, or the record is one that reading would refuse.
        """
        spec = record.spec
        if flaw := flaw_of(record):
            raise InputError(f"cannot store {spec.method.name!r} on {spec.task.name!r}: the record {flaw}.")
        smoke = "" if spec.limit is None else f"-first{spec.limit}"
        cell = f"{slug(spec.method.name)}{smoke}-{record.spec_id}"
        backbone, task = slug(spec.backbone.name), slug(spec.task.name)
        # mteb's file keeps the task's own spelling where that is safe; its folder is this cell's alone.
        name = spec.task.name if re.fullmatch(r"[A-Z][\w-]{3,60}(\.v\d+)?", spec.task.name, re.A) else task
        text = _json(record.model_dump(mode="json"))
        atomic_write(self.out / "mteb" / backbone / cell / f"{name}.json", _json(_finite(mteb_result)))
        atomic_write(self.out / "runs" / backbone / task / f"{cell}.json", text)

    def records(self) -> list[Record]:
        """Every usable record, in an order that depends on nothing but the records."""
        return sorted(self.finished().values(), key=_order)

    def finished(self) -> dict[str, Record]:
        """Every usable record by its `spec_id`."""
        found: dict[str, Record] = {}
        for path in sorted(self.out.glob("runs/*/*/*.json")):
            record = self._trusted(path, parse_record)
            if record and found.setdefault(record.spec_id, record) is not record:
                self._rejected[path] = f"is a second file of the cell {record.spec_id}"
        return found

    def read(self, spec_id: str) -> Record | None:
        """The usable record of one cell, without reading the others."""
        if not re.fullmatch(r"[0-9a-f]{16}", spec_id):
            return None
        paths = sorted(self.out.glob(f"runs/*/*/*-{spec_id}.json"))
        loaded = (self._trusted(path, parse_record) for path in paths)
        return next((record for record in loaded if record and record.spec_id == spec_id), None)

    def remember_suite(self, name: str, title: str, tasks: list[str] | tuple[str, ...]) -> None:
        """Notes that a run asked for these tasks under this name; the last call for a name counts."""
        suite = AskedSuite(name, title, tuple(dict.fromkeys(tasks)))
        atomic_write(self.out / "suites" / f"{slug(name)}.json", _json(asdict(suite)))

    def suites(self) -> list[AskedSuite]:
        """The suites asked for, by name."""
        loaded = [self._trusted(path, _suite) for path in sorted(self.out.glob("suites/*.json"))]
        return sorted((suite for suite in loaded if suite), key=lambda suite: (suite.name, suite.tasks))

    def quarantine(self) -> list[Path]:
        """Moves every rejected file to `quarantine/`, overwriting nothing, and returns the new places.

        Raises:
            InputError: the disk refused.
        """
        return [self._move_away(path) for path, _ in self.rejected]

    def _move_away(self, path: Path) -> Path:
        place = self.out / "quarantine" / path.relative_to(self.out)
        copies = 0
        while (free := place.with_name(place.name + f".{copies}" * bool(copies))).exists():
            copies += 1
        try:
            free.parent.mkdir(parents=True, exist_ok=True)
            path.rename(free)
        except OSError as error:
            raise disk_error("move", path, error) from error
        del self._rejected[path]
        return free

    def _trusted(self, path: Path, parse: Callable[[Any], T]) -> T | None:
        self._rejected.pop(path, None)
        try:
            return parse(json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse_constant))
        except (OSError, ValueError, RecursionError) as error:
            self._rejected[path] = reason_for(error)
            return None


def _suite(held: Any) -> AskedSuite:
    try:
        suite = AskedSuite(held["name"], held["title"], tuple(held["tasks"]))
    except (TypeError, KeyError) as error:
        raise ValueError("does not hold the name, title and tasks of a suite") from error
    if not all(isinstance(text, str) for text in (suite.name, suite.title, *suite.tasks)):
        raise ValueError("holds a name, title or task that is not a text")
    return suite


def _order(record: Record) -> tuple[str, str, str, str, int, str]:
    spec = record.spec
    seed = -1 if spec.seed is None else spec.seed
    return spec.backbone.name, spec.backbone.revision, spec.task.name, spec.method.name, seed, record.spec_id


def _json(held: Any) -> str:
    return json.dumps(held, allow_nan=False, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def _finite(held: Any) -> Any:
    # mteb reports NaN for side figures that few queries leave undefined (nAUC); JSON has no NaN.
    if isinstance(held, float):
        return held if math.isfinite(held) else None
    if isinstance(held, dict):
        return {key: _finite(value) for key, value in held.items()}
    return [_finite(value) for value in held] if isinstance(held, (list, tuple)) else held
