"""The results folder: finished records, mteb's own result files, the suites asked for."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from fusebench.benchmarks.atomic import atomic_write, disk_error, slug
from fusebench.benchmarks.record import Record
from fusebench.benchmarks.record_checks import OtherVersionError, flaw_of, parse_record, reason_for
from fusebench.benchmarks.sealed_json import sealed_text, unsealed
from fusebench.errors import InputError

__all__ = ["AskedSuite", "Store", "own_paths", "slug"]

T = TypeVar("T")

# What this project writes into a results folder; whatever else lies there is the user's and not looked at.
_OWN = (
    *("runs", "mteb", "samples", "suites", "sweeps", "training", "trained", "checkpoints", "logs", "leaderboards"),
    *("tests", "quarantine", "locks", "diagnostics", "figures", "protocols"),
    *("README.md", "scores.csv", "scores.parquet", "report.html"),
)


@dataclass(frozen=True)
class AskedSuite:
    """A named list of tasks that some run asked for; a board shows how many of them it has."""

    name: str
    title: str
    tasks: tuple[str, ...]


class Store:
    """The folder `out`; nothing is created before the first write.

    A file that cannot be trusted is never used and never deleted: `rejected` lists it with the reason, `quarantine`
    moves it away if it is damaged.
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
        self._damaged: set[Path] = set()
        self._places: dict[str, Path] = {}

    @property
    def rejected(self) -> list[tuple[Path, str]]:
        """The files refused by the reads so far, and why."""
        return sorted(self._rejected.items())

    @property
    def damaged(self) -> list[tuple[Path, str]]:
        """Those of them that `quarantine` would move away, and why."""
        return [(path, reason) for path, reason in self.rejected if path in self._damaged]

    def require_writable(self) -> None:
        """Fails now, and not after an hour of computing, if nothing can be written.

        Raises:
            InputError: the folder cannot be made or written to, or a link in it leads elsewhere.
        """
        self.require_no_way_out()
        probe = self.out / "runs" / ".writable"
        atomic_write(probe, "")
        probe.unlink(missing_ok=True)

    def require_no_way_out(self) -> None:
        """Fails if what is written below the folder would land outside of it.

        Raises:
            InputError: a link in it leads elsewhere.
        """
        home = os.path.realpath(self.out)
        for path in own_paths(self.out):
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(home):
                raise InputError(
                    f"{path} is a link that leads out of {self.out}: put a folder or file in its place, or name the "
                    "folder that it leads to with --out"
                )

    def write(self, record: Record, mteb_result: dict[str, Any]) -> None:
        """Stores a finished cell; mteb's result goes first: a record on disk means that all of it is there.

        Raises:
            InputError: the disk refused, or the record is one that reading would refuse.
        """
        spec = record.spec
        if flaw := flaw_of(record):
            raise InputError(f"cannot store {spec.method.name!r} on {spec.task.name!r}: the record {flaw}.")
        text = sealed_text(record.model_dump(mode="json"))
        atomic_write(self.result_path(record), sealed_text(_finite(mteb_result)))
        folder = self.out / "runs" / slug(spec.backbone.name) / slug(spec.task.name)
        atomic_write(folder / f"{_cell(record)}.json", text)

    def result_path(self, record: Record) -> Path:
        """Where mteb's own result of a cell is written."""
        task = record.spec.task.name
        # It keeps the task's own spelling where that is safe; its folder is this cell's alone.
        name = task if re.fullmatch(r"[A-Z][\w-]{3,60}(\.v\d+)?", task, re.A) else slug(task)
        return self.out / "mteb" / slug(record.spec.backbone.name) / _cell(record) / f"{name}.json"

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
            elif record:
                self._places[record.spec_id] = path
        return found

    def place_of(self, spec_id: str) -> Path:
        """The file of a record that `finished` found."""
        return self._places[spec_id]

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
        atomic_write(self.out / "suites" / f"{slug(name)}.json", sealed_text(asdict(suite)))

    def suites(self) -> list[AskedSuite]:
        """The suites asked for, by name."""
        loaded = [self._trusted(path, _suite) for path in sorted(self.out.glob("suites/*.json"))]
        return sorted((suite for suite in loaded if suite), key=lambda suite: (suite.name, suite.tasks))

    def reject(self, path: Path, reason: str) -> None:
        """Notes that a file or folder is damaged, which `quarantine` then moves away."""
        self._rejected[path] = reason
        self._damaged.add(path)

    def quarantine(self) -> list[Path]:
        """Moves every damaged file to `quarantine/`, overwriting nothing, and returns the new places.

        Files of other versions, second files of a cell and files that may not be read stay where they are.

        Raises:
            InputError: the disk refused.
        """
        moved = [self._move_away(path) for path in sorted(self._damaged)]
        return [place for place in moved if place is not None]

    def _move_away(self, path: Path) -> Path | None:
        place = self.out / "quarantine" / path.relative_to(self.out)
        copies = 0
        while (free := place.with_name(place.name + f".{copies}" * bool(copies))).exists():
            copies += 1
        self._damaged.discard(path)
        self._rejected.pop(path, None)
        try:
            free.parent.mkdir(parents=True, exist_ok=True)
            path.rename(free)
        except FileNotFoundError:  # another run that found it too was faster
            return None
        except OSError as error:
            raise disk_error("move", path, error) from error
        return free

    def _trusted(self, path: Path, parse: Callable[[Any], T]) -> T | None:
        self._rejected.pop(path, None)
        self._damaged.discard(path)
        try:
            return parse(unsealed(path.read_bytes()))
        except (OSError, OtherVersionError) as error:
            self._rejected[path] = reason_for(error)
        except ValueError as error:
            self.reject(path, reason_for(error))
        return None


def own_paths(out: Path) -> Iterator[Path]:
    """Every file, folder and link in a results folder that this project may have put there."""
    for name in _OWN:
        yield out / name
        for folder, below, files in os.walk(out / name):
            yield from (Path(folder, one) for one in (*below, *files))


def _cell(record: Record) -> str:
    spec = record.spec
    smoke = "" if spec.limit is None else f"-first{spec.limit}"
    return f"{slug(spec.method.name)}{smoke}-{record.spec_id}"


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


def _finite(held: Any) -> Any:
    # mteb reports NaN for side figures that few queries leave undefined (nAUC); JSON has no NaN.
    if isinstance(held, float):
        return held if math.isfinite(held) else None
    if isinstance(held, dict):
        return {key: _finite(value) for key, value in held.items()}
    return [_finite(value) for value in held] if isinstance(held, (list, tuple)) else held
