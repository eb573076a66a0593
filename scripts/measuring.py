"""What the measurements of speed share: texts, alternated rounds, the table that is written."""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

STS = ("STS12", "STS14", "STS15", "STSBenchmark", "SICK-R")
RETRIEVAL = ("SciFact", "ArguAna")


def short_texts(data_dir: Path, count: int) -> list[str]:
    """Distinct sentences of the STS tasks' test splits, drawn with seed 0."""
    lines = (
        line for task in STS for line in (data_dir / task / "test.jsonl").read_text(encoding="utf-8").splitlines()
    )
    rows = (json.loads(line) for line in lines)
    return _drawn({row[side] for row in rows for side in ("sentence1", "sentence2")}, count)


def long_texts(data_dir: Path, count: int) -> list[str]:
    """Distinct documents of the retrieval tasks, title first, drawn with seed 0."""
    found = set()
    for task in RETRIEVAL:
        for line in (data_dir / task / "corpus.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found.add(f"{row.get('title', '')} {row['text']}".strip())
    return _drawn(found, count)


def _drawn(texts: set[str], count: int) -> list[str]:
    ordered = sorted(texts)
    random.Random(0).shuffle(ordered)
    return ordered[:count]


def alternated(variants: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Wall seconds of every variant in every round; all variants run in turn, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, work in variants.items():
            started = time.perf_counter()
            work()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """Median and range of `over / under`, round by round."""
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    return {
        "median": round(statistics.median(ratios), 3),
        "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3),
    }


def shown(one: Mapping[str, float]) -> str:
    """A ratio as a table shows it."""
    return f"{one['median']:.2f} ({one['lowest']:.2f} to {one['highest']:.2f})"


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    names = [line for line in _cpuinfo() if line.startswith("model name")]
    return {
        "processor": names[0].split(":", 1)[1].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        **{name: version(name) for name in ("transformers", "sentence-transformers", "mteb")},
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def write(out: Path, name: str, report: Mapping[str, Any], table: Sequence[str]) -> None:
    """Writes OUT/NAME.json and OUT/NAME.md, and prints the latter."""
    out.mkdir(parents=True, exist_ok=True)
    text = "\n".join(table) + "\n"
    (out / f"{name}.json").write_text(json.dumps({**report, "machine": machine()}, indent=1) + "\n", encoding="utf-8")
    (out / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)
