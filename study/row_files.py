"""Files of training rows: TXT, JSONL, CSV or TSV, whose columns decide what kind of rows they hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusebench.errors import InputError
from fusebench.study.text_files import SUFFIXES, files_of, read_records, suffix_of

if TYPE_CHECKING:
    from fusebench.methods.parts import Reads


@dataclass(frozen=True)
class Offer:
    """Rows of one kind that a set can give.

    Attributes:
        scores: of scored pairs, as they stand in the file.
        note: why the rows are of no better kind.
    """

    kind: Reads
    rows: list[tuple[str, ...]]
    scores: list[float] | None = None
    note: str = ""


def sentences(texts: Iterable[str], note: str = "") -> Offer:
    """Distinct texts in their order, blank ones left out."""
    distinct = dict.fromkeys(text.strip() for text in texts if text.strip())
    return Offer("sentences", [(text,) for text in distinct], note=note)


def read_place(asked: str, place: Path) -> list[Offer]:
    """The rows of a file, or of all files of a folder together.

    Args:
        asked: flag and name that the user gave, for messages.
        place: the file or folder.

    Raises:
        InputError: if a file cannot be read, or the files of a folder hold different kinds.
    """
    if place.is_file():
        return read_file(place)
    files = files_of(place)
    if not files:
        raise InputError(f"{asked}: the folder holds no file of texts ({', '.join(SUFFIXES)}, also .gz).")
    each = [read_file(file) for file in files]
    if len({tuple(offer.kind for offer in offers) for offers in each}) > 1:
        held = ", ".join(f"{file.name}: {offers[0].kind}" for file, offers in zip(files, each, strict=True))
        raise InputError(f"{asked} holds files of several kinds ({held}); name one of them.")
    return [_joined(parts) for parts in zip(*each, strict=True)]


def _joined(parts: Sequence[Offer]) -> Offer:
    rows = list(chain.from_iterable(part.rows for part in parts))
    if parts[0].kind == "sentences":
        return sentences(chain.from_iterable(rows), parts[0].note)
    scores = [score for part in parts for score in part.scores or ()]
    return Offer(parts[0].kind, rows, scores or None, parts[0].note)


def read_file(file: Path) -> list[Offer]:
    """The rows of one file, as each kind it can give.

    Raises:
        InputError: if it cannot be read as what its name says.
    """
    records = read_records(file, "rows")
    if suffix_of(file) == ".txt":
        return [sentences(records)]
    return rows_of(file.name, records if suffix_of(file) == ".jsonl" else _with_numbers(records))


def _with_numbers(records: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Columns that hold nothing but numbers as numbers; a CSV file has only texts."""
    numeric = (
        [key for key in records[0] if all(_number(record[key]) is not None for record in records)] if records else []
    )
    return [{key: _number(v) if key in numeric else v for key, v in record.items()} for record in records]


# Columns of these names are the texts, whatever else a file has.
_KNOWN = (
    ("sent0", "sent1", "hard_neg"),
    ("anchor", "positive", "negative"),
    ("query", "positive", "negative"),
    ("sentence1", "sentence2"),
    ("anchor", "positive"),
)
_NO_TEXT = {"label", "labels", "score", "split", "subset", "id", "_id", "sid", "genre", "dataset", "year", "image"}
_NO_TEXT |= {"synset", "lemmas", "source", "url"}


def rows_of(name: str, records: Sequence[Any]) -> list[Offer]:
    """The rows that records make: objects with columns of texts, or texts alone.

    Args:
        name: of the file, for messages.
        records: as parsed from JSON.

    Raises:
        InputError: if they differ in their columns, have none or too many, or a text is missing.
    """
    if records and all(isinstance(record, str) for record in records):
        return [sentences(records)]
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict) or None in record:
            raise InputError(f"{name}: row {number} is no object with named columns.")
    lists = _columns(records, list)
    strings = _columns(records, str)
    strings = next((list(known) for known in _KNOWN if set(known) <= set(strings)), strings)
    if lists and not strings:
        return _from_groups([_members(name, number, record, lists) for number, record in enumerate(records, 1)])
    if lists:
        every = [
            [*_texts(name, number, record, strings), *_members(name, number, record, lists)]
            for number, record in enumerate(records, 1)
        ]
        return [sentences(chain.from_iterable(every), note="columns of texts beside lists of texts make no pairs")]
    rows = [_texts(name, number, record, strings) for number, record in enumerate(records, 1)]
    return _by_width(name, rows, strings, records)


def _columns(records: Sequence[Mapping[str, Any]], kind: type) -> list[str]:
    found = dict.fromkeys(key for record in records for key, value in record.items() if isinstance(value, kind))
    return [key for key in found if key not in _NO_TEXT]


def _members(name: str, number: int, record: Mapping[str, Any], lists: Sequence[str]) -> list[str]:
    found = [record.get(key) or [] for key in lists]
    if not all(isinstance(members, list) and all(isinstance(text, str) for text in members) for members in found):
        columns = "' or '".join(lists)
        raise InputError(f"{name}: row {number} has no list of texts in column '{columns}'.")
    return [text for members in found for text in members]


def _texts(name: str, number: int, record: Mapping[str, Any], columns: Sequence[str]) -> tuple[str, ...]:
    for key in columns:
        value = record.get(key)
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{name}: row {number} has no text in column '{key}'.")
    return tuple(record[key].strip() for key in columns)


def _from_groups(groups: Sequence[Sequence[str]]) -> list[Offer]:
    """Pairs of a group's members, each member in one pair at most; first one pair of each group, then the next.

    That keeps the pairs of one group, which are no negatives of each other, far apart in the file's order.
    """
    distinct = [list(dict.fromkeys(text.strip() for text in group if text.strip())) for group in groups]
    longest = max(map(len, distinct), default=0)
    pairs = [(one[k], one[k + 1]) for k in range(0, longest, 2) for one in distinct if len(one) > k + 1]
    return [Offer("pairs", list(pairs)), sentences(chain.from_iterable(distinct))]


def _by_width(
    name: str, rows: list[tuple[str, ...]], columns: Sequence[str], records: Sequence[Mapping[str, Any]]
) -> list[Offer]:
    kinds: dict[int, Reads] = {1: "sentences", 2: "pairs", 3: "triplets"}
    if len(columns) not in kinds:
        listed = ", ".join(columns) or "none"
        raise InputError(f"{name}: one, two or three columns of texts make rows; it has {len(columns)} ({listed}).")
    if len(columns) == 1:
        return [sentences(row[0] for row in rows)]
    label = next((key for key in ("score", "label") if any(key in record for record in records)), None)
    if label is None or len(columns) == 3:
        return [Offer(kinds[len(columns)], rows)]
    scores = [_number(record.get(label)) for record in records]
    if all(score is None for score in scores):
        # pairs that a word calls neutral or contradicting are no positives
        return [
            sentences(chain.from_iterable(rows), note=f"pairs whose '{label}' is no number are read as texts only")
        ]
    if None in scores:
        raise InputError(f"{name}: row {scores.index(None) + 1} has no number in column '{label}'.")
    numbers = [score for score in scores if score is not None]
    if label == "label" and max(numbers) > 1 and all(number.is_integer() for number in numbers):
        raise InputError(
            f"{name}: whole numbers in column 'label' may be classes, such as 0 for entailment; rename it to 'score' "
            "if more means more alike, else leave it out or write the classes in words."
        )
    return [Offer("scored-pairs", rows, numbers)]


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
