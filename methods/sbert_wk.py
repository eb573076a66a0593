"""SBERT-WK: each token weighs its layers by how new they are and how well they align, each text its tokens."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fusebench.errors import InputError
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import register
from fusebench.methods.states import LayerStates, Needs, StateShape

Edge = Literal["clipped", "released"]


@register("sbert-wk", paper="arXiv:2002.06652")
class SbertWK(Fusion):
    """Layers weighted by novelty and alignment in a window, tokens by the variance of adjacent similarities.

    Wang and Kuo 2020. For layer k of a token, with the w - 1 states of its window (at most `window` on either
    side) as columns before it, `r` the last column of R in the QR decomposition:

        novelty_k   = |r_last| / ||r||
        alignment_k = 1 / (2 w * mean_j(R_j / ||R_j||) . r_{:-1} / ||r_{:-1}||)
        alpha       = normalised(normalised(novelty) + normalised(alignment))
        token       = sum_k alpha_k h_k
        text        = sum_t omega_t token_t,  omega ~ variance over k of cos(h_k, h_{k+1}), last token dropped

    R is not computed: `R_j . r = <h_j, h_k>` and `r_last^2` is the Schur complement of the Gram matrix.

    Args:
        first: lowest state used; None is L // 3, which is the published 4 when L = 12.
        window: states on either side, 2 as published.
        edge: "clipped" keeps the states that exist; "released" reproduces the released code, whose window loses
            its left side for the two lowest states (a negative slice start).

    Departures: `edge="clipped"` by default; `first` scales with depth; a text of one token keeps that token;
    when no similarity varies, tokens weigh the same.
    """

    needs = Needs.TOKENS

    def __init__(
        self, shape: StateShape, *, first: int | None = None, window: int = 2, edge: Edge = "clipped"
    ) -> None:
        super().__init__()
        start = shape.blocks // 3 if first is None else shape.index(first)
        self.layers = tuple(range(start, shape.states))
        if len(self.layers) < 3 or window < 1:
            raise InputError(f"sbert-wk needs 3 states or more from its first ({start}) on, and a window >= 1.")
        self.out_dim = shape.dim
        self.windows = [_window(k, len(self.layers), window, edge) for k in range(len(self.layers))]

    def forward(self, states: LayerStates) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`."""
        layers = torch.stack([states.hidden[layer] for layer in self.layers], dim=2)  # [B, T, K, d]
        real = layers[states.mask].double()  # [N, K, d], the real tokens of the batch in one row
        gram = real @ real.mT
        tokens = (self._layer_weights(gram).unsqueeze(1) @ real).squeeze(1)
        omega = states.mask.new_zeros(states.mask.shape, dtype=torch.double)
        omega[states.mask] = _adjacent_variance(gram)
        per_text = torch.zeros(*states.mask.shape, real.shape[-1], dtype=torch.double, device=real.device)
        per_text[states.mask] = tokens
        weights = _token_weights(omega, states.mask)
        return torch.einsum("bt,btd->bd", weights, per_text).to(layers.dtype)

    def _layer_weights(self, gram: Float[Tensor, "n k k"]) -> Float[Tensor, "n k"]:
        novelty, alignment = [], []
        for k, others in enumerate(self.windows):
            own = gram[:, k, k]
            cross = gram[:, others, k]
            inner = gram[:, others][:, :, others]
            # A hair of ridge: two equal layers make the matrix singular.
            ridge = 1e-10 * inner.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
            inner = inner + ridge * torch.eye(len(others), dtype=gram.dtype, device=gram.device)
            explained = (cross * torch.linalg.solve(inner, cross)).sum(dim=1).clamp(min=0)
            explained = torch.minimum(explained, own)
            novelty.append(((own - explained) / own).sqrt())
            lengths = gram[:, others, others].sqrt()
            cosine = (cross / lengths).mean(dim=1) / explained.sqrt()
            alignment.append(1 / (2 * (len(others) + 1) * cosine))
        both = [torch.stack(parts, dim=1) for parts in (novelty, alignment)]
        alpha = sum((part / part.sum(dim=1, keepdim=True) for part in both), torch.zeros_like(both[0]))
        return alpha / alpha.sum(dim=1, keepdim=True)

    @classmethod
    def simplest(cls, shape: StateShape, name: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The default first state when it is spelled out."""
        first = params["first"]
        if first is not None:
            first = None if shape.index(first) == shape.blocks // 3 else shape.index(first)
        return name, {**params, "first": first}


def _window(k: int, count: int, size: int, edge: Edge) -> list[int]:
    """The states beside k, of `count` states."""
    left = range(max(k - size, 0), k)
    if edge == "released" and k < size:
        left = range(0)
    return [*left, *range(k + 1, min(k + size + 1, count))]


def _adjacent_variance(gram: Float[Tensor, "n k k"]) -> Float[Tensor, " n"]:
    """Variance (of the population) over k of cos(h_k, h_{k+1})."""
    lengths = gram.diagonal(dim1=1, dim2=2).sqrt()
    cosine = gram.diagonal(offset=1, dim1=1, dim2=2) / (lengths[:, :-1] * lengths[:, 1:])
    return cosine.var(dim=1, correction=0)


def _token_weights(
    omega: Float[Tensor, "batch tokens"], mask: Float[Tensor, "batch tokens"] | Tensor
) -> Float[Tensor, "batch tokens"]:
    """Weights that sum to 1 over the real tokens but the last."""
    place = mask.cumsum(dim=1) * mask
    count = mask.sum(dim=1, keepdim=True)
    kept = mask & ((place < count) | (count == 1))
    omega = (omega + torch.finfo(torch.float32).tiny) * kept
    return omega / omega.sum(dim=1, keepdim=True)
