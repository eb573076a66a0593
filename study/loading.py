"""One method on one backbone with its weights in place, for use as a library and for export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fusebench.errors import InputError
from fusebench.methods import backbone_source
from fusebench.methods.backbone import Backbone
from fusebench.methods.checkpoint import load_module
from fusebench.methods.grammar import Method
from fusebench.methods.parts import Fusion
from fusebench.study import text_sets
from fusebench.study.plan import choose_device, choose_methods
from fusebench.study.saved_methods import SavedMethod


@dataclass(frozen=True, eq=False)
class LoadedMethod:
    """A method that is ready to embed.

    Attributes:
        backbone: with the weights of the saved method if that was fine-tuned.
        fusion: with its weights in place.
        fit: what transforms are fitted on.
        saved: the trained method that was named, or None.
    """

    backbone: Backbone
    method: Method
    fusion: Fusion
    fit: text_sets.TextSet
    saved: SavedMethod | None


def load_method(
    method: str,
    backbone: str | None,
    *,
    device: str,
    max_length: int | None,
    fit: str = text_sets.DEFAULT,
    data_dir: Path | None = None,
) -> LoadedMethod:
    """Looks up a method and everything it stands on.

    Args:
        method: a sentence, a catalogue name, or the folder of a trained method, which transforms may follow.
        backbone: as behind `--backbone`; None is the embedded default.
        device: as behind `--device`.
        max_length: limit in tokens; None takes the backbone's own.
        fit: as behind `--fit`.
        data_dir: where named sets of fit texts lie.

    Raises:
        InputError: if there is no such method, backbone or text set, or the method is not one and not trained.
    """
    source = backbone_source.find_backbone(backbone or backbone_source.DEFAULT)
    loaded = Backbone(source, device=choose_device(device), max_length=max_length)
    texts = text_sets.load_texts(fit, data_dir)
    chosen, _ = choose_methods([method], source, loaded, texts.spec.count, regime="finetune")
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
    return LoadedMethod(loaded, one.method, fusion, texts, one.saved)
