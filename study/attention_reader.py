"""Reads from a pass's attention maps, text by text, how each block spreads its attention."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fusebench.benchmarks.diagnosis import BackboneAttention, BlockAttention, TrainedWeights
from fusebench.methods import functional as F
from fusebench.methods.attention_guides import MapChoice
from fusebench.methods.backbone import Backbone
from fusebench.methods.engine import SharedPass
from fusebench.methods.parts import Fusion
from fusebench.methods.states import LayerStates, Needs, StateShape

KEY = "attention maps"  # among the fusions of a pass; no sentence, so no method's name
_COLUMNS = 4  # of a block: entropy, share of the first token, share of the last, cosine of two heads


class AttentionReader(Fusion):
    """Four numbers a block and text, means over heads and real queries, in the place of a vector.

    They are those of `MapChoice.statistics`, which a guided training logs, and the last token's share.
    """

    needs = Needs.ATTENTION

    def __init__(self, shape: StateShape) -> None:
        super().__init__()
        self.layers, self.out_dim = (), _COLUMNS * shape.blocks

    def forward(self, states: LayerStates) -> Float[Tensor, "batch out"]:
        """The numbers of block 1, then those of block 2, and so on; NaN is the cosine of a single head."""
        blocks = range(1, len(states.hidden))
        return torch.cat([_of_block(states, block) for block in blocks], dim=1)


def _of_block(states: LayerStates, block: int) -> Float[Tensor, "batch 4"]:
    choice = MapChoice("attention", (block,), None, "received")
    (maps,) = choice.maps(states)
    real = states.mask.to(maps.dtype)
    length = real.sum(dim=1)
    queries = (real / length[:, None])[:, None, :]
    surprise = -torch.xlogy(maps, maps) * real[:, None, None, :]
    entropy = (surprise.sum(dim=-1) * queries).sum(dim=-1).mean(dim=1) / length.log()
    received = (maps * queries[..., None]).sum(dim=2).mean(dim=1)  # [batch, keys]
    rows = torch.arange(len(maps), device=maps.device)
    unit = choice.unit_maps(states)
    heads = unit.shape[1]
    # Of unit maps, the sum over all pairs of heads is the squared length of their sum; a single head has no pair.
    pairs = heads * (heads - 1) or torch.nan
    cosine = (unit.sum(dim=1).square().sum(dim=-1) - heads) / pairs
    columns = (
        torch.where(length > 1, entropy, 1.0),
        received[rows, F.first_index(states.mask)],
        received[rows, F.last_index(states.mask)],
        cosine,
    )
    return torch.stack(columns, dim=1)


def read_attention(
    shared: SharedPass, rows: np.ndarray, lengths: np.ndarray, trained: TrainedWeights | None
) -> BackboneAttention:
    """What the reader of a finished pass found, averaged over texts.

    Args:
        shared: a pass with an `AttentionReader` under `KEY`.
        rows: of the texts.
        lengths: their tokens.
        trained: the training that fine-tuned the backbone, if one did.
    """
    means = shared.vectors(KEY)[rows].astype(np.float64).mean(axis=0).reshape(-1, _COLUMNS)
    blocks = tuple(
        BlockAttention(
            block=block,
            entropy=entropy,
            first_token=first,
            last_token=last,
            head_cosine=None if math.isnan(cosine) else cosine,
        )
        for block, (entropy, first, last, cosine) in enumerate(means.tolist(), start=1)
    )
    first, last = special_ends(shared.backbone)
    return BackboneAttention(
        backbone=trained,
        even_share=float((1 / lengths).mean()),
        first_token=first,
        last_token=last,
        blocks=blocks,
    )


def special_ends(backbone: Backbone) -> tuple[str | None, str | None]:
    """The special tokens that the tokenizer puts first and last, such as [CLS] and [SEP]; None where it puts none."""
    ids = backbone.tokenize(["layers"]).ids[0]
    # A word that the vocabulary lacks is no special token of the frame.
    special = set(backbone.tokenizer.all_special_ids) - {backbone.tokenizer.unk_token_id}
    first, last = (
        str(backbone.tokenizer.convert_ids_to_tokens(int(end))) if int(end) in special else None
        for end in (ids[0], ids[-1])
    )
    return first, last
