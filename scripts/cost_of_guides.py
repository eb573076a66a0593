"""What mdg and pdg cost in a training step: forward and backward of the default backbone, batch 32.

    python scripts/cost_of_guides.py [--rounds 5] [--device cuda]

Every round runs all variants, one after the other; ratios are taken within a round, and their median is reported.
On a processor the step runs on one thread and its processor time counts, which others on the machine hardly move.
`eager` is what guides cost without further work: the whole model under eager attention, every map returned. `here` is
`Backbone.forward` with `map_blocks`. Before anything is timed, both must give the same penalties and the same
gradients without dropout. Memory is what the graph keeps for the backward pass: distinct storages, weights apart.
Writes results/speed/cost_of_guides.{json,md}; six minutes of one core.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import write

from fusebench.methods.attention_guides import MapDiscrimination, PatternDecorrelation
from fusebench.methods.backbone import Backbone
from fusebench.methods.backbone_source import DEFAULT, find_backbone
from fusebench.methods.parts import Guide
from fusebench.methods.states import LayerStates, Needs

BATCH, LENGTHS = 32, (32, 128)
AGREEMENT = 1e-4  # of gradients, relative to the largest
PLAIN = "no guide, fused"


@dataclass(frozen=True)
class Variant:
    """One way to make a training step."""

    name: str
    backbone: Backbone
    guide: Guide | None = None
    eager: bool = False

    def loss(self, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The task's loss with the weighted penalty, and the penalty alone."""
        states = self._states(tokens, mask)
        penalty = states.hidden[0].new_zeros(()) if self.guide is None else self.guide(states)
        factor = 0.0 if self.guide is None else self.guide.factor
        return states.mean(-1).square().mean() + factor * penalty, penalty

    def _states(self, tokens: torch.Tensor, mask: torch.Tensor) -> LayerStates:
        if self.eager:
            out = self.backbone.model(
                input_ids=tokens, attention_mask=mask.long(), output_hidden_states=True, output_attentions=True
            )
            return LayerStates(out.hidden_states, mask, dict(enumerate(out.attentions, start=1)))
        if self.guide is None:
            return self.backbone.forward(tokens, mask, Needs.TOKENS)
        return self.backbone.forward(tokens, mask, Needs.TOKENS | Needs.ATTENTION, map_blocks=self.guide.blocks)


def variants(frozen: Backbone) -> list[Variant]:
    """A copy for fused attention, one for maps of chosen blocks, one for eager attention; equal weights."""
    fused, chosen, eager = (frozen.trainable_copy() for _ in range(3))
    eager.model.set_attn_implementation("eager")
    last = str(frozen.shape.blocks)
    made = [Variant(PLAIN, fused)]
    for name, guide in (("pdg", PatternDecorrelation), ("mdg", MapDiscrimination)):
        made += [
            Variant(f"{name}, eager, all blocks", eager, guide(), eager=True),
            Variant(f"{name}, here, all blocks", chosen, guide()),
            Variant(f"{name}, here, last block", chosen, guide(layers=last)),
        ]
    return made


