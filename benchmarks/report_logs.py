"""Training logs as curves: losses, dev scores and layer weights by update."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

_WEIGHT = "layer_weight."
_OF_GUIDE = re.compile(r"\.(penalty|entropy|first_token_share|map_cosine)$")
_BINS = 80


@dataclass(frozen=True)
class TrainingCurve:
    """What one training of one method logged.

    Attributes:
        layer_weights: those of the last update that has any.
        guides: what its guides logged of the attention maps, by name: the first value and the last.
    """

    method: str
    seed: int | None
    training_id: str
    learning_rates: tuple[float | None, float | None]  # of the backbone, of new weights
    losses: Mapping[int, float]
    dev_scores: Mapping[int, float]
    layer_weights: Mapping[int, float]
    guides: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def updates(self) -> int:
        """The last update that was logged."""
        return max([0, *self.losses, *self.dev_scores])


def read_curves(folder: Path) -> tuple[list[TrainingCurve], list[tuple[Path, str]]]:
    """The logs of a folder `training`, by method and seed, and the files that are none, with the reason.

    The half line that an interrupted training leaves at the end is passed over.
    """
    curves, rejected = [], []
    for path in sorted(folder.glob("*.jsonl")):
        try:
            curves.append(_curve(_events(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            reason = error.strerror or "cannot be read" if isinstance(error, OSError) else f"is no log ({error!r})"
            rejected.append((path, reason))
    return sorted(curves, key=lambda c: (c.method, -1 if c.seed is None else c.seed, c.training_id)), rejected


def bin_width(curves: Iterable[TrainingCurve]) -> int:
    """How many updates one point of a loss curve stands for."""
    return max(1, math.ceil(max((curve.updates for curve in curves), default=0) / _BINS))


def binned(losses: Mapping[int, float], width: int) -> dict[int, float]:
    """The mean loss of each `width` updates, by the last update of the bin."""
    bins: dict[int, list[float]] = defaultdict(list)
    for update, loss in losses.items():
        bins[math.ceil(update / width) * width].append(loss)
    return {update: fmean(held) for update, held in sorted(bins.items())}


def mean_curve(curves: list[dict[int, float]]) -> dict[int, float]:
    """The mean over curves, at the updates that all of them have."""
    shared = sorted(set.intersection(*map(set, curves))) if curves else []
    return {update: fmean(curve[update] for curve in curves) for update in shared}


def _events(text: str) -> Iterator[dict[str, Any]]:
    whole, _, _ = text.rpartition("\n")
    for line in whole.splitlines():
        yield json.loads(line)


def _curve(events: Iterable[dict[str, Any]]) -> TrainingCurve:
    config: dict[str, Any] = {}
    losses: dict[int, float] = {}
    dev_scores: dict[int, float] = {}
    weights: dict[int, float] = {}
    guides: dict[str, tuple[float, float]] = {}
    for event in events:
        config = event.get("config", config)
        if isinstance(loss := event.get("loss"), int | float):
            losses[int(event["update"])] = float(loss)
        if isinstance(score := event.get("dev_score"), int | float):
            dev_scores[int(event["update"])] = float(score)
        if own := {int(k.removeprefix(_WEIGHT)): v for k, v in event.items() if k.startswith(_WEIGHT)}:
            weights = own
        for name, value in event.items():
            if _OF_GUIDE.search(name) and isinstance(value, int | float):
                guides[name] = guides.get(name, (float(value),))[0], float(value)
    if not isinstance(method := config["method"], str):
        raise ValueError("its method is no text")
    if not isinstance(seed := config["seed"], int | None):
        raise ValueError("its seed is no number")
    return TrainingCurve(
        method=method,
        seed=seed,
        training_id=str(config["training_id"]),
        learning_rates=(config.get("learning_rate"), config.get("learning_rate_new")),
        losses=losses,
        dev_scores=dev_scores,
        layer_weights={layer: float(share) for layer, share in weights.items() if share is not None},
        guides=guides,
    )
