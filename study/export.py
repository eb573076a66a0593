"""`run_bench.py export`: a method as a folder that needs no FuseBench, checked before it is there."""

from __future__ import annotations

import argparse
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from safetensors import SafetensorError

from fusebench.benchmarks.board_tests import read_tests, record_intervals
from fusebench.errors import InputError
from fusebench.methods.backbone_loading import quiet_transformers
from fusebench.methods.encoder import fit_transforms
from fusebench.methods.parts import Transform
from fusebench.methods.registry import load_plugins
from fusebench.study import text_sets
from fusebench.study.bundled_modules import bundled_model, save_with_sources
from fusebench.study.export_check import Difference, Encode, measured, stem_encoder
from fusebench.study.exported_scores import scores_of
from fusebench.study.loading import LoadedMethod, load_method
from fusebench.study.model_card import model_card
from fusebench.study.model_usage import ONNX, OWN_CODE, STOCK, Usage
from fusebench.study.onnx_graph import OnnxModel, write_graph
from fusebench.study.screen import Screen
from fusebench.study.stock_modules import NotStockError, stock_form, stock_model

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Form = Literal["sentence-transformers", "onnx"]


def show(flags: argparse.Namespace) -> int:
    """Exports and says how far both embed alike; 1, and no folder, if they do not.

    Args:
        flags: `method`, `to`, `format`, `backbone`, `out`, `fit`, `data_dir`, `max_length`, `device`, `plugin`.

    Raises:
        InputError: the method cannot be loaded or exported, or the folder is not empty.
    """
    folder: Path = flags.to
    require_empty(folder)
    difference = export_as_asked(flags.method, folder, flags)
    if difference.passed:
        _say(f"written: {folder}; {difference.usage.opening.format(folder=str(folder))}")
    return 0 if difference.passed else 1


def export_as_asked(method: str, folder: Path, flags: argparse.Namespace) -> Difference:
    """Exports into a new or empty folder and prints how far both embed alike.

    Args:
        method: a sentence, a catalogue name, or the folder of a trained method.
        folder: where to.
        flags: those that `export` and `push` share.

    Raises:
        InputError: the method cannot be loaded or exported.
    """
    load_plugins(flags.plugin)
    loaded = load_method(
        method,
        flags.backbone,
        device=flags.device,
        max_length=flags.max_length,
        fit=text_sets.DEFAULT if flags.fit is None else flags.fit,
        data_dir=flags.data_dir,
    )
    difference = export(loaded, folder, flags.out, flags.format)
    package = difference.usage.package
    _say(
        f"{loaded.method.name} on {loaded.backbone.source.name}: over {difference.texts} varied texts, vectors of "
        f"{package} differ from ours by at most {difference.largest:.1e} (allowed: {difference.allowed:.1e})"
    )
    if not difference.passed:
        _say(f"FAILED: {folder} is not written, because {package} would embed otherwise")
    return difference


def _say(line: str) -> None:
    Screen().print(line, highlight=False, markup=False, soft_wrap=True)


def export(loaded: LoadedMethod, folder: Path, out: Path, form: Form = "sentence-transformers") -> Difference:
    """Writes the folder if the model in it embeds as we do.

    Args:
        loaded: what is exported.
        folder: where to; it appears whole, or not at all.
        out: results whose scores of this method the model card names.
        form: what the folder is for.

    Raises:
        InputError: the method cannot be exported, or the disk refuses.
    """
    stem = stem_encoder(loaded)
    fit_vectors = stem.encode(loaded.fit.texts) if loaded.method.fitted else None
    transforms = fit_transforms(loaded.method, fit_vectors)
    around = folder.absolute().parent / f".{secrets.token_hex(8)}.tmp"
    # transformers keeps a copy of trusted code under the name of its folder, so the folder has its name already.
    half = around / folder.absolute().name
    try:
        half.mkdir(parents=True)
        with quiet_transformers():
            usage, encode = (_as_graph if form == "onnx" else _as_modules)(loaded, transforms, half)
        difference = measured(loaded, transforms, encode, usage)
        if difference.passed:
            card = model_card(
                folder.resolve().name,
                loaded,
                scores_of(loaded, out),
                difference.largest,
                usage,
                intervals=record_intervals(read_tests(out)[0]),
            )
            (half / "README.md").write_text(card, encoding="utf-8")
            if folder.is_dir():
                folder.rmdir()  # it is empty, and not every system renames over it
            half.rename(folder)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot write {folder}: {error}; free some room, or name another folder by --to."
        ) from error
    finally:
        shutil.rmtree(around, ignore_errors=True)
    return difference


def _as_modules(loaded: LoadedMethod, transforms: Sequence[Transform], folder: Path) -> tuple[Usage, Encode]:
    """Writes a sentence-transformers model, of stock modules where they can say the fusion, and reads it back."""
    from sentence_transformers import SentenceTransformer

    model, usage = _model(loaded, transforms)
    if usage is OWN_CODE:
        save_with_sources(model, folder)
    else:
        model.save(str(folder), create_model_card=False)
    device, trusted = str(loaded.backbone.device), usage is OWN_CODE  # which was written a moment ago
    theirs = SentenceTransformer(str(folder), device=device, local_files_only=True, trust_remote_code=trusted)
    return usage, lambda texts: theirs.encode(list(texts), show_progress_bar=False)


def _as_graph(loaded: LoadedMethod, transforms: Sequence[Transform], folder: Path) -> tuple[Usage, Encode]:
    """Writes an ONNX graph and reads it back."""
    write_graph(_model(loaded, transforms)[0], loaded.backbone, folder)
    return ONNX, OnnxModel(folder).encode


def _model(loaded: LoadedMethod, transforms: Sequence[Transform]) -> tuple[SentenceTransformer, Usage]:
    """The method as a model, of stock modules where they can say the fusion."""
    tuned = loaded.saved is not None and loaded.saved.regime == "finetune"
    try:
        form = stock_form(loaded.method, loaded.fusion, transforms, loaded.backbone)
    except NotStockError:
        return bundled_model(loaded.method, loaded.fusion, transforms, loaded.backbone, tuned=tuned), OWN_CODE
    return stock_model(form, loaded.backbone, tuned=tuned), STOCK


def require_empty(folder: Path) -> None:
    """Refuses a folder that something would be lost in.

    Raises:
        InputError: it holds something, or is a file.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"--to {folder} is there already and not empty; name a new folder, or empty it first.")
