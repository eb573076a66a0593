"""What the process does with memory that it has freed: it keeps it for the next batch."""

from __future__ import annotations

import contextlib
import ctypes

_MEGABYTE = 1 << 20
# Numbers of glibc's mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> None:
    """Tells glibc to keep freed memory, because each batch would otherwise fault in every page of its states anew.

    Arrays from 32 MB up are still given back at once. Does nothing where the C library is another.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_MMAP_THRESHOLD, 32 * _MEGABYTE)
        mallopt(_TRIM_THRESHOLD, 1024 * _MEGABYTE)
        mallopt(_TOP_PAD, 64 * _MEGABYTE)
