"""Units of work: the parts of a plan that run on any worker, each as large as what its cells share.

Which units there are, and how many, decides where and when a cell is computed and nothing of its record.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fusebench.study import saved_methods
from fusebench.study.plan import Cell, Plan
from fusebench.study.run import Group, fusion_of

Stage = Literal["training", "encoding", "scoring", "fine-tuning"]


@dataclass(frozen=True)
class Unit:
    """One task of a worker.

    Attributes:
        bundles: ids of cells; those of a bundle stay together when a unit that fails is divided.
        tasks: whose texts the pass holds, also those whose cells are finished: batches stay what they were.
        template: of the pass.
        shard: of the pass, for encoding.
    """

    stage: Stage
    bundles: tuple[tuple[str, ...], ...]
    tasks: tuple[str, ...] = ()
    template: str | None = None
    shard: int = 0

    @property
    def spec_ids(self) -> tuple[str, ...]:
        """All cells of the unit."""
        return tuple(spec_id for bundle in self.bundles for spec_id in bundle)

    def halves(self) -> tuple[Unit, ...]:
        """Two units that do the same; none if it cannot be divided."""
        if self.stage == "encoding" or len(self.bundles) < 2:
            return ()
        middle = len(self.bundles) // 2
        return replace(self, bundles=self.bundles[:middle]), replace(self, bundles=self.bundles[middle:])


def training_units(plan: Plan, groups: Sequence[Group]) -> list[Unit]:
    """A unit for the methods that read the same frozen states in training, all seeds: the states are computed once.

    What a method learns does not depend on which others learn beside it.
    """
    untrained = [group for group in groups if group.method.trained and not _has_weights(plan, group)]
    return [
        Unit("training", tuple(_ids(same) for same in _grouped(sharers, lambda group: group.fusion_key)))
        for sharers in _grouped(untrained, lambda group: _reads(plan, group))
    ]


def fine_tuning_units(groups: Sequence[Group]) -> list[Unit]:
    """A unit for each backbone that is trained along: training, its pass and its scores."""
    return [
        Unit("fine-tuning", tuple(_ids([group]) for group in same), _tasks(same))
        for same in _grouped(groups, lambda group: group.fusion_key)
    ]


def encoding_units(groups: Sequence[Group], tasks: tuple[str, ...], template: str | None, shards: int) -> list[Unit]:
    """A unit for each shard of one template's pass, which serves all of these groups."""
    whole = Unit("encoding", tuple(_ids([group]) for group in groups), tasks, template)
    return [replace(whole, shard=shard) for shard in range(shards)]


def scoring_units(groups: Sequence[Group], tasks: tuple[str, ...], template: str | None, parts: int) -> list[Unit]:
    """So many units, or as many as there are groups, that score vectors from finished shards."""
    count = min(parts, len(groups))
    bounds = [len(groups) * part // count for part in range(count + 1)]
    return [
        Unit(
            "scoring",
            tuple((cell.spec.spec_id,) for group in groups[start:end] for cell in group.cells),
            tasks,
            template,
        )
        for start, end in itertools.pairwise(bounds)
    ]


def _has_weights(plan: Plan, group: Group) -> bool:
    cell = group.cells[0]
    if cell.saved is not None:
        return True
    folder = saved_methods.folder_of(plan.options.out, cell.spec, cell.method)
    return not plan.options.rerun and saved_methods.is_intact(folder)


def _reads(plan: Plan, group: Group) -> Hashable:
    """Groups that agree in it can be trained from the same stored states; no finer than what a trainer shares."""
    stem = group.method.stem
    rows = tuple((stage.spec.sha256, stage.kind) for stage in plan.training.methods[stem].stages)
    views = tuple(objective.views for objective in stem.build_objectives())
    return fusion_of(plan, group, None).needs.pooled, views, rows


def _ids(groups: Iterable[Group]) -> tuple[str, ...]:
    return tuple(cell.spec.spec_id for group in groups for cell in group.cells)


def _tasks(groups: Iterable[Group]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(cell.task.spec.name for group in groups for cell in group.cells))


def _grouped(groups: Iterable[Group], key: Callable[[Group], Hashable]) -> list[list[Group]]:
    found: dict[Hashable, list[Group]] = {}
    for group in groups:
        found.setdefault(key(group), []).append(group)
    return list(found.values())


def cells_of(plan: Plan, spec_ids: Iterable[str]) -> list[Cell]:
    """The plan's cells with these ids, in the plan's order.

    Raises:
        KeyError: if the plan lacks one.
    """
    wanted = set(spec_ids)
    found = [cell for cell in plan.cells if cell.spec.spec_id in wanted]
    if missing := wanted - {cell.spec.spec_id for cell in found}:
        raise KeyError(*sorted(missing))
    return found
