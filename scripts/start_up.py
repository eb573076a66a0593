"""Seconds from the start of the process to the first batch through the backbone, here and with stock tools.

    python scripts/start_up.py --rounds 5

Here: `run_bench.py --methods mean --tasks LeeSTS`, up to the moment when the first batch enters the model. Stock:
`import mteb`, `import sentence_transformers` and loading the same model. Each in a process of its own, in turn, files
in the system's cache. Writes results/speed/start_up.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring import machine, write

HEAVY = (
    "accelerate",
    "datasets",
    "gensim",
    "jinja2",
    "matplotlib",
    "mteb",
    "pandas",
    "plotly",
    "polars",
    "pyarrow",
    "scipy.stats",
    "sentence_transformers",
    "sklearn",
    "torch._dynamo",
    "torch._inductor",
    "torchvision",
    "transformers",
)

# `began` is the parent's clock just before the process was started.
OURS = """
import sys, time
began, out = float(sys.argv[1]), sys.argv[2]
marks = [("interpreter", time.time())]
from fusebench import run_bench
from fusebench.study import commands
marks.append(("imports of the run", time.time()))
from fusebench.methods import backbone_source
from fusebench.methods.backbone import Backbone
from fusebench.study import plan

class FirstBatch(BaseException): pass

def marked(owner, name, mark):
    original = getattr(owner, name)
    def call(*args, **kwargs):
        result = original(*args, **kwargs)
        marks.append((mark, time.time()))
        return result
    setattr(owner, name, call)

def first(self, *args, **kwargs):
    if getattr(self, "shape", None) is None:  # the probe at loading is part of loading
        return forward(self, *args, **kwargs)
    raise FirstBatch

forward, Backbone.forward = Backbone.forward, first
marked(plan, "find_backbone", "backbone found and hashed")
marked(plan, "Backbone", "backbone loaded and probed")
marked(plan, "load_task", "mteb imported, task loaded")
marked(commands, "make_plan", "plan")
try:
    run_bench.main(["--methods", "mean", "--tasks", "LeeSTS", "--out", out])
except FirstBatch:
    marks.append(("tokens and first batch", time.time()))
"""

STOCK = """
import sys, time
began, folder = float(sys.argv[1]), sys.argv[2]
marks = [("interpreter", time.time())]
import mteb
marks.append(("import mteb", time.time()))
import sentence_transformers
marks.append(("import sentence_transformers", time.time()))
model = sentence_transformers.SentenceTransformer(folder, device="cpu")
marks.append(("model loaded", time.time()))
"""

REPORT = """
import json
steps, before = {}, began
for name, moment in marks:
    steps[name], before = moment - before, moment
print("RESULT" + json.dumps({"steps": steps, "modules": sorted(sys.modules)}))
"""


def seconds(code: str, argument: str) -> dict[str, Any]:
    """What one fresh process reports."""
    done = subprocess.run(
        [sys.executable, "-c", code + REPORT, str(time.time()), argument],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    if not lines:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(lines[0].removeprefix("RESULT"))
    return found


def medians(runs: list[dict[str, Any]]) -> dict[str, float]:
    """The median of each step, in order."""
    return {step: round(statistics.median(run["steps"][step] for run in runs), 3) for step in runs[0]["steps"]}


def measured(rounds: int) -> dict[str, Any]:
    """Both sides in turn; one run of each before, so that all files are in the system's cache."""
    from fusebench.methods import backbone_source

    folder = str(backbone_source.find_backbone(backbone_source.DEFAULT).folder)
    ours, stock = [], []
    for _ in range(rounds + 1):
        with tempfile.TemporaryDirectory() as out:
            ours.append(seconds(OURS, out))
        stock.append(seconds(STOCK, folder))
    ours, stock = ours[1:], stock[1:]
    totals = [(sum(one["steps"].values()), sum(two["steps"].values())) for one, two in zip(ours, stock, strict=True)]
    ratios = [one / two for one, two in totals]
    return {
        "rounds": rounds,
        "ours": medians(ours),
        "stock": medians(stock),
        "our_seconds": round(statistics.median(one for one, _ in totals), 2),
        "stock_seconds": round(statistics.median(two for _, two in totals), 2),
        "ratio": round(statistics.median(ratios), 3),
        "range": [round(min(ratios), 3), round(max(ratios), 3)],
        "modules": {"ours": len(ours[0]["modules"]), "stock": len(stock[0]["modules"])},
        "loaded": {
            name: {"ours": name in ours[0]["modules"], "stock": name in stock[0]["modules"]} for name in HEAVY
        },
    }


def markdown(report: dict[str, Any]) -> list[str]:
    """The report as a page."""
    low, high = report["range"]
    return [
        "# From the start of the process to the first batch",
        "",
        f"`run_bench.py --methods mean --tasks LeeSTS` up to its first batch against `import mteb`, "
        f"`import sentence_transformers` and loading the model; {machine()['cores']} cores, medians of "
        f"{report['rounds']} rounds of fresh processes in turn: {report['our_seconds']} s against "
        f"{report['stock_seconds']} s, **ratio {report['ratio']}** ({low} to {high}).",
        "",
        "| step, seconds | here | stock |",
        "| --- | --- | --- |",
        *(f"| {step} | {taken} | |" for step, taken in report["ours"].items()),
        *(f"| {step} | | {taken} |" for step, taken in report["stock"].items()),
        f"| modules in memory | {report['modules']['ours']} | {report['modules']['stock']} |",
        "",
        "Large packages in memory by then:",
        "",
        "| package | here | stock |",
        "| --- | --- | --- |",
        *(
            f"| {name} | {'yes' if by['ours'] else ''} | {'yes' if by['stock'] else ''} |"
            for name, by in report["loaded"].items()
            if any(by.values())
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/speed"))
    flags = parser.parse_args(arguments)
    report = measured(flags.rounds)
    write(flags.out, "start_up", report, markdown(report))


if __name__ == "__main__":
    main()
