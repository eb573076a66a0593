"""Where log messages go: to stderr as many as were asked for, to a file of the results folder those of every run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

from fusebench.benchmarks.atomic import disk_error
from fusebench.benchmarks.redaction import redacted
from fusebench.errors import InputError

SAID = logging.getLogger("fusebench.said")  # what the terminal shows anyway, for the file

_FILE_BYTES, _OLDER_FILES = 1_000_000, 3


@contextmanager
def logged_to_stderr(level: int) -> Iterator[None]:
    """Within, messages of this level and above go to stderr, tokens and passwords hidden."""
    handler = logging.StreamHandler()
    handler.addFilter(lambda record: record.name != SAID.name)
    handler.setFormatter(_RedactingFormatter("%(levelname)s: %(message)s [%(name)s]"))
    with _handled(handler, level):
        yield


@contextmanager
def logged_to_file(out: Path, level: int) -> Iterator[None]:
    """Within, messages go to `logs/fusebench.log` below `out` too, and so does the error that ends it.

    A full file is renamed, and three older ones are kept. Runs that share the folder share the file; each line says
    which process wrote it.

    Args:
        out: the results folder.
        level: of messages; INFO if that is lower.

    Raises:
        InputError: if the file cannot be written.
    """
    path = out / "logs" / "fusebench.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(path, maxBytes=_FILE_BYTES, backupCount=_OLDER_FILES, encoding="utf-8")
    except OSError as error:
        raise disk_error("write", path, error) from error
    handler.setFormatter(_RedactingFormatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
    with _handled(handler, min(level, logging.INFO)):
        try:
            yield
        except InputError as error:
            SAID.error("error: %s", error)
            raise
        except BaseException as error:
            SAID.error("ended by %s", type(error).__name__, exc_info=error)
            raise


@contextmanager
def _handled(handler: logging.Handler, level: int) -> Iterator[None]:
    root = logging.getLogger()
    before = root.level
    handler.setLevel(level)
    root.addHandler(handler)
    root.setLevel(min(level, before))
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        handler.close()


class _LogFile(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- the library's name
        """A line that the disk refuses is not worth a run; the records that it refuses will say so."""


class _RedactingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))
