"""The registry: which parts are known by which name, a frozen card a part."""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

from fusebench.errors import InputError
from fusebench.methods.parts import Fusion, Guide, Objective, Sampler, Transform

Kind = Literal["fusion", "objective", "guide", "sampler", "transform"]


@dataclass(frozen=True)
class Card:
    """What the registry knows of a part."""

    name: str
    kind: Kind
    part: Any  # the class
    paper: str
    learned: bool
    summary: str
    defaults: Mapping[str, Any]
    types: Mapping[str, Any]


_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_CARDS: dict[str, Card] = {}
_KINDS: dict[type, Kind] = {
    Fusion: "fusion",
    Objective: "objective",
    Guide: "guide",
    Sampler: "sampler",
    Transform: "transform",
}
P = TypeVar("P", bound=type)


def register(name: str, *, paper: str, learned: bool = False) -> Callable[[P], P]:
    """Makes a part known under `name`.

    Args:
        name: as users write it in a method sentence: lower case, hyphens.
        paper: where the idea comes from, e.g. "arXiv:1911.01940".
        learned: whether it has weights that mean nothing before training.

    Raises:
        ValueError: if the name is taken or cannot be written in a sentence, or the class is no part.
    """

    def add(part: P) -> P:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"'{name}' is no name for a part: lower-case letters, digits and hyphens, as in last-token"
            )
        again = name in _CARDS and part.__module__ == _CARDS[name].part.__module__ == "__main__"
        if name in _CARDS and not again:  # a notebook's cell may be run again
            raise ValueError(f"a part named '{name}' is already registered by {_CARDS[name].part.__module__}")
        kind = next((kind for base, kind in _KINDS.items() if issubclass(part, base)), None)
        if kind is None:
            raise ValueError(f"'{name}' must derive from Fusion, Objective, Guide, Sampler or Transform")
        _CARDS[name] = _card(name, kind, part, paper, learned)
        return part

    return add


def _card(name: str, kind: Kind, part: type, paper: str, learned: bool) -> Card:
    parameters = [
        parameter
        for parameter in inspect.signature(part).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    nameless = [p.name for p in parameters if p.default is inspect.Parameter.empty]
    if nameless:
        raise ValueError(f"'{name}': hyper-parameters need defaults: {', '.join(nameless)}")
    hints = get_type_hints(inspect.getattr_static(part, "__init__"))
    return Card(
        name=name,
        kind=kind,
        part=part,
        paper=paper,
        learned=learned,
        summary=(inspect.getdoc(part) or "").split("\n")[0],
        defaults={p.name: p.default for p in parameters},
        types={p.name: hints.get(p.name, Any) for p in parameters},
    )


def card(name: str) -> Card:
    """The card of a registered part.

    Raises:
        InputError: if there is none, with the nearest names.
    """
    if name not in _CARDS:
        raise InputError(f"no method '{name}'.{suggestion(name, _CARDS)}")
    return _CARDS[name]


def cards(kind: Kind | None = None) -> list[Card]:
    """All cards in the order of registration, of one kind if asked."""
    return [card for card in _CARDS.values() if kind in (None, card.kind)]


def suggestion(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or where to look when nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    if not near:
        return " `run_bench.py list methods` names them all."
    return " Did you mean " + " or ".join(f"'{other}'" for other in near) + "?"


def load_plugins(files: Iterable[Path] = ()) -> None:
    """Registers third-party parts: installed ones by entry point `fusebench.methods`, and the given files.

    Raises:
        InputError: if a file is missing or fails to import.
    """
    for entry in importlib.metadata.entry_points(group="fusebench.methods"):
        try:
            entry.load()
        except Exception as error:
            raise InputError(
                f"plugin {entry.name} = {entry.value} cannot be imported: {type(error).__name__}: {error}"
            ) from error
    for file in files:
        _import_file(file)


def _import_file(file: Path) -> None:
    name = f"fusebench_plugin_{hashlib.sha256(bytes(file.resolve())).hexdigest()}"
    if name in sys.modules:
        return
    if not file.is_file():
        raise InputError(f"plugin {file}: no such file.")
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise InputError(f"plugin {file} is not a Python file: its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    before = dict(_CARDS)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        _CARDS.clear()
        _CARDS.update(before)
        raise InputError(f"plugin {file} cannot be imported: {type(error).__name__}: {error}") from error
