"""What a study of 10,000 cells over 50 backbones costs on 64 GPUs: units of work, simulated.

    python scripts/scale.py            # after scripts/growth.py, whose constants it reads; seconds, no GPU

Operations are counted (study/flops.py), scoring is as measured on a processor (results/speed/growth.json), heads cost
what they do beside the pass they read (results/speed/cost_of_heads.json); all else is an assumption, printed
as one. Writes a section of docs/scale.md.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fusebench.study.flops import BERT_BASE, LLAMA_7B, LLAMA_70B, MINILM, Transformer

GPUS, GPU_BYTES = 64, 80e9
PEAK, FORWARD_SHARE, TRAINING_SHARE = 989e12, 0.40, 0.35
ACROSS = 0.8  # of a GPU's speed is left where a model is split over several
LOAD_BYTES_A_SECOND = 1e9  # of weights, from shared storage, each unit for itself
START_SECONDS = 30.0  # imports and data of a unit
CORES_A_GPU = 12
TASKS_STS, TASKS_RETRIEVAL = 10, 10
STS_TEXTS, STS_TOKENS = 46_000, 16
DOCUMENTS, DOCUMENT_TOKENS = 1_100_000, 160  # of all retrieval tasks together
FROZEN_ROWS, HEADS, TUNED = 5, 3, 2  # rows of a backbone: without training, heads on it, fine-tuned
TRAINING_TEXTS, TRAINING_TOKENS, EPOCHS = 192_000, 24, 3
SHARD_SECONDS = 1800.0

LARGE = Transformer(blocks=24, dim=1024, inner=4096, vocabulary=30_522)
LLAMA_13B = Transformer(blocks=40, dim=5120, inner=13_824, vocabulary=32_000, gated=True)
BACKBONES = (
    ("MiniLM", MINILM, 15),
    ("BERT-base", BERT_BASE, 18),
    ("BERT-large", LARGE, 9),
    ("7B", LLAMA_7B, 5),
    ("13B", LLAMA_13B, 2),
    ("70B", LLAMA_70B, 1),
)
BEGIN, END = "<!-- made by: python scripts/scale.py -->", "<!-- end of what scripts/scale.py makes -->"


@dataclass(frozen=True)
class Unit:
    """Work that one process group does without a break.

    Attributes:
        kind: pass, heads or fine-tuning.
        gpus: that it holds together.
        seconds: that it holds them.
        after: numbers of the units that must have ended.
    """

    backbone: str
    kind: str
    gpus: int
    seconds: float
    after: tuple[int, ...] = ()


@dataclass
class Simulated:
    """A schedule."""

    makespan: float
    ends: list[float] = field(default_factory=list)


def gpus_for(weights: float, bytes_a_weight: float) -> int:
    """The power of two that holds the weights and a fifth more for what passes through."""
    return 2 ** math.ceil(math.log2(max(1.0, 1.2 * weights * bytes_a_weight / GPU_BYTES)))


def seconds_of(operations: float, gpus: int, share: float) -> float:
    """On so many GPUs together."""
    return operations / (PEAK * share * (ACROSS if gpus > 1 else 1.0) * gpus)


def pass_operations(shape: Transformer) -> float:
    """Of one forward pass over the texts of all tasks."""
    sts = STS_TEXTS * STS_TOKENS * shape.forward(STS_TOKENS)
    return sts + DOCUMENTS * DOCUMENT_TOKENS * shape.forward(DOCUMENT_TOKENS)


def training_operations(shape: Transformer) -> float:
    """Of one fine-tuning."""
    return EPOCHS * TRAINING_TEXTS * TRAINING_TOKENS * shape.training(TRAINING_TOKENS)


def units_of(head_share: float, shard_seconds: float) -> list[Unit]:
    """The whole study; a pass longer than a shard is cut into equal ones."""
    units: list[Unit] = []

    def add_pass(name: str, shape: Transformer, after: tuple[int, ...]) -> None:
        gpus = gpus_for(shape.weights, 2)
        seconds = seconds_of(pass_operations(shape), gpus, FORWARD_SHARE)
        shards = max(1, math.ceil(seconds / shard_seconds))
        overhead = START_SECONDS + 2 * shape.weights / LOAD_BYTES_A_SECOND
        units.extend(Unit(name, "pass", gpus, seconds / shards + overhead, after) for _ in range(shards))

    for name, shape, count in BACKBONES:
        load = START_SECONDS + 2 * shape.weights / LOAD_BYTES_A_SECOND
        for _ in range(count):
            gpus = gpus_for(shape.weights, 2)
            states = TRAINING_TEXTS * TRAINING_TOKENS * shape.forward(TRAINING_TOKENS)
            heads = (1 + HEADS * EPOCHS * head_share) * states
            units.append(Unit(name, "heads", gpus, load + seconds_of(heads, gpus, FORWARD_SHARE)))
            add_pass(name, shape, (len(units) - 1,))
            for _ in range(TUNED):
                many = gpus_for(shape.weights, 16)  # weights and gradients, and two moments and a copy in float32
                units.append(
                    Unit(
                        name, "fine-tuning", many, load + seconds_of(training_operations(shape), many, TRAINING_SHARE)
                    )
                )
                add_pass(name, shape, (len(units) - 1,))
    return units


def simulate(units: Sequence[Unit], gpus: int) -> Simulated:
    """Whenever GPUs are free, the ready unit with the longest way to its end starts that fits."""
    rest = [unit.seconds for unit in units]
    for place in reversed(range(len(units))):
        for before in units[place].after:
            rest[before] = max(rest[before], units[before].seconds + rest[place])
    waiting = sorted(range(len(units)), key=lambda place: (-rest[place], place))
    ends: list[float] = [math.inf] * len(units)
    running: list[tuple[float, int]] = []
    now, free = 0.0, gpus
    while waiting or running:
        for place in list(waiting):
            unit = units[place]
            if unit.gpus <= free and all(ends[before] <= now for before in unit.after):
                waiting.remove(place)
                free -= unit.gpus
                ends[place] = now + unit.seconds
                heapq.heappush(running, (ends[place], place))
        if not running:
            raise ValueError(f"{units[waiting[0]].gpus} GPUs are needed at once and there are {gpus}")
        now, done = heapq.heappop(running)
        free += units[done].gpus
    return Simulated(max(ends), ends)


def gpu_hours(units: Iterable[Unit]) -> float:
    """Held, starts included."""
    return sum(unit.gpus * unit.seconds for unit in units) / 3600


def scoring_hours(growth: Path) -> float:
    """Core hours of mteb's scoring of all cells, from the seconds measured a document and a method."""
    fits = json.loads(growth.read_text(encoding="utf-8"))["fits"]
    rows = sum(count for _, _, count in BACKBONES) * (FROZEN_ROWS + HEADS + TUNED)
    corpus, methods = (fits[name]["coefficients"] for name in ("corpus", "methods"))
    retrieval = TASKS_RETRIEVAL * corpus["fixed"] + DOCUMENTS * corpus["document"]
    return rows * (TASKS_STS * methods["method"] + retrieval) / 3600


