"""The texts that transforms are fitted on: embedded, from a data folder, or from a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fusebench.benchmarks.record import TextSetSpec
from fusebench.errors import InputError
from fusebench.study.text_files import files_of, read_records, suffix_of

DEFAULT = "lee-background"


@dataclass(frozen=True)
class TextSet:
    """Distinct texts in their order, and what identifies them."""

    spec: TextSetSpec
    texts: tuple[str, ...]


def load_texts(what: str, data_dir: Path | None) -> TextSet:
    """Texts by name or file.

    Args:
        what: `lee-background` (embedded: sentences of articles that no task uses), a folder or file below
            `<data_dir>/train`, or a file: TXT (one text a line), JSONL, CSV or TSV (every text column), each
            also gzipped.
        data_dir: where named sets lie.

    Raises:
        InputError: if there is no such set, or it holds no text.
    """
    if what == DEFAULT:
        from fusebench.benchmarks.embedded import fit_sentences

        return _text_set(DEFAULT, fit_sentences())
    place, files = _files(what, data_dir)
    found = _text_set(place.name, [text for file in files for text in read_texts(file)])
    if not found.texts:
        raise InputError(f"--fit {what} holds no text; give another file, or leave --fit out for {DEFAULT}.")
    return found


def _text_set(name: str, texts: list[str]) -> TextSet:
    distinct = tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))
    digest = hashlib.sha256(json.dumps(distinct).encode()).hexdigest()
    return TextSet(TextSetSpec(name=name, sha256=digest, count=len(distinct)), distinct)


def _files(what: str, data_dir: Path | None) -> tuple[Path, list[Path]]:
    """The file or folder that is meant, and the files in it."""
    if not what.strip():
        raise InputError(f"--fit is empty; name a text set or a file, such as {DEFAULT}.")
    places = [Path(what).expanduser(), *([data_dir / "train" / what] if data_dir else [])]
    for place in places:
        if place.is_file():
            return place.resolve(), [place]
        if place.is_dir() and (found := files_of(place)):
            return place.resolve(), found
    where = " or ".join(str(place) for place in places)
    raise InputError(f"--fit {what}: no such text set ({where}); the embedded one is {DEFAULT}.")


def read_texts(file: Path) -> Iterator[str]:
    """The texts of one file, in order; columns of numbers and labels are left out.

    Raises:
        InputError: if the file cannot be read as what its name says.
    """
    try:
        for record in read_records(file, "texts"):
            yield from _values(record)
    except RecursionError as error:
        raise InputError(f"{file.name} cannot be read as {suffix_of(file)[1:]}: {error}.") from error


_LABELS = {"label", "labels", "split", "subset", "id", "_id", "score", "image", "synset", "lemmas"}


def _values(row: object) -> Iterator[str]:
    """Every text in a row, whatever its column; lists of texts too."""
    if isinstance(row, str):
        yield row
    elif isinstance(row, list):
        for value in row:
            yield from _values(value)
    elif isinstance(row, dict):
        for key, value in row.items():
            if key not in _LABELS:
                yield from _values(value)
