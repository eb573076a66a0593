"""The log of a training: a line a logged update, as JSON, and copies to the trackers that were asked for."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from fusebench.benchmarks.atomic import atomic_write, disk_error
from fusebench.errors import InputError
from fusebench.study.trackers import start_tracker


class TrainingLog:
    """Appends to `<path>.jsonl` while a training runs.

    A training that goes on after an interruption writes the updates since its last checkpoint again; `close` keeps
    the last line of each.

    Args:
        path: without suffix; its name is the name of the tracked run.
        config: what is trained, for the first line and the trackers.
        trackers: where it is sent too; see `start_tracker`.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], trackers: Sequence[str] = ()) -> None:
        self.path = path.with_name(path.name + ".jsonl")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _drop_half_line(self.path)
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise disk_error("write", self.path, error) from error
        self._write({"config": dict(config)})
        self._trackers = [start_tracker(kind, path, config) for kind in trackers]

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Appends one event; numbers that are not finite become null."""
        self._write(event)
        numbers = {k: v for k, v in event.items() if isinstance(v, int | float) and k != "update"}
        for tracker in self._trackers:
            tracker.log(numbers, event["update"])

    def _write(self, event: Mapping[str, Any]) -> None:
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in event.items()}
        try:
            self._file.write(json.dumps(finite, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise disk_error("write", self.path, error) from error

    def close(self) -> None:
        """Keeps one line of each event and ends the tracked runs."""
        self._file.close()
        lines: dict[tuple[Any, ...], str] = {}
        for line in self.path.read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            kind = (
                "config" if "config" in event else "dev" if "dev_score" in event else "end" if "end" in event else ""
            )
            key = (kind, event.get("stage"), event.get("update"))
            lines.pop(key, None)
            lines[key] = line
        atomic_write(self.path, "\n".join(lines.values()) + "\n")
        for tracker in self._trackers:
            tracker.finish()

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, InputError):
            self.close()
            return
        # The disk refuses: what did not get there is lost with the buffer, and the next run drops the half line.
        with contextlib.suppress(OSError):
            self._file.close()


def require_log(path: Path) -> None:
    """Checks the log that an earlier training left; a half line at its end is no damage.

    Raises:
        ValueError: if a line is no event.
    """
    whole = path.read_bytes().rpartition(b"\n")[0]
    for number, line in enumerate(whole.decode("utf-8").splitlines(), 1):
        if not isinstance(json.loads(line), dict):
            raise ValueError(f"line {number} is no event")


def _drop_half_line(path: Path) -> None:
    """Cuts off what an interrupted process wrote behind the last whole line."""
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
