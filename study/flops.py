"""Parameters and floating-point operations of a transformer, counted from its sizes: what cost grows with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Transformer:
    """The sizes that count.

    Attributes:
        blocks: L.
        dim: width of the states.
        inner: width inside the feed-forward layers.
        vocabulary: rows of the embedding table, which costs memory and no arithmetic.
        gated: whether the feed-forward layer has three matrices (Llama) or two (BERT).
        key_value: share of the heads that keys and values have of their own (grouped attention).
    """

    blocks: int
    dim: int
    inner: int
    vocabulary: int
    gated: bool = False
    key_value: float = 1.0

    @property
    def block_weights(self) -> float:
        """Entries of the matrices of all blocks; biases and norms are left out."""
        attention = (2 + 2 * self.key_value) * self.dim**2
        return self.blocks * (attention + (3 if self.gated else 2) * self.dim * self.inner)

    @property
    def weights(self) -> float:
        """With the embedding table."""
        return self.block_weights + self.vocabulary * self.dim

    def forward(self, length: float) -> float:
        """Operations a token of a text of `length` tokens, a multiplication and an addition being two.

        Twice the matrices, and 4 L n d for the scores and the sums of attention, padding and masks not used.
        """
        return 2 * self.block_weights + 4 * self.blocks * length * self.dim

    def training(self, length: float, *, recomputed: bool = False) -> float:
        """Operations a token of an update: the backward half costs twice the forward one."""
        return (4 if recomputed else 3) * self.forward(length)


BERT_BASE = Transformer(blocks=12, dim=768, inner=3072, vocabulary=30_522)
LLAMA_7B = Transformer(blocks=32, dim=4096, inner=11_008, vocabulary=32_000, gated=True)
LLAMA_70B = Transformer(blocks=80, dim=8192, inner=28_672, vocabulary=32_000, gated=True, key_value=1 / 8)
MINILM = Transformer(blocks=6, dim=384, inner=1536, vocabulary=30_522)
