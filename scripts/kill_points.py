"""What a run that is killed by force at a random point leaves behind, and what the same command makes of it.

    python scripts/kill_points.py --points 50

A tiny backbone, two tiny tasks, training-free, fitted and trained methods; a checkpoint after every update, a file
after every batch of a pass. Half of the points are before a file operation, half at a moment; each starts in an empty
folder. Writes results/faults/kill_points.{json,md}; with --add the points that are there stay.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the harness is that of the tests

from fusebench.benchmarks.atomic import atomic_write  # noqa: E402
from tests.killed_runs import Point, command, kept, points, run, survey, world_in  # noqa: E402


def table(surveyed: list[Point], seeds: list[int]) -> str:
    """The page: what was lost, in all, by what the run was at, and point by point."""
    lossless = [point for point in surveyed if not point.lost]
    equal = sum(point.difference == 0 for point in lossless)
    rest = [point.difference for point in lossless if point.difference]
    lines = [
        "# Kill points",
        "",
        f"Made by `python scripts/kill_points.py`, seeds {', '.join(map(str, seeds))}. Each run was killed "
        "by SIGKILL before the file operation, or after the seconds, given; then the same command ran to its end.",
        "",
        f"- {len(surveyed)} kills; something lost in {len(surveyed) - len(lossless)}.",
        f"- Scores and samples equal those of an uninterrupted run to the last bit in {equal}"
        + (f"; they differ by at most {max(rest):.1e} in {len(rest)}." if rest else "."),
        f"- {sum(point.checkpoint for point in surveyed)} kills came during a training that had a checkpoint.",
        "",
        "| the run was at | kills | something lost | texts passed, mean | of them twice, mean | largest |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for phase in ("start", "encoding", "training", "scoring", "boards"):
        if own := [point for point in surveyed if point.phase == phase]:
            passed, redone = (fmean(getattr(point, name) for point in own) for name in ("passed", "redone"))
            lines.append(
                f"| {phase} | {len(own)} | {sum(bool(point.lost) for point in own)} | {passed:.0%} | {redone:.1%} | "
                f"{max(point.redone for point in own):.1%} |"
            )
    lines += [
        "",
        "Texts passed are those that had gone through the backbone when the run was killed, as a share of all of the "
        "run; those that went through it twice were in work at that moment.",
        "",
        "| killed at | before, or last | the run was at | records kept | texts passed | twice | difference | lost |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for point in surveyed:
        at = f"operation {point.at:.0f}" if point.kind == "operation" else f"{point.at:.2f} s"
        shares = f"{point.passed:.0%} | {point.redone:.1%}"
        lines.append(
            f"| {at} | `{point.before}` | {point.phase} | {point.records} | {shares} | "
            f"{point.difference:.0e} | {point.lost or 'nothing'} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Surveys the points and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--add", action="store_true", help="keep the points of earlier seeds")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "faults")
    flags = parser.parse_args()
    place = flags.out / "kill_points.json"
    held = json.loads(place.read_text()) if flags.add else {"seeds": [], "points": []}
    surveyed = [Point(**point) for point in held["points"]]
    seeds = [*held["seeds"], flags.seed]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world = world_in(folder / "world")
        run(command(world, folder / "warm"), folder / "said-warm", folder / "warm")
        whole = run(command(world, folder / "whole"), folder / "said", folder / "whole")
        if whole.code != 0:
            raise RuntimeError(whole.said)
        expected = kept(folder / "whole")
        for number, kill in enumerate(points(flags.seed, flags.points, whole), 1):
            surveyed.append(survey(world, expected, whole, folder / "killed", **kill))
            print(f"{number} of {flags.points}: {surveyed[-1]}", flush=True)
            content = {"seeds": seeds, "points": [asdict(point) for point in surveyed]}
            atomic_write(place, json.dumps(content, indent=1) + "\n")
            atomic_write(flags.out / "kill_points.md", table(surveyed, seeds))
    return 1 if any(point.lost for point in surveyed) else 0


if __name__ == "__main__":
    raise SystemExit(main())
