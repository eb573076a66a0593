"""HIRE: a recurrent reader scores every layer, another fuses their sum with the last layer; and its control."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fusebench.errors import InputError
from fusebench.methods import functional as F
from fusebench.methods.bidirectional_gru import BidirectionalGRU
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import register
from fusebench.methods.states import LayerStates, Needs, StateShape

Summary = Literal["states", "last-layer", "mean"]
Normalization = Literal["softmax"]
Pool = Literal["mean", "first"]

# Real tokens of a batch are kept in one row, text after text, so that padding on either side is never read.


class _FusionGRU(Fusion):
    """A bidirectional GRU over tokens, pooled to one vector."""

    needs = Needs.TOKENS

    def __init__(self, inputs: int, hidden: int, depth: int, pool: Pool) -> None:
        super().__init__()
        self.fusion = BidirectionalGRU(inputs, hidden, depth)
        self.out_dim = 2 * hidden
        self.pool: Pool = pool

    def _read(self, M: Float[Tensor, "real width"], mask: Bool[Tensor, "batch tokens"]) -> Float[Tensor, "batch out"]:
        output, _ = self.fusion(M, mask.sum(dim=1))
        tokens = _padded(output, mask)
        return F.first_token(tokens, mask) if self.pool == "first" else F.masked_mean(tokens, mask)


@register("hire", paper="arXiv:1911.01940", learned=True)
class Hire(_FusionGRU):
    """Layers summed by scores a BiGRU gives, fused with the last: `mean_t BiGRU([R; A; R+A; R*A])_t`.

    Yang and Zhao 2019, as far as published descriptions reach: no equations, sizes or code are public, so this
    is a reading and no replication. With R = H_L the last layer's tokens:

        g_l     = final states of a two-layer bidirectional GRU over the tokens of H_l, the same GRU for all l
        score_l = softmax_l(w . g_l), one number a text and layer
        A       = sum_l score_l H_l
        F       = bidirectional GRU over the tokens of [R; A; R + A; R * A]

    GRUs start from PyTorch's U(-1/sqrt(hidden), 1/sqrt(hidden)), w from N(0, 0.02).

    Args:
        first: lowest state that A sums; 0 takes the embedding output in.
        include_last: whether A sums the last layer too.
        summary: of a layer: final states of both directions and both GRU layers ("states") or of the upper GRU
            layer ("last-layer"), or the mean over tokens of what that puts out.
        normalization: of the scores over layers; None takes `w . g_l + b` as it is, b from 0. Under softmax a
            bias would cancel, so there is none.
        hidden: width of the scoring GRU in each direction; None is dim // 2.
        fusion_hidden: the same for the fusion GRU; the vector is twice as wide.
        pool: of F's tokens: their mean or the first one. The forward GRU has read nothing before the first, so its
            recurrent weights idle then.

    Departures: the vector is the mean over F's tokens, where the paper's head reads F itself. Confirmed are only
    the two-layer scoring BiGRU, one vector and score a layer, A, the order of the four parts and the fusion
    BiGRU; everything in Args, one shared GRU, the linear score, the fusion BiGRU's single layer, no dropout and
    the start are choices of ours.
    """

    def __init__(
        self,
        shape: StateShape,
        *,
        first: int = 1,
        include_last: bool = True,
        summary: Summary = "states",
        normalization: Normalization | None = "softmax",
        hidden: int | None = None,
        fusion_hidden: int | None = None,
        pool: Pool = "mean",
    ) -> None:
        width, fusion_width = (_width(shape, size) for size in (hidden, fusion_hidden))
        super().__init__(4 * shape.dim, fusion_width, 1, pool)
        self.sources = tuple(range(shape.index(first), shape.states if include_last else shape.blocks))
        if not self.sources:
            raise InputError(f"hire(first={first},include_last=false) leaves no layer to score.")
        self.layers = tuple(sorted({*self.sources, shape.blocks}))
        self.summary: Summary = summary
        self.normalization = normalization
        self.reader = BidirectionalGRU(shape.dim, width, 2)
        self.score = nn.Linear(4 * width if summary == "states" else 2 * width, 1, bias=normalization is None)
        nn.init.normal_(self.score.weight, std=0.02)
        if normalization is None:
            nn.init.zeros_(self.score.bias)

    def forward(self, states: LayerStates) -> Float[Tensor, "batch out"]:
        """Shape `[batch, 2 * fusion_hidden]`."""
        R = states.hidden[self.layers[-1]][states.mask]
        A = self.complement(states, self.scores(states))
        return self._read(torch.cat([R, A, R + A, R * A], dim=1), states.mask)

    def complement(self, states: LayerStates, scores: Float[Tensor, "batch layers"]) -> Float[Tensor, "real dim"]:
        """A: the layers of each text summed by their scores, for the real tokens, text after text."""
        per_token = scores[states.mask.nonzero()[:, 0]]
        H = torch.stack([states.hidden[k][states.mask] for k in self.sources], dim=1)
        return (per_token.unsqueeze(1) @ H).squeeze(1)

    def layer_shares(self, states: LayerStates) -> dict[int, float]:
        """Mean score of each layer in A over texts."""
        return dict(zip(self.sources, self.scores(states).mean(dim=0).tolist(), strict=True))

    def scores(self, states: LayerStates) -> Float[Tensor, "batch layers"]:
        """What each layer of each text contributes; rows sum to 1 under softmax."""
        layers = torch.cat([states.hidden[k][states.mask] for k in self.sources])
        summaries = self._summaries(layers, states.mask.repeat(len(self.sources), 1))
        raw = self.score(summaries).view(len(self.sources), len(states.mask)).T
        if self.normalization is None:
            return raw
        return raw.to(F.accumulator(raw.dtype)).softmax(dim=1).to(raw.dtype)

    def _summaries(
        self, M: Float[Tensor, "real dim"], mask: Bool[Tensor, "texts tokens"]
    ) -> Float[Tensor, "texts summary"]:
        output, final = self.reader(M, mask.sum(dim=1))
        if self.summary == "mean":
            return F.masked_mean(_padded(output, mask), mask)
        kept = final if self.summary == "states" else final[2:]  # [GRU layers * directions, texts, hidden]
        return kept.transpose(0, 1).flatten(start_dim=1)

    @classmethod
    def simplest(cls, shape: StateShape, name: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Counted from 0."""
        return name, {**params, "first": shape.index(params["first"])}


