"""The terminal, or the file or pipe in its place, that results and messages go to."""

from __future__ import annotations

from typing import NoReturn

from rich.console import Console


class Screen(Console):
    """A console whose lines are as long as they are where no terminal has to fit them."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr)
        if not self.is_terminal:
            self.width = 10_000

    def on_broken_pipe(self) -> NoReturn:
        """Leaves the exit code to the command line."""
        raise BrokenPipeError
