"""What every learned fusion costs on a processor, beside one forward pass of the default backbone on the same texts.

    python scripts/cost_of_heads.py [--rounds 7]

Two batches: 128 short texts with lengths like those of NLI data, and 8 of 201 to 220 tokens. Fusions run at their
defaults on frozen states, means over tokens included: forward in evaluation, forward and backward in training. Every
round runs the backbone and then all fusions; ratios are taken within a round, and their median is reported. Times are
processor time of one thread, so that other work on the machine counts for little.
Writes results/speed/cost_of_heads.{json,md}.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import write

import fusebench.methods
from fusebench.methods.backbone import Backbone
from fusebench.methods.backbone_source import DEFAULT, find_backbone
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import cards
from fusebench.methods.states import LayerStates, Needs, StateShape

_ = fusebench.methods  # importing it registers the fusions


@dataclass(frozen=True)
class Batch:
    """Padded token ids, and the backbone's states of them."""

    name: str
    tokens: torch.Tensor
    states: LayerStates

    def fresh(self) -> LayerStates:
        """The same states without the means that were computed before."""
        return LayerStates(self.states.hidden, self.states.mask)


def lengths_by_batch() -> dict[str, np.ndarray]:
    """Tokens of each text; the short ones are spread as in SNLI: mean about 15, the longest 40."""
    generator = np.random.default_rng(0)
    short = np.clip(np.round(generator.lognormal(np.log(13.5), 0.45, 127)), 5, 40).astype(int)
    return {"128 short texts": np.append(short, 40), "8 long texts": np.append(generator.integers(201, 221, 7), 220)}


def batch_of(backbone: Backbone, name: str, lengths: np.ndarray) -> Batch:
    """Random tokens; what they are does not change what anything costs."""
    generator = np.random.default_rng(1)
    vocabulary = backbone.model.get_input_embeddings().num_embeddings
    tokens, mask = backbone.pad([generator.integers(vocabulary // 2, vocabulary, n) for n in lengths])
    with torch.no_grad():
        return Batch(name, tokens, backbone.forward(tokens, mask, Needs.TOKENS))


def learned_fusions(shape: StateShape) -> dict[str, Fusion]:
    """Every learned fusion of the registry at its defaults, by name."""
    return {card.name: card.part(shape) for card in cards("fusion") if card.learned}


@torch.no_grad()
def backbone_forward(backbone: Backbone, batch: Batch) -> None:
    """What a fusion's cost is set beside."""
    backbone.forward(batch.tokens, batch.states.mask, Needs.TOKENS)


@torch.no_grad()
def forward(fusion: Fusion, batch: Batch) -> None:
    """As in evaluation."""
    fusion.eval()(batch.fresh())


def forward_and_backward(fusion: Fusion, batch: Batch) -> None:
    """As in training, gradients of the fusion's weights alone."""
    fusion.zero_grad()
    fusion.train()(batch.fresh()).square().mean().backward()


def milliseconds(work: Callable[[], None]) -> float:
    """Processor time of one call."""
    started = time.process_time()
    work()
    return 1e3 * (time.process_time() - started)


def measure(backbone: Backbone, fusions: Mapping[str, Fusion], batch: Batch, rounds: int) -> dict[str, Any]:
    """All fusions on one batch, the dearest first."""
    times = [one_round(backbone, fusions, batch) for _ in range(rounds + 1)][1:]  # the first warms up
    rows: list[dict[str, Any]] = []
    for name, fusion in fusions.items():
        row: dict[str, Any] = {"fusion": name, "weights": sum(weight.numel() for weight in fusion.parameters())}
        for place, part in enumerate(("forward", "both")):
            row[f"{part}_ms"] = round(statistics.median(one[name][place] for one in times), 2)
            row[f"{part}_ratio"] = round(statistics.median(one[name][place] / one["backbone"][0] for one in times), 3)
        rows.append(row)
    return {
        "batch": batch.name,
        "texts": len(batch.tokens),
        "longest": batch.tokens.shape[1],
        "mean_tokens": round(float(batch.states.mask.sum(dim=1).float().mean()), 1),
        "backbone_ms": round(statistics.median(one["backbone"][0] for one in times), 2),
        "rows": sorted(rows, key=lambda row: row["both_ratio"], reverse=True),
    }


def one_round(backbone: Backbone, fusions: Mapping[str, Fusion], batch: Batch) -> dict[str, list[float]]:
    """Milliseconds of the backbone and, by name, of each fusion: forward, then forward and backward."""
    found = {"backbone": [milliseconds(partial(backbone_forward, backbone, batch))]}
    for name, fusion in fusions.items():
        found[name] = [milliseconds(partial(run, fusion, batch)) for run in (forward, forward_and_backward)]
    return found


def markdown(report: dict[str, Any]) -> list[str]:
    """A table a batch."""
    lines = [
        "# What learned fusions cost on a processor",
        "",
        f"Ratios to one forward pass of {report['backbone']} on the same texts. Fusions at their defaults on frozen "
        "states, means over tokens included; forward in evaluation, both = forward and backward in training. "
        f"Processor time of one thread, medians of {report['rounds']} rounds of everything in turn.",
    ]
    for one in report["measured"]:
        lines += [
            "",
            f"## {one['batch']}: {one['mean_tokens']} tokens on average, {one['longest']} at most",
            "",
            f"The backbone's forward pass: {one['backbone_ms']} ms.",
            "",
            "| fusion | weights | forward, ms | ratio | both, ms | ratio |",
            "| --- | --- | --- | --- | --- | --- |",
            *(
                f"| {r['fusion']} | {r['weights']} | {r['forward_ms']} | {r['forward_ratio']} | {r['both_ms']} | "
                f"{r['both_ratio']} |"
                for r in one["rows"]
            ),
        ]
    return lines


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("results/speed"))
    flags = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    backbone = Backbone(find_backbone(DEFAULT))
    fusions = learned_fusions(backbone.shape)
    batches = [batch_of(backbone, name, lengths) for name, lengths in lengths_by_batch().items()]
    report = {
        "backbone": DEFAULT,
        "rounds": flags.rounds,
        "measured": [measure(backbone, fusions, batch, flags.rounds) for batch in batches],
    }
    write(flags.out, "cost_of_heads", report, markdown(report))


if __name__ == "__main__":
    main()
