"""Finds out by asking whether a fusion is one weighted sum of layers, and with which weights."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from fusebench.methods.parts import Fusion
from fusebench.methods.states import Needs, PooledStates, StateShape

_ROWS = 8
_TOLERANCE = 1e-5


@torch.inference_mode()
def layer_weights(fusion: Fusion, shape: StateShape) -> NDArray[np.float64] | None:
    """The weights w of a fusion that is `sum_l w_l v_l`, v being all means over tokens or all first tokens.

    Each layer is shown alone, which gives its weight; then all of them together must give the weighted sum.
    Reading a fusion's answer instead of its class holds for fusions of third parties too.

    Returns:
        `[L + 1]`, of any sign and sum; None if the fusion is anything else.
    """
    if fusion.needs not in (Needs.MEANS, Needs.FIRSTS) or fusion.out_dim != shape.dim or fusion.template is not None:
        return None
    generator = torch.Generator().manual_seed(0)
    shown = {layer: torch.randn(_ROWS, shape.dim, generator=generator) for layer in fusion.layers}
    weights = np.zeros(shape.states)
    for layer, vectors in shown.items():
        alone = {other: vectors if other == layer else torch.zeros_like(vectors) for other in shown}
        answer, given = _answer(fusion, alone), vectors.double()
        weights[layer] = float((answer * given).sum() / given.square().sum())
    expected = torch.stack([weights[layer] * vectors.double() for layer, vectors in shown.items()]).sum(dim=0)
    # A fusion that divides by what it reads answers NaN to zeros, which is close to nothing.
    same = torch.allclose(_answer(fusion, shown), expected, rtol=_TOLERANCE, atol=_TOLERANCE)
    return weights if same else None


def _answer(fusion: Fusion, vectors: dict[int, torch.Tensor]) -> torch.Tensor:
    device = next((weight.device for weight in fusion.parameters()), torch.device("cpu"))
    there = {layer: one.to(device) for layer, one in vectors.items()}
    return fusion(PooledStates(there, there)).double().cpu()
