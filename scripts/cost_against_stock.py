"""Cost of many methods with frozen backbone together over the cost of one with stock mteb + sentence-transformers.

Both sides run in this process, in turn, on the same tasks, each from loaded weights and data to scores:

    python scripts/cost_against_stock.py --data-dir DATA --tasks STS12,STS14,STS15,STSBenchmark,SICK-R [--rounds 3]

Three groups of methods, each a run of its own into an empty folder: those that read pooled states, with the mean and
the first token of every layer besides; the same and multi-layer-latents, whose own products are about as many as
those of a 6-layer backbone; and all, token-level fusions and a template with its second pass included. What is
learned is trained before the clock starts. Before a ratio is printed, the main score of `mean` must agree with stock
on every task within 1e-4. Writes results/speed/cost_against_stock.{json,md}.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import machine, ratio, shown, write

from fusebench.benchmarks.store import Store
from fusebench.benchmarks.task_source import load_data, task_of
from fusebench.benchmarks.tasks import find_tasks
from fusebench.methods import backbone_source
from fusebench.study.freed_memory import keep_freed_memory
from fusebench.study.options import Options
from fusebench.study.plan import Plan, make_plan
from fusebench.study.run import run

AGREEMENT = 1e-4
_HEAVY = "multi-layer-latents"


def stock(tasks: list[Any], folder: Path) -> tuple[float, dict[str, float]]:
    """Seconds and main scores of mean pooling with sentence-transformers (batch 32) in mteb.evaluate."""
    import mteb
    from mteb.models.model_meta import ModelMeta
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformerEncoderWrapper(SentenceTransformer(str(folder), device="cpu"))
    model.mteb_model_meta = ModelMeta.create_empty(overwrites={"name": "stock/minilm", "revision": "stock"})
    started = time.perf_counter()
    results = mteb.evaluate(
        model,
        tasks,
        cache=None,
        co2_tracker=False,
        encode_kwargs={"batch_size": 32, "show_progress_bar": False},
        show_progress_bar=False,
    )
    seconds = time.perf_counter() - started
    return seconds, {result.task_name: float(result.get_score()) for result in results.task_results}


def ours(plan: Plan) -> tuple[float, dict[str, float]]:
    """Seconds of a run of the plan into an empty folder, and the main scores of `mean`."""
    with tempfile.TemporaryDirectory() as out:
        store = Store(Path(out))
        started = time.perf_counter()
        outcome = run(plan, store)
        seconds = time.perf_counter() - started
        records = store.records()
    if outcome.failures:
        raise SystemExit("\n".join(outcome.failures))
    return seconds, {r.spec.task.name: r.main_score for r in records if r.spec.method.name == "mean"}


def groups(everything: Plan) -> dict[str, tuple[str, ...]]:
    """Sentences of each group of methods."""
    shape = everything.backbone.shape
    fusions = {method.name: method.build_fusion(shape) for method in everything.methods}
    pooled = [name for name, fusion in fusions.items() if fusion.template is None and fusion.needs.pooled]
    # Not the first token of state 0, which is the same vector for every text.
    every_layer = [f"{kind}(layer={k})" for kind in ("mean", "cls") for k in range(kind == "cls", shape.blocks)]
    return {
        "pooled states, every layer": (*(name for name in pooled if not name.startswith(_HEAVY)), *every_layer),
        f"the same and {_HEAVY}": (*pooled, *every_layer),
        "all": (*fusions, *every_layer),
    }


def trained(methods: set[str], everything: Plan, data_dir: Path | None, weights: Path) -> None:
    """Trains those of the methods that learn, on the catalogue's budget; a run finds the weights in this folder."""
    learned = tuple(method.name for method in everything.methods if method.trained and method.name in methods)
    plan = make_plan(Options(methods=learned, tasks=("LeeSTS",), data_dir=data_dir, out=weights))
    outcome = run(plan, Store(weights))
    if outcome.failures:
        raise SystemExit("\n".join(outcome.failures))


def main() -> None:
    """Measures, checks, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--tasks", default="LeeSTS,LeeKnownItem")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--groups", type=int, default=3, help="only so many, from the first (default: all three)")
    parser.add_argument("--out", type=Path, default=Path("results/speed"))
    flags = parser.parse_args()
    keep_freed_memory()
    tasks = tuple(flags.tasks.split(","))
    everything = make_plan(Options(tasks=tasks, data_dir=flags.data_dir))
    folder = backbone_source.find_backbone(backbone_source.DEFAULT).folder
    compared = dict(list(groups(everything).items())[: flags.groups])
    with tempfile.TemporaryDirectory() as weights:
        trained(
            {name for sentences in compared.values() for name in sentences}, everything, flags.data_dir, Path(weights)
        )
        plans = {
            name: make_plan(Options(methods=sentences, tasks=tasks, data_dir=flags.data_dir, out=Path(weights)))
            for name, sentences in compared.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in ("stock", *plans)}
        worst = 0.0
        for _ in range(flags.rounds):
            took, expected = stock(_stock_tasks(tasks, flags.data_dir), folder)
            seconds["stock"].append(took)
            for name, plan in plans.items():
                took, found = ours(plan)
                seconds[name].append(took)
                worst = max(worst, *(abs(found[task] - expected[task]) for task in expected))
    if worst > AGREEMENT:
        raise SystemExit(f"scores of mean differ by {worst:.2e}, so the two sides do not do the same work")
    ratios = {name: ratio(seconds[name], seconds["stock"]) for name in plans}
    here = machine()
    table = [
        "# Many methods with frozen backbone against one with stock tools",
        "",
        f"{backbone_source.DEFAULT} on {', '.join(tasks)}; {here['processor']}, {here['cores']} cores. Wall time "
        f"over that of mteb + sentence-transformers (batch 32) scoring mean pooling alone; medians of {flags.rounds} "
        f"rounds in turn, lowest and highest in brackets. Scores of `mean` differ by {worst:.1e} at most.",
        "",
        "| methods | how many | ratio to stock, one method |",
        "| --- | --- | --- |",
        *(f"| {name} | {len(plans[name].methods)} | {shown(one)} |" for name, one in ratios.items()),
    ]
    report = {"tasks": tasks, "ratios": ratios, "largest_score_difference": worst, "seconds": seconds}
    write(flags.out, "cost_against_stock", report, table)


def _stock_tasks(names: tuple[str, ...], data_dir: Path | None) -> list[Any]:
    tasks = []
    for source in find_tasks(names, data_dir):
        tasks.append(task_of(source))
        load_data(tasks[-1], source)
    return tasks


if __name__ == "__main__":
    main()
