"""Attention guiding: MDG and PDG, penalties on the attention maps of a backbone in training."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from fusebench.errors import InputError
from fusebench.methods import functional as F
from fusebench.methods.parts import Guide
from fusebench.methods.registry import register
from fusebench.methods.states import LayerStates, Needs

Aggregate = Literal["received", "released"]


@dataclass(frozen=True)
class MapChoice:
    """Which attention maps a guide reads, and how each becomes one vector over the positions.

    Attributes:
        guide: its name, for messages.
        blocks: counted from 1; None are all.
        heads: of every such block, counted from 0; None are all.
        aggregate: `received`: how much each position is attended to, the mean over real queries. `released`: the
            mean over keys, as the published code has it; a softmax row sums to 1, so this is 1/T everywhere.
    """

    guide: str
    blocks: tuple[int, ...] | None
    heads: tuple[int, ...] | None
    aggregate: Aggregate

    @classmethod
    def read(cls, guide: str, layers: str | None, heads: str | None, aggregate: Aggregate) -> MapChoice:
        """From a guide's hyper-parameters.

        Raises:
            InputError: if one of them cannot be meant.
        """
        if aggregate not in get_args(Aggregate):
            raise InputError(f"{guide}(aggregate={aggregate}): must be received or released.")
        if aggregate == "released":
            warnings.warn(
                f"{guide}(aggregate=released) averages softmax rows over their keys, which is 1/T whatever the model "
                "does, so it has no gradient; aggregate=received has one.",
                stacklevel=3,
            )
        return cls(guide, _numbers(guide, "layers", layers, 1), _numbers(guide, "heads", heads, 0), aggregate)

    def maps(self, states: LayerStates) -> list[Float[Tensor, "batch heads tokens tokens"]]:
        """The chosen heads of each chosen block, in float32 or better.

        Raises:
            InputError: if the backbone has no such block or head.
            ValueError: if the pass left no map of a chosen block.
        """
        total = len(states.hidden) - 1
        blocks = tuple(range(1, total + 1)) if self.blocks is None else self.blocks
        if blocks and blocks[-1] > total:
            raise InputError(f"{self.guide}: there is no block {blocks[-1]}, this backbone has {total} of them.")
        attention = states.attention or {}
        absent = [block for block in blocks if block not in attention]
        if absent or not blocks:
            raise ValueError(f"{self.guide} needs the attention maps of blocks {absent}, and this pass kept none.")
        maps = [attention[block].to(F.accumulator(attention[block].dtype)) for block in blocks]
        if self.heads is None:
            return maps
        count = min(one.shape[1] for one in maps)
        if self.heads[-1] >= count:
            raise InputError(
                f"{self.guide}: there is no head {self.heads[-1]}, a block of this backbone has {count} of them, "
                "counted from 0."
            )
        return [one[:, list(self.heads)] for one in maps]

    def unit_maps(self, states: LayerStates) -> Float[Tensor, "batch maps tokens"]:
        """One unit vector over the positions for each chosen block and head; padding is 0.

        Raises:
            InputError: if the backbone has no such block or head.
            ValueError: if the pass left no map of a chosen block.
        """
        maps = self.maps(states)
        real = states.mask.to(maps[0].dtype)
        share = (real / real.sum(dim=1, keepdim=True))[:, None, :, None]
        received = self.aggregate == "received"
        means = [((one.mT if received else one) @ share).squeeze(-1) for one in maps]
        return torch.nn.functional.normalize(torch.cat(means, dim=1) * real.unsqueeze(1), dim=-1, eps=1e-12)

    @torch.no_grad()
    def statistics(self, states: LayerStates) -> dict[str, float]:
        """How attention is spread, means over texts, chosen maps and real queries.

        Returns:
            `entropy`: of a row over the T real keys by ln T, so 1 is evenly spread; a text of one token counts 1.
            `first_token_share`: of the attention that the first real token receives.
            `map_cosine`: of pairs of different unit maps; not there when only one map is chosen.
        """
        maps = torch.cat(self.maps(states), dim=1)
        real = states.mask.to(maps.dtype)
        length = real.sum(dim=1)
        queries = (real / length[:, None])[:, None, :]
        surprise = -torch.xlogy(maps, maps) * real[:, None, None, :]
        entropy = (surprise.sum(dim=-1) * queries).sum(dim=-1).mean(dim=1) / length.log()
        first = maps.mT[torch.arange(len(maps), device=maps.device), :, F.first_index(states.mask)]
        found = {
            "entropy": float(torch.where(length > 1, entropy, 1.0).mean()),
            "first_token_share": float((first * queries).sum(dim=-1).mean()),
        }
        unit = self.unit_maps(states)
        if (count := unit.shape[1]) > 1:
            cosines = unit @ unit.mT
            different = cosines.sum(dim=(1, 2)) - cosines.diagonal(dim1=1, dim2=2).sum(dim=1)
            found["map_cosine"] = float(different.mean() / (count * (count - 1)))
        return found


def _numbers(guide: str, name: str, text: str | None, lowest: int) -> tuple[int, ...] | None:
    """The numbers in `5,6`; one way to write them, because the text is part of the method's name."""
    if text is None:
        return None
    numbers = [int(number) for number in text.split(",")] if re.fullmatch(r"\d+(,\d+)*", text, re.ASCII) else []
    if not numbers or numbers[0] < lowest or numbers != sorted(set(numbers)):
        raise InputError(
            f'{guide}({name}="{text}"): write rising numbers from {lowest} on with commas and no spaces, as in '
            f'{name}="{lowest},{lowest + 1}".'
        )
    return tuple(numbers)


