"""Made-up texts as a backbone of 6 blocks and 16 dimensions would leave them, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fusebench.methods.states import LayerStates, Needs, StateShape

SHAPE = StateShape(blocks=6, dim=16)
HEADS = 2
LENGTHS = (5, 1, 3, 8, 2)  # tokens of the made-up texts; one of them has a single token

Side = Literal["left", "right"]


@dataclass(frozen=True)
class Text:
    """What a backbone would leave of one text, without padding."""

    hidden: Tensor  # [states, tokens, dim]
    attention: Tensor  # [blocks, heads, tokens, tokens]
    marker: int


def made_up_texts(lengths: Sequence[int], dtype: torch.dtype = torch.float32) -> list[Text]:
    """States like a residual stream's: each layer is the one before it and something new."""
    start = 4 * (torch.arange(SHAPE.dim) % 2) - 2  # every other dimension is mostly below 0
    texts = []
    for length in lengths:
        steps = torch.randn(SHAPE.states, length, SHAPE.dim, dtype=torch.float64)
        scores = torch.randn(SHAPE.blocks, HEADS, length, length, dtype=torch.float64)
        kept = 0.9 + 0.2 * torch.rand(scores.shape, dtype=torch.float64)
        attention = (scores.softmax(dim=-1) * kept).to(dtype)
        texts.append(Text((start + steps.cumsum(dim=0)).to(dtype), attention, length // 2))
    return texts


PADDINGS: tuple[tuple[Side, float], ...] = (("right", 0.0), ("left", 0.0), ("right", 1e4), ("left", 1e4))


def batch(
    texts: Sequence[Text], needs: Needs, *, side: Side = "right", garbage: float = 1.0, spare: int = 2
) -> LayerStates:
    """One batch with `spare` columns of padding more than it needs; what stands there is `garbage` times noise."""
    width = spare + max(text.hidden.shape[1] for text in texts)
    dtype = texts[0].hidden.dtype
    hidden = garbage * torch.randn(SHAPE.states, len(texts), width, SHAPE.dim).to(dtype)
    attention = garbage * torch.rand(SHAPE.blocks, len(texts), HEADS, width, width).to(dtype)
    mask = torch.zeros(len(texts), width, dtype=torch.bool)
    marker = torch.zeros(len(texts), dtype=torch.int64)
    for row, text in enumerate(texts):
        length = text.hidden.shape[1]
        start = 0 if side == "right" else width - length
        real = slice(start, start + length)
        hidden[:, row, real] = text.hidden
        attention[:, row, :, real, real] = text.attention
        mask[row, real] = True
        marker[row] = start + text.marker
    return LayerStates(
        hidden=hidden.unbind(),
        mask=mask,
        attention=by_block(attention.unbind()) if Needs.ATTENTION in needs else None,
        marker=marker if Needs.MARKER in needs else None,
    )


def by_block(maps: Sequence[Tensor]) -> dict[int, Tensor] | None:
    """Attention maps under the numbers of their blocks, from 1 on; None if there are none."""
    return dict(enumerate(maps, start=1)) or None


def tensors(states: LayerStates) -> list[Tensor]:
    """All tensors of a batch."""
    marker = [] if states.marker is None else [states.marker]
    return [*states.hidden, states.mask, *(states.attention or {}).values(), *marker]


def doubles(texts: Sequence[Text]) -> list[Text]:
    """The same in float64."""
    return [Text(t.hidden.double(), t.attention.double(), t.marker) for t in texts]


def with_gradients(states: LayerStates) -> tuple[list[Tensor], LayerStates]:
    """The float tensors of a batch as leaves, and states made of them."""
    hidden = [tensor.clone().requires_grad_() for tensor in states.hidden]
    maps = [tensor.clone().requires_grad_() for tensor in (states.attention or {}).values()]
    return [*hidden, *maps], LayerStates(tuple(hidden), states.mask, by_block(maps), states.marker)
