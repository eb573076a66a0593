"""A lock that processes, also of several machines, take in turn; the system frees it when its holder dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fusebench.benchmarks.atomic import disk_error
from fusebench.errors import InputError

_POLL_SECONDS = 0.2


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the lock of the file `path`, which stays there, empty, for the next one.

    It is `flock`, so that of a holder killed by force nothing is left to clean up.

    Args:
        path: of the file; missing folders are made.
        waiting: called once if another process holds the lock.

    Raises:
        InputError: the disk refused, or its file system has no locks.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire(poll_interval=_POLL_SECONDS)
    except NotImplementedError as error:
        raise InputError(
            f"{path.parent} lies on a file system without locks, so two runs could spoil each other's files there; "
            "name a folder on another file system with --out"
        ) from error
    except OSError as error:
        raise disk_error("lock", path, error) from error
    try:
        yield
    finally:
        lock.release()
