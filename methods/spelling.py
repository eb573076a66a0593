"""One part of a method sentence, read and written: `whiten(k=256)` becomes a `Part` and back."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from fusebench.errors import InputError
from fusebench.methods.registry import Card, card, suggestion

_PART = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]*)\s*(\((?P<arguments>.*)\))?\s*(?P<each>@each)?", re.S)
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_WORDS: dict[str, Any] = {"true": True, "false": False, "none": None}


@dataclass(frozen=True)
class Part:
    """A registered part with every hyper-parameter, in the order of its signature."""

    name: str
    params: tuple[tuple[str, Any], ...]
    untrained: bool = False

    @classmethod
    def of(cls, name: str, params: dict[str, Any], untrained: bool = False) -> Part:
        """Fills in the defaults."""
        return cls(name, tuple({**card(name).defaults, **params}.items()), untrained)

    @property
    def card(self) -> Card:
        """What the registry knows of it."""
        return card(self.name)

    def __str__(self) -> str:
        defaults = self.card.defaults
        written = [f"{key}={write_value(value)}" for key, value in self.params if value != defaults[key]]
        arguments = ",".join([*written, *(["untrained"] if self.untrained else [])])
        return f"{self.name}({arguments})" if arguments else self.name


def read_part(text: str, sentence: str) -> tuple[Part, bool]:
    """The part that a piece of a sentence names, and whether `@each` stands behind it.

    Args:
        text: the piece.
        sentence: the whole, for messages.

    Raises:
        InputError: if the piece is malformed or names unknown parts or parameters.
    """
    match = _PART.fullmatch(text.strip())
    if match is None:
        raise InputError(f"'{sentence}' is no method: '{text.strip()}' should read name or name(parameter=value).")
    known = card(match["name"])
    params: dict[str, Any] = {}
    untrained = False
    for argument in split(match["arguments"], ",") if (match["arguments"] or "").strip() else []:
        key, equals, value = (piece.strip() for piece in argument.partition("="))
        if not equals and key == "untrained":
            untrained = True
            continue
        if key not in known.defaults:
            takes = ", ".join(known.defaults) or "no parameters"
            hint = suggestion(key, known.defaults) if known.defaults else ""
            hint = hint if "Did you mean" in hint else ""
            raise InputError(f"'{sentence}': {known.name} has no parameter '{key}'; it takes {takes}.{hint}")
        if not equals or key in params:
            raise InputError(f"'{sentence}': write {key}=value, once.")
        params[key] = _check(_read_value(value), known, key, sentence)
    return Part.of(known.name, params, untrained), match["each"] is not None


def _check(value: Any, known: Card, key: str, sentence: str) -> Any:
    adapter: TypeAdapter[Any] = TypeAdapter(
        known.types[key], config=ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    )
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Input should be ")
        raise InputError(f"'{sentence}': {known.name}({key}={write_value(value)}) should be {reason}.") from None


def split(text: str, separator: str) -> list[str]:
    """Splits at separators outside parentheses and quotes.

    Raises:
        InputError: if a parenthesis or a quote is not closed, or a piece is empty.
    """
    pieces, depth, quote, start = [], 0, "", 0
    escaped = False
    for place, sign in enumerate(text):
        if quote:
            if not escaped and sign == quote:
                quote = ""
            escaped = sign == "\\" and not escaped
        elif sign in "'\"":
            quote = sign
        elif sign in "()":
            depth += 1 if sign == "(" else -1
        elif sign == separator and depth == 0:
            pieces.append(text[start:place])
            start = place + 1
        if depth < 0:
            break
    if depth or quote:
        raise InputError(f"'{text}': a {'quote' if quote else 'parenthesis'} is not closed or opened.")
    pieces.append(text[start:])
    if any(not piece.strip() for piece in pieces):
        raise InputError(f"'{text}': nothing stands before or after one of the '{separator}'.")
    return [piece.strip() for piece in pieces]


def _read_value(value: str) -> Any:
    """A number, true, false, none, a quoted text or a bare word."""
    if value.lower() in _WORDS:
        return _WORDS[value.lower()]
    if value[:1] in ("'", '"') and value[-1:] == value[:1] and len(value) > 1:
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    for number in (int, float):
        try:
            return number(value)
        except ValueError:
            continue
    return value


def write_value(value: Any) -> str:
    """As a sentence has it: reading it gives the value back."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, str):
        plain = _BARE.fullmatch(value) and value.lower() not in _WORDS and isinstance(_read_value(value), str)
        return value if plain else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return json.dumps(value) if isinstance(value, list | dict) else repr(value)
