"""Cost of all training-free methods together over the cost of one method with stock mteb + sentence-transformers.

Both sides run in this process, one after the other, on the same tasks, each from loaded weights and data to scores:

    python scripts/cost_against_stock.py --data-dir DATA --tasks STS12,STS14,STS15,STSBenchmark,SICK-R,SciFact

Before a ratio is printed, the main score of `mean` must agree on every task within 1e-4. Writes
results/speed/cost_against_stock.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusebench.benchmarks.store import Store
from fusebench.benchmarks.task_source import load_data, task_of
from fusebench.benchmarks.tasks import find_tasks
from fusebench.methods import backbone_source
from fusebench.study.options import Options
from fusebench.study.plan import Plan, make_plan
from fusebench.study.run import run

AGREEMENT = 1e-4


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


@dataclass(frozen=True)
class Ours:
    """One run of all methods into an empty folder."""

    seconds: float
    template_seconds: float  # of them for methods whose template needs a pass of its own, scoring included
    methods: int
    template_methods: int
    mean_scores: dict[str, float]


def ours(plan: Plan) -> Ours:
    """Runs the plan and takes the time."""
    with tempfile.TemporaryDirectory() as out:
        store = Store(Path(out))
        started = time.perf_counter()
        outcome = run(plan, store)
        seconds = time.perf_counter() - started
        records = store.records()
    if outcome.failures:
        raise SystemExit("\n".join(outcome.failures))
    templated = {m.name for m in plan.methods if m.build_fusion(plan.backbone.shape).template is not None}
    scoring = sum(r.cost.scoring_seconds for r in records if r.spec.method.name in templated)
    return Ours(
        seconds=seconds,
        template_seconds=sum(one.seconds for one in outcome.passes[1:]) + scoring,
        methods=outcome.methods,
        template_methods=len(templated),
        mean_scores={r.spec.task.name: r.main_score for r in records if r.spec.method.name == "mean"},
    )


def main() -> None:
    """Measures, checks, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--tasks", default="LeeSTS,LeeKnownItem")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/speed"))
    flags = parser.parse_args()
    tasks = tuple(flags.tasks.split(","))
    plan = make_plan(Options(tasks=tasks, data_dir=flags.data_dir))
    folder = backbone_source.find_backbone(backbone_source.DEFAULT).folder
    rounds = [_round(plan, tasks, flags.data_dir, folder) for _ in range(flags.rounds)]
    report = {
        "tasks": list(tasks),
        "backbone": backbone_source.DEFAULT,
        "methods": rounds[0]["methods"],
        "rounds": rounds,
        "ratio_all": statistics.median(one["ratio_all"] for one in rounds),
        "ratio_one_pass": statistics.median(one["ratio_one_pass"] for one in rounds),
        "machine": {"cores": os.cpu_count(), "platform": f"{platform.system()} {platform.machine()}"},
    }
    flags.out.mkdir(parents=True, exist_ok=True)
    name = flags.out / "cost_against_stock"
    name.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    name.with_suffix(".md").write_text(_markdown(report), encoding="utf-8")
    print(_markdown(report))


def _round(plan: Plan, tasks: tuple[str, ...], data_dir: Path | None, folder: Path) -> dict[str, Any]:
    stock_tasks = []
    for source in find_tasks(tasks, data_dir):
        stock_tasks.append(task_of(source))
        load_data(stock_tasks[-1], source)
    stock_seconds, stock_scores = stock(stock_tasks, folder)
    run_of_ours = ours(plan)
    one_pass_seconds = run_of_ours.seconds - run_of_ours.template_seconds
    worst = max(abs(run_of_ours.mean_scores[task] - stock_scores[task]) for task in stock_scores)
    if worst > AGREEMENT:
        raise SystemExit(f"scores of mean differ by {worst:.2e}, so the two sides do not do the same work")
    return {
        "stock_seconds": round(stock_seconds, 2),
        "all_seconds": round(run_of_ours.seconds, 2),
        "one_pass_seconds": round(one_pass_seconds, 2),
        "ratio_all": round(run_of_ours.seconds / stock_seconds, 3),
        "ratio_one_pass": round(one_pass_seconds / stock_seconds, 3),
        "methods": run_of_ours.methods,
        "one_pass_methods": run_of_ours.methods - run_of_ours.template_methods,
        "largest_score_difference": worst,
    }


def _markdown(report: dict[str, Any]) -> str:
    first = report["rounds"][0]
    lines = [
        "# All training-free methods against one method with stock tools",
        "",
        f"{report['backbone']} on {', '.join(report['tasks'])}; {report['machine']['cores']} cores. Ratios of "
        f"wall time to mteb + sentence-transformers (batch 32) scoring mean pooling alone, in one process; median of "
        f"{len(report['rounds'])} round(s). The one-pass row is the whole run less the template's pass and scoring.",
        "",
        "| what | methods | seconds | ratio to stock, one method |",
        "| --- | --- | --- | --- |",
        f"| stock mteb + sentence-transformers | 1 | {first['stock_seconds']} | 1 |",
        f"| all methods over the plain texts (one pass) | {first['one_pass_methods']} | "
        f"{first['one_pass_seconds']} | {report['ratio_one_pass']} |",
        f"| all methods, the template's second pass included | {first['methods']} | "
        f"{first['all_seconds']} | {report['ratio_all']} |",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
