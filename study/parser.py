"""The parser of every command: errors in one sentence, switches that go both ways, and flags from a TOML file."""

from __future__ import annotations

import argparse
import copy
import difflib
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn


def results_place(text: str) -> Path | str:
    """The type of `--out`: a path, or the text itself if it is a URL."""
    if "://" in text:
        return text
    if re.match(r"(s3|gs|az):/", text):  # what a path makes of a URL
        raise argparse.ArgumentTypeError(f"'{text}' should be a folder, or a URL, which has two slashes")
    return Path(text)


class Switch(argparse.BooleanOptionalAction):
    """A flag without a value, off unless given; its `--no-` form turns off what a file turns on."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None, **_: Any) -> None:
        super().__init__(option_strings, dest, default=False)
        self.help = help


class Parser(argparse.ArgumentParser):
    """Takes every flag from the command line, and from the file behind `--config` those that are not there."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._at_fault = ""
        self.register("action", "store_true", Switch)
        self.add_argument(
            "--config",
            type=Path,
            metavar="FILE.toml",
            help="flags by their long names, such as batch-size = 32, tasks = ['STS12'], rerun = true; what is given "
            "here counts instead, and paths mean what they mean here",
        )

    def error(self, message: str) -> NoReturn:
        """Prints what is wrong and exits with 2."""
        print(f"error: {self._at_fault}{message}; {self.prog} --help lists the options.", file=sys.stderr)
        raise SystemExit(2)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """What the flags say."""
        arguments = sys.argv[1:] if args is None else list(args)
        self._at_fault = ""
        if not {"-h", "--help"} & set(arguments):
            given = vars(self._given(arguments))
            if (file := given.get("config")) is not None:
                # The command line has just been found right, so whatever is wrong from here on is the file's fault.
                self._at_fault = f"{file}: "
                arguments = [*self.arguments(self._read(file), leave_out=self._decided(given)), *arguments]
        return super().parse_args(arguments, namespace)

    def arguments(self, values: Mapping[str, Any], leave_out: Iterable[str] = ()) -> list[str]:
        """The command line that says the same as flags by name: `{"tasks": ["STS12"], "rerun": True}`.

        Args:
            values: text, a number or a path; a list where a flag takes several; True or False for a switch.
            leave_out: destinations whose flags are checked by name and left out.
        """
        flags = {_name(action): action for action in self._actions if action.option_strings}
        flags = {name: action for name, action in flags.items() if name not in ("help", "config")}
        said = []
        for name, value in values.items():
            if name not in flags:
                near = difflib.get_close_matches(name, flags, n=1)
                self.error(f"there is no flag '{name}'" + (f" (did you mean '{near[0]}'?)" if near else ""))
            if flags[name].dest not in leave_out:
                said += self._words(flags[name], name, value)
        return said

    def _words(self, action: argparse.Action, name: str, value: Any) -> list[str]:
        if isinstance(value, bool):
            if isinstance(action, argparse.BooleanOptionalAction):
                return [f"--{name}" if value else f"--no-{name}"]
            if action.nargs in ("?", "*"):
                return [f"--{name}"] * value
            self.error(f"{name} takes a value, not {str(value).lower()}")
        if isinstance(action, argparse.BooleanOptionalAction):
            self.error(f"{name} is true or false, not {value!r}")
        if action.nargs == 0:  # counted: -v, -vv
            return [f"--{name}"] * (value if isinstance(value, int) else self.error(f"{name} is a number"))
        if _is_one(value):
            return [f"--{name}={value}"]
        several = list(value) if isinstance(value, Iterable) and not isinstance(value, Mapping) else []
        if not several or not all(map(_is_one, several)):
            self.error(f"{name} takes text, a number or a list of them that is not empty")
        if isinstance(action, argparse._AppendAction):
            return [f"--{name}={one}" for one in several]
        if action.type in (None, Path, results_place):
            self.error(f"{name} takes one value, not a list")
        return [f"--{name}={','.join(map(str, several))}"]

    def _given(self, arguments: Sequence[str]) -> argparse.Namespace:
        """What the command line itself says, without any default."""
        bare = copy.deepcopy(self)
        for action in bare._actions:
            action.default, action.required = argparse.SUPPRESS, False
        return argparse.ArgumentParser.parse_args(bare, arguments)

    def _decided(self, given: Iterable[str]) -> set[str]:
        """Destinations of which the file has no say: those given, and those that they exclude."""
        decided = set(given)
        for group in self._mutually_exclusive_groups:
            members = {action.dest for action in group._group_actions}
            if members & decided:
                decided |= members
        return decided

    def _read(self, file: Path) -> dict[str, Any]:
        try:
            return tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            self.error(error.strerror or "cannot be read")
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            self.error(f"is no TOML file ({error})")


def _name(action: argparse.Action) -> str:
    """The long name of a flag, without dashes."""
    return next(text for text in action.option_strings if text.startswith("--")).removeprefix("--")


def _is_one(value: Any) -> bool:
    return isinstance(value, str | int | float | Path) and not isinstance(value, bool)
