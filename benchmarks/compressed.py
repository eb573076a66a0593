"""How much a compressed file may hold, so that a small file from elsewhere cannot fill memory or disk."""

from __future__ import annotations

import gzip
import os
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from fusebench.errors import InputError

VARIABLE = "FUSEBENCH_MAX_UNPACKED_MB"
_DEFAULT_MB = 4096
_MOST_ROWS = 100_000_000  # of a Parquet file, whose encoding can make rows of nothing
_PIECE = 1 << 20
_ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst", ".lz4")


def most_bytes() -> int:
    """How many bytes a compressed file may hold: `FUSEBENCH_MAX_UNPACKED_MB`, 4096 unless set.

    Raises:
        InputError: the variable is no whole number above 0.
    """
    given = os.environ.get(VARIABLE, str(_DEFAULT_MB))
    if not (given.isascii() and given.isdigit() and int(given)):
        raise InputError(f"{VARIABLE} is {given!r}: set it to a whole number of megabytes")
    return int(given) * 1_000_000


def unpacked(path: Path) -> bytes:
    """The content of a gzipped file.

    Raises:
        InputError: it holds more than `most_bytes`.
        OSError, EOFError, zlib.error: it cannot be read as gzip.
    """
    return b"".join(_pieces(path))


def require_bounded(path: Path) -> None:
    """Checks a file of data before a library unpacks it.

    Raises:
        InputError: it holds more than `most_bytes`, or is an archive whose content cannot be told beforehand.
    """
    if path.suffix in _ARCHIVES:
        raise InputError(f"{path} is an archive: unpack it, or use .gz or .parquet")
    if path.suffix == ".gz":
        try:
            deque(_pieces(path), maxlen=0)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path} cannot be read as gzip ({error}): correct it") from error
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            metadata = pq.read_metadata(path)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} is no Parquet file ({error}): correct it") from error
        size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
        if size > most_bytes():
            raise _too_large(path, f"{size / 1e6:.0f} MB")
        if metadata.num_rows > _MOST_ROWS:
            raise InputError(f"{path} holds {metadata.num_rows} rows, more than {_MOST_ROWS}: give a smaller file")


def _pieces(path: Path) -> Iterator[bytes]:
    most, size = most_bytes(), 0
    with gzip.open(path) as file:
        while piece := file.read(_PIECE):
            size += len(piece)
            if size > most:
                raise _too_large(path, f"more than {most // 1_000_000} MB")
            yield piece


def _too_large(path: Path, size: str) -> InputError:
    return InputError(
        f"{path.name} holds {size} once unpacked, and at most {most_bytes() // 1_000_000} MB are unpacked: set "
        f"{VARIABLE} to a larger number if you trust the file"
    )
