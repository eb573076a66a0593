"""What the page calls trainings whose weights a diagnosis read; those that differ in their seed only are one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from fusebench.benchmarks.diagnosis import Diagnosis, TrainedWeights

T = TypeVar("T")

FROZEN = "frozen"


class TrainingNames:
    """Names in one diagnosis; a piece of a hash tells trainings of one method with different settings apart."""

    def __init__(self, held: Diagnosis) -> None:
        weights = [one for method in held.spec.methods for one in (method.trained, method.backbone) if one]
        groups: dict[str, set[str]] = {}
        for one in weights:
            groups.setdefault(one.method, set()).add(one.group)
        self._pieces: Mapping[str, str] = {
            one.group: f" [training {one.group[:6]}]" if len(groups[one.method]) > 1 else "" for one in weights
        }

    def method(self, name: str, trained: TrainedWeights | None) -> str:
        """What a method with these weights is called."""
        return name + (self._pieces[trained.group] if trained else "")

    def backbone(self, trained: TrainedWeights | None) -> str:
        """What a backbone is called that this training fine-tuned; None is the frozen one."""
        return FROZEN if trained is None else f"tuned by {self.method(trained.method, trained)}"

    def by_backbone(self, held: Iterable[T], trained: Callable[[T], TrainedWeights | None]) -> dict[str, list[T]]:
        """What belongs to each backbone, whatever the seed of its training."""
        found: dict[str, list[T]] = {}
        for one in held:
            found.setdefault(self.backbone(trained(one)), []).append(one)
        return found
