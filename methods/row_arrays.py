"""Float32 arrays that grow by rows: in memory while they are small, mapped from nameless files once they are not."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Generic, TypeVar

import numpy as np
from jaxtyping import Float32

from fusebench.errors import InputError

Key = TypeVar("Key")

IN_MEMORY = 1 << 30  # bytes of all arrays together; more of them go to disk
_RESIDENT = 1 << 27  # bytes read and written until the system may take the pages back


class RowArrays(Generic[Key]):
    """Arrays of equally many rows, by key. Threads may read and write different rows; only one may grow or cut.

    Args:
        in_memory: how many bytes they may take; beyond, all of them lie in files that go away with the process.
        folder: where those files lie; None is the system's place for temporary files.
    """

    def __init__(self, *, in_memory: int = IN_MEMORY, folder: Path | None = None) -> None:
        self._in_memory, self._folder = in_memory, folder
        self._arrays: dict[Key, np.ndarray] = {}
        self._files: dict[Key, IO[bytes]] = {}
        self._maps: dict[Key, mmap.mmap] = {}
        self._rows = self._touched = 0

    def __len__(self) -> int:
        """How many rows each array has."""
        return self._rows

    def __iter__(self) -> Iterator[Key]:
        return iter(self._arrays)

    @property
    def on_disk(self) -> bool:
        """Whether the arrays have outgrown memory."""
        return bool(self._files)

    def grow(self, widths: Mapping[Key, int], count: int) -> None:
        """Makes room for `count` more rows, which hold anything until they are written.

        Args:
            widths: of every array; a new one has rows that hold anything.
            count: how many rows more.

        Raises:
            InputError: if the disk has no room for them.
        """
        rows = self._rows + count
        to_disk = self.on_disk or 4 * rows * sum(widths.values()) > self._in_memory
        for key, width in widths.items():
            before = None if key in self._files else self._arrays.get(key)
            room = self._mapped(key, rows, width) if to_disk else np.empty((rows, width), dtype=np.float32)
            if before is not None:
                room[: len(before)] = before
            self._arrays[key] = room
        self._rows = rows

    def cut(self, rows: int) -> None:
        """Forgets all rows but the first ones."""
        self._arrays = {key: array[:rows] for key, array in self._arrays.items()}
        self._rows = rows

    def since(self, row: int) -> dict[Key, np.ndarray]:
        """Every array from a row on: the arrays themselves, to be read and written."""
        return {key: array[row:] for key, array in self._arrays.items()}

    def read(self, key: Key, rows: slice | np.ndarray) -> Float32[np.ndarray, "rows width"]:
        """These rows of one array; not to be written to, because in memory a slice is the array itself."""
        found = self._arrays[key][rows]
        if not self.on_disk:
            return found
        copied = np.array(found)
        self._touch(copied.nbytes)
        return copied

    def write(self, key: Key, rows: slice | np.ndarray, values: Float32[np.ndarray, "rows width"]) -> None:
        """Puts values into these rows of one array."""
        self._arrays[key][rows] = values
        if self.on_disk:
            self._touch(values.nbytes)

    def _mapped(self, key: Key, rows: int, width: int) -> np.ndarray:
        size = 4 * rows * width
        try:
            if key not in self._files:
                # A file without a name: the system frees its room however the process ends.
                self._files[key] = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  # lives as long as this
            number = self._files[key].fileno()
            os.ftruncate(number, size)
            if hasattr(os, "posix_fallocate"):  # a mapped file on a full disk would kill the process when written
                os.posix_fallocate(number, 0, size)
        except OSError as error:
            where = self._folder or tempfile.gettempdir()
            raise InputError(
                f"{size / 1e9:.1f} GB of layer states cannot be stored in {where} ({error.strerror}); "
                "free some room, or set the environment variable TMPDIR to a folder that has it."
            ) from error
        self._maps[key] = mmap.mmap(number, size)
        return np.frombuffer(self._maps[key], dtype=np.float32).reshape(rows, width)

    def _touch(self, count: int) -> None:
        """Gives pages back from time to time; what they hold is in the file."""
        self._touched += count  # threads may lose a count: pages then go back a little later
        if self._touched > _RESIDENT and hasattr(mmap, "MADV_DONTNEED"):
            self._touched = 0
            for mapped in list(self._maps.values()):
                mapped.madvise(mmap.MADV_DONTNEED)
