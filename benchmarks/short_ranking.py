"""A query's ranking with no more documents than its metrics depend on, checked against whole rankings."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np


class ShortRanking(dict[str, float]):
    """Documents and scores up to the last judged document; its `values` are the scores of all that were found.

    What comes behind the last judged document changes no rank of a judged one, so precision, recall, hit rate, MAP,
    NDCG and MRR are those of the whole ranking. Only mteb's confidences, of which nAUC is made, read more: all
    scores, and nothing but the scores. Of 1,000 documents a query, which mteb would sort by name and by score several
    times, some ten are left.

    Args:
        documents: all that were found, best first.
        scores: of each.
        kept: how many are kept; at least one, because a query without documents would not be measured.
    """

    def __init__(self, documents: Sequence[str], scores: Sequence[float], kept: int) -> None:
        kept = max(kept, 1)
        super().__init__(zip(documents[:kept], scores[:kept], strict=True))
        self._scores = scores

    def values(self) -> Sequence[float]:  # type: ignore[override]
        """The scores of all documents that were found."""
        return self._scores


def short_rankings_suffice(task: Any) -> bool:
    """Whether mteb says the same of short rankings as of whole ones when it measures this task.

    Tasks that drop the first result or add metrics of their own may read rankings otherwise, and so may another
    version of mteb: whether the one that is installed does is tried on invented rankings, once.
    """
    from mteb.abstasks import AbsTaskRetrieval

    own_metrics = type(task).task_specific_scores is not AbsTaskRetrieval.task_specific_scores
    return not own_metrics and not task.skip_first_result and _measured_alike(tuple(task.k_values))


@functools.cache
def _measured_alike(cuts: tuple[int, ...]) -> bool:
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores

    judged, whole = _invented(queries=12, documents=40)
    short = {
        query: ShortRanking(
            list(found),
            list(found.values()),
            max((i for i, d in enumerate(found, start=1) if d in judged[query]), default=0),
        )
        for query, found in whole.items()
    }
    # as text, because an undefined nAUC is NaN
    return str(calculate_retrieval_scores(short, judged, cuts)) == str(
        calculate_retrieval_scores(whole, judged, cuts)
    )


def _invented(queries: int, documents: int) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]]:
    """Judgements of one to three documents a query with grades 0 to 2, and rankings, best first, with ties."""
    rng = np.random.default_rng(0)
    judged, found = {}, {}
    for number in range(queries):
        chosen = rng.choice(documents, size=1 + number % 3, replace=False)
        judged[f"q{number}"] = {f"d{document}": (number + place) % 3 for place, document in enumerate(chosen)}
        scores = {f"d{d}": float(s) for d, s in enumerate(rng.integers(1, 30, documents) / 32) if d % 7 != number % 7}
        found[f"q{number}"] = dict(sorted(scores.items(), key=lambda pair: (pair[1], pair[0]), reverse=True))
    return judged, found
