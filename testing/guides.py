"""The contract of guides."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fusebench.methods.parts import Guide
from fusebench.methods.states import LayerStates, Needs
from fusebench.testing.made_up import LENGTHS, PADDINGS, SHAPE, Text, batch, doubles, made_up_texts, with_gradients
from fusebench.testing.passes import check_input_untouched, gradcheck, is_some
from fusebench.testing.promises import close, part_class, require


def check_guide(guide: type[Guide] | str, /, **params: Any) -> None:
    """Asserts that a guide keeps the contract: a finite scalar, the mean over rows, blind to padding, with gradients.

    Its `factor` is a finite number of 0 or more, its `blocks` are truthful, and missing maps are refused. The rows of
    the attention maps sum to nearly 1, so that a mean over keys differs from text to text.

    Args:
        guide: the class or its registered name.
        params: its hyper-parameters.
    """
    part = part_class(guide, Guide)(**params)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        texts = made_up_texts(LENGTHS)
        states = batch(texts, part.needs)
        value = part(states)
        require(0 <= part.factor < math.inf, f"a guide's factor is a finite number of 0 or more, not {part.factor}")
        require(value.shape == (), f"a guide returns a scalar, not shape {tuple(value.shape)}")
        require(bool(value.isfinite()), f"a guide is finite, not {value}")
        check_input_untouched(part, texts, part.needs)
        require(torch.equal(part(states), value), "a guide is deterministic")
        for side, garbage in PADDINGS:
            padded = part(batch(texts, part.needs, side=side, garbage=garbage))
            close(padded, value, f"padding is invisible ({side}, filled with about {garbage:g})")
        alone = torch.stack([part(batch([text], part.needs, spare=0)) for text in texts])
        close(alone.mean(), value, "a guide is the mean over the rows, each as if alone")
        if Needs.ATTENTION in part.needs:
            _check_blocks_are_truthful(part, states, value)
            _check_missing_maps_are_refused(part, states)
        _check_guide_gradients(part, texts)


def _check_blocks_are_truthful(part: Guide, states: LayerStates, value: Tensor) -> None:
    """What a backbone leaves of its maps is what the guide names, and no more."""
    maps = states.attention or {}
    blocks = tuple(maps) if part.blocks is None else part.blocks
    require(len(blocks) > 0 and set(blocks) <= set(maps), f"blocks are numbers from 1 to {len(maps)}, not {blocks}")
    found = part(LayerStates(states.hidden, states.mask, {k: maps[k] for k in blocks}, states.marker))
    close(found, value, f"blocks are truthful: the maps of blocks {blocks} are enough")


def _check_missing_maps_are_refused(part: Guide, states: LayerStates) -> None:
    nothings: tuple[dict[int, Tensor] | None, ...] = (None, {})
    for nothing in nothings:
        try:
            part(LayerStates(states.hidden, states.mask, nothing, states.marker))
        except Exception:
            continue
        raise AssertionError("broken promise: missing attention maps raise; they are no penalty of zero")


def _check_guide_gradients(part: Guide, texts: Sequence[Text]) -> None:
    part = copy.deepcopy(part).double()
    leaves, states = with_gradients(batch(doubles(texts), part.needs))
    watched = leaves[SHAPE.states :] or leaves
    gradients = torch.autograd.grad(part(states), watched, allow_unused=True)
    require(any(is_some(gradient) for gradient in gradients), "the gradient reaches what the guide penalises")
    for gradient in gradients:
        if gradient is not None and Needs.ATTENTION in part.needs:
            padding = ~(states.mask[:, None, :, None] & states.mask[:, None, None, :])
            require(not bool((gradient * padding).any()), "padding is invisible to the gradient")
    gradcheck(part, doubles(texts[:3]), dict(part.named_parameters()))