def batch_of(backbone: Backbone, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random tokens; texts of half the length to the whole."""
    generator = np.random.default_rng(0)
    lengths = [longest, *generator.integers(longest // 2, longest + 1, BATCH - 1)]
    vocabulary = backbone.model.get_input_embeddings().num_embeddings
    return backbone.pad([generator.integers(vocabulary // 2, vocabulary, n) for n in lengths])


def gradients(variant: Variant, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[float, dict[str, torch.Tensor]]:
    """The penalty, and its gradient by weight."""
    variant.backbone.model.zero_grad()
    _, penalty = variant.loss(tokens, mask)
    penalty.backward()  # type: ignore[no-untyped-call]
    named = variant.backbone.model.named_parameters()
    return penalty.item(), {name: weight.grad for name, weight in named if weight.grad is not None}


def largest_difference(eager: Variant, here: Variant, tokens: torch.Tensor, mask: torch.Tensor) -> float:
    """Of penalties and of gradients, relative to the largest of each."""
    for variant in (eager, here):
        variant.backbone.model.eval()
    (expected, references), (found, given) = (gradients(variant, tokens, mask) for variant in (eager, here))
    largest = max(float(gradient.abs().max()) for gradient in references.values())
    # A weight behind the last map has no gradient on one path and a gradient of 0 on the other.
    names = references.keys() | given.keys()
    zero = torch.zeros((), device=tokens.device)
    gaps = [float((references.get(name, zero) - given.get(name, zero)).abs().max()) for name in names]
    return max(abs(found - expected) / abs(expected), max(gaps) / largest)


def seconds(variant: Variant, tokens: torch.Tensor, mask: torch.Tensor) -> float:
    """Of one forward and backward pass: by the clock on a GPU, of processor time on a processor."""
    now = time.perf_counter if tokens.is_cuda else time.process_time
    variant.backbone.model.zero_grad()
    _wait(tokens)
    started = now()
    variant.loss(tokens, mask)[0].backward()  # type: ignore[no-untyped-call]
    _wait(tokens)
    return now() - started


def kept_megabytes(variant: Variant, tokens: torch.Tensor, mask: torch.Tensor) -> float:
    """What one forward pass keeps for the backward pass."""
    weights = {weight.untyped_storage().data_ptr() for weight in variant.backbone.model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would hold the graph that holds it, and neither would ever go

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = variant.loss(tokens, mask)
    del loss  # until here the graph kept every storage alive, so no address was counted for two
    return sum(kept.values()) / 1e6


def measure(made: list[Variant], longest: int, dropout: bool, rounds: int) -> dict[str, Any]:
    """All variants on texts of one length, with the backbone's own dropout or without."""
    tokens, mask = batch_of(made[0].backbone, longest)
    pairs = [(eager, here) for eager, here in itertools.pairwise(made) if eager.eager]
    worst = max(largest_difference(eager, here, tokens, mask) for eager, here in pairs)
    if worst > AGREEMENT:
        raise SystemExit(f"penalties or gradients differ by {worst:.2e}, so the two paths do not do the same work")
    for variant in made:
        variant.backbone.model.train(dropout)
        seconds(variant, tokens, mask)  # warms up
    times = [{variant.name: seconds(variant, tokens, mask) for variant in made} for _ in range(rounds)]
    rows = []
    for variant in made:
        own = [one[variant.name] for one in times]
        rows.append(
            {
                "variant": variant.name,
                "seconds": round(statistics.median(own), 4),
                "ratio": round(statistics.median(t / one[PLAIN] for t, one in zip(own, times, strict=True)), 3),
                "all_seconds": [round(t, 4) for t in own],
                "kept_megabytes": round(kept_megabytes(variant, tokens, mask), 1),
            }
        )
    return {"tokens": longest, "dropout": dropout, "largest_difference": worst, "rows": rows}


def _wait(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


def main() -> None:
    """Measures, checks, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("results/speed"))
    flags = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    made = variants(Backbone(find_backbone(DEFAULT), device=flags.device))
    cuda = flags.device.startswith("cuda")
    report = {
        "backbone": DEFAULT,
        "batch": BATCH,
        "rounds": flags.rounds,
        "measured": [measure(made, n, dropout, flags.rounds) for dropout in (True, False) for n in LENGTHS],
        "device": torch.cuda.get_device_name() if cuda else "one thread of a processor (processor time)",
    }
    write(flags.out, "cost_of_guides", report, markdown(report))


def markdown(report: dict[str, Any]) -> list[str]:
    """A table for each length, with the backbone's dropout and without."""
    lines = [
        "# What attention guides cost in a training step",
        "",
        f"{report['backbone']}, batch {report['batch']}, forward and backward, on {report['device']}; "
        f"texts of half the length to the whole. Medians of {report['rounds']} rounds of all variants in turn; "
        "ratios are within a round, to the step without a guide under fused attention. `eager` returns every map "
        "of the model, `here` computes the maps of chosen blocks and the rest fused. Memory is what the graph keeps "
        "for the backward pass, weights apart.",
    ]
    for one in report["measured"]:
        lines += [
            "",
            f"## {one['tokens']} tokens, {'with' if one['dropout'] else 'without'} dropout",
            "",
            "| step | seconds | ratio | MB kept |",
            "| --- | --- | --- | --- |",
            *(f"| {r['variant']} | {r['seconds']} | {r['ratio']} | {r['kept_megabytes']} |" for r in one["rows"]),
        ]
    return lines


if __name__ == "__main__":
    main()