@register("bigru", paper="arXiv:1911.01940", learned=True)
class BiGRU(_FusionGRU):
    """HIRE's fusion BiGRU on the last layer alone: `mean_t BiGRU(R)_t`; what recurrence gains without layers.

    The control for `hire`. PyTorch's start, U(-1/sqrt(hidden), 1/sqrt(hidden)).

    Args:
        hidden: width in each direction; None is dim // 2. The vector is twice as wide.
        depth: GRU layers; 5 of them have as many weights as `hire`, within 0.2 %.
        pool: as in `hire`.

    Departures: the control is ours.
    """

    def __init__(self, shape: StateShape, *, hidden: int | None = None, depth: int = 1, pool: Pool = "mean") -> None:
        if depth < 1:
            raise InputError(f"bigru(depth={depth}): one GRU layer or more.")
        super().__init__(shape.dim, _width(shape, hidden), depth, pool)
        self.layers = (shape.blocks,)

    def forward(self, states: LayerStates) -> Float[Tensor, "batch out"]:
        """Shape `[batch, 2 * hidden]`."""
        return self._read(states.hidden[self.layers[0]][states.mask], states.mask)


def _width(shape: StateShape, hidden: int | None) -> int:
    width = shape.dim // 2 if hidden is None else hidden
    if width < 1:
        raise InputError(f"a GRU is 1 wide or more, not {width}.")
    return width


def _padded(
    tokens: Float[Tensor, "real dim"], mask: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, "batch tokens dim"]:
    """Real tokens at their places, 0 elsewhere."""
    padded = tokens.new_zeros(*mask.shape, tokens.shape[1])
    padded[mask] = tokens
    return padded
