"""Files that a training can go on from: tensors and facts in one safetensors file, replaced whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn, optim

from fusebench.errors import InputError

_SEAL = "content_sha256"  # of tensors and facts; files from before there were seals have none


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Writes a file that is there whole or not at all.

    Raises:
        InputError: if the disk refuses.
    """
    half = path.with_name(f".{secrets.token_hex(8)}.tmp")
    held = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One entry alone: safetensors writes several in no order, and equal weights are to give equal files.
        read_back = json.loads(json.dumps(facts))
        sealed = {**read_back, _SEAL: content_sha256(held, read_back)}
        save_file(held, half, metadata={"facts": json.dumps(sealed, sort_keys=True)})
        with half.open("rb") as written:
            os.fsync(written.fileno())
        half.replace(path)
    except (OSError, SafetensorError) as error:
        half.unlink(missing_ok=True)
        raise InputError(f"cannot write {path.name} to {path.parent}: {error}; free some room there.") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a file.

    Raises:
        InputError: if it is not there, or no such file, or not as it was written.
    """
    try:
        with safe_open(path, framework="pt") as held:
            facts = json.loads((held.metadata() or {})["facts"])
            tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118  # not a mapping
        seal = facts.pop(_SEAL, None)
        if seal is not None and seal != content_sha256(tensors, facts):
            raise ValueError(f"it does not hash to its {_SEAL}")
        return tensors, facts
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} holds no weights of a training: {error}; delete it to train again.") from error


def content_sha256(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """Hash over names, types, shapes and bytes of tensors, and over the facts."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def module_state(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Weights and buffers under names with a prefix; tied weights once under each name."""
    return {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """The inverse of `module_state`.

    Raises:
        InputError: if names or shapes differ.
    """
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        raise InputError(f"saved weights do not fit the method: {error}") from error


def optimizer_state(optimizer: optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """What the optimizer remembers of each weight, under names `prefix number.key`."""
    remembered = optimizer.state_dict()["state"]
    return {f"{prefix}{number}.{key}": value for number, state in remembered.items() for key, value in state.items()}


def load_optimizer(optimizer: optim.Optimizer, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """The inverse of `optimizer_state`."""
    remembered: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            number, key = name.removeprefix(prefix).split(".", 1)
            remembered.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": remembered})
