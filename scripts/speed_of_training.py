"""Training beside sentence-transformers: fine-tuning steps, and a head on a frozen backbone.

    python scripts/speed_of_training.py --data-dir DATA [--steps 4] [--pairs 128] [--rounds 5]

Both sides train on the same pairs of SNLI (anchor, entailed) by the same loss, in-batch softmax over cosines at
temperature 0.05, in float32 with AdamW and gradients clipped at 1. Fine-tuning: batches of 64, dropout on, mean
pooling. Frozen: a two-layer head over means, ten epochs in batches of 32; sentence-transformers runs the frozen
backbone at each step, we run it once. "A further head" is our time for one more method, the states being there.
Before anything is timed, both losses must agree within 1e-4 on one batch without dropout.
Writes results/speed/speed_of_training.{json,md}.
"""

from __future__ import annotations

import argparse
import csv
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import alternated, machine, ratio, shown, write
from torch import nn

from fusebench.methods.backbone import Backbone
from fusebench.methods.backbone_source import DEFAULT, find_backbone
from fusebench.methods.engine import SharedPass
from fusebench.methods.grammar import parse
from fusebench.methods.recipe import Recipe
from fusebench.methods.row_batches import Rows
from fusebench.methods.state_sources import LiveSource, PooledSource, StateSource
from fusebench.methods.states import Needs
from fusebench.methods.trainee import Trainee
from fusebench.methods.training import TrainingLoop
from fusebench.study.freed_memory import keep_freed_memory

AGREEMENT = 1e-4
FINE_TUNED, HEAD = "mean+info-nce", "mlp+info-nce"


@dataclass(frozen=True)
class Pairs:
    """Training pairs: both sides, and all distinct texts."""

    anchors: list[str]
    positives: list[str]

    @property
    def texts(self) -> list[str]:
        """Distinct, in order."""
        return list(dict.fromkeys(self.anchors + self.positives))

    def rows(self) -> Rows:
        """As the loop takes them."""
        number = {text: place for place, text in enumerate(self.texts)}
        columns = np.array([[number[t] for t in side] for side in (self.anchors, self.positives)])
        return Rows(columns, tuple(self.anchors), None, np.arange(len(self.anchors)))


def pairs_of(data_dir: Path, count: int) -> Pairs:
    """The first pairs of the SNLI triplets, each anchor once."""
    with (data_dir / "train" / "SNLI-dev-test" / "triplets.csv").open(encoding="utf-8", newline="") as file:
        found = {row[0]: row[1] for row in list(csv.reader(file))[1:]}
    anchors = list(found)[:count]
    return Pairs(anchors, [found[anchor] for anchor in anchors])


def ours(backbone: Backbone, sentence: str, pairs: Pairs, recipe: Recipe, source: StateSource) -> float:
    """Trains a method; the loss of its first update."""
    method = parse(sentence)
    trainee = Trainee(sentence, method.build_fusion(backbone.shape), method.build_objectives(), (), recipe)
    TrainingLoop([trainee], [pairs.rows()], source, seed=0).run()
    if trainee.failure is not None:
        raise trainee.failure
    return trainee.losses[0]


def fine_tune(backbone: Backbone, pairs: Pairs, steps: int) -> float:
    """All weights, from the tokens on."""
    source = LiveSource(backbone.trainable_copy(), pairs.texts, Needs.MEANS, train=True)
    return ours(backbone, FINE_TUNED, pairs, Recipe(epochs=None, steps=steps, batch_size=64), source)


def pass_over(backbone: Backbone, pairs: Pairs) -> PooledSource:
    """Stored means of all texts."""
    shared = SharedPass(backbone, {HEAD: parse(HEAD).build_fusion(backbone.shape)})
    shared.ensure(pairs.texts)
    return PooledSource(shared, {}, pairs.texts)


