"""One method on one backbone as an encoder, for use as a library."""

from __future__ import annotations

from fusebench.errors import InputError
from fusebench.methods import backbone_source
from fusebench.methods.backbone import Backbone
from fusebench.methods.encoder import Encoder
from fusebench.study import text_sets
from fusebench.study.plan import choose_device, choose_methods


def load_encoder(method: str, backbone: str | None, *, device: str, max_length: int | None) -> Encoder:
    """See `fusebench.load`."""
    source = backbone_source.find_backbone(backbone or backbone_source.DEFAULT)
    loaded = Backbone(source, device=choose_device(device), max_length=max_length)
    fit = text_sets.load_texts(text_sets.DEFAULT, None)
    methods, _ = choose_methods([method], source, loaded.shape, fit.spec.count, loaded.tokenize)
    if len(methods) != 1:
        raise InputError(f"'{method}' names {len(methods)} methods; load them one at a time.")
    return Encoder(loaded, methods[0], fit_texts=fit.texts)
