"""Files of texts: TXT, JSONL, CSV or TSV, each also gzipped, read into records."""

from __future__ import annotations

import csv
import io
import json
import zlib
from pathlib import Path
from typing import Any

from fusebench.benchmarks.compressed import unpacked
from fusebench.errors import InputError

SUFFIXES = (".txt", ".jsonl", ".csv", ".tsv")


def suffix_of(file: Path) -> str:
    """The suffix below `.gz`."""
    return Path(file.name.removesuffix(".gz")).suffix


def files_of(folder: Path) -> list[Path]:
    """The files of texts in a folder, by name."""
    return sorted(file for file in folder.iterdir() if suffix_of(file) in SUFFIXES and file.is_file())


def read_records(file: Path, what: str) -> list[Any]:
    """A TXT file's lines, a JSONL file's values, a CSV or TSV file's rows as objects of texts.

    Args:
        file: to be read.
        what: is read, for messages: "texts" or "rows".

    Raises:
        InputError: if it cannot be read as what its name says.
    """
    suffix = suffix_of(file)
    if suffix not in SUFFIXES:
        raise InputError(f"{file.name}: {what} are read from {', '.join(SUFFIXES)} files, also with .gz.")
    try:
        raw = unpacked(file) if file.name.endswith(".gz") else file.read_bytes()
        return _parse(raw.decode("utf-8-sig"), suffix)
    except (OSError, EOFError, ValueError, RecursionError, zlib.error, csv.Error) as error:
        raise InputError(f"{file.name} cannot be read as {suffix[1:]}: {error}.") from error


def _parse(text: str, suffix: str) -> list[Any]:
    # Not splitlines, which also breaks at characters that stand inside texts, such as U+2028.
    if suffix == ".txt":
        return list(text.split("\n"))
    if suffix == ".jsonl":
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    delimiter = "\t" if suffix == ".tsv" else ","
    return list(csv.DictReader(io.StringIO(text, newline=""), restval="", delimiter=delimiter, strict=True))
