"""What mteb takes for a model: hands out embeddings that were computed before, and searches them exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Int64

from fusebench.benchmarks.embedding_checks import EmbeddingChecks
from fusebench.benchmarks.exact_search import document_blocks, most_similar
from fusebench.benchmarks.short_ranking import ShortRanking, short_rankings_suffice
from fusebench.benchmarks.task_data import document_texts, part, query_texts

if TYPE_CHECKING:
    from fusebench.benchmarks.listed_dataset import ListedDataset
    from fusebench.benchmarks.task_data import Role

_NUMBERS = (1 << 15) - 1  # of the embeddings whose cosines are computed at a time: more would go to several threads

Lookup = Callable[["Role", Sequence[str]], Float32[np.ndarray, "texts dim"]]


class FinishedEncoder:
    """An encoder of finished embeddings; of a retrieval task, mteb does the search.

    Args:
        lookup: Role and texts -> one row a text.
        name: The method; mteb sees `fusebench/<name>`.
        revision: Hash of everything the embeddings depend on.
        experiment: Further words for mteb's model card.
        task: Name of the task, for messages.

    Attributes:
        similarities: The cosines that mteb ranks for its main metric, by the subset and split that were encoded.
    """

    def __init__(self, lookup: Lookup, *, name: str, revision: str, experiment: Mapping[str, str], task: str) -> None:
        from mteb.models.model_meta import ModelMeta

        self._lookup, self._name, self._task = lookup, name, task
        self._judged = ("", "")
        self.similarities: dict[tuple[str, str], Float32[np.ndarray, " pairs"]] = {}
        identity = {
            "name": name if name.startswith("fusebench/") else f"fusebench/{name}",
            "revision": revision,
            "experiment_kwargs": dict(experiment),
        }
        self.mteb_model_meta = ModelMeta.create_empty(overwrites=identity)

    def encode(
        self, inputs: Any, *, prompt_type: Any = None, hf_subset: str = "", hf_split: str = "", **kwargs: Any
    ) -> Float32[np.ndarray, "texts dim"]:
        """The embeddings of all rows of `inputs.dataset`, in order.

        Raises:
            ArithmeticError: An embedding holds NaN or infinity or has no direction, or all have the same.
        """
        self._judged = (hf_subset, hf_split)
        role: Role = "text" if prompt_type is None else prompt_type.value
        # the column at once: a DataLoader would take the rows one by one
        return self._embeddings(role, list(inputs.dataset["text"][:]))

    def _embeddings(self, role: Role, texts: Sequence[str]) -> Float32[np.ndarray, "texts dim"]:
        """The embeddings of these texts, checked."""
        checks = EmbeddingChecks(self._name, self._task, role)
        vectors = checks.checked(texts, self._lookup(role, texts))
        checks.require_two_directions()
        return vectors

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosine of every row with every row, to the last bit that of mteb's own models."""
        from mteb.similarity_functions import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Float32[np.ndarray, " pairs"]:
        """Cosine of row i with row i, to the last bit that of mteb's own models."""
        from mteb.similarity_functions import pairwise_cos_sim
        from sklearn.metrics.pairwise import paired_cosine_distances

        # the main metric does not ask the model: it is always of these
        self.similarities[self._judged] = 1 - paired_cosine_distances(embeddings1, embeddings2)
        # a few rows at a time: they stay in the cache and wait for no second thread
        size = max(1, _NUMBERS // embeddings1.shape[1])
        blocks = [slice(start, start + size) for start in range(0, len(embeddings1), size)]
        cosines = (pairwise_cos_sim(embeddings1[rows], embeddings2[rows]) for rows in blocks)
        return np.concatenate([np.asarray(some) for some in cosines])


class FinishedSearch(FinishedEncoder):
    """The same for a retrieval task, searched here: mteb calls `index` and `search` in the place of its own.

    Similarities are mteb's, of as many documents at a time as fit into little memory, and neither the vectors of the
    corpus nor all its similarities are ever held. Rankings are as short as the metrics allow.

    Args:
        lookup: Role and texts -> one row a text.
        task: The loaded mteb task.
        identity: What else `FinishedEncoder` takes.
    """

    def __init__(self, lookup: Lookup, task: Any, **identity: Any) -> None:
        super().__init__(lookup, task=task.metadata.name, **identity)
        self._own = task
        self._short = short_rankings_suffice(task)
        self._corpus: ListedDataset | None = None

    def index(self, corpus: ListedDataset, **kwargs: Any) -> None:
        """Remembers which documents the next search is over."""
        self._corpus = corpus

    def search(
        self, queries: ListedDataset, *, top_k: int, hf_subset: str, hf_split: str, **kwargs: Any
    ) -> dict[str, dict[str, float]]:
        """Of every query the `top_k` most similar documents and their cosines, best first.

        Raises:
            ArithmeticError: An embedding holds NaN or infinity or has no direction, or all have the same.
        """
        assert self._corpus is not None, "mteb indexes before it searches"
        names, _ = self._corpus.remembered(documents_by_name)
        vectors = self._embeddings("query", queries.remembered(query_texts))
        found, scores = most_similar(vectors, self._documents(len(vectors)), top_k, self._cosines)
        judgements = part(self._own, hf_subset, hf_split)["relevant_docs"]
        return {
            query: self._ranking(names, query, judgements[query], numbers, own_scores)
            for query, numbers, own_scores in zip(queries["id"], found, scores, strict=True)
        }

    def _documents(
        self, queries: int
    ) -> Iterator[tuple[Int64[np.ndarray, " block"], Float32[np.ndarray, "block dim"]]]:
        """Numbers, in the order of names, and embeddings of all documents, block by block."""
        assert self._corpus is not None
        texts, (_, numbers) = self._corpus.remembered(document_texts), self._corpus.remembered(documents_by_name)
        checks = EmbeddingChecks(self._name, self._task, "document")
        for block in document_blocks(len(texts), queries):
            some = texts[block]
            yield numbers[block], checks.checked(some, self._lookup("document", some))
        checks.require_two_directions()

    def _cosines(self, queries: Any, documents: Any) -> Float32[np.ndarray, "queries documents"]:
        cosines: Float32[np.ndarray, "queries documents"] = self.similarity(queries, documents).numpy()
        return cosines

    def _ranking(
        self, names: np.ndarray, query: str, judged: Mapping[str, int], numbers: np.ndarray, scores: np.ndarray
    ) -> dict[str, float]:
        """One query's documents, best first, of which only those up to the last judged one are told by name."""
        if self._own.ignore_identical_ids:
            others = numbers != _numbers_of(names, [query])[0]
            numbers, scores = numbers[others], scores[others]
        if not self._short:
            return dict(zip(names[numbers].tolist(), scores.tolist(), strict=True))
        places = np.flatnonzero(np.isin(numbers, _numbers_of(names, list(judged))))
        kept = 1 + int(places[-1]) if len(places) else 1
        return ShortRanking(names[numbers[:kept]].tolist(), scores.tolist(), kept)


def documents_by_name(corpus: ListedDataset) -> tuple[np.ndarray, Int64[np.ndarray, " documents"]]:
    """The ids in the order in which TREC breaks ties, and each document's number, which is its place there."""
    ids = np.array(corpus["id"], dtype=object)
    order = np.argsort(ids)
    numbers = np.empty(len(ids), dtype=np.int64)
    numbers[order] = np.arange(len(ids))
    return ids[order], numbers


def _numbers_of(names: np.ndarray, wanted: list[str]) -> Int64[np.ndarray, " wanted"]:
    """Numbers of these documents; -1 of those that the corpus lacks."""
    ids = np.array(wanted, dtype=object)
    places = np.searchsorted(names, ids)
    places[names[np.minimum(places, len(names) - 1)] != ids] = -1
    return places
