"""A method whose fusion is a module of its own between those of sentence-transformers, its sources in the folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fusebench.errors import InputError
from fusebench.methods.backbone import Backbone
from fusebench.methods.grammar import Method
from fusebench.methods.parts import Fusion, Transform
from fusebench.methods.states import Needs
from fusebench.study.fusion_module import FusionModule
from fusebench.study.module_bundle import MODELING_FILE, MODULE_CLASS, bundle
from fusebench.study.stock_modules import map_modules, maps_of, transformer_module

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_READ = Needs.MEANS | Needs.FIRSTS | Needs.TOKENS


def bundled_model(
    method: Method, fusion: Fusion, transforms: Sequence[Transform], backbone: Backbone, *, tuned: bool = False
) -> SentenceTransformer:
    """The method as a `SentenceTransformer`: the backbone's states, the fusion, the transforms.

    Args:
        method: its sentence.
        fusion: with its weights in place.
        transforms: fitted.
        backbone: what it reads.
        tuned: whether the backbone's weights are no longer those of its folder.

    Raises:
        InputError: if it reads more than states of the texts themselves, or a transform is no map.
    """
    from sentence_transformers import SentenceTransformer

    if fusion.template is not None or fusion.needs & ~_READ:
        what = "a text inside a template" if fusion.template is not None else "attention maps"
        raise InputError(f"{method.fusion} reads {what}, which sentence-transformers hands to no module.")
    wrapped = type(MODULE_CLASS, (FusionModule,), {"part": type(fusion)})(
        backbone.shape.blocks, backbone.shape.dim, dict(method.fusion.params)
    )
    wrapped.fusion.load_state_dict(fusion.state_dict())
    maps = map_modules(maps_of(method, transforms))
    modules = [transformer_module(backbone, all_layers=True, tuned=tuned), wrapped, *maps]
    return SentenceTransformer(modules=modules, device=str(backbone.device))


def save_with_sources(model: SentenceTransformer, folder: Path) -> None:
    """Writes a model of `bundled_model` with the sources that it needs, so that it loads where FuseBench is not.

    Raises:
        InputError: if the fusion's file imports what cannot be brought along.
    """
    module = next(one for one in model if isinstance(one, FusionModule))
    sources = bundle(module.part)
    model.save(str(folder), create_model_card=False)
    for name, text in sources.items():
        (folder / name).write_text(text, encoding="utf-8")
    listed = folder / "modules.json"
    modules = json.loads(listed.read_text(encoding="utf-8"))
    for entry in modules:
        if entry["type"].endswith(f".{MODULE_CLASS}"):
            entry["type"] = f"{MODELING_FILE}.{MODULE_CLASS}"
    listed.write_text(json.dumps(modules, indent=2), encoding="utf-8")
