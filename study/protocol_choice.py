"""`--protocol`: a card's settings where the user gives none, and what the user changed of it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

from fusebench.errors import InputError
from fusebench.study.flags import run_parser
from fusebench.study.protocol_card import Protocol
from fusebench.study.protocols import protocol

# Flags that change what is computed; where a card says nothing of one, its default is the protocol's.
_CHANGING = (
    *("max_length", "dtype", "prompt", "query_prompt", "document_prompt", "allow_empty_texts"),
    *("regime", "train", "limit_train", "epochs", "steps", "batch_size", "accumulate", "precision"),
    *("lr", "lr_new", "dev", "dev_every", "trials"),
)


@dataclass(frozen=True)
class ChosenProtocol:
    """A card, and a sentence for each of its settings that the user changed."""

    card: Protocol
    changes: tuple[str, ...]


def with_protocol(flags: argparse.Namespace, given: Mapping[str, object]) -> argparse.Namespace:
    """The flags of a run with the card's values where the user gave none; `protocol` becomes a `ChosenProtocol`.

    Args:
        flags: of the run parser.
        given: those of them that the user wrote.

    Raises:
        InputError: there is no such protocol, or a flag would make another one of it.
    """
    card = protocol(flags.protocol)
    for flag, why in {
        "tasks": "it names its tasks",
        "suite": "it names its tasks",
        "limit": "a score over fewer pairs is not its score",
    }.items():
        if flag in given:
            raise InputError(f"--protocol {card.name} does not go with --{flag}: {why}.")
    if card.fit is not None and "fit" not in given:
        raise InputError(f"--protocol {card.name} fits transforms on {card.fit}: name such texts with --fit.")
    settled = {**vars(flags), "tasks": [list(card.tasks)], **_unless_given(card, given)}
    if "methods" not in given:
        settled["methods"] = [list(card.methods)]
    changes = tuple(_change(card, name, given[name]) for name in _CHANGING if _differs(card, name, given))
    return argparse.Namespace(**{**settled, "protocol": ChosenProtocol(card, changes)})


def _unless_given(card: Protocol, given: Mapping[str, object]) -> dict[str, object]:
    replaced = {"epochs"} if "steps" in given else set()
    return {name: value for name, value in card.settings.items() if name not in given and name not in replaced}


def _differs(card: Protocol, name: str, given: Mapping[str, object]) -> bool:
    return name in given and given[name] != card.settings.get(name, run_parser().get_default(name))


def _change(card: Protocol, name: str, value: object) -> str:
    own = card.settings.get("epochs" if name == "steps" else name)
    instead = "" if own is None else f" instead of {_written(own)}" + (" epochs" if name == "steps" else "")
    return f"--{name.replace('_', '-')} {_written(value)}{instead}"


def _written(value: object) -> str:
    if isinstance(value, list):
        return ",".join(str(one) for inner in value for one in (inner if isinstance(inner, list) else [inner]))
    return str(value)
