"""Attention maps of chosen blocks, read where the model computes them and before any dropout."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from fusebench.errors import InputError
from fusebench.methods import functional as F

ROUTE = "maps-of-chosen-blocks"  # the name of `attention` among transformers' attention functions

_functions: Any = AttentionInterface
_masks: Any = AttentionMaskInterface
_sdpa = _functions()["sdpa"]
_routing = threading.Lock()


@dataclass
class MapCollector:
    """The maps of one forward pass.

    Attributes:
        blocks: whose maps are wanted, counted from 1.
        calls: attentions computed so far; the n-th is block n's, also where blocks share one module.
        maps: what was found, by block.
    """

    blocks: tuple[int, ...]
    calls: int = 0
    maps: dict[int, Float[Tensor, "batch heads tokens tokens"]] = field(default_factory=dict)


_collector: ContextVar[MapCollector | None] = ContextVar("map_collector", default=None)


def run_with_maps(
    model: Any, blocks: tuple[int, ...], total: int, **inputs: Any
) -> tuple[Any, dict[int, Float[Tensor, "batch heads tokens tokens"]]]:
    """A model's output and the attention maps of these of its `total` blocks.

    Raises:
        InputError: if the model leaves no maps that can be numbered.
    """
    if route(model):
        with collecting(blocks) as collector:
            out = model(**inputs)
        if collector.calls != total:
            raise InputError(
                f"{type(model).__name__} computes attention {collector.calls} times in {total} blocks, so its "
                "attention maps cannot be numbered; leave out mdg and pdg."
            )
        return out, collector.maps
    out = model(output_attentions=True, **inputs)
    maps = out.attentions or ()
    if len(maps) != total or any(one is None for one in maps):
        raise InputError(f"{type(model).__name__} returned no attention maps; leave out mdg and pdg.")
    return out, without_dropout(maps, blocks, model.training)


def route(model: Any) -> bool:
    """Sends a model's fused attention through `attention` from now on; False if the model computes its own.

    Without a collector nothing changes, to the last bit, so passes that run in other threads may go on.
    """
    with _routing:
        if model.config._attn_implementation == "sdpa" and model._can_set_attn_implementation():
            model.set_attn_implementation(ROUTE)
        return bool(model.config._attn_implementation == ROUTE)


@contextlib.contextmanager
def collecting(blocks: tuple[int, ...]) -> Iterator[MapCollector]:
    """Within, attentions that this thread computes leave the maps of these blocks in the collector."""
    collector = MapCollector(blocks)
    token = _collector.set(collector)
    try:
        yield collector
    finally:
        _collector.reset(token)


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """Fused attention, but step by step in a block whose map is collected: `dropout(map) V`.

    Arguments and result are those of transformers' attention functions: heads before tokens in, tokens before
    heads out. The map is kept as it is before dropout, so its rows sum to 1 in training too.
    """
    collector = _collector.get()
    if collector is not None:
        collector.calls += 1
    if collector is None or collector.calls not in collector.blocks:
        output, _ = _sdpa(module, query, key, value, attention_mask, **settings)
        return output, None
    causal = settings.get("is_causal")
    weights = attention_map(
        query,
        key,
        attention_mask,
        scaling=settings.get("scaling"),
        causal=bool(getattr(module, "is_causal", True) if causal is None else causal),
        bias=settings.get("position_bias"),
    )
    collector.maps[collector.calls] = weights
    dropped = nn.functional.dropout(weights.to(value.dtype), settings.get("dropout", 0.0))
    output = dropped @ _for_every_head(value, query.shape[1])
    return output.transpose(1, 2).contiguous(), None


def attention_map(
    query: Float[Tensor, "batch heads tokens dim"],
    key: Float[Tensor, "batch groups tokens dim"],
    mask: Tensor | None = None,
    *,
    scaling: float | None = None,
    causal: bool = False,
    bias: Tensor | None = None,
) -> Float[Tensor, "batch heads tokens tokens"]:
    """`softmax(q k^T scaling + bias + mask)` over keys, in float32 or better.

    Args:
        query: of every head.
        key: of every group of heads that share keys.
        mask: bool (True = attended to) or added to the scores.
        scaling: None is `1 / sqrt(dim)`.
        causal: whether tokens see none after themselves; with a mask, the mask alone decides.
        bias: added to the scores, such as that of relative positions.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (query * scaling) @ _for_every_head(key, query.shape[1]).mT
    if mask is None and causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        # A padding query may see no key at all, and -inf would make its row NaN. Half of the least number, so that
        # a sum with it does not become -inf.
        mask = torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(~mask, torch.finfo(scores.dtype).min / 2)
    for added in (bias, mask):
        if added is not None and added.dtype == scores.dtype:
            scores += added  # in place and without a part in the gradients: the scores are the largest tensor here
        elif added is not None:
            scores = scores + added  # in the wider of both types, in which the mask is finite
    return scores.softmax(dim=-1, dtype=F.accumulator(scores.dtype))


def without_dropout(
    maps: Sequence[Float[Tensor, "batch heads tokens tokens"]], blocks: tuple[int, ...], training: bool
) -> dict[int, Float[Tensor, "batch heads tokens tokens"]]:
    """Maps of these blocks from a model that computes its own attention and returns them after dropout.

    Entries that were dropped stay 0; the rest of a row is rescaled so that it sums to 1 again. A row that was
    dropped whole stays 0.
    """
    if not training:
        return {block: maps[block - 1] for block in blocks}
    kept = {block: maps[block - 1].to(F.accumulator(maps[block - 1].dtype)) for block in blocks}
    return {block: one / one.sum(dim=-1, keepdim=True).clamp(min=1e-12) for block, one in kept.items()}


def _for_every_head(shared: Float[Tensor, "batch groups tokens dim"], heads: int) -> Tensor:
    """Keys or values repeated for the heads that share them."""
    groups = heads // shared.shape[1]
    return shared if groups == 1 else shared.repeat_interleave(groups, dim=1)


_functions.register(ROUTE, attention)
_masks.register(ROUTE, _masks()["sdpa"])
