"""A run as on the command line, asked for from Python and answered with a table."""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Sequence
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
from fusebench.study.flags import run_parser
from fusebench.study.parser import Parser
from fusebench.study.plan import make_plan
from fusebench.study.results_place import results_in

_LOG = logging.getLogger(__name__)
_TERMINAL = ("dry_run", "verbose", "quiet")  # flags that only say what a terminal shows


def run_and_tabulate(methods: str | Sequence[str], options: dict[str, Any]) -> pd.DataFrame:
    """See `fusebench.run`."""
    flags = _flags({"methods": methods, **options})
    if flags.sweep is not None:
        raise InputError("fusebench.run: a sweep is many runs; ask for it on the command line.")
    load_plugins(flags.plugin)
    with results_in(flags.out, writes=True, quiet=True) as flags.out:
        asked = options_of(flags)
        store = Store(asked.out)
        require_own_readme(asked.out)
        plan = make_plan(asked)
        outcome = execute(plan, store, executor_of(flags), say=_LOG.warning)
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


def _flags(options: dict[str, Any]) -> argparse.Namespace:
    """What the command line would make of them: `data_dir="x", seeds=[0, 1], rerun=True`."""
    for name in _TERMINAL:
        if name in options:
            raise InputError(f"fusebench.run: {name} says what a terminal shows, and here is none; leave it out.")
    parser = run_parser(_RaisingParser)
    named = {name.replace("_", "-"): value for name, value in options.items() if value is not None}
    return parser.parse_args(parser.arguments(named))
