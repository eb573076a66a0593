"""Orders of the training rows that put similar ones into one batch, where they are hard negatives of each other.

Chernyavskiy et al. 2022, as in their released code. Each order is a permutation: consecutive slices of it are the
batches, every row comes once, and the same input and seed give the same order.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

Order = Int[np.ndarray, " rows"]

_CELLS = 2**22  # distances that are held at once

# Articles, pronouns, prepositions, conjunctions, forms of be, have and do, modals, question words, and what an
# apostrophe leaves of them.
_FUNCTION_WORDS = """
a about after again all also am an and any are as at be because been before being both but by can could did do does
doing down during each few for from further had has have having he her here hers him his how i if in into is it its
just may me might more most must my no nor not of off on once only or other our ours out over own same shall she
should so some such than that the their theirs them then there these they this those through to too under until up us
very was we were what when where which while who whom why will with would you your yours
s t d ll m re ve don didn doesn isn aren wasn weren won
"""
STOP_WORDS = frozenset(_FUNCTION_WORDS.split())


def random_order(n: int, *, seed: int) -> Order:
    """A random permutation of n rows."""
    return np.random.default_rng(seed).permutation(n)


def example_order(
    embeddings: Float[np.ndarray, "rows dim"],
    texts: Sequence[str],
    *,
    group_size: int = 7,
    top_k: int = 200,
    allow_same: bool = False,
    seed: int,
) -> Order:
    """Each row drawn at random is followed by its nearest neighbours that are still free; then all is reversed.

    Of the `top_k` nearest rows (by Euclidean distance, the row itself among them), nearest first, the free ones
    join until the group has `group_size` distinct texts. The reversal puts leftovers, whose neighbours were taken,
    first. About `rows / group_size` rows are compared with all others.
    Departures: neighbours at equal distance come by row number. Without neighbours to take, as for `top_k=1` or
    `group_size=1`, the order is random.

    Args:
        embeddings: of each row's first text, from the model as it is now.
        texts: each row's first text.
        group_size: distinct texts that make a group; groups and batches need not be aligned.
        top_k: how many neighbours are looked at.
        allow_same: whether further rows with a text of the group may join it; they do not count.
        seed: of the order in which rows are drawn.

    Raises:
        ValueError: if sizes do not fit or a vector is not finite.
    """
    vectors = np.asarray(embeddings, dtype=np.float64)
    if len(vectors) != len(texts):
        raise ValueError(f"{len(vectors)} embeddings for {len(texts)} texts.")
    if group_size < 1 or top_k < 1:
        raise ValueError(f"group_size={group_size}, top_k={top_k}: must be at least 1.")
    if not np.isfinite(vectors).all():
        raise ValueError("an embedding is not finite, so it has no nearest neighbours.")
    index = _Index(vectors)
    waiting = random_order(len(texts), seed=seed)
    free = np.ones(len(texts), dtype=bool)
    emitted: list[int] = []
    chunk = max(1, _CELLS // max(1, len(texts)))
    while len(waiting):
        for start, near in index.near(waiting[:chunk], free, top_k):
            emitted.extend(_group(start, near, texts, free, group_size, allow_same))
        waiting = waiting[chunk:]
        waiting = waiting[free[waiting]]
    return np.array(emitted[::-1], dtype=np.int64)


def _group(
    start: int, near: Sequence[int], texts: Sequence[str], free: np.ndarray, group_size: int, allow_same: bool
) -> list[int]:
    group, inside = [start], {texts[start]}
    free[start] = False
    for row in near:
        if len(inside) >= group_size:
            break
        if free[row] and (allow_same or texts[row] not in inside):
            group.append(row)
            inside.add(texts[row])
            free[row] = False
    return group


class _Index:
    """Exact nearest neighbours by Euclidean distance: float32 chooses whom to measure in float64."""

    def __init__(self, vectors: np.ndarray) -> None:
        _, power = np.frexp(np.abs(vectors).max(initial=0.0))
        self.vectors = np.ldexp(vectors, -power)  # exact, and no float32 overflows
        self.small = self.vectors.astype(np.float32)
        self.squares = np.square(self.vectors).sum(axis=1).astype(np.float32)
        # Twice what rounding can move a rough distance: in the vectors, in products of `dim` terms, in their sum.
        self.slack = 4 * (vectors.shape[1] + 8) * np.finfo(np.float32).eps * self.squares.max(initial=0.0)

    def near(self, rows: np.ndarray, free: np.ndarray, top_k: int) -> Iterator[tuple[int, list[int]]]:
        """Each row that is free when its turn comes, and its `top_k` nearest, by distance and then by number."""
        rough = self.squares - 2 * (self.small[rows] @ self.small.T)  # less the row's own square
        last = min(top_k, len(self.vectors)) - 1
        bounds = np.partition(rough, last, axis=1)[:, last] + self.slack
        for row, distances, bound in zip(rows.tolist(), rough, bounds, strict=True):
            if not free[row]:
                continue
            candidates = np.flatnonzero(distances <= bound)
            exact = np.square(self.vectors[candidates] - self.vectors[row]).sum(axis=1)
            yield row, candidates[np.argsort(exact, kind="stable")[:top_k]].tolist()


def shingle_order(texts: Sequence[str], *, shingle_size: int = 1, group_size: int, seed: int) -> Order:
    """Rows that drew the same run of words stand together, in groups, and the groups in random order.

    Each row draws one run of `shingle_size` of its lower-cased words, stop words left out, and sorts the words of
    the run; rows with the same run are cut into groups at random. A text of fewer words draws all of them.
    Departures: words are runs of letters and digits, less `STOP_WORDS` (released: NLTK's tokens and stop words); a
    text of stop words alone keeps them; groups have `group_size` rows (released:
    one more from a run's second group on).
    """
    if shingle_size < 1:
        raise ValueError(f"shingle_size={shingle_size}: must be at least 1.")
    generator = np.random.default_rng(seed)
    drawn = []
    for text in texts:
        words = re.findall(r"[^\W_]+", text.lower())
        words = [word for word in words if word not in STOP_WORDS] or words
        start = int(generator.integers(max(1, len(words) - shingle_size + 1)))
        drawn.append(tuple(sorted(words[start : start + shingle_size])))
    return _grouped(drawn, group_size, generator)


def cluster_order(
    embeddings: Float[np.ndarray, "rows dim"], *, clusters: int = 100, group_size: int = 15, seed: int
) -> Order:
    """Rows of one k-means cluster stand together, in groups, and the groups in random order.

    There are never more clusters than distinct vectors.
    Departures: k-means is scikit-learn's, one run from k-means++; groups have `group_size` rows (released:
    one more from a cluster's second group on).
    """
    from sklearn.cluster import KMeans

    if clusters < 1:
        raise ValueError(f"clusters={clusters}: must be at least 1.")
    vectors = np.asarray(embeddings, dtype=np.float64)
    if not len(vectors):
        return np.arange(0)
    count = min(clusters, len(np.unique(vectors, axis=0)))
    labels = KMeans(n_clusters=count, n_init=1, random_state=seed).fit_predict(vectors)
    return _grouped(labels.tolist(), group_size, np.random.default_rng(seed))


def _grouped(keys: Sequence[Hashable], group_size: int, generator: np.random.Generator) -> Order:
    """Cuts the rows of each key, shuffled, into groups and puts the groups in random order."""
    if group_size < 1:
        raise ValueError(f"group_size={group_size}: must be at least 1.")
    rows: dict[Hashable, list[int]] = {}
    for row in generator.permutation(len(keys)).tolist():
        rows.setdefault(keys[row], []).append(row)
    groups = [one[at : at + group_size] for one in rows.values() for at in range(0, len(one), group_size)]
    order = [row for number in generator.permutation(len(groups)) for row in groups[number]]
    return np.array(order, dtype=np.int64)
