"""Feeds seeded hostile input to everything that reads what people write, and counts what comes out.

    python scripts/fuzz.py

Stops with the seed at the first input that gives anything but the project's own error. Writes
results/faults/fuzz.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the inputs are those of the tests

from fusebench.benchmarks.atomic import atomic_write  # noqa: E402
from tests.fuzzed_inputs import READERS, fuzz  # noqa: E402


def main() -> int:
    """Runs the inputs, as many for each reader."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000, help="for each reader")
    parser.add_argument("--seed", type=int, default=0, help="of the first input of each reader")
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS), metavar="NAME")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "faults")
    flags = parser.parse_args()
    place = flags.out / "fuzz.json"
    found = json.loads(place.read_text()) if place.exists() else {}
    for name in flags.readers:
        with tempfile.TemporaryDirectory() as folder:
            seeds = range(flags.seed, flags.seed + flags.inputs)
            accepted, refused = fuzz(READERS[name], Path(folder), seeds)
        found[name] = [flags.inputs, accepted, refused]
        print(
            f"{name}: {flags.inputs} inputs, {accepted} accepted, {refused} refused, nothing else came out",
            flush=True,
        )
        atomic_write(place, json.dumps(found, indent=1) + "\n")
        atomic_write(flags.out / "fuzz.md", page(found))
    return 0


def page(found: dict[str, list[int]]) -> str:
    """The counts of each reader, and of all."""
    rows = [(name, *counts, 0) for name, counts in sorted(found.items())]
    rows.append(("all", *(sum(column) for column in zip(*(row[1:] for row in rows), strict=True))))
    headers = ("what reads them", "inputs", "accepted", "refused in a sentence", "anything else")
    table = tabulate(rows, headers=headers, tablefmt="github")
    return f"# Hostile input\n\nMade by `python scripts/fuzz.py`, which stops at anything else.\n\n{table}\n"


if __name__ == "__main__":
    raise SystemExit(main())
