"""The table of what FuseBench costs beside its targets: every measurement of speed, several times over.

    python scripts/speed_table.py --data-dir DATA [--runs 3] [--only speed_of_encoding,start_up]

Runs the scripts named in `MEASUREMENTS` one after the other, all of them once in each run, and takes from each run
the medians that the scripts print. Nothing else should run on the machine: about 50 minutes on two cores. Each script
leaves its own table of the last run; what `--only` leaves out keeps the values it had.
Writes results/speed/targets.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import STS, machine, write

# Flags of each script: few rounds, because the runs repeat them.
MEASUREMENTS: Mapping[str, tuple[str, ...]] = {
    "speed_of_encoding": ("--data-dir", "DATA", "--short", "2000", "--long", "150", "--rounds", "3"),
    "cost_of_pooling": ("--data-dir", "DATA", "--rounds", "3"),
    "cost_against_stock": ("--data-dir", "DATA", "--tasks", ",".join(STS), "--rounds", "2", "--groups", "1"),
    "cost_of_scoring": ("--data-dir", "DATA", "--tasks", "STS15,SciFact"),
    "speed_of_training": ("--data-dir", "DATA", "--steps", "3", "--rounds", "3"),
    "cost_of_guides": ("--rounds", "2"),
    "start_up": ("--rounds", "3"),
}

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """One line of the table.

    Attributes:
        what: is measured.
        beside: what it is divided by.
        script: that measures it.
        value: of the script's report.
        bound: what it should reach; of the report too, because the roofline is measured.
        higher: whether more is better.
    """

    what: str
    beside: str
    script: str
    value: Callable[[Report], float]
    bound: Callable[[Report], float]
    higher: bool = True

    @property
    def key(self) -> str:
        """Its name in the stored runs."""
        return f"{self.what} / {self.beside}"

    def reached(self, value: float, bound: float) -> bool:
        """Whether the bound is kept."""
        return value >= bound if self.higher else value <= bound


def _roofline(texts: str, target: float) -> Target:
    return Target(
        f"arithmetic of encoding, {texts} texts, with attention (target {target}, or 0.9 of the measured roofline)",
        "bare matrix products by oneDNN",
        "speed_of_encoding",
        lambda r: r[texts]["of_products_by_onednn"]["median"],
        lambda r: min(target, 0.9 * r[texts]["roofline_of_products"]["median"]),
    )


def _guide(name: str, tokens: int) -> Target:
    return Target(
        f"a training step with {name} on all blocks, {tokens} tokens",
        "the same step without it, fused attention",
        "cost_of_guides",
        lambda r: max(
            row["ratio"]
            for one in r["measured"]
            for row in one["rows"]
            if one["tokens"] == tokens and row["variant"] == f"{name}, here, all blocks"
        ),
        lambda r: 1.25,
        higher=False,
    )


TARGETS: tuple[Target, ...] = (
    Target(
        "all frozen methods over pooled states, every layer, five STS tasks, scores included",
        "stock mteb + sentence-transformers, one method",
        "cost_against_stock",
        lambda r: next(iter(r["ratios"].values()))["median"],
        lambda r: 0.45,
        higher=False,
    ),
    Target(
        "encoding, short texts, texts/s",
        "`SentenceTransformer.encode`, batch 32",
        "speed_of_encoding",
        lambda r: r["short"]["to_batch_32"]["median"],
        lambda r: 1.6,
    ),
    Target(
        "encoding, long texts, texts/s",
        "`SentenceTransformer.encode`, batch 32",
        "speed_of_encoding",
        lambda r: r["long"]["to_batch_32"]["median"],
        lambda r: 1.2,
    ),
    Target(
        "encoding, long texts, texts/s",
        "the same at its best batch",
        "speed_of_encoding",
        lambda r: r["long"]["to_best_batch"]["median"],
        lambda r: 1.05,
    ),
    _roofline("short", 0.82),
    _roofline("long", 0.78),
    Target(
        "every layer's mean and first token",
        "one pooling",
        "cost_of_pooling",
        lambda r: r["every"]["median"],
        lambda r: 1.05,
        higher=False,
    ),
    Target(
        "one more training-free method over pooled states, the dearest",
        "the pass",
        "cost_of_pooling",
        lambda r: max(share for name, share in r["shares"].items() if name not in r["learned"]),
        lambda r: 0.01,
        higher=False,
    ),
    Target(
        "a head on the frozen backbone, ten epochs, its pass included",
        "sentence-transformers, backbone run at each step",
        "speed_of_training",
        lambda r: r["head"]["median"],
        lambda r: 8,
    ),
    Target(
        "a further head",
        "sentence-transformers, backbone run at each step",
        "speed_of_training",
        lambda r: r["further_head"]["median"],
        lambda r: 50,
    ),
    Target(
        "fine-tuning",
        "SentenceTransformerTrainer",
        "speed_of_training",
        lambda r: r["fine_tuning"]["median"],
        lambda r: 1.2,
    ),
    *(_guide(name, tokens) for name in ("mdg", "pdg") for tokens in (32, 128)),
    Target(
        "scoring finished vectors, 40 methods, the dearer of STS15 and SciFact",
        "stock `mteb.evaluate`, 40 calls",
        "cost_of_scoring",
        lambda r: max(one["ratio"] for one in r["tasks"]),
        lambda r: 0.5,
        higher=False,
    ),
    Target(
        "from the start of the process to the first batch",
        "importing mteb and sentence-transformers, loading the model",
        "start_up",
        lambda r: r["ratio"],
        lambda r: 1.0,
        higher=False,
    ),
)


def measure(script: str, data_dir: Path, out: Path) -> Report:
    """Runs one script; its report."""
    flags = [str(data_dir) if flag == "DATA" else flag for flag in MEASUREMENTS[script]]
    command = [sys.executable, str(Path(__file__).with_name(f"{script}.py")), *flags, "--out", str(out)]
    subprocess.run(command, check=True)
    report: Report = json.loads((out / f"{script}.json").read_text(encoding="utf-8"))
    return report


def row(target: Target, runs: list[list[float]]) -> str:
    """A line of the table; each run is a value and the bound that it should keep."""
    values = [value for value, _ in runs]
    value, bound = (statistics.median(column) for column in zip(*runs, strict=True))
    sign = "at least" if target.higher else "at most"
    return (
        f"| {target.what} | {target.beside} | {sign} {bound:.3g} | **{value:.3g}** ({min(values):.3g} to "
        f"{max(values):.3g}) | {'yes' if target.reached(value, bound) else 'no'} |"
    )


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default=",".join(MEASUREMENTS), help="names of scripts, with commas")
    parser.add_argument("--out", type=Path, default=Path("results/speed"))
    flags = parser.parse_args()
    names = flags.only.split(",")
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown:
        raise SystemExit(f"no measurement is called {', '.join(unknown)}; there are {', '.join(MEASUREMENTS)}")
    file = flags.out / "targets.json"
    found: dict[str, list[list[float]]] = (
        json.loads(file.read_text(encoding="utf-8"))["runs"] if file.is_file() else {}
    )
    chosen = [target for target in TARGETS if target.script in names]
    found.update({target.key: [] for target in chosen})
    for _ in range(flags.runs):
        for name in names:
            report = measure(name, flags.data_dir, flags.out)
            for target in chosen:
                if target.script == name:
                    found[target.key].append([target.value(report), target.bound(report)])
    here = machine()
    table = [
        "# What it costs, beside what it should",
        "",
        f"all-MiniLM-L6-v2, float32, {here['processor']}, {here['cores']} cores, {here['vectors']}, torch "
        f"{here['torch']}. Medians over {flags.runs} runs of each script's own median of rounds in turn, lowest and "
        "highest run in brackets. Made by `python scripts/speed_table.py --data-dir DATA`.",
        "",
        "| what | beside | target | ratio | reached |",
        "| --- | --- | --- | --- | --- |",
        *(row(target, found[target.key]) for target in TARGETS if target.key in found),
    ]
    write(flags.out, "targets", {"runs": found}, table)


if __name__ == "__main__":
    main()