def _check_factor(guide: str, factor: float) -> float:
    if not 0 <= factor < math.inf:
        raise InputError(f"{guide}(factor={factor}): must be a number of 0 or more.")
    return factor


@register("mdg", paper="arXiv:2204.02922")
class MapDiscrimination(Guide):
    """Maps should differ: each map is told from all others of its text by a softmax over cosines.

    Wang et al. 2022: `-(1/(B N)) sum_b sum_i log(exp(G_ii) / sum_j exp(G_ij))`, `G = A A^T / temperature`,
    A the N unit maps of a text. Departures: `aggregate="received"` averages over queries (`released` over keys, as
    the published code does, and has no gradient); maps are read before dropout; padding takes no part.

    Args:
        factor: of the penalty in the loss, 0.001 as published.
        temperature: 2 as published.
        layers: blocks whose maps are read, counted from 1, as in "5,6"; all of them as published.
        heads: of each such block, counted from 0, as in "0,3"; all of them as published.
        aggregate: what becomes of the two axes of a map.
    """

    needs = Needs.ATTENTION

    def __init__(
        self,
        *,
        factor: float = 0.001,
        temperature: float = 2.0,
        layers: str | None = None,
        heads: str | None = None,
        aggregate: Aggregate = "received",
    ) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise InputError(f"mdg(temperature={temperature}): must be above 0.")
        self.factor = _check_factor("mdg", factor)
        self.temperature = temperature
        self.choice = MapChoice.read("mdg", layers, heads, aggregate)
        self.blocks = self.choice.blocks

    def forward(self, states: LayerStates) -> Float[Tensor, ""]:
        """Unweighted; in [0, ln N] for N maps, ln N when all are alike."""
        maps = self.choice.unit_maps(states)
        similarity = maps @ maps.mT / self.temperature
        return -similarity.log_softmax(dim=-1).diagonal(dim1=1, dim2=2).mean()

    def statistics(self, states: LayerStates) -> dict[str, float]:
        """How the chosen maps spread attention; see `MapChoice.statistics`."""
        return self.choice.statistics(states)


@register("pdg", paper="arXiv:2204.02922")
class PatternDecorrelation(Guide):
    """Positions should not be attended to alike: `(1/(B T)) sum_b ||A_b^T A_b - I||_F^2`.

    Wang et al. 2022, A the N unit maps of a text over its T positions. Departures: `aggregate="received"` averages
    over queries (`released` over keys, as the published code does, and has no gradient); maps are read before
    dropout; T counts the real tokens of each text, and padding takes no part.

    Args:
        factor: of the penalty in the loss, 0.001 as published.
        layers: blocks whose maps are read, counted from 1, as in "5,6"; all of them as published.
        heads: of each such block, counted from 0, as in "0,3"; all of them as published.
        aggregate: what becomes of the two axes of a map.
    """

    needs = Needs.ATTENTION

    def __init__(
        self,
        *,
        factor: float = 0.001,
        layers: str | None = None,
        heads: str | None = None,
        aggregate: Aggregate = "received",
    ) -> None:
        super().__init__()
        self.factor = _check_factor("pdg", factor)
        self.choice = MapChoice.read("pdg", layers, heads, aggregate)
        self.blocks = self.choice.blocks

    def forward(self, states: LayerStates) -> Float[Tensor, ""]:
        """Unweighted; 0 when the maps are orthonormal over positions."""
        maps = self.choice.unit_maps(states)
        identity = torch.diag_embed(states.mask.to(maps.dtype))
        squares = (maps.mT @ maps - identity).square().sum(dim=(1, 2))
        return (squares / states.mask.sum(dim=1)).mean()

    def statistics(self, states: LayerStates) -> dict[str, float]:
        """How the chosen maps spread attention; see `MapChoice.statistics`."""
        return self.choice.statistics(states)