def head_share(heads: Path) -> float:
    """Forward and backward of a learned fusion over the pass that it reads: the median of those measured."""
    measured = json.loads(heads.read_text(encoding="utf-8"))["measured"]
    return statistics.median(row["both_ratio"] for batch in measured for row in batch["rows"])


def page(growth: Path, heads: Path) -> str:
    """The section, every number computed."""
    share = head_share(heads)
    sharded = units_of(share, SHARD_SECONDS)
    whole = units_of(share, math.inf)
    hours = gpu_hours(sharded)
    runs = [(gpus, simulate(sharded, gpus), simulate(whole, gpus)) for gpus in (32, 64, 128, 256)]
    (own,) = (one for one in runs if one[0] == GPUS)
    backbones = sum(count for _, _, count in BACKBONES)
    rows = FROZEN_ROWS + HEADS + TUNED
    cells = backbones * rows * (TASKS_STS + TASKS_RETRIEVAL)
    kinds = f"{FROZEN_ROWS} without training, {HEADS} heads on frozen states, {TUNED} fine-tuned"
    tasks = TASKS_STS + TASKS_RETRIEVAL
    in_shards, in_pieces = (one.makespan / 3600 for one in own[1:])
    lines = [
        f"{cells:,} cells: {backbones} backbones x {rows} rows ({kinds}) x {tasks} tasks; {len(sharded):,} units of "
        f"work, {hours:,.0f} GPU hours.",
        "",
        f"**{in_shards:.1f} hours on {GPUS} GPUs** with passes cut into shards of {SHARD_SECONDS / 60:.0f} minutes, "
        f"{in_pieces:.1f} hours without; no schedule can need less than {hours / GPUS:.1f}.",
        "",
        "| backbones | number | weights | GPUs: pass, fine-tuning | hours: passes | heads | fine-tuning | of all |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, shape, count in BACKBONES:
        of_kind = [gpu_hours(u for u in sharded if u.backbone == name and u.kind == kind) for kind in _KINDS]
        gpus = f"{gpus_for(shape.weights, 2)}, {gpus_for(shape.weights, 16)}"
        numbers = " | ".join(f"{number:,.1f}" for number in of_kind)
        weights = f"{shape.weights / 1e9:.2f} B"
        lines.append(f"| {name} | {count} | {weights} | {gpus} | {numbers} | {sum(of_kind) / hours:.0%} |")
    lines += [
        "",
        "| GPUs | hours, sharded | of the GPU time used | hours, a pass in one piece | used |",
        "| --- | --- | --- | --- | --- |",
        *(_line(gpus, hours, a.makespan / 3600, gpu_hours(whole), b.makespan / 3600) for gpus, a, b in runs),
    ]
    return "\n".join([*lines, *_bottlenecks(sharded, own[1], growth, hours)])


_KINDS = ("pass", "heads", "fine-tuning")


def _line(gpus: int, sharded: float, sharded_span: float, whole: float, whole_span: float) -> str:
    used = [f"{work / gpus / span:.0%}" for work, span in ((sharded, sharded_span), (whole, whole_span))]
    return f"| {gpus} | {sharded_span:.1f} | {used[0]} | {whole_span:.1f} | {used[1]} |"


def _bottlenecks(units: Sequence[Unit], schedule: Simulated, growth: Path, hours: float) -> list[str]:
    passes = gpu_hours(unit for unit in units if unit.kind == "pass")
    naive = passes / (1 + TUNED) * (FROZEN_ROWS + HEADS + TUNED) + hours - passes
    documents = DOCUMENTS * DOCUMENT_TOKENS / (DOCUMENTS * DOCUMENT_TOKENS + STS_TEXTS * STS_TOKENS)
    largest = max(BACKBONES, key=lambda one: one[1].weights)
    of_largest = gpu_hours(unit for unit in units if unit.backbone == largest[0]) / hours
    last = units[max(range(len(units)), key=schedule.ends.__getitem__)]
    scoring = scoring_hours(growth)
    beside = scoring / (GPUS * CORES_A_GPU)
    load = sum(2 * shape.weights * sum(u.backbone == name for u in units) for name, shape, _ in BACKBONES)
    pooled = DOCUMENTS * 4 * largest[1].dim * 2
    return [
        "",
        f"- The documents are the work: {passes / hours:.0%} of the GPU hours are passes, {documents:.1%} of "
        "their tokens documents.",
        "- One pass serves all rows on a frozen backbone: a pass for each row would take "
        f"{naive:,.0f} GPU hours, {naive / hours:.1f} times as many.",
        f"- The largest backbone alone is {of_largest:.0%} of the GPU hours; the last unit to end is a "
        f"{last.kind} of a {last.backbone}.",
        f"- Scoring takes {scoring:,.1f} core hours at the speed measured here: {60 * beside:.1f} minutes on "
        f"{CORES_A_GPU} cores a GPU, beside the passes.",
        f"- Weights are read {len(units):,} times, {load / 1e12:,.1f} TB in all.",
        f"- Means and first tokens of one layer of all documents are {pooled / 1e9:.0f} GB for the largest backbone, "
        "so they are kept a shard at a time, and of no more layers than some method reads.",
        "",
        f"Assumed, not measured: {PEAK / 1e12:.0f} TFLOP/s a GPU (H100, dense bf16, as NVIDIA states), of which "
        f"{FORWARD_SHARE:.0%} in passes and {TRAINING_SHARE:.0%} in training are reached, {ACROSS:.0%} of that where "
        f"a model is split; {GPU_BYTES / 1e9:.0f} GB a GPU, 2 bytes a weight in passes and 16 in fine-tuning, a "
        f"fifth more for activations; {START_SECONDS:.0f} s to start a unit and {LOAD_BYTES_A_SECOND / 1e9:.0f} GB/s "
        f"to read weights; {STS_TEXTS:,} STS texts of {STS_TOKENS} tokens, {DOCUMENTS:,} documents of "
        f"{DOCUMENT_TOKENS}; trainings of {EPOCHS} epochs over {TRAINING_TEXTS:,} texts of "
        f"{TRAINING_TOKENS}. Measured: seconds of "
        "scoring a document and a method, for 100 queries a task and vectors 384 wide (more queries and wider "
        "vectors cost more), and what heads cost beside a pass.",
    ]


def main() -> None:
    """Simulates and writes the section into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--growth", type=Path, default=Path("results/speed/growth.json"))
    parser.add_argument("--heads", type=Path, default=Path("results/speed/cost_of_heads.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/scale.md"), help="whose section is written anew")
    flags = parser.parse_args()
    text = flags.page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    section = page(flags.growth, flags.heads)
    flags.page.write_text(f"{before}{BEGIN}\n\n{section}\n\n{END}{after}", encoding="utf-8")
    print(section)


if __name__ == "__main__":
    main()
