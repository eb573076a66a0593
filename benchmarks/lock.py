"""A lock that processes, also of several machines, take in turn; the system frees it when its holder dies."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fusebench.benchmarks.atomic import disk_error
from fusebench.errors import InputError

_POLL_SECONDS = 0.2
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


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
    # A file whose mere existence is the lock would outlive a holder on another machine.
    lock = FileLock(path, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire(poll_interval=_POLL_SECONDS)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise disk_error("lock", path, error) from error
        raise InputError(
            f"{path.parent} lies on a file system without locks, so two runs could spoil each other's files there; "
            "name a folder on another file system with --out"
        ) from error
    try:
        yield
    finally:
        lock.release()
