"""A pool without Ray: units are done at once, in this process, and some are lost on request."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from fusebench.study.dispatch import Returned
from fusebench.study.unit_work import Job, work
from fusebench.study.units import Unit


@dataclass
class PoolInProcess:
    """See `Pool`.

    Attributes:
        loses: whether a unit is lost; asked before it is done.
        done: every unit that was submitted, in order.
    """

    job: Job
    slots: int = 2
    loses: Callable[[Unit], bool] = lambda unit: False
    done: list[Unit] = field(default_factory=list)
    _back: list[Returned] = field(default_factory=list)

    def share(self, value: Any) -> Any:
        """What a unit takes is a copy, as it is between processes."""
        return pickle.dumps(value)

    def submit(self, unit: Unit, *inputs: Any) -> None:
        """Does the unit."""
        self.done.append(unit)
        if self.loses(unit):
            self._back.append(Returned(unit, None, loss="its worker was lost"))
            return
        before = torch.get_num_threads()
        unit = pickle.loads(pickle.dumps(unit))
        report, shard = work(pickle.loads(pickle.dumps(self.job)), unit, *map(pickle.loads, inputs))
        torch.set_num_threads(before)
        self._back.append(Returned(unit, pickle.loads(pickle.dumps(report)), self.share(shard)))

    def returned(self) -> list[Returned]:
        """The units that have come back, one at a time."""
        return [self._back.pop(0)]
