"""Layer-wise attention pooling: the first tokens of all layers attend to the means of all layers."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusebench.methods import functional as F
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import register
from fusebench.methods.states import Needs, States, StateShape

Query = Literal["all", "last"]
Scale = Literal["layers", "sqrt-dim"]
Activation = Literal["rrelu"]


@register("layer-attention", paper="arXiv:2209.05972", learned=True)
class LayerAttention(Fusion):
    """First tokens attend to layer means: `tanh(W_o [c_L; mean_i sum_j softmax_j(q_i . k_j / N) v_j] + b_o)`.

    Oh et al. 2022, equations 1 to 5 as the released code has them. With c_i the first token and a_j the mean of
    the tokens of each of the N = L + 1 states, embedding output included:

        q_i = RReLU(W_q c_i),  k_j = RReLU(W_k a_j),  v_j = RReLU(W_v a_j)

    W_q, W_k, W_v are shared by all states and have no bias. In training RReLU draws the slope of each negative
    element from U(1/8, 1/3), anew for every pair of query and key; afterwards it is 11/48. Weights start from
    N(0, 0.02), the bias from 0.

    Args:
        query: "all" averages over the queries of all states; "last" asks with c_L alone.
        scale: scores are divided by the number of states, or by the root of the width ("sqrt-dim").
        activation: None leaves the RReLU out.
        concat: whether c_L stands beside the attended vector; without it W_o maps the attended vector alone.

    Departures: none in the defaults. The other values are ours: equations 2 and 3 as printed allow the single
    query.
    """

    needs = Needs.MEANS | Needs.FIRSTS

    def __init__(
        self,
        shape: StateShape,
        *,
        query: Query = "all",
        scale: Scale = "layers",
        activation: Activation | None = "rrelu",
        concat: bool = True,
    ) -> None:
        super().__init__()
        dim = self.out_dim = shape.dim
        self.layers = tuple(range(shape.states))
        self.sources = self.layers if query == "all" else self.layers[-1:]
        self.divisor = shape.states if scale == "layers" else math.sqrt(dim)
        self.activation = activation
        self.concat = concat
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.output = nn.Linear(2 * dim if concat else dim, dim)
        for linear in (self.query, self.key, self.value, self.output):
            nn.init.normal_(linear.weight, std=0.02)
        nn.init.zeros_(self.output.bias)

    def forward(self, states: States) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`, between -1 and 1."""
        alpha, values = self._attention(states)
        last = states.first(self.layers[-1])
        pooled = (alpha @ values).view(len(last), len(self.sources), -1).mean(dim=1)
        return torch.tanh(self.output(torch.cat([last, pooled], dim=1) if self.concat else pooled))

    def layer_shares(self, states: States) -> dict[int, float]:
        """Mean attention to each state over texts and queries."""
        shares = self.layer_weights(states).mean(dim=(0, 1))
        return dict(zip(self.layers, shares.tolist(), strict=True))

    def layer_weights(self, states: States) -> Float[Tensor, "batch queries states"]:
        """What each query pays to each state; rows sum to 1."""
        alpha, _ = self._attention(states)
        return alpha.reshape(-1, len(self.sources), len(self.layers))

    def _attention(
        self, states: States
    ) -> tuple[Float[Tensor, "groups queries states"], Float[Tensor, "groups states dim"]]:
        """Weights and values; a group is a text, or in training a query of a text."""
        queries = self._activate(self.query(torch.stack([states.first(k) for k in self.sources], dim=1)))
        means = torch.stack([states.mean(k) for k in self.layers], dim=1)
        keys, values = self.key(means), self.value(means)
        if self.training and self.activation:  # every query sees keys and values through noise of its own
            keys, values = (part.repeat_interleave(len(self.sources), dim=0) for part in (keys, values))
            queries = queries.flatten(0, 1).unsqueeze(1)
        scores = queries @ self._activate(keys).mT / self.divisor
        alpha = scores.to(F.accumulator(scores.dtype)).softmax(dim=-1).to(scores.dtype)
        return alpha, self._activate(values)

    def _activate(self, x: Tensor) -> Tensor:
        return nn.functional.rrelu(x, training=self.training) if self.activation else x
