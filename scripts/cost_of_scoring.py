"""Cost of scoring finished embeddings of many methods, over calling stock mteb once for each of them.

Both sides get the same embeddings of the same tasks, loaded before, in this process; a method is scored by stock mteb
and here in turn, who is first alternates. The embeddings are sums of random word vectors, drawn anew for each method.

    python scripts/cost_of_scoring.py --data-dir DATA --tasks STS15,STSBenchmark,SciFact,ArguAna

Stock mteb gets a model as its documentation describes one: it reads the batches of the loader (32 texts) and looks
the embeddings up. Before a ratio is printed, every metric of every method must be equal in all digits that mteb
writes into its result file. Tasks that were measured before stay in results/speed/cost_of_scoring.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mteb
import numpy as np
from measuring import machine, write
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta
from sklearn.feature_extraction.text import HashingVectorizer

from fusebench.benchmarks.mteb_bridge import as_written, judge, quiet
from fusebench.benchmarks.task_source import load_data, task_of
from fusebench.benchmarks.tasks import LoadedTask, find_tasks, load_task
from fusebench.study.freed_memory import keep_freed_memory

WIDTH = 384
WORDS = 1 << 14


class Stock(AbsEncoder):
    """A model of mteb whose embeddings are finished."""

    def __init__(self, rows: dict[str, int], vectors: np.ndarray, name: str) -> None:
        self.rows, self.vectors = rows, vectors
        self.mteb_model_meta = ModelMeta.create_empty(overwrites={"name": f"stock/{name}", "revision": "finished"})

    def encode(self, inputs: Any, **kwargs: Any) -> np.ndarray:
        """Vectors of all texts of all batches."""
        return self.vectors[[self.rows[text] for batch in inputs for text in batch["text"]]]


def stock_seconds(task: Any, model: Stock) -> tuple[float, Any]:
    """Wall time and result of one call of stock mteb."""
    started = time.perf_counter()
    results = mteb.evaluate(
        model,
        [task],
        cache=None,
        co2_tracker=False,
        encode_kwargs={"batch_size": 32, "show_progress_bar": False},
        show_progress_bar=False,
    )
    return time.perf_counter() - started, as_written(results[0])["scores"]


def our_seconds(task: LoadedTask, rows: dict[str, int], vectors: np.ndarray, name: str) -> tuple[float, Any]:
    """Wall time and result of the same here, samples and their check included."""
    started = time.perf_counter()
    judged = judge(
        task, lambda role, texts: vectors[[rows[t] for t in texts]], name=name, revision="finished", experiment={}
    )
    return time.perf_counter() - started, judged.mteb_result["scores"]


def measured(name: str, data_dir: Path | None, methods: int, rounds: int) -> dict[str, Any]:
    """Seconds of both sides on one task, by round."""
    (source,) = find_tasks([name], data_dir)
    ours = load_task(source, limit=None, allow_empty=True)
    stock = task_of(source)
    with quiet():
        load_data(stock, source)
    rows = {text: row for row, text in enumerate(dict.fromkeys(text for _, text in ours.inputs()))}
    counts = HashingVectorizer(n_features=WORDS, norm=None, alternate_sign=False).transform(list(rows))
    seconds = []
    for numbers in np.array_split(np.arange(methods), rounds):
        spent = {"stock": 0.0, "ours": 0.0}
        for number in numbers.tolist():
            words = np.random.default_rng(number).standard_normal((WORDS, WIDTH), dtype=np.float32)
            vectors = (counts @ words).astype(np.float32) + np.float32(1e-3)  # a text without words has a direction
            found = {}
            for side in ("stock", "ours") if number % 2 else ("ours", "stock"):
                with quiet():
                    taken, found[side] = (
                        stock_seconds(stock, Stock(rows, vectors, f"m{number}"))
                        if side == "stock"
                        else our_seconds(ours, rows, vectors, f"m{number}")
                    )
                spent[side] += taken
            if found["stock"] != found["ours"]:
                raise SystemExit(f"{name}, method {number}: {_first_difference(found)}")
        seconds.append(spent)
    ratios = [one["ours"] / one["stock"] for one in seconds]
    (entry,) = next(iter(found["ours"].values()))
    return {
        "task": name,
        "methods": methods,
        "texts": len(rows),
        "metrics": sum(isinstance(value, float) for value in entry.values()),
        "stock_seconds_a_method": round(sum(one["stock"] for one in seconds) / methods, 4),
        "our_seconds_a_method": round(sum(one["ours"] for one in seconds) / methods, 4),
        "ratio": round(statistics.median(ratios), 3),
        "range": [round(min(ratios), 3), round(max(ratios), 3)],
        "rounds": [{side: round(value, 3) for side, value in one.items()} for one in seconds],
    }


def _first_difference(found: dict[str, Any]) -> str:
    for split, entries in found["stock"].items():
        for theirs, ours in zip(entries, found["ours"][split], strict=True):
            for metric, value in theirs.items():
                if ours.get(metric) != value:
                    return f"{metric} is {value} in stock mteb and {ours.get(metric)} here"
    return "the metrics differ"


def markdown(report: dict[str, Any]) -> list[str]:
    """The report as a page."""
    lines = [
        "# What scoring finished embeddings costs",
        "",
        f"Finished embeddings of {WIDTH} dimensions; {machine()['cores']} cores. Stock mteb is called once a "
        "method on loaded data. Ratios are within a round, of which there are "
        f"{len(report['tasks'][0]['rounds'])} with an equal part of the methods each: median, range in brackets; the "
        "allocator keeps freed memory for both sides. All metrics are equal in all digits that mteb writes.",
        "",
        "| task | texts | metrics | methods | stock mteb, s a method | here, s a method | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in report["tasks"]:
        low, high = one["range"]
        lines.append(
            f"| {one['task']} | {one['texts']} | {one['metrics']} | {one['methods']} | "
            f"{one['stock_seconds_a_method']} | "
            f"{one['our_seconds_a_method']} | {one['ratio']} ({low} to {high}) |"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, checks, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--tasks", default="LeeSTS,LeeKnownItem")
    parser.add_argument("--methods", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/speed"))
    flags = parser.parse_args(arguments)
    keep_freed_memory()
    for name in ("LeeSTS", "LeeKnownItem"):  # both sides import what they need here
        measured(name, None, methods=2, rounds=1)
    file = flags.out / "cost_of_scoring.json"
    before = json.loads(file.read_text(encoding="utf-8"))["tasks"] if file.is_file() else []
    tasks = {one["task"]: one for one in before}
    for name in flags.tasks.split(","):
        tasks[name] = measured(name, flags.data_dir, flags.methods, flags.rounds)
    report = {"tasks": list(tasks.values())}
    write(flags.out, "cost_of_scoring", report, markdown(report))


if __name__ == "__main__":
    main()