def peer(folder: Path, pairs: Pairs, *, frozen: bool, **arguments: Any) -> Callable[[], None]:
    """The same training by SentenceTransformerTrainer, its model loaded beforehand."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.modules import Dense

    model = SentenceTransformer(str(folder), device="cpu")
    if frozen:
        model.requires_grad_(False)
        width = parse(HEAD).build_fusion(Backbone(find_backbone(DEFAULT)).shape).widen.out_features
        dim = model.get_embedding_dimension()
        model = SentenceTransformer(
            modules=[*list(model)[:2], Dense(dim, width, activation_function=nn.GELU()), Dense(width, dim)],
            device="cpu",
        )
    model.model_card_data.generate_widget_examples = False  # the training alone counts
    data = Dataset.from_dict({"anchor": pairs.anchors, "positive": pairs.positives})

    def work() -> None:
        with tempfile.TemporaryDirectory() as out:
            settings = SentenceTransformerTrainingArguments(
                out,
                use_cpu=True,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                **arguments,
            )
            loss = MultipleNegativesRankingLoss(model, scale=20.0)
            SentenceTransformerTrainer(model=model, args=settings, train_dataset=data, loss=loss).train()

    return work


def check(backbone: Backbone, folder: Path, pairs: Pairs) -> float:
    """Difference of the two sides' losses on one batch, without dropout."""
    from sentence_transformers import SentenceTransformer, util

    objective = parse(FINE_TUNED).build_objectives()[0]
    states = LiveSource(backbone, pairs.texts, Needs.MEANS).states(pairs.rows().columns[:, :64].reshape(-1), None)
    mine = objective(list(states.mean(-1).chunk(2)))
    stock = SentenceTransformer(str(folder), device="cpu")
    a, b = (stock.encode(side[:64], convert_to_tensor=True) for side in (pairs.anchors, pairs.positives))
    theirs = nn.functional.cross_entropy(util.cos_sim(a, b) * 20.0, torch.arange(64))
    return abs(float(mine) - float(theirs))


def main() -> None:
    """Measures, checks, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/speed"))
    flags = parser.parse_args()
    keep_freed_memory()
    logging.disable(logging.WARNING)
    source = find_backbone(DEFAULT)
    backbone = Backbone(source)
    many, few = pairs_of(flags.data_dir, 64 * flags.steps), pairs_of(flags.data_dir, flags.pairs)
    worst = check(backbone, source.folder, many)
    if worst > AGREEMENT:
        raise SystemExit(f"the losses differ by {worst:.1e}, so the two sides do not do the same work")
    stored, recipe = pass_over(backbone, few), Recipe(epochs=10, batch_size=32)
    common = {"max_grad_norm": 1.0, "weight_decay": 0.01, "warmup_steps": 0}
    seconds = alternated(
        {
            "fine-tuning": lambda: fine_tune(backbone, many, flags.steps),
            "fine-tuning, peer": peer(
                source.folder, many, frozen=False, per_device_train_batch_size=64, max_steps=flags.steps, **common
            ),
            "head": lambda: ours(backbone, HEAD, few, recipe, pass_over(backbone, few)),
            "further head": lambda: ours(backbone, HEAD, few, recipe, stored),
            "head, peer": peer(
                source.folder, few, frozen=True, per_device_train_batch_size=32, num_train_epochs=10, **common
            ),
        },
        flags.rounds,
    )
    report = {
        "loss_difference": worst,
        "fine_tuning": ratio(seconds["fine-tuning, peer"], seconds["fine-tuning"]),
        "head": ratio(seconds["head, peer"], seconds["head"]),
        "further_head": ratio(seconds["head, peer"], seconds["further head"]),
        "seconds": {name: [round(s, 3) for s in values] for name, values in seconds.items()},
    }
    here = machine()
    table = [
        "# Training beside sentence-transformers",
        "",
        f"{DEFAULT}, float32, {here['processor']}, {here['cores']} cores, torch {here['torch']}. Wall time of "
        f"SentenceTransformerTrainer over ours; medians of {flags.rounds} rounds of all variants in turn, lowest and "
        f"highest in brackets. Losses on the same batch differ by {worst:.1e}.",
        "",
        "| training | times as fast |",
        "| --- | --- |",
        f"| fine-tuning, {flags.steps} updates of 64 pairs | {shown(report['fine_tuning'])} |",
        f"| a head over frozen means, 10 epochs of {flags.pairs} pairs, with its pass | {shown(report['head'])} |",
        f"| a further head | {shown(report['further_head'])} |",
    ]
    write(flags.out, "speed_of_training", report, table)


if __name__ == "__main__":
    main()
