"""Resident memory of a process that passes and scores many documents with eight methods, exactly.

    python scripts/memory_of_large_corpora.py --documents 100000
    python scripts/memory_of_large_corpora.py --documents 1000000

The backbone is made up: it tells every document by a vector of its own, as fast as memory allows. All else is real:
the data folder, its loading by mteb, the pass, exact search, mteb's metrics. One process measures one size; sizes
that were measured before stay in results/speed/memory_of_large_corpora.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from measuring import machine, write

from fusebench.benchmarks.mteb_bridge import judge
from fusebench.benchmarks.tasks import find_tasks, load_task
from fusebench.methods.engine import SharedPass
from fusebench.methods.grammar import parse
from fusebench.methods.states import LayerStates, Needs, StateShape
from fusebench.methods.tokenization import Tokenized

METHODS = 8
QUERIES = 100
LIMIT = 4 << 30, 200  # bytes, and bytes a document

README = """---
configs:
- config_name: corpus
  data_files: [{split: corpus, path: corpus.jsonl}]
- config_name: queries
  data_files: [{split: queries, path: queries.jsonl}]
- config_name: default
  data_files: [{split: test, path: qrels/test.jsonl}]
---
"""


class MadeUpBackbone:
    """Three tokens a text, whose states are rows of random tables, other ones for each layer."""

    def __init__(self, dim: int) -> None:
        self.device, self.shape, self.padding_side = torch.device("cpu"), StateShape(METHODS, dim), "right"
        self.model = torch.nn.Linear(1, 1)
        self.source = SimpleNamespace(weights_sha256="made up")
        self.tables = torch.randn(3, 1000 + METHODS, dim, generator=torch.Generator().manual_seed(0))

    def tokenize(self, texts: Sequence[str], template: str | None = None) -> Tokenized:
        """The last number of a text in three parts of three digits; a query's are those of its document."""
        numbers = np.array([int(text.rsplit(" ", 1)[1]) for text in texts])
        kinds = np.array([text.startswith("query") for text in texts])
        parts = np.stack([numbers // 1_000_000 + kinds, numbers // 1000 % 1000, numbers % 1000], axis=1)
        return Tokenized(list(parts.astype(np.int32)), np.zeros(len(texts), dtype=bool))

    def states(self, ids: Sequence[np.ndarray], needs: Needs, marker: object = None) -> LayerStates:
        """The tables' rows of each token, moved by one row a layer."""
        tokens = torch.from_numpy(np.stack(ids)).long()
        places = torch.arange(3)
        hidden = tuple(self.tables[places, tokens + layer] for layer in range(METHODS + 1))
        return LayerStates(hidden, torch.ones(tokens.shape, dtype=torch.bool))


class Memory:
    """The largest resident memory so far, that of files mapped included, and the anonymous part of it."""

    def __init__(self) -> None:
        self.peak = {"VmRSS": 0, "RssAnon": 0, "RssFile": 0}
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name in self.peak:
                    self.peak[name] = max(self.peak[name], 1024 * int(rest.split()[0]))
            time.sleep(0.02)


def write_task(folder: Path, documents: int) -> None:
    """A retrieval task whose texts are as long as short passages and differ in a number."""
    words = "a passage of the usual length that says little and ends with its own number, which is"

    def lines(rows: Iterator[dict[str, Any]], path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    lines(({"_id": f"d{n}", "text": f"{words} {n}"} for n in range(documents)), folder / "corpus.jsonl")
    asked = range(0, documents, documents // QUERIES)
    lines(({"_id": f"q{n}", "text": f"query {n}"} for n in asked), folder / "queries.jsonl")
    judged = ({"query-id": f"q{n}", "corpus-id": f"d{n}", "score": 1} for n in asked)
    lines(judged, folder / "qrels" / "test.jsonl")
    (folder / "README.md").write_text(README, encoding="utf-8")


def measured(documents: int, dim: int) -> dict[str, Any]:
    """Peak memory and seconds of loading, passing and scoring so many documents."""
    memory, steps, started = Memory(), {}, time.perf_counter()

    def step(name: str) -> None:
        nonlocal started
        steps[name] = {
            "seconds": round(time.perf_counter() - started, 1),
            **{f"peak_{kind}_mb": round(value / 1e6) for kind, value in memory.peak.items()},
        }
        started = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        write_task(Path(folder, "Large"), documents)
        step("data written")
        task = load_task(find_tasks(["Large"], Path(folder))[0], limit=None, allow_empty=False)
    step("task loaded")
    backbone: Any = MadeUpBackbone(dim)
    fusions = {f"mean(layer={k})": _fusion(f"mean(layer={k})", backbone.shape) for k in range(1, METHODS + 1)}
    shared = SharedPass(backbone, fusions, batch_tokens=4096)
    shared.ensure([text for _, text in task.inputs()])
    step("pass")
    scores = []
    for name in fusions:
        judged = judge(
            task,
            lambda role, texts, name=name: shared.vectors(name, shared.rows(texts)),
            name=name,
            revision="made-up",
            experiment={},
        )
        scores.append(judged.main_score)
    step(f"{METHODS} methods scored")
    peak = memory.peak["VmRSS"]
    return {
        "documents": documents,
        "dim": dim,
        "distinct": shared.statistics.distinct_inputs,
        "stored_gb": round(4e-9 * METHODS * dim * shared.statistics.distinct_inputs, 2),
        "peak_gb": round(peak / 1e9, 3),
        "peak_anonymous_gb": round(memory.peak["RssAnon"] / 1e9, 3),
        "limit_gb": round((LIMIT[0] + LIMIT[1] * documents) / 1e9, 3),
        "ndcg_at_10": [round(score, 4) for score in scores],
        "steps": steps,
    }


def _fusion(sentence: str, shape: StateShape) -> Any:
    (method,) = parse(sentence).on(shape)
    return method.build_fusion(shape)


def markdown(report: dict[str, Any]) -> list[str]:
    """The report as a page."""
    sizes = report["sizes"]
    lines = [
        "# Resident memory of large corpora",
        "",
        f"{METHODS} methods, {QUERIES} queries, exact search of all documents, mteb's metrics; states of "
        f"{sizes[0]['dim']} dimensions of a made-up backbone that tells every document. Peak of the whole process, "
        f"pages of mapped files included; {machine()['cores']} cores. The limit is 4 GiB and 200 bytes a "
        "document.",
        "",
        "| documents | stored states, GB | peak, GB | of it not in files, GB | limit, GB | seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in sizes:
        taken = sum(step["seconds"] for step in one["steps"].values())
        lines.append(
            f"| {one['documents']:,} | {one['stored_gb']} | {one['peak_gb']} | {one['peak_anonymous_gb']} | "
            f"{one['limit_gb']} | {taken:.0f} |"
        )
    if len(sizes) > 1:
        slope, start = np.polyfit([one["documents"] for one in sizes], [one["peak_gb"] for one in sizes], 1)
        lines += ["", f"A line through these: {start:.2f} GB and {1e9 * slope:.0f} bytes a document."]
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--out", type=Path, default=Path("results/speed"))
    flags = parser.parse_args(arguments)
    file = flags.out / "memory_of_large_corpora.json"
    before = json.loads(file.read_text(encoding="utf-8"))["sizes"] if file.is_file() else []
    others = [one for one in before if one["documents"] != flags.documents and one["dim"] == flags.dim]
    sizes = sorted([*others, measured(flags.documents, flags.dim)], key=lambda one: one["documents"])
    report = {"sizes": sizes}
    write(flags.out, "memory_of_large_corpora", report, markdown(report))


if __name__ == "__main__":
    main()
