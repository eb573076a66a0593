"""The page of all commands and flags, read from the parsers that the command line uses."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

from docs.generator.docstrings import escaped
from fusebench.run_bench import COMMANDS

_INTRODUCTION = """\
# Commands and flags

`fusebench COMMAND` and `python run_bench.py COMMAND` are the same; a command line that starts with a flag is `run`.
This page is made from the parsers themselves.
"""


class _ParserReached(Exception):  # noqa: N818  it is no error
    """Carries the parser of a command out of it, before the command does anything."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__(parser.prog)
        self.parser = parser


def parser_of(command: Callable[[list[str]], int]) -> argparse.ArgumentParser:
    """The parser that a command reads its flags with.

    Raises:
        ValueError: if it reads none.
    """

    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        raise _ParserReached(parser)

    with patch.object(argparse.ArgumentParser, "parse_args", stop):
        try:
            command(["--help"])
        except _ParserReached as stopped:
            return stopped.parser
    raise ValueError(f"{command.__name__} reads no flags")


def write(page: Path) -> None:
    """Writes a section for each command."""
    sections = (_section(name, parser_of(command)) for name, command in COMMANDS.items())
    page.write_text("\n".join([_INTRODUCTION, *sections]), encoding="utf-8")


def _section(name: str, parser: argparse.ArgumentParser) -> str:
    lines = [f"## {name}", "", escaped(parser.description or ""), ""]
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        if actions and group.title not in ("positional arguments", "options"):
            lines += [f"### {name}: {group.title}", ""]
        for action in actions:
            if not isinstance(action, argparse._HelpAction):
                lines += [*_option(action, parser), ""]
    if parser.epilog:
        lines += ["```text", parser.epilog.rstrip(), "```", ""]
    return "\n".join(lines)


def _option(action: argparse.Action, parser: argparse.ArgumentParser) -> Iterator[str]:
    """A term and what it means, as a definition list."""
    value = "" if action.nargs == 0 else parser._get_formatter()._format_args(action, _metavar(action))
    names = ", ".join(f"`{f'{name} {value}'.strip()}`" for name in action.option_strings) or f"`{value}`"
    yield names + (" (required)" if action.required and action.option_strings else "")
    help_text = parser._get_formatter()._expand_help(action) if action.help else ""
    yield f": {escaped(help_text) or 'one of these'}"


def _metavar(action: argparse.Action) -> str:
    return action.dest.upper() if action.option_strings else action.dest
