"""One method on one backbone as an encoder, for use as a library."""

from __future__ import annotations

from fusebench.errors import InputError
from fusebench.methods import backbone_source
from fusebench.methods.backbone import Backbone
from fusebench.methods.checkpoint import load_module
from fusebench.methods.encoder import Encoder
from fusebench.study import text_sets
from fusebench.study.plan import choose_device, choose_methods


def load_encoder(method: str, backbone: str | None, *, device: str, max_length: int | None) -> Encoder:
    """See `fusebench.load`."""
    source = backbone_source.find_backbone(backbone or backbone_source.DEFAULT)
    loaded = Backbone(source, device=choose_device(device), max_length=max_length)
    fit = text_sets.load_texts(text_sets.DEFAULT, None)
    chosen, _ = choose_methods([method], source, loaded, fit.spec.count, regime="finetune")
    if len(chosen) != 1:
        raise InputError(f"'{method}' names {len(chosen)} methods; load them one at a time.")
    one = chosen[0]
    fusion = one.method.build_fusion(loaded.shape)
    if one.saved is not None:
        tensors = one.saved.tensors()
        load_module(fusion, tensors, "fusion.")
        if one.saved.regime == "finetune":
            load_module(loaded.model, tensors, "backbone.")
    elif one.method.trained:
        raise InputError(
            f"{one.method.name} must be trained first: run_bench.py --methods does, and leaves a folder below "
            "trained/ in its results, whose path can be loaded."
        )
    return Encoder(loaded, one.method, fusion=fusion, fit_texts=fit.texts)
