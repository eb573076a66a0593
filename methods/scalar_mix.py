"""One learned number a layer: ELMo's scalar mix and the weighted layers of sentence-transformers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusebench.errors import InputError
from fusebench.methods import functional as F
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import register
from fusebench.methods.states import LayerStates, Needs, States, StateShape

LayerNorm = Literal["text"]

_SMALLEST_SUM = 1e-6


@register("scalar-mix", paper="arXiv:1802.05365", learned=True)
class ScalarMix(Fusion):
    """One softmax weight a layer and one scale: `gamma sum_l softmax(w)_l mean_t h_l`.

    Peters et al. 2018 (ELMo), equation 1. w starts from 0, the plain average, and gamma from 1.

    Args:
        first: lowest state used; 0 is the embedding output.
        layer_norm: "text" shifts and scales each layer of each text to mean 0 and variance 1 over all its tokens
            and features before the sum, as COMET does; None takes layers as they are.

    Departures: no weight is dropped out in training.
    """

    needs = Needs.MEANS

    def __init__(self, shape: StateShape, *, first: int = 0, layer_norm: LayerNorm | None = None) -> None:
        super().__init__()
        self.layers = tuple(range(shape.index(first), shape.states))
        self.out_dim = shape.dim
        self.weights = nn.Parameter(torch.zeros(len(self.layers)))
        self.gamma = nn.Parameter(torch.ones(()))
        self.layer_norm = layer_norm
        if layer_norm:
            self.needs = Needs.TOKENS  # type: ignore[misc]  # a variance over tokens cannot be had from means

    def forward(self, states: Any) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`."""
        weights = self.mixing_weights()
        pooled = (_standardized(states, k) if self.layer_norm else states.mean(k) for k in self.layers)
        return _weighted_sum(pooled, self.gamma * weights)

    def layer_shares(self, states: Any) -> dict[int, float]:
        """The weights, the same for all texts."""
        return dict(zip(self.layers, self.mixing_weights().tolist(), strict=True))

    def mixing_weights(self) -> Float[Tensor, " layers"]:
        """What each layer contributes; they sum to 1."""
        return self.weights.to(F.accumulator(self.weights.dtype)).softmax(dim=0)

    @classmethod
    def simplest(cls, shape: StateShape, name: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Counted from 0."""
        return name, {**params, "first": shape.index(params["first"])}


@register("weighted-layers", paper="https://github.com/huggingface/sentence-transformers", learned=True)
class WeightedLayers(Fusion):
    """One free weight a layer: `sum_l w_l mean_t h_l / sum_l w_l`, weights of either sign.

    WeightedLayerPooling of sentence-transformers, followed by its mean pooling. Weights start from 1, the plain
    average.

    Args:
        first: lowest state used; None is L // 3, which is the published 4 when L = 12.

    Departures: `first` scales with depth; weights that sum to nearly 0 raise, where the original divides by them.
    """

    needs = Needs.MEANS

    def __init__(self, shape: StateShape, *, first: int | None = None) -> None:
        super().__init__()
        self.layers = tuple(range(_first(shape, first), shape.states))
        self.out_dim = shape.dim
        self.weights = nn.Parameter(torch.ones(len(self.layers)))

    def forward(self, states: States) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`.

        Raises:
            InputError: if the weights sum to nearly 0.
        """
        return _weighted_sum((states.mean(k) for k in self.layers), self.mixing_weights())

    def layer_shares(self, states: Any) -> dict[int, float]:
        """The weights, the same for all texts."""
        return dict(zip(self.layers, self.mixing_weights().tolist(), strict=True))

    def mixing_weights(self) -> Float[Tensor, " layers"]:
        """What each layer contributes, of either sign; they sum to 1.

        Raises:
            InputError: if the weights sum to nearly 0.
        """
        weights = self.weights.to(F.accumulator(self.weights.dtype))
        total = weights.sum()
        if abs(float(total.detach())) < _SMALLEST_SUM:
            raise InputError(
                "weighted-layers: the weights have come to sum to 0, so their mean is undefined; train with a "
                "smaller learning rate, or use scalar-mix."
            )
        return weights / total

    @classmethod
    def simplest(cls, shape: StateShape, name: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Counted from 0; the default when it is spelled out."""
        first = _first(shape, params["first"])
        return name, {"first": None if first == _first(shape, None) else first}


def _first(shape: StateShape, first: int | None) -> int:
    return shape.blocks // 3 if first is None else shape.index(first)


def _weighted_sum(
    vectors: Iterable[Float[Tensor, "batch dim"]], weights: Float[Tensor, " layers"]
) -> Float[Tensor, "batch dim"]:
    stacked = torch.stack(list(vectors))
    return torch.tensordot(weights, stacked.to(weights.dtype), dims=1).to(stacked.dtype)


def _standardized(states: LayerStates, layer: int) -> Float[Tensor, "batch dim"]:
    """Mean over tokens of `(h - mu) / sqrt(variance + 1e-12)`, both over all real tokens and features of a text."""
    hidden = states.hidden[layer].to(F.accumulator(states.hidden[layer].dtype))
    pooled = F.masked_mean(hidden, states.mask)
    mu = pooled.mean(dim=1, keepdim=True)
    variance = F.masked_mean((hidden - mu.unsqueeze(1)).square(), states.mask).mean(dim=1, keepdim=True)
    return ((pooled - mu) / (variance + 1e-12).sqrt()).to(states.hidden[layer].dtype)
