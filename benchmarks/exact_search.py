"""Exact search: for every query the most similar documents of a corpus that comes in blocks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Float, Float32, Int64

Similarity = Callable[[Float[np.ndarray, "queries dim"], Float[np.ndarray, "documents dim"]], np.ndarray]

_SIMILARITIES = 1 << 22  # that are held at once: 100 MB with what ranks them
_QUERIES = 1024  # of a block
_DOCUMENTS = 50_000  # of a block: mteb's own chunks are no longer
_LOW = np.int64(0xFFFFFFFF)


def document_blocks(documents: int, queries: int) -> list[slice]:
    """Parts of about equal size of a corpus; none is a rest of a few documents, which other code would multiply."""
    most = min(_DOCUMENTS, _SIMILARITIES // min(max(queries, 1), _QUERIES))
    return list(_even(documents, most))


def most_similar(
    queries: Float32[np.ndarray, "queries dim"],
    documents: Iterable[tuple[Int64[np.ndarray, " block"], Float32[np.ndarray, "block dim"]]],
    k: int,
    similarity: Similarity,
) -> tuple[Int64[np.ndarray, "queries found"], Float32[np.ndarray, "queries found"]]:
    """The k documents of every query, best first, of equal ones that with the greater number; all if there are fewer.

    Args:
        queries: one row a query.
        documents: number and vector of each document, block by block; numbers from 0 to 2^32 - 1, each once.
        k: how many.
        similarity: of every query with every document, float32, none of it NaN.

    Returns:
        Numbers and similarities.
    """
    parts = list(_even(len(queries), _QUERIES))
    best = [np.empty((part.stop - part.start, 0), dtype=np.int64) for part in parts]
    for numbers, vectors in documents:
        for place, part in enumerate(parts):
            keys = np.concatenate([best[place], _keys(similarity(queries[part], vectors), numbers)], axis=1)
            if keys.shape[1] > k:
                keys.partition(keys.shape[1] - k, axis=1)
            best[place] = keys[:, -k:].copy()
    ranked = np.concatenate(best) if best else np.empty((0, 0), dtype=np.int64)
    ranked.sort(axis=1)
    ranked = ranked[:, ::-1]
    return ranked & _LOW, _flipped((ranked >> 32).astype(np.int32)).view(np.float32)


def _keys(
    similarities: Float32[np.ndarray, "queries documents"], numbers: Int64[np.ndarray, " documents"]
) -> Int64[np.ndarray, "queries documents"]:
    """One integer for a similarity and a number that sorts as the pair would, so that nothing is a tie."""
    keys = _flipped((similarities + np.float32(0)).view(np.int32)).astype(np.int64)  # the sum has no -0.0
    keys <<= 32
    keys |= numbers
    return keys


def _flipped(bits: np.ndarray) -> np.ndarray:
    """The bits of floats as integers of the same order, and back."""
    flipped: np.ndarray = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    return flipped


def _even(count: int, most: int) -> Iterator[slice]:
    blocks = math.ceil(count / most)
    bounds = [count * i // blocks for i in range(blocks + 1)] if blocks else []
    return (slice(start, stop) for start, stop in itertools.pairwise(bounds))
