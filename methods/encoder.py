"""A backbone and one method as an object with `encode`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from fusebench.methods.backbone import Backbone
from fusebench.methods.engine import SharedPass
from fusebench.methods.grammar import Method
from fusebench.methods.parts import Fusion, Transform


def fit_transforms(method: Method, X: Float[np.ndarray, "texts dim"] | None) -> list[Transform]:
    """The method's transforms, each fitted on the fit texts' vectors as the ones before it leave them.

    Args:
        method: whose transforms.
        X: vectors of the fit texts; may be None when no transform learns from them.

    Raises:
        InputError: if a transform cannot be fitted on so few texts.
    """
    transforms = []
    for transform in method.build_transforms():
        if X is not None:
            X = transform.fit(X)(X)
        transforms.append(transform)
    return transforms


class Encoder:
    """Texts to vectors by one method; texts seen before are not run again.

    Args:
        backbone: frozen.
        method: one that fits the backbone's shape.
        fusion: its fusion with weights in place; None builds it anew.
        fit_texts: what transforms are fitted on.
        batch_tokens: budget of a batch in tokens.
    """

    def __init__(
        self,
        backbone: Backbone,
        method: Method,
        *,
        fusion: Fusion | None = None,
        fit_texts: Sequence[str] = (),
        batch_tokens: int | None = None,
    ) -> None:
        self.method = method
        fusion = fusion or method.build_fusion(backbone.shape)
        self._pass = SharedPass(backbone, {method.name: fusion}, batch_tokens=batch_tokens)
        fit_vectors = None
        if method.fitted:
            rows = self._pass.rows(list(fit_texts))
            fit_vectors = self._pass.vectors(method.name)[rows]
        self._transforms = fit_transforms(method, fit_vectors)

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "texts out"]:
        """Float32 vectors, one row a text."""
        rows = self._pass.rows(list(texts))
        vectors = self._pass.vectors(self.method.name)[rows]
        for transform in self._transforms:
            vectors = transform(vectors)
        return vectors
