"""The terminal, or the file or pipe in its place, that results and messages go to."""

from __future__ import annotations

import logging
from typing import Any, NoReturn

from rich.console import Console

from fusebench.benchmarks.redaction import redacted


class Screen(Console):
    """A console whose lines are as long as they are where no terminal has to fit them; it shows no access token."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr)
        if not self.is_terminal:
            self.width = 10_000

    def print(self, *objects: Any, **how: Any) -> None:
        """Prints as a console does, tokens and passwords hidden."""
        super().print(*(redacted(one) if isinstance(one, str) else one for one in objects), **how)

    def on_broken_pipe(self) -> NoReturn:
        """Leaves the exit code to the command line."""
        raise BrokenPipeError


def log_to_stderr(level: int) -> None:
    """Sends log messages to stderr, tokens and passwords hidden."""
    logging.basicConfig(level=level)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_RedactingFormatter(logging.BASIC_FORMAT))


class _RedactingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))
