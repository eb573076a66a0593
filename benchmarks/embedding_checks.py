"""Whether embeddings can be judged at all: finite, with a direction, and not all with the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

if TYPE_CHECKING:
    from fusebench.benchmarks.task_data import Role

SHORTEST = np.float32(1e-12)  # torch.nn.functional.normalize's floor: what is shorter stays without direction


class EmbeddingChecks:
    """Checks the embeddings of one role on one task, all at once or block by block.

    Args:
        method: whose embeddings they are.
        task: name of the task.
        role: of the texts.
    """

    def __init__(self, method: str, task: str, role: Role) -> None:
        self._method, self._task, self._role = method, task, role
        self._rows = 0
        self._first_text = ""
        self._first: np.ndarray | None = None  # the direction of the first row
        self._texts_differ = self._directions_differ = False

    def checked(self, texts: Sequence[str], found: np.ndarray) -> Float32[np.ndarray, "texts dim"]:
        """The embeddings of the next texts as float32.

        Raises:
            ArithmeticError: One holds NaN or infinity or has no direction.
            ValueError: Their number is not that of the texts.
        """
        vectors = np.ascontiguousarray(found, dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise ValueError(f"{self._method} gave shape {vectors.shape} for {len(texts)} texts of {self._task}")
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        # sklearn gives the zero vector the cosine 0.5 with every other, and a length beyond the floats hides the rest
        bad = ~np.isfinite(lengths) | (lengths <= SHORTEST)
        if bad.any():
            self._refuse(texts, vectors, lengths, int(bad.argmax()))
        self._compare(texts, vectors, lengths)
        self._rows += len(texts)
        return vectors

    def require_two_directions(self) -> None:
        """Once all texts were checked.

        Raises:
            ArithmeticError: All embeddings point the same way, and the texts are not all the same.
        """
        if self._texts_differ and not self._directions_differ:
            raise ArithmeticError(
                f"{self._method} on {self._task}: all {self._rows} {self._role} embeddings point the same way, so "
                "nothing can be told apart"
            )

    def _refuse(self, texts: Sequence[str], vectors: np.ndarray, lengths: np.ndarray, row: int) -> None:
        what = f"{self._method} on {self._task}: the embedding of {self._role} row {self._rows + row}"
        if not np.isfinite(vectors[row]).all():
            raise ArithmeticError(f"{what} holds NaN or infinity ({texts[row][:60]!r})")
        raise ArithmeticError(
            f"{what} has length {lengths[row]:g}, so it has no cosine with others ({texts[row][:60]!r})"
        )

    def _compare(self, texts: Sequence[str], vectors: np.ndarray, lengths: np.ndarray) -> None:
        """Looks for a second direction: cosines are rounding where no component differs by more than 1e-6."""
        if len(texts) and self._first is None:
            self._first, self._first_text = vectors[0] / lengths[0], texts[0]
        self._texts_differ = self._texts_differ or any(text != self._first_text for text in texts)
        for start in range(0, len(vectors), 256):
            if self._directions_differ:
                return
            rows = slice(start, start + 256)
            self._directions_differ = bool((np.abs(vectors[rows] / lengths[rows, None] - self._first) > 1e-6).any())
