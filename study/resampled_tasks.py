"""Evidence resampled in both ways: over items and, where items share texts, over clusters of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fusebench.benchmarks.bootstrap import Floats
from fusebench.benchmarks.comparison import Resampled
from fusebench.benchmarks.resampling import TaskEvidence, resample
from fusebench.study.evidence import Evidence


@dataclass(frozen=True, eq=False)
class BothSchemes:
    """The same comparison over items and, where any task has clusters, over clusters."""

    items: Resampled
    clusters: Resampled | None

    @property
    def schemes(self) -> list[Resampled]:
        """Those that there are, items first."""
        return [self.items] if self.clusters is None else [self.items, self.clusters]

    @property
    def careful(self) -> Resampled:
        """Over clusters, where there are any: what shared texts say twice counts once."""
        return self.clusters or self.items


def resample_both(evidence: Evidence, *, seed: int, resamples: int) -> BothSchemes:
    """The same number of resamples of either kind.

    Raises:
        InputError: a task has too few items.
    """
    clustered = any(part.clusters.kind != "items" for task in evidence.tasks for part in task.parts)
    items = resample(evidence.contenders, evidence.tasks, "items", seed=seed, resamples=resamples)
    if not clustered:
        return BothSchemes(items, None)
    return BothSchemes(
        items, resample(evidence.contenders, evidence.tasks, "clusters", seed=seed, resamples=resamples)
    )


def single_tasks(evidence: Evidence) -> dict[str, Floats]:
    """Weights that pick one task each."""
    names = [task.name for task in evidence.tasks]
    return dict(zip(names, np.eye(len(names)), strict=True))


def drawn_sentences(tasks: tuple[TaskEvidence, ...]) -> Iterator[str]:
    """A sentence a task: how many items it has and what is drawn of them."""
    for task in tasks:
        counts = [
            f"{part.values.shape[1]} items"
            + {
                "items": ", each by itself",
                "groups": f" in {part.clusters.units} groups that share texts",
                "nodes": f" of {part.clusters.units} texts, which are drawn",
            }[part.clusters.kind]
            for part in task.parts
        ]
        yield f"{task.name}: {'; '.join(counts)}"
