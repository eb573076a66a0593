"""A results folder with two tiny tasks, whose cells are scored by noisy word vectors."""

from __future__ import annotations

import numpy as np

from fusebench.benchmarks.mteb_bridge import judge
from fusebench.benchmarks.sample_files import write_samples
from fusebench.benchmarks.store import Store
from tests.tiny_cells import embed, record_of

COUNT = 60


class Results:
    """A results folder with tasks `Pairs` and `Ret`, scored by noisy word vectors."""

    def __init__(self, tiny, out):
        self.tiny, self.out, self.store = tiny, out, Store(out)
        words = [f"w{i}" for i in range(12)]
        random = np.random.default_rng(0)
        rows = []
        for i in range(COUNT):
            left, right = random.choice(words, 6), random.choice(words, 6)
            share = random.integers(0, 7)
            right[:share] = left[:share]
            rows.append({"sentence1": f"{i} {' '.join(left)}", "sentence2": " ".join(right), "score": float(share)})
        self.rows = rows
        tiny.write_sts("Pairs", rows)
        tiny.write_retrieval("Ret")

    def add(self, method, noise, *, tasks=("Pairs",), seed=None, samples=True, limit=None, **changes):
        random = np.random.default_rng([len(method), seed or 0])
        known = {}

        def lookup(role, texts):
            vectors = embed(role, texts)
            for text in texts:
                known.setdefault(text, random.standard_normal(vectors.shape[1]))
            return vectors + noise * np.asarray([known[text] for text in texts], dtype=np.float32)

        for name in tasks:
            loaded = self.tiny.load(name, limit=limit)
            judged = judge(loaded, lookup, name=method, revision="r", experiment={})
            equal_to = changes.pop("equal_to", None)
            record = record_of(
                loaded.spec, judged.main_score, method, equal_to=equal_to, seed=seed, limit=limit, **changes
            )
            if samples:
                write_samples(self.out, record, judged.samples)
            self.store.write(record, judged.mteb_result)
        return record
