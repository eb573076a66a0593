"""What a fine-tuning is made of, in the run as in processes that share it: the method, and its live states."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch

from fusebench.methods.backbone import Backbone
from fusebench.methods.grammar import Method
from fusebench.methods.parts import Guide
from fusebench.methods.recipe import Recipe
from fusebench.methods.seeding import seeded
from fusebench.methods.state_sources import LiveSource
from fusebench.methods.states import StateShape
from fusebench.methods.trainee import Trainee


def build_trainee(name: str, method: Method, shape: StateShape, seed: int, recipe: Recipe) -> Trainee:
    """A method as its training starts; nothing is drawn from the global generator.

    Args:
        name: of the training.
        method: without transforms.
        shape: of the backbone.
        seed: of its first weights.
        recipe: of the training.
    """
    with seeded(seed, torch.device("cpu")):
        fusion = method.build_fusion(shape)
        objectives = method.build_objectives()
    guides = list(zip(map(str, method.guides), method.build_guides(), strict=True))
    return Trainee(name, fusion, objectives, guides, recipe)


def trained_source(backbone: Backbone, texts: Sequence[str], trainee: Trainee) -> LiveSource:
    """The states of texts from a backbone that learns along: what the method and its guides read, and no more."""
    guides = [guide for _, guide in trainee.guides]
    return LiveSource(
        backbone,
        texts,
        reduce(lambda needs, guide: needs | guide.needs, guides, trainee.fusion.needs),
        template=trainee.fusion.template,
        train=True,
        map_blocks=_blocks_read(guides),
    )


def _blocks_read(guides: Sequence[Guide]) -> tuple[int, ...] | None:
    """The blocks whose maps some guide reads; None are all."""
    blocks: set[int] = set()
    for guide in guides:
        if guide.blocks is None:
            return None
        blocks.update(guide.blocks)
    return tuple(sorted(blocks))
