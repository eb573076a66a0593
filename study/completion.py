"""`run_bench.py completion`: what a shell needs to complete the command line, made by shtab from the parsers."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

from fusebench.errors import InputError
from fusebench.study import flags as parsers
from fusebench.study.parser import Parser

COMMANDS: dict[str, Callable[[], Parser]] = {
    "run": parsers.run_parser,
    "list": parsers.list_parser,
    "report": parsers.report_parser,
    "compare": parsers.compare_parser,
    "gate": parsers.gate_parser,
    "verify": lambda: parsers.record_parser("verify", "Scores a record's method again with stock tools."),
    "replay": lambda: parsers.record_parser("replay", "Runs a record again."),
    "diagnose": parsers.diagnose_parser,
    "export": parsers.export_parser,
    "push": parsers.push_parser,
    "doctor": parsers.doctor_parser,
    "completion": parsers.completion_parser,
}


def show(flags: argparse.Namespace) -> int:
    """Prints the script."""
    print(script(flags.shell))
    return 0


def script(shell: str) -> str:
    """What the shell has to read once.

    Names of methods, tasks and suites stand in it, so that completing costs nothing; those of plugins do not.

    Raises:
        InputError: if shtab is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise InputError(f"completion: {error}; python -m pip install shtab.") from error
    whole = parsers.run_parser()
    whole.prog = "fusebench"
    commands = whole.add_subparsers()
    for name, make in COMMANDS.items():
        parser = make()
        commands.add_parser(name, help=(parser.description or "").split(":")[0])
        commands.choices[name] = parser
    named = _names()
    for parser in (whole, *commands.choices.values()):
        for action in parser._actions:
            if action.dest in named:
                action.choices = named[action.dest]
            elif action.metavar == "DIR":
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            elif "FILE" in str(action.metavar) or action.metavar in ("NAME_OR_PATH", "RECORD"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return shtab.complete(whole, shell)


def _names() -> dict[str, list[str]]:
    """What can stand behind a flag; a sentence with parentheses is left out, for a shell reads them as its own."""
    from fusebench.benchmarks.suites import SUITES
    from fusebench.study.catalogue import CATALOGUE

    methods = _once(entry.name for entry in CATALOGUE if "(" not in entry.name)
    tasks = _once(task for suite in SUITES.values() for task in suite.tasks)
    return {"methods": methods, "method": methods, "tasks": tasks, "suite": list(SUITES)}


def _once(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
