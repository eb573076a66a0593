"""Dropout as noise: a model's dropout switched on for a while, drawn from a seed, and everything put back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.modules.dropout import _DropoutNd

from fusebench.methods.seeding import seeded

# Models that apply dropout to attention as a function, not as a module, keep its probability under these names.
ATTENTION_DROPOUT = ("attention_dropout", "attention_probs_dropout_prob", "attn_pdrop")


def has_dropout(model: Any) -> bool:
    """Whether two passes of the model in training mode can differ."""
    modules = any(isinstance(module, _DropoutNd) and module.p > 0 for module in model.modules())
    return modules or any(getattr(model.config, name, 0.0) for name in ATTENTION_DROPOUT)


@contextlib.contextmanager
def dropout_noise(model: Any, device: torch.device, seed: int) -> Iterator[None]:
    """Within, dropout is on and drawn from this seed; random numbers outside go on as if nothing had been drawn.

    Mode and generators belong to the whole process, so other passes of this model must wait.
    """
    training = model.training
    with seeded(seed, device):
        model.train()
        try:
            yield
        finally:
            model.train(training)
