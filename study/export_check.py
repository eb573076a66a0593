"""How far an exported model's vectors are from ours, and how far rounding may take them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fusebench.methods.backbone import Backbone
from fusebench.methods.encoder import Encoder
from fusebench.methods.parts import Transform
from fusebench.study.loading import LoadedMethod
from fusebench.study.model_usage import Usage

Encode = Callable[[Sequence[str]], np.ndarray]

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
        usage: how the folder is read.
    """

    largest: float
    allowed: float
    texts: int
    usage: Usage

    @property
    def passed(self) -> bool:
        """Whether both embed alike; NaN never does."""
        return self.largest <= self.allowed


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


def stem_encoder(loaded: LoadedMethod, batch_tokens: int | None = None) -> Encoder:
    """The method before its transforms."""
    return Encoder(loaded.backbone, loaded.method.stem, fusion=loaded.fusion, batch_tokens=batch_tokens)


def measured(loaded: LoadedMethod, transforms: Sequence[Transform], encode: Encode, usage: Usage) -> Difference:
    """The difference over varied texts, by our own encoder and as the folder's reader encodes them."""
    texts = varied_texts(loaded.backbone)
    ours = _transformed(stem_encoder(loaded).encode(texts), transforms)
    one_by_one = _transformed(stem_encoder(loaded, batch_tokens=1).encode(texts), transforms)
    found = encode(texts)
    if ours.shape != found.shape:
        raise AssertionError(f"our vectors have shape {ours.shape}, the exported model's {found.shape}")
    rounding = float(np.abs(ours - one_by_one).max())
    return Difference(
        largest=float(np.abs(ours - found).max()),
        allowed=TOLERANCE * float(np.abs(ours).max()) + _ROUNDINGS * rounding,
        texts=len(texts),
        usage=usage,
    )


def _transformed(vectors: np.ndarray, transforms: Sequence[Transform]) -> np.ndarray:
    for transform in transforms:
        vectors = transform(vectors)
    return vectors
