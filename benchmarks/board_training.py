"""What the trained rows of a board were given and what their training took."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from fusebench.benchmarks.board_rows import Row, row_labels
from fusebench.benchmarks.board_table import MISSING, Estimate, Table, estimate
from fusebench.benchmarks.board_words import counted, listed, span, text_set
from fusebench.benchmarks.record import Training, TrainingSpec

_PRECISION = {"no": "no mixed precision", "bf16": "mixed precision in bfloat16", "fp16": "mixed precision in float16"}
_COLUMNS = [
    *["method", "regime", "trained on", "states read", "updates", "examples", "trials", "trained parameters"],
    *["training s", "learning rate (backbone)", "learning rate (new)", "best update", "dev score"],
]


def training_table(rows: Sequence[Row]) -> Table | None:
    """Method by what its training took, means over seeds; None where nothing was trained here."""
    labelled = sorted(zip(row_labels(list(rows)), rows, strict=True), key=lambda pair: pair[0])
    lines = [_line(label, row) for label, row in labelled if row.trainings]
    return Table.of(_COLUMNS, lines) if lines else None


def training_lines(rows: Sequence[Row]) -> list[str]:
    """The equal budget of the trained rows, and where what they used of it was not equal."""
    trained = [row for row in rows if row.trained]
    if not trained:
        return []
    spec = trained[0].records[0].spec
    free = len(rows) - len(trained)
    budget = _budget(spec.train, spec.regime) if spec.train else "Training: not recorded, the weights came as saved."
    saved = [label for label, row in zip(row_labels(list(rows)), rows, strict=True) if row.key.weights_sha256]
    return [
        budget,
        *[f"Training-free rows, which had no part in this: {free} of {len(rows)}."] * bool(free),
        *[f"Weights loaded as they were saved, not trained in these runs: {listed(saved)}."] * bool(saved),
        *_differences(rows),
    ]


def _budget(train: TrainingSpec, regime: str) -> str:
    length = counted(train.epochs or 0, "epoch") if train.steps is None else counted(train.steps, "update")
    first = "" if train.limit is None else f", the first {train.limit} rows of each"
    batch = f"batch size {train.batch_size}" + f" x {train.accumulate} batches an update" * (train.accumulate > 1)
    rates = [f"{train.learning_rate_new:g} (new weights)"]
    rates += [f"{train.learning_rate:g} (backbone)"] * (regime == "finetune")
    looks = f" every {counted(train.dev_every, 'update')}" if train.dev_every else ""
    facts = [
        f"{length} on rows from {', '.join(train.data)}{first}",
        batch,
        *([f"{train.chunk} texts through the backbone at a time"] if train.chunk else []),
        f"learning rate {', '.join(rates)}, rising over {100 * train.warmup:g} % of the updates, then falling to 0",
        *([f"{train.trials} learning rates tried, the best on the dev rows kept"] if train.trials > 1 else []),
        f"weight decay {train.weight_decay:g}",
        f"gradient norm at most {train.max_grad_norm:g}",
        _PRECISION[train.precision],
        f"dev: {text_set(train.dev)}{looks}" if train.dev else "dev: none, the last weights count",
    ]
    return f"Training of every trained row: {'; '.join(facts)}."


def _differences(rows: Sequence[Row]) -> list[str]:
    used: dict[str, list[str]] = defaultdict(list)
    for label, row in zip(row_labels(list(rows)), rows, strict=True):
        if row.trainings:
            updates, examples = (span(t.updates for t in row.trainings), span(t.examples for t in row.trainings))
            used[f"{updates} updates on {examples} examples"].append(label)
    told = [f"{budget}: {listed(labels)}" for budget, labels in sorted(used.items(), key=lambda item: item[1])]
    return [f"Budgets differ: {'; '.join(told)}."] if len(told) > 1 else []


def _line(label: str, row: Row) -> dict[str, str | float | Estimate]:
    spec, held = row.records[-1].spec, row.trainings
    # With a frozen backbone its learning rate says nothing.
    backbone_rates = listed(t.learning_rate for t in held) if spec.regime == "finetune" else ""
    cells: list[str | float | Estimate] = [
        *[label, spec.regime, ", ".join(f"{one.name} ({one.count} {one.kind})" for one in row.key.trained_on)],
        listed(t.states for t in held),
        *(span(getattr(t, name) for t in held) for name in ("updates", "examples", "trials", "trained_parameters")),
        fmean(t.seconds for t in held),
        *[backbone_rates, listed(t.learning_rate_new for t in held)],
        _best_update(held),
        _dev_score(held),
    ]
    return dict(zip(_COLUMNS, cells, strict=True))


def _best_update(held: Sequence[Training]) -> str:
    chosen = [t.best_update for t in held if t.best_update is not None]
    return "last" if not chosen else span(chosen) + ", last" * (len(chosen) < len(held))


def _dev_score(held: Sequence[Training]) -> Estimate:
    scores = [math.nan if t.dev_score is None else 100 * t.dev_score for t in held]
    return MISSING if any(map(math.isnan, scores)) else estimate(scores)
