"""The texts and pairs of a task that a diagnosis measures, drawn where there are too many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusebench.benchmarks.positive_pairs import positive_pairs
from fusebench.benchmarks.record import Prompts
from fusebench.benchmarks.tasks import LoadedTask


@dataclass(frozen=True)
class Sample:
    """Texts as the backbone reads them, prompts included.

    Attributes:
        texts: distinct.
        left: first texts of pairs that belong together.
        right: the second ones.
        texts_of_task: how many distinct ones there are.
        pairs_of_task: how many such pairs there are.
        rule: which pairs these are.
    """

    task: LoadedTask
    texts: tuple[str, ...]
    left: tuple[str, ...]
    right: tuple[str, ...]
    texts_of_task: int
    pairs_of_task: int
    rule: str

    def every_text(self) -> list[str]:
        """All that must go through the backbone."""
        return [*self.texts, *self.left, *self.right]


def draw(task: LoadedTask, prompts: Prompts, *, limit: int, seed: int) -> Sample:
    """At most `limit` texts and as many pairs, drawn without replacement and kept in the task's order."""
    texts = list(dict.fromkeys(getattr(prompts, role) + text for role, text in task.inputs()))
    found = positive_pairs(task)
    pairs = [tuple(getattr(prompts, role) + text for role, text in pair) for pair in found.pairs]
    generator = np.random.default_rng(seed)
    of_texts, of_pairs = _places(len(texts), limit, generator), _places(len(pairs), limit, generator)
    return Sample(
        task=task,
        texts=tuple(texts[place] for place in of_texts),
        left=tuple(pairs[place][0] for place in of_pairs),
        right=tuple(pairs[place][1] for place in of_pairs),
        texts_of_task=len(texts),
        pairs_of_task=len(pairs),
        rule=found.rule,
    )


def _places(count: int, limit: int, generator: np.random.Generator) -> list[int]:
    if count <= limit:
        return list(range(count))
    return sorted(generator.choice(count, size=limit, replace=False).tolist())
