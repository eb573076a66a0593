"""The first tokens of all layers read as a sequence: by an LSTM, or by attention."""

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


class _FirstTokens(Fusion):
    """The first tokens of all states from `first` to L."""

    needs = Needs.FIRSTS

    def __init__(self, shape: StateShape, *, first: int, width: int | None) -> None:
        super().__init__()
        self.layers = tuple(range(shape.index(first), shape.states))
        self.out_dim = shape.dim if width is None else width
        if self.out_dim < 1:
            raise InputError(f"a vector is 1 wide or more, not {self.out_dim}.")

    def _sequence(self, states: States) -> Float[Tensor, "batch layers dim"]:
        return torch.stack([states.first(layer) for layer in self.layers], dim=1)

    @classmethod
    def simplest(cls, shape: StateShape, name: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Counted from 0."""
        return name, {**params, "first": shape.index(params["first"])}


@register("cls-lstm", paper="arXiv:2002.04815", learned=True)
class ClsLSTM(_FirstTokens):
    """An LSTM reads the first tokens from low to high: `LSTM(c_first, ..., c_L)`, its last hidden state.

    Song et al. 2020, LSTM pooling, from its description. PyTorch's start, U(-1/sqrt(width), 1/sqrt(width)).

    Args:
        first: lowest state read; 0 is the embedding output, whose first token is the same in every text.
        width: of the vector; None is dim.

    Departures: the width, one layer of one direction and the start are not confirmed by the description.
    """

    def __init__(self, shape: StateShape, *, first: int = 1, width: int | None = None) -> None:
        super().__init__(shape, first=first, width=width)
        self.lstm = nn.LSTM(shape.dim, self.out_dim, batch_first=True)

    def forward(self, states: States) -> Float[Tensor, "batch out"]:
        """Shape `[batch, width]`, between -1 and 1."""
        _, (hidden, _) = self.lstm(self._sequence(states))
        return hidden[-1]


@register("cls-attention", paper="arXiv:2002.04815", learned=True)
class ClsAttention(_FirstTokens):
    """A learned query attends to the first tokens of layers: `W^T sum_l softmax_l(q . c_l) c_l`.

    Song et al. 2020, attention pooling, in its standard form. q and W start from N(0, 0.02).

    Args:
        first: lowest state read; 0 is the embedding output, whose first token is the same in every text.
        width: of the vector; None is dim.

    Departures: the formula was not checked at its source; the width and the start are choices of ours.
    """

    def __init__(self, shape: StateShape, *, first: int = 1, width: int | None = None) -> None:
        super().__init__(shape, first=first, width=width)
        self.query = nn.Parameter(torch.empty(shape.dim))
        self.output = nn.Linear(shape.dim, self.out_dim, bias=False)
        for weight in self.parameters():
            nn.init.normal_(weight, std=0.02)

    def forward(self, states: States) -> Float[Tensor, "batch out"]:
        """Shape `[batch, width]`."""
        pooled = self.layer_weights(states).unsqueeze(1) @ self._sequence(states)
        return self.output(pooled.squeeze(1))

    def layer_shares(self, states: States) -> dict[int, float]:
        """Mean attention to each layer over texts."""
        return dict(zip(self.layers, self.layer_weights(states).mean(dim=0).tolist(), strict=True))

    def layer_weights(self, states: States) -> Float[Tensor, "batch layers"]:
        """What each layer of each text counts for; rows sum to 1."""
        scores = self._sequence(states) @ self.query
        return scores.to(F.accumulator(scores.dtype)).softmax(dim=1).to(scores.dtype)
