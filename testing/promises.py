"""Assertions that name the promise which is broken."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusebench.methods.registry import card


def part_class(part: Any, base: type) -> Any:
    """The class that is meant by a class or a registered name; it must derive from `base`."""
    found = card(part).part if isinstance(part, str) else part
    require(isinstance(found, type) and issubclass(found, base), f"{part} is a {base.__name__}")
    return found


def require(holds: bool, promise: str) -> None:
    """Raises AssertionError with the promise unless it holds."""
    if not holds:
        raise AssertionError(f"broken promise: {promise}")


def close(found: Tensor, expected: Tensor, promise: str, tolerance: float = 1e-5) -> None:
    """Asserts equal shapes, and gaps within the tolerance as a share of the largest expected entry."""
    require(found.shape == expected.shape, f"{promise}: shape {tuple(found.shape)}, not {tuple(expected.shape)}")
    scale = max(1e-6, float(expected.detach().abs().max()))
    gap = float((found - expected).detach().abs().max()) / scale
    require(gap <= tolerance, f"{promise}: relative difference {gap:.2g}")  # NaN fails too


def close_arrays(found: np.ndarray, expected: np.ndarray, promise: str) -> None:
    """`close` for arrays, with a tolerance for closed-form fits."""
    close(torch.from_numpy(found), torch.from_numpy(expected), promise, tolerance=1e-4)
