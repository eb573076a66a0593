"""The terminal, or the file or pipe in its place, that results and messages go to."""

from __future__ import annotations

from typing import Any, NoReturn

from rich.console import Console

from fusebench.benchmarks.redaction import redacted
from fusebench.study.logs import SAID


class Screen(Console):
    """A console whose lines are as long as they are where no terminal has to fit them; it shows no access token.

    What it says on stderr is logged too, also where `quiet` keeps it from being shown.
    """

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(stderr=stderr, quiet=quiet)
        if not self.is_terminal:
            self.width = 10_000

    def print(self, *objects: Any, **how: Any) -> None:
        """Prints as a console does, tokens and passwords hidden."""
        super().print(*(redacted(one) if isinstance(one, str) else one for one in objects), **how)
        if self.stderr:
            for text in (one for one in objects if isinstance(one, str)):
                SAID.info("%s", text)

    def on_broken_pipe(self) -> NoReturn:
        """Leaves the exit code to the command line."""
        raise BrokenPipeError
