"""What one forward pass of a backbone leaves behind, as fusions read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from fusebench.errors import InputError
from fusebench.methods import functional as F


class Needs(Flag):
    """What of the states a part reads; the backbone computes the union and no more."""

    MEANS = auto()  # states.mean(k): masked mean over the tokens of state k
    FIRSTS = auto()  # states.first(k): first real token (CLS) of state k
    TOKENS = auto()  # states.hidden and states.mask
    ATTENTION = auto()  # states.attention
    MARKER = auto()  # states.marker: where the template's mask token stands

    @property
    def pooled(self) -> bool:
        """Whether means and first tokens are enough, so that the part can work from stored states."""
        return not self & (Needs.TOKENS | Needs.ATTENTION | Needs.MARKER)


@dataclass(frozen=True)
class StateShape:
    """The sizes that a fusion is built for: `blocks` = L, so states 0..L, each `dim` wide."""

    blocks: int
    dim: int

    @property
    def states(self) -> int:
        """L + 1: the embedding output counts as state 0."""
        return self.blocks + 1

    def index(self, layer: int) -> int:
        """The non-negative number of state `layer`; -1 is the last block's.

        Raises:
            InputError: if there is no such state.
        """
        if not -self.states <= layer <= self.blocks:
            raise InputError(
                f"layer {layer} does not exist: this backbone has states 0 (embedding output) to "
                f"{self.blocks} (or -1 to {-self.states} from the end)."
            )
        return layer % self.states


@runtime_checkable
class States(Protocol):
    """What every fusion that is content with pooled states may ask for."""

    def mean(self, layer: int) -> Float[Tensor, "batch dim"]:
        """Masked mean over the tokens of state `layer`."""
        ...

    def first(self, layer: int) -> Float[Tensor, "batch dim"]:
        """First real token of state `layer`."""
        ...


@dataclass(frozen=True)
class LayerStates:
    """The states of one batch, live: index 0 is the embedding output, -1 the last block's output.

    Attributes:
        hidden: L + 1 tensors `[batch, tokens, dim]`; kept apart because stacking them costs a copy.
        mask: True where a real token stands; special tokens are real.
        attention: maps `[batch, heads, tokens, tokens]` (query, key) by block, or None if nobody asked; block b
            of 1..L makes state b.
        marker: position of the template's mask token in each row, or None without a template.
    """

    hidden: tuple[Float[Tensor, "batch tokens dim"], ...]
    mask: Bool[Tensor, "batch tokens"]
    attention: Mapping[int, Float[Tensor, "batch heads tokens tokens"]] | None = None
    marker: Int[Tensor, " batch"] | None = None
    _means: dict[int, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def mean(self, layer: int) -> Float[Tensor, "batch dim"]:
        """Masked mean over the tokens of state `layer`, computed once."""
        if layer not in self._means:
            self._means[layer] = F.masked_mean(self.hidden[layer], self.mask)
        return self._means[layer]

    def first(self, layer: int) -> Float[Tensor, "batch dim"]:
        """First real token of state `layer`."""
        return F.first_token(self.hidden[layer], self.mask)


@dataclass(frozen=True)
class PooledStates:
    """Stored vectors of many texts: just the pooled states that somebody asked for."""

    means: Mapping[int, Float[Tensor, "batch dim"]]
    firsts: Mapping[int, Float[Tensor, "batch dim"]]

    def mean(self, layer: int) -> Float[Tensor, "batch dim"]:
        """Masked mean over the tokens of state `layer`."""
        return self.means[layer]

    def first(self, layer: int) -> Float[Tensor, "batch dim"]:
        """First real token of state `layer`."""
        return self.firsts[layer]
