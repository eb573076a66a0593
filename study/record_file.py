"""A record named by its file, and how it says what changed since."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fusebench.benchmarks.record import Record, Spec
from fusebench.benchmarks.record_checks import parse_record, reason_for
from fusebench.benchmarks.sealed_json import unsealed
from fusebench.errors import InputError


def read_record(path: Path) -> Record:
    """The record of a file.

    Raises:
        InputError: if there is none, or it cannot be trusted.
    """
    if not path.is_file():
        raise InputError(f"there is no record {path}; name a file below runs/ of a results folder.")
    try:
        return parse_record(unsealed(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} {reason_for(error)}.") from error


def results_folder(path: Path) -> Path:
    """The results folder that a record lies in: `OUT/runs/<backbone>/<task>/<file>`.

    Raises:
        InputError: if it lies elsewhere.
    """
    above = path.resolve().parents
    if len(above) < 4 or above[2].name != "runs":
        raise InputError(
            f"{path} does not lie in a results folder, where its weights would be; name them by --weights."
        )
    return above[3]


def changes(then: Spec, now: Spec) -> list[tuple[str, str, str]]:
    """Every field in which two specifications differ: its name with dots, then, now."""
    return list(_changes("", then.model_dump(mode="json"), now.model_dump(mode="json")))


def _changes(where: str, then: Any, now: Any) -> Iterator[tuple[str, str, str]]:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*then, *now]):
            yield from _changes(f"{where}.{key}" if where else key, then.get(key), now.get(key))
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for place, (a, b) in enumerate(zip(then, now, strict=True)):
            yield from _changes(f"{where}[{place}]", a, b)
    elif then != now:
        yield where, json.dumps(then, ensure_ascii=False), json.dumps(now, ensure_ascii=False)
