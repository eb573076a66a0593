"""A run as on the command line, asked for from Python and answered with a table."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from fusebench.benchmarks.board_files import require_own_readme
from fusebench.benchmarks.scores_table import scores_frame
from fusebench.benchmarks.store import Store
from fusebench.errors import InputError
from fusebench.methods.registry import load_plugins
from fusebench.study.boards import rebuild
from fusebench.study.commands import executor_of, options_of
from fusebench.study.execute import execute
from fusebench.study.flags import Parser, run_parser
from fusebench.study.plan import make_plan

_TERMINAL = ("dry_run", "verbose")  # flags that only say what a terminal shows


def run_and_tabulate(methods: str | Sequence[str], options: dict[str, Any]) -> pd.DataFrame:
    """See `fusebench.run`."""
    flags = run_parser(_RaisingParser).parse_args(_arguments({"methods": methods, **options}))
    load_plugins(flags.plugin)
    asked = options_of(flags)
    store = Store(asked.out)
    require_own_readme(asked.out)
    plan = make_plan(asked)
    outcome = execute(plan, store, executor_of(flags))
    rebuild(store)
    for failure in outcome.failures:
        warnings.warn(f"failed, and not in the table: {failure}", RuntimeWarning, stacklevel=3)
    finished = store.finished()
    return scores_frame(finished[cell.spec.spec_id] for cell in plan.cells if cell.spec.spec_id in finished)


class _RaisingParser(Parser):
    """A parser that leaves ending the process to others."""

    def error(self, message: str) -> NoReturn:
        """An InputError instead of an exit."""
        raise InputError(f"fusebench.run: {message}.")


def _arguments(options: dict[str, Any]) -> list[str]:
    """The command line that says the same: `data_dir="x", seeds=[0, 1], rerun=True`."""
    arguments = []
    for name, value in options.items():
        if name in _TERMINAL:
            raise InputError(f"fusebench.run: {name} says what a terminal shows, and here is none; leave it out.")
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            arguments += [flag] * value
        elif name == "seeds" and not isinstance(value, str | int):
            arguments.append(f"{flag}={','.join(map(str, value))}")
        elif value is not None:
            several = [value] if isinstance(value, str | int | float | Path) else value
            arguments += [f"{flag}={one}" for one in several]
    return arguments
