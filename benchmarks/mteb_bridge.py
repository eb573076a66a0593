"""Judges finished embeddings with mteb's own code, under an identity that no other method shares."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fusebench.benchmarks.finished_encoder import FinishedEncoder, FinishedSearch, Lookup
from fusebench.benchmarks.record import Score
from fusebench.benchmarks.samples import Quantity, SamplePart, Samples, part_scores, query_score

if TYPE_CHECKING:
    from fusebench.benchmarks.tasks import LoadedTask

_TOLERANCE = {"STS": 1e-6, "Retrieval": 6e-6}  # mteb rounds retrieval metrics to five places
_NO_METRICS = frozenset({"main_score", "hf_subset", "languages", "mteb_version"})


@dataclass(frozen=True)
class Judged:
    """What mteb says of one method on one task.

    Attributes:
        scores: Every finite metric of every subset and split.
        main_score: mteb's aggregate of the main metric over subsets and splits.
        mteb_result: The JSON object that mteb writes into its result file, without undefined metrics.
        samples: What the main score is made of, one number a pair or a query.
        seconds: Wall time of mteb's work, looking up the embeddings included.
    """

    scores: tuple[Score, ...]
    main_score: float
    mteb_result: dict[str, Any]
    samples: Samples
    seconds: float


def judge(loaded: LoadedTask, lookup: Lookup, *, name: str, revision: str, experiment: Mapping[str, str]) -> Judged:
    """mteb's verdict on the embeddings of one method; the loaded data stay as they are for the next one.

    Raises:
        ArithmeticError: An embedding or a main score is NaN or infinite, or the samples give another main score.
        ValueError: The main metric of a retrieval task is not measured query by query.
    """
    import mteb
    import sklearn

    task = loaded.spec.name
    identity: dict[str, Any] = {"name": name, "revision": revision, "experiment": experiment}
    similar = loaded.spec.type == "STS"
    start = time.perf_counter()
    # The encoder has seen that all embeddings are finite; scikit-learn would look at them six times more.
    lenient = sklearn.config_context(assume_finite=similar, skip_parameter_validation=True)
    with quiet(), lenient, _query_scores(loaded) as queries:
        encoder = (
            FinishedEncoder(lookup, task=task, **identity)
            if similar
            else FinishedSearch(lookup, loaded.task, **identity)
        )
        # cache=None: mteb's own cache returns one model's scores for another, and old data's for new
        results = mteb.evaluate(
            encoder,
            [loaded.task],
            cache=None,
            co2_tracker=False,
            encode_kwargs={"batch_size": 256, "show_progress_bar": False},
            show_progress_bar=False,
        )
    seconds = time.perf_counter() - start
    written = as_written(results[0])
    scores = tuple(_scores(results[0].scores, loaded.spec.metric))
    main = float(results[0].get_score())
    expected = len(loaded.spec.splits) * len(loaded.spec.subsets)
    if not math.isfinite(main) or sum(score.is_main for score in scores) != expected:
        raise ArithmeticError(
            f"{name} on {task}: mteb's {loaded.spec.metric} is {main}; are all embeddings the same vector?"
        )
    samples = _samples(loaded, encoder.similarities if similar else queries)
    if abs(float(np.mean(part_scores(samples, loaded))) - main) > _TOLERANCE[loaded.spec.type]:
        raise ArithmeticError(f"{name} on {task}: mteb's {loaded.spec.metric} cannot be reproduced from the samples")
    return Judged(scores=scores, main_score=main, mteb_result=written, samples=samples, seconds=seconds)


@contextlib.contextmanager
def _query_scores(loaded: LoadedTask) -> Iterator[dict[tuple[str, str], NDArray[np.float32]]]:
    """Collects the main metric of each query, by subset and split, through mteb's hook for scores of a task's own."""
    from fusebench.benchmarks import task_data

    found: dict[tuple[str, str], NDArray[np.float32]] = {}
    if loaded.spec.type == "STS":
        yield found
        return
    own = loaded.task.task_specific_scores

    def keep(scores: Any, qrels: Any, results: Any, hf_split: str, hf_subset: str) -> Any:
        queries = task_data.part(loaded.task, hf_subset, hf_split)["queries"]["id"]
        values = [query_score(loaded.spec.metric, scores[query]) for query in queries]
        found[hf_subset, hf_split] = np.asarray(values, dtype=np.float32)
        return own(scores, qrels, results, hf_split=hf_split, hf_subset=hf_subset)

    loaded.task.task_specific_scores = keep
    try:
        yield found
    finally:
        del loaded.task.task_specific_scores


def _samples(loaded: LoadedTask, values: Mapping[tuple[str, str], NDArray[np.float32]]) -> Samples:
    from fusebench.benchmarks import task_data

    parts = []
    for subset, split, data in task_data.parts(loaded.task):
        similar = loaded.spec.type == "STS"
        items = np.arange(len(data), dtype=np.int32) if similar else np.asarray(data["queries"]["id"])
        parts.append(SamplePart(subset, split, items, values[subset, split]))
    quantity: Quantity = "similarity" if loaded.spec.type == "STS" else "score"
    return Samples(loaded.spec.metric, quantity, loaded.spec.data_sha256, tuple(parts))


def _scores(by_split: Mapping[str, Sequence[Mapping[str, Any]]], main: str) -> Iterator[Score]:
    for split, entries in by_split.items():
        for entry in entries:
            for metric, value in entry.items():
                if metric in _NO_METRICS or not isinstance(value, (int, float)) or not math.isfinite(value):
                    continue
                is_main = metric == main
                yield Score(
                    subset=entry["hf_subset"], split=split, metric=metric, value=float(value), is_main=is_main
                )


def as_written(result: Any) -> dict[str, Any]:
    """The JSON object that mteb writes of a result, without undefined metrics."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        result.to_disk(path)
        written: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for entries in written["scores"].values():
        for entry in entries:
            # mteb writes the undefined nAUC of a constant metric as NaN, which is not JSON
            for metric in [key for key, value in entry.items() if isinstance(value, float) and math.isnan(value)]:
                del entry[metric]
    return written


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps mteb and `datasets` from logging, warning and drawing progress bars."""
    import datasets

    named = [logging.getLogger(name) for name in ("mteb", "datasets", "huggingface_hub")]
    loggers = [logger for logger in named if logger.level != logging.CRITICAL]  # a change of level costs 0.3 ms
    levels = [logger.level for logger in loggers]
    bars_were_on = not datasets.are_progress_bars_disabled()
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        datasets.disable_progress_bars()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars_were_on:
            datasets.enable_progress_bars()
