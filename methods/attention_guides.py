"""Attention guiding: MDG and PDG, penalties on the attention maps of a backbone in training."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fusebench.errors import InputError
from fusebench.methods import functional as F
from fusebench.methods.parts import Guide
from fusebench.methods.registry import register
from fusebench.methods.states import LayerStates, Needs

Aggregate = Literal["received", "released"]


def unit_maps(states: LayerStates, aggregate: Aggregate) -> Float[Tensor, "batch maps tokens"]:
    """One unit vector over the positions for each block and head; padding is 0.

    `received`: how much each position is attended to, the mean over real queries. `released`: the mean over
    keys, as the published code has it; a softmax row sums to 1, so this is 1/T everywhere and carries no signal
    but attention dropout.

    Raises:
        ValueError: if the backbone left no maps (fused attention kernels return none).
    """
    if not states.attention:
        raise ValueError("attention guides need attention maps; run the backbone with eager attention.")
    maps = torch.cat(states.attention, dim=1)  # [B, blocks * heads, query, key]
    maps = maps.to(F.accumulator(maps.dtype))
    real = states.mask.to(maps.dtype)
    both = maps * real[:, None, :, None] * real[:, None, None, :]
    over = 2 if aggregate == "received" else 3
    summed = both.sum(dim=over) / real.sum(dim=1)[:, None, None]
    return torch.nn.functional.normalize(summed, dim=-1, eps=1e-12)


@register("mdg", paper="arXiv:2204.02922")
class MapDiscrimination(Guide):
    """Maps should differ: each map is told from all others of its text by a softmax over cosines.

    Wang et al. 2022: `-(1/(B N)) sum_b sum_i log(exp(G_ii) / sum_j exp(G_ij))`, `G = A A^T / temperature`,
    A the N unit maps of a text. Departures: `aggregate="received"` averages over queries; padding takes no part.
    """

    needs = Needs.ATTENTION

    def __init__(self, *, temperature: float = 2.0, aggregate: Aggregate = "received") -> None:
        super().__init__()
        if temperature <= 0:
            raise InputError(f"mdg(temperature={temperature}): must be above 0.")
        self.temperature = temperature
        self.aggregate: Aggregate = aggregate

    def forward(self, states: LayerStates) -> Float[Tensor, ""]:
        """In [0, ln N] for N maps."""
        maps = unit_maps(states, self.aggregate)
        similarity = maps @ maps.mT / self.temperature
        return -similarity.log_softmax(dim=-1).diagonal(dim1=1, dim2=2).mean()


@register("pdg", paper="arXiv:2204.02922")
class PatternDecorrelation(Guide):
    """Positions should not be attended to alike: `(1/(B T)) sum_b ||A_b^T A_b - I||_F^2`.

    Wang et al. 2022, A the N unit maps of a text over its T positions. Departures: `aggregate="received"`
    averages over queries; T counts the real tokens of each text, and padding takes no part.
    """

    needs = Needs.ATTENTION

    def __init__(self, *, aggregate: Aggregate = "received") -> None:
        super().__init__()
        self.aggregate: Aggregate = aggregate

    def forward(self, states: LayerStates) -> Float[Tensor, ""]:
        """0 when the maps are orthonormal over positions."""
        maps = unit_maps(states, self.aggregate)
        identity = torch.diag_embed(states.mask.to(maps.dtype))
        squares = (maps.mT @ maps - identity).square().sum(dim=(1, 2))
        return (squares / states.mask.sum(dim=1)).mean()
