"""Where `hidden_states[k]` of a backbone differs from the backbone truncated to k blocks."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from fusebench.methods.backbone import Backbone
from fusebench.methods.backbone_loading import quiet_transformers
from fusebench.methods.onednn_linear import use_onednn

PROBES = (
    "The cat sat on the mat.",
    "Interest rates rose again, and the markets fell by two per cent within the hour.",
)


@dataclass(frozen=True)
class LayerCheck:
    """State `layer` of the full model against the last state of the model cut to that many blocks."""

    layer: int
    difference: float  # largest absolute difference over the probes' tokens
    cosine: float  # smallest cosine of the probes' mean vectors
    norm: float  # mean length of a token's state in the full model


def check_layers(backbone: Backbone) -> list[LayerCheck]:
    """Both protocols for each k = 1..L on two short texts.

    The truncated protocol sets `num_hidden_layers = k` and takes the last state, so a model with a final norm
    applies it to layer k; this benchmark reads `hidden_states[k]` of the full model.
    """
    ids = list(backbone.tokenize(PROBES).ids)
    full = backbone.states(ids)
    checks = []
    for layer in range(1, backbone.shape.blocks + 1):
        truncated = copy.copy(backbone)
        truncated.model = _truncated(backbone, layer)
        last = truncated.states(ids)
        here = full.hidden[layer][full.mask].float()
        there = last.hidden[-1][full.mask].float()
        means = torch.nn.functional.cosine_similarity(full.mean(layer).float(), last.mean(layer).float())
        checks.append(
            LayerCheck(
                layer=layer,
                difference=float((here - there).abs().max()),
                cosine=float(means.min()),
                norm=float(here.norm(dim=1).mean()),
            )
        )
    return checks


def _truncated(backbone: Backbone, blocks: int) -> torch.nn.Module:
    config = copy.deepcopy(backbone.config)
    config.num_hidden_layers = blocks
    # Per-layer lists, where a configuration has them, must be as long as the model.
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:blocks]
    with quiet_transformers():
        model = type(backbone.model).from_pretrained(
            backbone.source.folder,
            config=config,
            dtype=next(backbone.model.parameters()).dtype,
            use_safetensors=True,
            local_files_only=True,
        )
    return use_onednn(model.to(backbone.device).eval())
