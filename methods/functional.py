"""Masked reductions over tokens: numerics decided once.

Masks are bool, True = real token. Sums run in float32 (float64 stays float64); results have the input's dtype.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """What sums over values of this type run in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def weighted_sum(
    hidden: Float[Tensor, "batch tokens dim"], weights: Float[Tensor, "batch tokens"]
) -> Float[Tensor, "batch dim"]:
    """`sum_t w_t h_t`, accumulated in float32 or better."""
    kind = accumulator(hidden.dtype)
    total = torch.bmm(weights.to(kind).unsqueeze(1), hidden.to(kind)).squeeze(1)
    return total.to(hidden.dtype)


def masked_mean(
    hidden: Float[Tensor, "batch tokens dim"], mask: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, "batch dim"]:
    """`sum_t m_t h_t / sum_t m_t`."""
    weights = mask.to(accumulator(hidden.dtype))
    return weighted_sum(hidden, weights / weights.sum(dim=1, keepdim=True))


def masked_max(
    hidden: Float[Tensor, "batch tokens dim"], mask: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, "batch dim"]:
    """Element-wise maximum over real tokens."""
    return hidden.masked_fill(~mask.unsqueeze(-1), -torch.inf).amax(dim=1)


def positions(mask: Bool[Tensor, "batch tokens"]) -> Int[Tensor, "batch tokens"]:
    """1, 2, 3 ... over the real tokens of each row, wherever the padding stands; 0 on padding."""
    return mask.cumsum(dim=1) * mask


def first_index(mask: Bool[Tensor, "batch tokens"]) -> Int[Tensor, " batch"]:
    """Index of the first real token of each row."""
    return mask.to(torch.int8).argmax(dim=1)


def last_index(mask: Bool[Tensor, "batch tokens"]) -> Int[Tensor, " batch"]:
    """Index of the last real token of each row."""
    return positions(mask).argmax(dim=1)


def token_at(hidden: Float[Tensor, "batch tokens dim"], index: Int[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
    """One token of each row."""
    return hidden[torch.arange(len(hidden), device=hidden.device), index]


def first_token(
    hidden: Float[Tensor, "batch tokens dim"], mask: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, "batch dim"]:
    """The first real token: CLS for encoders that have one."""
    return token_at(hidden, first_index(mask))


def last_token(
    hidden: Float[Tensor, "batch tokens dim"], mask: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, "batch dim"]:
    """The last real token, whichever side is padded."""
    return token_at(hidden, last_index(mask))
