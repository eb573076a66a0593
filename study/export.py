"""`run_bench.py export`: a method as a sentence-transformers model folder, checked before it is there."""

from __future__ import annotations

import argparse
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError

from fusebench.errors import InputError
from fusebench.methods.backbone import Backbone
from fusebench.methods.backbone_loading import quiet_transformers
from fusebench.methods.encoder import Encoder, fit_transforms
from fusebench.methods.parts import Transform
from fusebench.methods.registry import load_plugins
from fusebench.study import text_sets
from fusebench.study.exported_scores import scores_of
from fusebench.study.loading import LoadedMethod, load_method
from fusebench.study.model_card import model_card
from fusebench.study.screen import Screen
from fusebench.study.stock_modules import stock_form, stock_model

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Of the largest coordinate. Float32 in another order differs by some 1e-6; a wrong layer, mask or limit by far more.
TOLERANCE = 1e-4
# Times what rounding does to our own vectors: whitening blows it up in directions where the fit texts hardly vary.
_ROUNDINGS = 10


@dataclass(frozen=True)
class Difference:
    """How far the exported model's vectors are from ours, coordinate by coordinate.

    Attributes:
        largest: of all coordinates of all texts.
        allowed: what would still be rounding.
        texts: how many were compared.
    """

    largest: float
    allowed: float
    texts: int

    @property
    def passed(self) -> bool:
        """Whether both embed alike; NaN never does."""
        return self.largest <= self.allowed


def show(flags: argparse.Namespace) -> int:
    """Exports and says how far both embed alike; 1, and no folder, if they do not.

    Args:
        flags: `method`, `to`, `backbone`, `out`, `fit`, `data_dir`, `max_length`, `device`, `plugin`.

    Raises:
        InputError: the method cannot be loaded, or not be said in sentence-transformers' own modules, or the folder
            is not empty.
    """
    load_plugins(flags.plugin)
    folder: Path = flags.to
    require_empty(folder)
    loaded = load_method(
        flags.method,
        flags.backbone,
        device=flags.device,
        max_length=flags.max_length,
        fit=text_sets.DEFAULT if flags.fit is None else flags.fit,
        data_dir=flags.data_dir,
    )
    difference = export(loaded, folder, flags.out)
    screen = Screen()
    screen.print(
        f"{loaded.method.name} on {loaded.backbone.source.name}: over {difference.texts} varied texts, vectors of "
        f"sentence-transformers differ from ours by at most {difference.largest:.1e} (allowed: "
        f"{difference.allowed:.1e})",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    said = (
        f"written: {folder}; SentenceTransformer({str(folder)!r}) loads it"
        if difference.passed
        else f"FAILED: {folder} is not written, because sentence-transformers would embed otherwise"
    )
    screen.print(said, highlight=False, markup=False, soft_wrap=True)
    return 0 if difference.passed else 1


def export(loaded: LoadedMethod, folder: Path, out: Path) -> Difference:
    """Writes the folder if the model in it embeds as we do.

    Args:
        loaded: what is exported.
        folder: where to; it appears whole, or not at all.
        out: results whose scores of this method the model card names.

    Raises:
        InputError: the method cannot be said in stock modules, or the disk refuses.
    """
    from sentence_transformers import SentenceTransformer

    stem = _stem(loaded)
    fit_vectors = stem.encode(loaded.fit.texts) if loaded.method.fitted else None
    transforms = fit_transforms(loaded.method, fit_vectors)
    form = stock_form(loaded.method, loaded.fusion, transforms, loaded.backbone)
    tuned = loaded.saved is not None and loaded.saved.regime == "finetune"
    half = folder.absolute().parent / f".{secrets.token_hex(8)}.tmp"
    try:
        half.mkdir(parents=True)
        with quiet_transformers():
            stock_model(form, loaded.backbone, tuned=tuned).save(str(half), create_model_card=False)
            theirs = SentenceTransformer(str(half), device=str(loaded.backbone.device), local_files_only=True)
        difference = _difference(loaded, transforms, theirs)
        if difference.passed:
            card = model_card(folder.resolve().name, loaded, scores_of(loaded, out), difference.largest)
            (half / "README.md").write_text(card, encoding="utf-8")
            if folder.is_dir():
                folder.rmdir()  # it is empty, and not every system renames over it
            half.rename(folder)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot write {folder}: {error}; free some room, or name another folder by --to."
        ) from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return difference


def varied_texts(backbone: Backbone) -> list[str]:
    """Short, nearly empty, of other scripts, in both cases, and one that is longer than the backbone reads."""
    return [
        "The cat sat on the mat.",
        "a",
        " ",
        "Zürich, naïve façade: 東京, Ω, مرحبا, 🙂",
        "UPPER and lower Case",
        "How do several layers of one network become a single vector, and is it any better than the last one?",
        "layer by layer " * backbone.limit.tokens,
    ]


def _stem(loaded: LoadedMethod, batch_tokens: int | None = None) -> Encoder:
    """The method before its transforms."""
    return Encoder(loaded.backbone, loaded.method.stem, fusion=loaded.fusion, batch_tokens=batch_tokens)


def _difference(loaded: LoadedMethod, transforms: Sequence[Transform], theirs: SentenceTransformer) -> Difference:
    texts = varied_texts(loaded.backbone)
    ours = _transformed(_stem(loaded).encode(texts), transforms)
    one_by_one = _transformed(_stem(loaded, batch_tokens=1).encode(texts), transforms)
    found = theirs.encode(texts, show_progress_bar=False)
    if ours.shape != found.shape:
        raise AssertionError(f"our vectors have shape {ours.shape}, the exported model's {found.shape}")
    rounding = float(np.abs(ours - one_by_one).max())
    return Difference(
        largest=float(np.abs(ours - found).max()),
        allowed=TOLERANCE * float(np.abs(ours).max()) + _ROUNDINGS * rounding,
        texts=len(texts),
    )


def _transformed(vectors: np.ndarray, transforms: Sequence[Transform]) -> np.ndarray:
    for transform in transforms:
        vectors = transform(vectors)
    return vectors


def require_empty(folder: Path) -> None:
    """Refuses a folder that something would be lost in.

    Raises:
        InputError: it holds something, or is a file.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"--to {folder} is there already and not empty; name a new folder, or empty it first.")
