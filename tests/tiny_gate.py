"""A tiny backbone and tiny tasks for tests of what is run again: the gate, `verify`, `replay`."""

from __future__ import annotations

import random

from fusebench.benchmarks.record import TaskSpec
from fusebench.benchmarks.store import Store
from fusebench.methods.recipe import Recipe
from fusebench.study.options import Options, TrainingOptions
from fusebench.study.plan import make_plan
from fusebench.study.rerun import Places
from fusebench.study.run import run
from tests.conftest import TinyData
from tests.tiny_models import WORDS, save

METHODS = ("mean", "cls", "max", "mean(layer=1)", "first-last", "mean+whiten(k=4)", "scalar-mix+batch-softmax")


def task_spec(name):
    """What a record says of a task that nobody loads."""
    return TaskSpec(
        name=name,
        type="STS",
        source="embedded",
        revision="1",
        data_sha256="d" * 64,
        splits=("test",),
        subsets=("default",),
        metric="cosine_spearman",
        protocol="sts: all pairs of a split together",
    )


def sentence(draw):
    return " ".join(draw.choices(WORDS, k=draw.randrange(3, 12)))


def make_world(root):
    """A folder with a tiny BERT, a task of each kind, fit texts and training pairs."""
    draw = random.Random(0)
    save("bert", root / "models" / "tiny-bert")
    tiny = TinyData(root / "data")
    pairs = [(sentence(draw), sentence(draw), draw.random() * 5) for _ in range(60)]
    tiny.write_sts("TinySTS", [{"sentence1": a, "sentence2": b, "score": gold} for a, b, gold in pairs])
    documents = [{"_id": f"d{i}", "title": "", "text": sentence(draw)} for i in range(60)]
    queries = [{"_id": f"q{i}", "text": sentence(draw)} for i in range(20)]
    qrels = [{"query-id": f"q{i}", "corpus-id": f"d{draw.randrange(60)}", "score": 1} for i in range(20)]
    tiny.write_retrieval("TinySearch", corpus=documents, queries=queries, qrels=qrels)
    (root / "fit.txt").write_text("\n".join(sentence(draw) for _ in range(40)))
    rows = [{"sentence1": sentence(draw), "sentence2": sentence(draw)} for _ in range(40)]
    tiny.write_jsonl(root / "data" / "train" / "rows.jsonl", rows)
    return root


def options(world, *methods, **settings):
    recipe = Recipe(epochs=None, steps=3, batch_size=8, learning_rate_new=1e-2)
    training = TrainingOptions(data=("rows.jsonl",), recipe=recipe)
    asked = {
        "methods": methods or METHODS,
        "backbone": str(world / "models" / "tiny-bert"),
        "tasks": ("TinySTS", "TinySearch"),
        "data_dir": world / "data",
        "fit": str(world / "fit.txt"),
        "training": training,
        "device": "cpu",
        "batch_tokens": 64,
    }
    return Options(**{**asked, **settings})


def places(world, **others):
    """Where the tiny world's things lie, which records know by name only."""
    found = {
        "data_dir": world / "data",
        "backbone": str(world / "models" / "tiny-bert"),
        "fit": str(world / "fit.txt"),
    }
    return Places(**{**found, **others})


def bench(world, out, *methods, **settings):
    """Runs into a folder; the path of each record by method and task."""
    outcome = run(make_plan(options(world, *methods, out=out, **settings)), Store(out))
    assert not outcome.failures, outcome.failures
    return {
        (record.spec.method.name, record.spec.task.name): path
        for path in out.glob("runs/*/*/*.json")
        if (record := Store(out).read(path.stem[-16:]))
    }
