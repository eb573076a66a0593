"""Mixed precision: an accelerator for every method in training, so that none shares its loss scale with another."""

from __future__ import annotations

from typing import Any

import torch

from fusebench.errors import InputError
from fusebench.methods.recipe import Precision


def build_accelerators(precision: Precision, device: torch.device, count: int) -> list[Any]:
    """So many accelerators, each with a gradient scaler of its own under fp16.

    Raises:
        InputError: if the device cannot compute in this precision.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if precision == "fp16" and device.type != "cuda":
        raise InputError("--precision fp16 needs a CUDA device; take bf16 or no.")
    # The precision belongs to the process, and a run may train with one after the other.
    AcceleratorState._reset_state(reset_partial_state=True)
    settings = {"cpu": device.type == "cpu", "mixed_precision": precision, "device_placement": False}
    return [Accelerator(**settings) for _ in range(count)]
