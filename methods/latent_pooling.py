"""Learned latents and attention: latents that ask the layers, and tokens that ask the latents (NV-Embed)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusebench.errors import InputError
from fusebench.methods import functional as F
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import register
from fusebench.methods.states import LayerStates, Needs, States, StateShape

_TEXTS_AT_A_TIME = 16


class _LatentFusion(Fusion):
    """Latents, and a block `O = MHA(LN(X), LN(Y)) + X`, then `W_2 GEGLU(W_1 LN(O)) + O`; X asks, Y answers.

    Linear maps, latents and other embeddings start from N(0, 0.02), biases from 0, layer norms from the identity.
    """

    def __init__(self, shape: StateShape, *, latents: int, heads: int, head_dim: int | None, expansion: int) -> None:
        super().__init__()
        dim = self.out_dim = shape.dim
        head_dim = max(1, dim // heads) if head_dim is None and heads > 0 else head_dim or 0
        if min(latents, heads, head_dim, expansion) < 1:
            raise InputError(
                f"latents={latents}, heads={heads}, head_dim={head_dim}, expansion={expansion}: all are 1 or more."
            )
        self.heads = heads
        self.latents = nn.Parameter(torch.empty(latents, dim))
        self.asking_norm, self.answering_norm, self.wide_norm = (nn.LayerNorm(dim) for _ in range(3))
        self.query, self.key, self.value = (nn.Linear(dim, heads * head_dim, bias=False) for _ in range(3))
        self.output = nn.Linear(heads * head_dim, dim, bias=False)
        self.widen = nn.Linear(dim, 2 * expansion * dim)
        self.narrow = nn.Linear(expansion * dim, dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.latents, std=0.02)

    def _attended(
        self, asking: Float[Tensor, "#batch asking dim"], answering: Float[Tensor, "#batch answering dim"]
    ) -> Float[Tensor, "batch asking dim"]:
        """O; one row in the place of a batch, the latents, is broadcast."""
        source = self.answering_norm(answering)
        queries = self._by_head(self.query(self.asking_norm(asking)))
        keys, values = self._by_head(self.key(source)), self._by_head(self.value(source))
        scores = queries @ keys.mT / queries.shape[-1] ** 0.5
        weights = scores.to(F.accumulator(scores.dtype)).softmax(dim=-1).to(scores.dtype)
        return self.output((weights @ values).transpose(1, 2).flatten(start_dim=2)) + asking

    def _pooled_block(
        self, attended: Float[Tensor, "batch vectors dim"], pool: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "batch dim"]:
        """The block's outputs, pooled; `pool` is a mean, so W_2 can come after it and maps one vector a text."""
        wide, gate = self.widen(self.wide_norm(attended)).chunk(2, dim=-1)
        return self.narrow(pool(wide * nn.functional.gelu(gate))) + pool(attended)

    def _by_head(self, x: Float[Tensor, "batch vectors inner"]) -> Float[Tensor, "batch heads vectors head"]:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


@register("multi-layer-latents", paper="arXiv:2409.02727", learned=True)
class MultiLayerLatents(_LatentFusion):
    """Latents attend to the means of layers: `mean_r Block(Z, X)_r`, `X_l = mean_t h_l + e_l`.

    Tang and Yang 2024, multi-layer trainable pooling, with e_l a learned embedding of the layer and Z the latents:

        O        = MHA(Q = LN(Z), K = V = LN(X)) + Z
        Block    = W_2 GEGLU(W_1 LN(O)) + O

    Latents, e and linear maps start from N(0, 0.02), biases from 0.

    Args:
        first: lowest state read; published 1, no embedding output.
        latents: rows of Z; None is 3 dim / 16, the published 768 at dim 4096.
        heads: of the attention; published 32.
        head_dim: width of a head; None is dim // heads, published 2048.
        expansion: the feed-forward layer is this many times as wide as the vector.

    Departures: sizes scale with the backbone, with 8 heads and heads that share the width, because published ones
    outweigh a small backbone; layers are always averaged over tokens, as for bidirectional models; no final L2
    norm (cosine does not see it); the start is not confirmed.
    """

    needs = Needs.MEANS

    def __init__(
        self,
        shape: StateShape,
        *,
        first: int = 1,
        latents: int | None = None,
        heads: int = 8,
        head_dim: int | None = None,
        expansion: int = 4,
    ) -> None:
        rows = max(1, 3 * shape.dim // 16) if latents is None else latents
        super().__init__(shape, latents=rows, heads=heads, head_dim=head_dim, expansion=expansion)
        self.layers = tuple(range(shape.index(first), shape.states))
        self.layer_embeddings = nn.Parameter(torch.empty(len(self.layers), shape.dim))
        nn.init.normal_(self.layer_embeddings, std=0.02)

    def forward(self, states: States) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`."""
        X = torch.stack([states.mean(layer) for layer in self.layers], dim=1) + self.layer_embeddings
        # The wide layer of so few texts stays in a processor's cache: a third faster than of 512.
        return torch.cat([self._pooled(some) for some in torch.split(X, _TEXTS_AT_A_TIME)])

    def _pooled(self, X: Float[Tensor, "batch layers dim"]) -> Float[Tensor, "batch dim"]:
        attended = self._attended(self.latents.unsqueeze(0), X)
        return self._pooled_block(attended, lambda rows: rows.mean(dim=1))

    @classmethod
    def simplest(cls, shape: StateShape, name: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Counted from 0."""
        return name, {**params, "first": shape.index(params["first"])}


@register("latent-attention", paper="arXiv:2405.17428", learned=True)
class LatentAttention(_LatentFusion):
    """Tokens of the last layer attend to latents: `mean_t Block(H_L, Z)_t`.

    Lee et al. 2024 (NV-Embed), with Z the latents:

        O        = MHA(Q = LN(H_L), K = V = LN(Z)) + H_L
        Block    = W_2 GEGLU(W_1 LN(O)) + O

    Latents and linear maps start from N(0, 0.02), biases from 0.

    Args:
        latents: rows of Z; None is dim / 8, the published 512 at dim 4096.
        heads: of the attention; 8 as published.
        head_dim: width of a head; None is dim // heads, published dim itself (4096).
        expansion: the feed-forward layer is this many times as wide as the vector; 4 as published.

    Departures: heads share the width; all tokens count, as no instructions are given; no final L2 norm (cosine
    does not see it); the start is not confirmed.
    """

    needs = Needs.TOKENS

    def __init__(
        self,
        shape: StateShape,
        *,
        latents: int | None = None,
        heads: int = 8,
        head_dim: int | None = None,
        expansion: int = 4,
    ) -> None:
        rows = max(1, shape.dim // 8) if latents is None else latents
        super().__init__(shape, latents=rows, heads=heads, head_dim=head_dim, expansion=expansion)
        self.layers = (shape.blocks,)

    def forward(self, states: LayerStates) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`."""
        attended = self._attended(states.hidden[self.layers[0]], self.latents.unsqueeze(0))
        return self._pooled_block(attended, lambda tokens: F.masked_mean(tokens, states.mask))
