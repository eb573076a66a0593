"""SBERT-WK: each token weighs its layers by how new they are and how well they align, each text its tokens."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fusebench.errors import InputError
from fusebench.methods import functional as F
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

    R is not computed: with h of unit length, `R_j . r = <h_j, h_k>` and `r_last^2` is a Schur complement of
    the cosines.

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
        self.windows = _windows(len(self.layers), window, edge)
        if not all(self.windows):
            raise InputError(
                f"sbert-wk(window={window},edge={edge}) leaves a state without neighbours; choose another window."
            )

    def forward(self, states: LayerStates) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`."""
        layers = torch.stack([states.hidden[layer] for layer in self.layers], dim=2)  # [B, T, K, d]
        real = layers[states.mask].double()  # [N, K, d], the real tokens of the batch in one row
        unit = real / real.norm(dim=-1, keepdim=True)
        cosines = unit @ unit.mT
        tokens = (self._layer_weights(cosines).unsqueeze(1) @ real).squeeze(1)
        omega = states.mask.new_zeros(states.mask.shape, dtype=torch.double)
        omega[states.mask] = cosines.diagonal(offset=1, dim1=1, dim2=2).var(dim=1, correction=0)
        per_text = torch.zeros(*states.mask.shape, real.shape[-1], dtype=torch.double, device=real.device)
        per_text[states.mask] = tokens
        weights = _token_weights(omega, states.mask)
        return torch.einsum("bt,btd->bd", weights, per_text).to(layers.dtype)

    def _layer_weights(self, cosines: Float[Tensor, "n k k"]) -> Float[Tensor, "n k"]:
        novelty, alignment = [], []
        for k, others in enumerate(self.windows):
            across = cosines[:, others, k]
            among = cosines[:, others][:, :, others]
            # A hair of ridge, because two equal layers make the matrix singular; more would blur nearly equal ones.
            among = among + 1e-14 * torch.eye(len(others), dtype=cosines.dtype, device=cosines.device)
            explained = (across * torch.linalg.solve(among, across)).sum(dim=1).clamp(0, 1)
            novelty.append((1 - explained).sqrt())
            alignment.append(explained.sqrt() / (2 * (len(others) + 1) * across.mean(dim=1)))
        both = [torch.stack(parts, dim=1) for parts in (novelty, alignment)]
        alpha = sum((part / part.sum(dim=1, keepdim=True) for part in both), torch.zeros_like(both[0]))
        return alpha / alpha.sum(dim=1, keepdim=True)

    @classmethod
    def simplest(cls, shape: StateShape, name: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The default first state when it is spelled out; the narrowest window that holds the same states."""
        start = shape.blocks // 3 if params["first"] is None else shape.index(params["first"])
        count, window, edge = shape.states - start, params["window"], params["edge"]
        alike = (
            (size, kind)
            for kind in get_args(Edge)
            for size in range(1, window + 1)
            if _windows(count, size, kind) == _windows(count, window, edge)
        )
        window, edge = next(alike, (window, edge))
        return name, {"first": None if start == shape.blocks // 3 else start, "window": window, "edge": edge}


def _windows(count: int, size: int, edge: Edge) -> list[list[int]]:
    return [_window(k, count, size, edge) for k in range(count)]


def _window(k: int, count: int, size: int, edge: Edge) -> list[int]:
    """The states beside k, of `count` states."""
    states = range(count)
    left = states[k - size : k] if edge == "released" else states[max(k - size, 0) : k]
    return [*left, *states[k + 1 : k + size + 1]]


def _token_weights(
    omega: Float[Tensor, "batch tokens"], mask: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, "batch tokens"]:
    """Weights that sum to 1 over the real tokens but the last."""
    count = mask.sum(dim=1, keepdim=True)
    kept = mask & ((F.positions(mask) < count) | (count == 1))
    omega = (omega + torch.finfo(torch.float32).tiny) * kept
    return omega / omega.sum(dim=1, keepdim=True)
