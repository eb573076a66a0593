"""What the score gate catches and what it lets pass: planted faults, and reruns that change nothing but noise.

    python scripts/gate_under_fire.py

Runs the embedded baseline again 20 times with other batch sizes, orders of texts and numbers of threads, which must
raise no alarm, and once under each of four faults, which must. Writes results/statistics/gate.md and gate.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
from tabulate import tabulate

from fusebench.benchmarks.baseline import Baseline, Rerun, read_baseline
from fusebench.benchmarks.gate import GateReport, Verdict, compare
from fusebench.methods.backbone import Backbone
from fusebench.methods.layer_mix import FirstLast
from fusebench.methods.states import LayerStates, Needs
from fusebench.methods.token_pooling import Mean
from fusebench.study.gate import variations
from fusebench.study.rerun import Places, make_again, options_of


@contextmanager
def last_layer_alone() -> Iterator[None]:
    """`first-last` quietly takes the last layer."""
    with mock.patch.object(FirstLast, "forward", lambda self, states: states.mean(self.layers[-1])):
        yield


@contextmanager
def padding_counts() -> Iterator[None]:
    """The mask lets padding in."""
    pad = Backbone.pad

    def unmasked(self: Backbone, ids: list) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, mask = pad(self, ids)
        return tokens, torch.ones_like(mask)

    with mock.patch.object(Backbone, "pad", unmasked):
        yield


@contextmanager
def layers_off_by_one() -> Iterator[None]:
    """State k is taken for state k + 1."""
    forward = Backbone.forward

    def shifted(self: Backbone, *arguments: object) -> LayerStates:
        states = forward(self, *arguments)
        return LayerStates((states.hidden[0], *states.hidden[:-1]), states.mask, states.attention, states.marker)

    with mock.patch.object(Backbone, "forward", shifted):
        yield


@contextmanager
def first_token_for_mean() -> Iterator[None]:
    """`mean` returns the first token."""
    with (
        mock.patch.object(Mean, "needs", Mean.needs | Needs.FIRSTS),
        mock.patch.object(Mean, "forward", lambda self, states: states.first(self.layer)),
    ):
        yield


FAULTS: dict[str, Callable] = {
    "first-last takes the last layer": last_layer_alone,
    "padding is not masked": padding_counts,
    "layer index off by one": layers_off_by_one,
    "first token in place of the mean": first_token_for_mean,
}


def judged(baseline: Baseline, change: Rerun | None = None) -> GateReport:
    """The gate's verdicts on a run made now."""
    made = make_again(options_of(baseline.run, Places()), change)
    return compare(baseline, made.records, made.failures)


def failed(report: GateReport) -> list[Verdict]:
    """The verdicts that are alarms."""
    return [verdict for verdict in report.verdicts if not verdict.passed]


def main() -> None:
    """Runs, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", type=Path, default=Path("results/baselines/embedded.json"))
    parser.add_argument("--reruns", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("results/statistics"))
    flags = parser.parse_args()
    baseline = read_baseline(flags.baseline)
    options = options_of(baseline.run, Places())
    reruns = []
    for change in variations(options, baseline.run.batch_tokens, flags.reruns):
        same_seed = change.model_copy(update={"seed_offset": 0})
        report = judged(baseline, same_seed)
        moved = max(abs(one.change) for one in report.verdicts if one.change is not None)
        reruns.append({**same_seed.model_dump(), "alarms": len(failed(report)), "largest move": moved})
        print(reruns[-1], flush=True)
    faults = []
    for name, fault in FAULTS.items():
        with fault():
            report = judged(baseline)
        caught = failed(report)
        methods = ", ".join(sorted({verdict.key[0] for verdict in caught}))
        faults.append({"fault": name, "alarms": len(caught), "methods": methods})
        print(faults[-1], flush=True)
    smallest = [
        {"method": cell.method, "task": cell.task, "score": cell.score, "smallest change caught": cell.tolerance}
        for cell in baseline.cells
    ]
    text = "\n\n".join(
        [
            "# The score gate under fire",
            f"Made by `python scripts/gate_under_fire.py`, {len(baseline.cells)} cells of `{flags.baseline.name}`.",
            "## Reruns that may raise no alarm",
            tabulate(reruns, headers="keys", tablefmt="github", floatfmt=".1e"),
            "## Planted faults",
            tabulate(faults, headers="keys", tablefmt="github"),
            "## What the gate can see",
            tabulate(smallest, headers="keys", tablefmt="github", floatfmt=".5f"),
        ]
    )
    (flags.out / "gate.md").write_text(text + "\n", encoding="utf-8")
    held = {"reruns": reruns, "faults": faults, "cells": smallest}
    (flags.out / "gate.json").write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
