"""Fixed mixtures of several layers: first-last, last-k, all layers, maxima over layers."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fusebench.errors import InputError
from fusebench.methods import functional as F
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import register
from fusebench.methods.states import Needs, States, StateShape


def _mean_over_layers(states: States, layers: tuple[int, ...]) -> Float[Tensor, "batch dim"]:
    kind = states.mean(layers[0]).dtype
    total = states.mean(layers[0]).to(F.accumulator(kind))
    for layer in layers[1:]:
        total = total + states.mean(layer)
    return (total / len(layers)).to(kind)


@register("first-last", paper="arXiv:2103.15316")
class FirstLast(Fusion):
    """Mean of two layers, then of tokens: `mean_t (h_first + h_L) / 2`.

    Su et al. 2021 (BERT-whitening) and SimCSE since January 2022 take `first=1`, the first block. `first=0`, the
    embedding output, is SimCSE (arXiv:2104.08821) as published. Departures: none.
    """

    needs = Needs.MEANS

    def __init__(self, shape: StateShape, *, first: int = 1) -> None:
        super().__init__()
        self.layers = (shape.index(first), shape.blocks)
        self.out_dim = shape.dim

    def forward(self, states: States) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`."""
        return _mean_over_layers(states, self.layers)

    @classmethod
    def simplest(cls, shape: StateShape, name: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Counted from 0; `mean` when both ends are the last layer, `last-k-mean` when nothing is between them."""
        first = shape.index(params["first"])
        if first >= shape.blocks - 1:
            return "last-k-mean", {"k": shape.states - first}
        return name, {"first": first}


class _LastK(Fusion):
    """The last `k` states, state L - k + 1 to state L."""

    needs = Needs.MEANS

    def __init__(self, shape: StateShape, *, k: int = 4) -> None:
        super().__init__()
        if not 1 <= k <= shape.states:
            raise InputError(f"k={k}: this backbone has {shape.states} states, so k must be 1 to {shape.states}.")
        self.layers = tuple(range(shape.states - k, shape.states))
        self.out_dim = shape.dim


@register("last-k-mean", paper="https://github.com/hanxiao/bert-as-service")
class LastKMean(_LastK):
    """Mean of the last k layers, then of tokens: `mean_t (1/k) sum_{l>L-k} h_l`.

    Devlin et al. 2019, section 5.3, and bert-as-service. Departures: none.
    """

    def forward(self, states: States) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`."""
        return _mean_over_layers(states, self.layers)

    @classmethod
    def simplest(cls, shape: StateShape, name: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """One layer is `mean`, all blocks or all states are `layer-mean`."""
        special = {
            1: ("mean", {}),
            shape.states: ("layer-mean", {"first": 0}),
            shape.blocks: ("layer-mean", {"first": 1}),
        }
        return special.get(params["k"], (name, params))


@register("last-k-sum", paper="arXiv:1810.04805")
class LastKSum(_LastK):
    """Sum of the last k layers, mean of tokens: `mean_t sum_{l>L-k} h_l`; k times `last-k-mean`.

    Devlin et al. 2019, section 5.3. Departures: none.
    """

    def forward(self, states: States) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`."""
        return _mean_over_layers(states, self.layers) * len(self.layers)

    @classmethod
    def simplest(cls, shape: StateShape, name: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """One layer is `mean`."""
        return ("mean", {}) if params["k"] == 1 else (name, params)

    @classmethod
    def same_direction(cls, params: dict[str, Any]) -> tuple[str, dict[str, Any], bool]:
        """The mean of the same layers; the factor is k for every text."""
        return "last-k-mean", params, True


@register("last-k-concat", paper="arXiv:1810.04805")
class LastKConcat(_LastK):
    """The last k layers side by side, mean of tokens: `mean_t [h_{L-k+1}; ...; h_L]`, k times as wide.

    Devlin et al. 2019, section 5.3. Departures: the order is from low to high; cosine does not see it.
    """

    def __init__(self, shape: StateShape, *, k: int = 4) -> None:
        super().__init__(shape, k=k)
        self.out_dim = k * shape.dim

    def forward(self, states: States) -> Float[Tensor, "batch out"]:
        """Shape `[batch, k * dim]`."""
        return torch.cat([states.mean(layer) for layer in self.layers], dim=1)

    @classmethod
    def simplest(cls, shape: StateShape, name: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """One layer is `mean`."""
        return ("mean", {}) if params["k"] == 1 else (name, params)


class _FromFirst(Fusion):
    """All states from `first` to L."""

    default_name = ""

    def __init__(self, shape: StateShape, *, first: int = 1) -> None:
        super().__init__()
        self.layers = tuple(range(shape.index(first), shape.states))
        self.out_dim = shape.dim

    @classmethod
    def simplest(cls, shape: StateShape, name: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Counted from 0; one layer is the plain pooling of it."""
        first = shape.index(params["first"])
        return (cls.default_name, {}) if first == shape.blocks else (name, {"first": first})


@register("layer-mean", paper="arXiv:1802.05365")
class LayerMean(_FromFirst):
    """Mean of all layers, then of tokens: `mean_t (1/(L+1)) sum_l h_l`.

    The uniform case of ELMo's scalar mix (Peters et al. 2018, equation 1). Departures: none.
    """

    needs = Needs.MEANS
    default_name = "mean"

    def __init__(self, shape: StateShape, *, first: int = 0) -> None:
        super().__init__(shape, first=first)

    def forward(self, states: States) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`."""
        return _mean_over_layers(states, self.layers)

    @classmethod
    def simplest(cls, shape: StateShape, name: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The mean of the last few layers is `last-k-mean`."""
        name, params = super().simplest(shape, name, params)
        if name == "layer-mean" and params["first"] > 1:
            return "last-k-mean", {"k": shape.states - params["first"]}
        return name, params


@register("max-cls", paper="arXiv:2505.15696")
class MaxCls(_FromFirst):
    """Element-wise maximum over layers of their CLS tokens: `max_{l>=first} h_l[0]`.

    Behrendt et al. 2025 (MaxPoolBERT), the MaxCLS variant, read from its description.
    Departures: nothing is fine-tuned; all blocks take part unless `first` says otherwise.
    """

    needs = Needs.FIRSTS
    default_name = "cls"

    def forward(self, states: States) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`."""
        return torch.stack([states.first(layer) for layer in self.layers]).amax(dim=0)


@register("max-mean", paper="arXiv:2505.15696")
class MaxMean(_FromFirst):
    """Element-wise maximum over layers of their token means: `max_{l>=first} mean_t h_l`.

    MaxCLS (Behrendt et al. 2025) with the mean in the place of CLS. Departures: this combination is ours.
    """

    needs = Needs.MEANS
    default_name = "mean"

    def forward(self, states: States) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`."""
        return torch.stack([states.mean(layer) for layer in self.layers]).amax(dim=0)
