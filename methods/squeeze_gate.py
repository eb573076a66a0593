"""A gate for every layer and feature, computed from all layers' means."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusebench.errors import InputError
from fusebench.methods import functional as F
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import register
from fusebench.methods.states import Needs, States, StateShape


@register("squeeze-gate", paper="arXiv:2508.18164", learned=True)
class SqueezeGate(Fusion):
    """Each feature weighs its layers: `sum_l g_l * mean_t h_l`, `g = softmax_l(V_l relu(U sum_l mean_t h_l) + b_l)`.

    Read from a one-line description of S2Sent: the blocks' outputs are squeezed by an average over tokens, the
    squeezed vectors give gating weights over blocks for each feature, the blocks are summed by them. U and V start
    from N(0, 0.02) and b from 0, so that the gates start near the plain average.

    Args:
        first: lowest state used; 1 is the first block.
        width: of U's output.

    Departures: everything the description does not say: the squeezed blocks are added up, a bottleneck with ReLU,
    the softmax over blocks, the widths, the start, and the mean over tokens at the end, which commutes with the
    gates. The variant with cosine bases instead of the average is left out.
    """

    needs = Needs.MEANS

    def __init__(self, shape: StateShape, *, first: int = 1, width: int = 32) -> None:
        super().__init__()
        if width < 1:
            raise InputError(f"squeeze-gate(width={width}): 1 or more.")
        self.layers = tuple(range(shape.index(first), shape.states))
        self.out_dim = shape.dim
        self.squeeze = nn.Linear(shape.dim, width, bias=False)
        self.excite = nn.Linear(width, len(self.layers) * shape.dim)
        for linear in (self.squeeze, self.excite):
            nn.init.normal_(linear.weight, std=0.02)
        nn.init.zeros_(self.excite.bias)

    def forward(self, states: States) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`."""
        return (self.gates(states) * self._means(states)).sum(dim=1)

    def gates(self, states: States) -> Float[Tensor, "batch layers dim"]:
        """What each layer counts for in each feature; they sum to 1 over layers."""
        squeezed = self._means(states).sum(dim=1)
        logits = self.excite(self.squeeze(squeezed).relu()).unflatten(1, (len(self.layers), -1))
        return logits.to(F.accumulator(logits.dtype)).softmax(dim=1).to(logits.dtype)

    def _means(self, states: States) -> Float[Tensor, "batch layers dim"]:
        return torch.stack([states.mean(layer) for layer in self.layers], dim=1)

    @classmethod
    def simplest(cls, shape: StateShape, name: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Counted from 0."""
        return name, {**params, "first": shape.index(params["first"])}
