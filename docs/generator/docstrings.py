"""The docstring of a part as Markdown: its text, what it says of each parameter, and what is not as published."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

_SPECIAL = re.compile(r"([\\*_\[\]<>{}|#$~])")
_ARGUMENT = re.compile(r"    (\w+): (.*)")


@dataclass(frozen=True)
class Described:
    """What a docstring says.

    Attributes:
        promise: its first paragraph.
        text: all that follows, without the rest.
        arguments: what each parameter does.
        departures: what is not as published, without the word itself.
    """

    promise: str
    text: str
    arguments: dict[str, str]
    departures: str


def described(part: type) -> Described:
    """Reads the docstring of a part; prose is escaped, formulas stay code.

    Raises:
        ValueError: if it has no docstring, or one that says nothing of departures.
    """
    docstring = inspect.getdoc(part) or ""
    if "Departures:" not in docstring:
        raise ValueError(f"the docstring of {part.__qualname__} has nothing after 'Departures:', not even none")
    promise, *blocks = re.split(r"\n\s*\n", docstring)
    texts: list[str] = []
    arguments: dict[str, str] = {}
    departures = ""
    for block in blocks:
        if block.startswith("Args:\n"):
            arguments = dict(_arguments(block))
            continue
        prose, _, rest = block.partition("Departures:")
        departures = departures or rest
        texts += [prose] if prose.strip() else []
    text = "\n\n".join(_paragraph(block) for block in texts)
    return Described(prose_of(promise), text, arguments, prose_of(departures))


def prose_of(text: str) -> str:
    """One paragraph; what stands between backticks is code, all else is escaped."""
    pieces = re.split(r"(`[^`]+`)", " ".join(text.split()))
    return "".join(piece if number % 2 else escaped(piece) for number, piece in enumerate(pieces))


def escaped(text: str) -> str:
    """Plain text with nothing in it that Markdown would act on."""
    return _SPECIAL.sub(r"\\\1", text)


def _paragraph(block: str) -> str:
    """Prose, or a formula where every line is indented."""
    if all(line.startswith("    ") for line in block.splitlines()):
        return f"```text\n{textwrap.dedent(block)}\n```"
    return prose_of(block)


def _arguments(block: str) -> Iterator[tuple[str, str]]:
    name = ""
    lines: list[str] = []
    for line in block.splitlines()[1:]:
        start = _ARGUMENT.fullmatch(line)
        if start:
            if name:
                yield name, prose_of(" ".join(lines))
            name, lines = start[1], [start[2]]
        else:
            lines.append(line)
    if name:
        yield name, prose_of(" ".join(lines))
