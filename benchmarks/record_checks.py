"""Which files hold a record that can be trusted, and in plain words why another does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from fusebench.benchmarks.record import SCHEMA, Record
from fusebench.benchmarks.redaction import holds_secret

__all__ = ["OtherVersionError", "flaw_of", "parse_record", "reason_for"]

_PATH = re.compile(r"""(^|[\s"'=(])((\.{1,2}|~)?/[^\s/]|[A-Za-z]:[\\/]|\\\\|file:/)""")


class OtherVersionError(ValueError):
    """A file of another version of the project: not used, but nothing is wrong with it."""


def parse_record(held: Any) -> Record:
    """The record that a file's JSON holds.

    Raises:
        OtherVersionError: it holds one of another schema.
        ValueError: it holds none, or one that cannot be trusted; the message says why.
    """
    version = held.get("schema_version") if isinstance(held, dict) else None
    if isinstance(version, int) and version < SCHEMA:
        raise OtherVersionError(
            f"was written by an older version (schema {version}); run the same command to compute it anew, "
            "then delete this file"
        )
    if isinstance(version, int) and version > SCHEMA:
        raise OtherVersionError(f"has schema version {version}; this version reads {SCHEMA}")
    if version != SCHEMA:
        raise ValueError(f"has schema version {version!r}; this version reads {SCHEMA}")
    record = Record.model_validate(held)
    if flaw := flaw_of(record):
        raise ValueError(flaw)
    return record


def flaw_of(record: Record) -> str | None:
    """What makes a record unusable, or None."""
    if record.spec_id != record.spec.spec_id:
        return f"has spec_id {record.spec_id}, but its specification hashes to {record.spec.spec_id}"
    try:
        datetime.fromisoformat(record.environment.created)
    except ValueError:
        return f"was created at {record.environment.created!r}, which is no ISO 8601 time"
    held = record.model_dump(mode="json")
    if secret := _where(held, holds_secret):
        return f"holds an access token or a password in {secret[0]}"
    # Prompts are the user's own words; every other text is the program's and may not lead into a disk.
    del held["spec"]["prompts"]
    path = _where(held, lambda text: _PATH.search(text) is not None)
    return f"holds the path {path[1]!r} in {path[0]}" if path else None


def _where(held: Any, bad: Callable[[str], bool]) -> tuple[str, str] | None:
    """The first text that is bad, and where it stands; all are looked at together first, as nearly none ever is."""
    texts = list(_texts(held))
    if not bad("\n".join(text for _, text in texts)):
        return None
    return next(((where, text) for where, text in texts if bad(text)), None)


def _texts(held: Any, where: str = "record") -> Iterator[tuple[str, str]]:
    if isinstance(held, str):
        yield where, held
    elif isinstance(held, dict):
        for key, value in held.items():
            yield where, key
            yield from _texts(value, f"{where}.{key}")
    elif isinstance(held, list):
        for value in held:
            yield from _texts(value, where)


def reason_for(error: Exception) -> str:
    """One line on why a file is refused, without pydantic's page of detail."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"is not a record: {'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)
