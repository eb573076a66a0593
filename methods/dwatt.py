"""DWAtt: every token of the last layer attends to its own states in all layers."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusebench.errors import InputError
from fusebench.methods import functional as F
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import register
from fusebench.methods.states import LayerStates, Needs, StateShape


def _bottleneck(dim: int, width: int) -> nn.Sequential:
    """`f(x) = W LN(gelu(U x))` with U narrowing to `width`."""
    return nn.Sequential(
        nn.Linear(dim, width, bias=False), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, dim, bias=False)
    )


@register("dwatt", paper="arXiv:2209.15168", learned=True)
class DWAtt(Fusion):
    """Tokens attend to layers by static keys: `mean_t (z_L + sum_n softmax_n(q . k_n) v_n)`.

    ElNokrashy et al. 2024, equations 4 to 11. For each token with states z_n:

        v_n = LN_n(f_n(z_n)),  f(x) = W LN(gelu(U x))          equations 4 and 11
        q   = 1 + elu(z_L + f_Q(z_L))                          equation 5
        k_n = W_K p_n,  p_n a learned vector of the layer      equation 10

    Scores are not scaled. p starts from U(0, 1), linear maps from N(0, 0.02), layer norms from the identity.

    Args:
        first: lowest state attended to; 0 is the embedding output.
        bottleneck: width of U's output as a share of dim.
        position_dim: width of p.

    Departures: tokens are averaged, where the paper labels each; that the lowest state is the first block's, that
    maps have no biases and the start of W, U and W_K are not confirmed.
    """

    needs = Needs.TOKENS

    def __init__(self, shape: StateShape, *, first: int = 1, bottleneck: float = 0.5, position_dim: int = 24) -> None:
        super().__init__()
        dim = self.out_dim = shape.dim
        width = round(bottleneck * dim)
        if width < 1 or position_dim < 1:
            raise InputError(f"dwatt(bottleneck={bottleneck},position_dim={position_dim}): both must leave a width.")
        self.layers = tuple(range(shape.index(first), shape.states))
        self.query = _bottleneck(dim, width)
        self.values = nn.ModuleList(nn.Sequential(_bottleneck(dim, width), nn.LayerNorm(dim)) for _ in self.layers)
        self.positions = nn.Parameter(torch.rand(len(self.layers), position_dim))
        self.key = nn.Linear(position_dim, dim, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, states: LayerStates) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`."""
        weights = self.layer_weights(states)
        tokens = states.hidden[self.layers[-1]]
        for place, layer in enumerate(self.layers):
            tokens = tokens + weights[..., place, None] * self.values[place](states.hidden[layer])
        return F.masked_mean(tokens, states.mask)

    def layer_shares(self, states: LayerStates) -> dict[int, float]:
        """Mean attention to each layer over real tokens; the last layer is also added as it is."""
        shares = self.layer_weights(states)[states.mask].mean(dim=0)
        return dict(zip(self.layers, shares.tolist(), strict=True))

    def layer_weights(self, states: LayerStates) -> Float[Tensor, "batch tokens layers"]:
        """What each layer counts for in each token; they sum to 1 over layers."""
        last = states.hidden[self.layers[-1]]
        query = 1 + nn.functional.elu(last + self.query(last))
        scores = query @ self.key(self.positions).T
        return scores.to(F.accumulator(scores.dtype)).softmax(dim=-1).to(scores.dtype)

    @classmethod
    def simplest(cls, shape: StateShape, name: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Counted from 0."""
        return name, {**params, "first": shape.index(params["first"])}
