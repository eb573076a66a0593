"""What is written by hand about a part: when to use it, and the numbers that others published."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

_FILE = Path(__file__).with_name("method_notes.toml")


class Published(TypedDict):
    """A number of somebody else's: `what` was measured, the `number`, and the `source` where it was read."""

    what: str
    number: str
    source: str


@dataclass(frozen=True)
class Note:
    """What is known of a part beyond its docstring; nothing, for a part that nobody wrote of."""

    when: str = ""
    published: tuple[Published, ...] = ()


def read_notes() -> dict[str, Note]:
    """The notes by name of part."""
    entries = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return {name: Note(entry["when"], _rows(entry)) for name, entry in entries.items()}


def _rows(entry: dict[str, object]) -> tuple[Published, ...]:
    return tuple(cast(list[Published], entry.get("published", [])))
