"""Trained methods on disk: a folder with the weights as safetensors and a JSON file that says what they are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from fusebench.benchmarks.atomic import atomic_write, slug
from fusebench.benchmarks.record import Environment, PartSpec, Regime, Spec, Training, TrainingSpec, digest
from fusebench.benchmarks.sealed_json import sealed_text, unsealed
from fusebench.errors import InputError
from fusebench.methods.checkpoint import read_tensors, write_tensors
from fusebench.methods.grammar import Method, parse

SCHEMA = 1
_CARD, _WEIGHTS = "method.json", "weights.safetensors"


class _Card(BaseModel):
    """What `method.json` holds; `identity` is what the weights depend on, `training_id` its hash."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: int = SCHEMA
    training_id: str
    sentence: str
    identity: dict[str, Any]
    training: Training
    weights_sha256: str
    environment: Environment


@dataclass(frozen=True, eq=False)
class SavedMethod:
    """A trained method that lies on disk.

    Attributes:
        method: without transforms.
        seed: it was trained with.
        weights_sha256: of the weights file.
        identity: everything that the weights depend on, as in `Spec.training_identity`.
    """

    folder: Path
    method: Method
    seed: int
    regime: Regime
    train: TrainingSpec
    training: Training
    weights_sha256: str
    identity: Mapping[str, Any]

    def tensors(self) -> dict[str, Tensor]:
        """The weights, names with the prefix `fusion.` or `backbone.`.

        Raises:
            InputError: if the file is not the one that the card was written for.
        """
        self.require_weights()
        return read_tensors(self.folder / _WEIGHTS)[0]

    def require_weights(self) -> None:
        """Checks the weights file without loading it.

        Raises:
            InputError: if the file is not the one that the card was written for.
        """
        path = self.folder / _WEIGHTS
        if not path.is_file() or _sha256(path) != self.weights_sha256:
            raise InputError(
                f"{path} is missing or not the file that {_CARD} beside it names; train the method again."
            )


def part_specs(method: Method) -> tuple[PartSpec, ...]:
    """What a record says of a method's parts."""
    return tuple(PartSpec(kind=p.card.kind, name=p.name, params=dict(p.params)) for p in method.parts)


def folder_of(out: Path, spec: Spec, method: Method) -> Path:
    """Where the trained weights of this specification belong."""
    return out / "trained" / f"{slug(method.stem.name)}-seed{spec.seed}-{spec.training_id}"


def save(
    folder: Path, spec: Spec, method: Method, tensors: Mapping[str, Tensor], training: Training, made: Environment
) -> None:
    """Writes weights, then the card: a card on disk means that all of it is there.

    Raises:
        InputError: if the disk refuses.
    """
    write_tensors(folder / _WEIGHTS, tensors, {"training_id": spec.training_id})
    card = _Card(
        training_id=spec.training_id,
        sentence=method.stem.name,
        identity=spec.training_identity,
        training=training,
        weights_sha256=_sha256(folder / _WEIGHTS),
        environment=made,
    )
    atomic_write(folder / _CARD, sealed_text(card.model_dump(mode="json")))


def is_saved(folder: Path) -> bool:
    """Whether a folder claims to hold a trained method."""
    return (folder / _CARD).is_file()


def is_intact(folder: Path) -> bool:
    """Whether a folder holds a trained method and the very weights that it names."""
    try:
        load(folder).require_weights()
    except InputError:
        return False
    return True


def load(folder: Path) -> SavedMethod:
    """What lies in a folder; weights are read later.

    Raises:
        InputError: if it holds no trained method, or one that does not agree with itself.
    """
    path = folder / _CARD
    try:
        held = unsealed(path.read_bytes())
        if isinstance(held, dict) and held.get("schema_version") != SCHEMA:
            raise InputError(
                f"{path} has schema version {held.get('schema_version')!r}; this version reads {SCHEMA}."
            )
        card = _Card.model_validate(held)
        train = TrainingSpec.model_validate(card.identity["train"])
        seed, regime = int(card.identity["seed"]), card.identity["regime"]
    except (OSError, ValueError, ValidationError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder} holds no trained method: {_CARD} cannot be used ({reason}).") from error
    if digest(card.identity) != card.training_id:
        raise InputError(f"{path} was changed by hand: its identity does not hash to {card.training_id}.")
    method = parse(card.sentence)
    if [part.model_dump(mode="json") for part in part_specs(method)] != card.identity["parts"]:
        raise InputError(f"{path} was changed by hand: {card.sentence} is not the method that its weights belong to.")
    return SavedMethod(folder, method, seed, regime, train, card.training, card.weights_sha256, card.identity)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
