"""What a plan will take, before anything of it is run: cells, passes, trainings, texts, seconds, memory."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fusebench.methods.grammar import Method, parse
from fusebench.methods.parts import Fusion
from fusebench.methods.seeding import seeded
from fusebench.methods.state_sources import CachedTokenSource
from fusebench.methods.states import Needs
from fusebench.study import saved_methods
from fusebench.study.calibration import Calibration
from fusebench.study.environment import peak_memory_mb
from fusebench.study.plan import Cell, Plan
from fusebench.study.train import Wanted
from fusebench.study.training_data import TrainRows
from fusebench.study.training_texts import texts_of

_COUNTED = 20_000  # texts that are tokenised; of more, so many are drawn
_FORWARD = 1 / 3  # of an update's time goes into the forward half
_LOOKS = 4  # at the dev rows, unless --dev-every says otherwise


@dataclass(frozen=True)
class Estimate:
    """Seconds and gigabytes are estimates, the rest is counted; work that was done before is not in it.

    Attributes:
        passes: of the backbone over the tasks' texts.
        texts: distinct, of all passes over tasks and training rows.
        tokens: of these, each as often as it goes through the backbone, backbone updates aside.
    """

    name: str
    cells: int
    there: int
    passes: int = 0
    trainings: int = 0
    texts: int = 0
    tokens: int = 0
    pass_seconds: float = 0.0
    training_seconds: float = 0.0
    scoring_seconds: float = 0.0
    loading_seconds: float = 0.0
    memory_gb: float = 0.0

    @property
    def seconds(self) -> float:
        """All in all."""
        return self.pass_seconds + self.training_seconds + self.scoring_seconds + self.loading_seconds


@dataclass(frozen=True)
class _Size:
    texts: int
    lengths: np.ndarray  # of the texts that were tokenised

    @property
    def tokens(self) -> int:
        return round(float(self.lengths.mean()) * self.texts) if self.texts else 0


def estimate(
    plan: Plan, there: Collection[str], calibration: Calibration, *, name: str = "", loading_seconds: float = 0.0
) -> Estimate:
    """What is left to do of a plan.

    Args:
        plan: with everything loaded.
        there: identities of the cells that are finished, or that another run of the sweep will have finished.
        calibration: what work costs here.
        name: of the run.
        loading_seconds: that making the plan took.
    """
    todo = [cell for cell in plan.cells if cell.spec.spec_id not in there]
    whole = Estimate(name, len(plan.cells), len(plan.cells) - len(todo), loading_seconds=loading_seconds)
    if not todo:
        return whole
    whole = _with_trainings(whole, plan, todo, calibration)
    whole = _with_passes(whole, plan, todo, calibration)
    per_cell = calibration.scoring_seconds(
        [task for task in plan.tasks if any(cell.task is task for cell in todo)], plan.backbone.shape.dim
    )
    scoring = sum(per_cell[cell.task.spec.name] for cell in todo)
    gigabytes = whole.memory_gb + peak_memory_mb() / 1e3
    return dataclasses.replace(whole, scoring_seconds=scoring, memory_gb=gigabytes)


def _with_passes(whole: Estimate, plan: Plan, todo: Sequence[Cell], calibration: Calibration) -> Estimate:
    """One pass a template over the frozen backbone, and one over each fine-tuned one."""
    tuned = Counter(_weights(cell) for cell in todo if cell.spec.regime == "finetune")
    frozen = [cell for cell in todo if cell.spec.regime != "finetune"]
    by_backbone = [frozen] * bool(frozen) + [[c for c in todo if _weights(c) == key] for key in tuned]
    fit = [plan.options.prompts.text + text for text in plan.fit.texts] if plan.fit else []
    for cells in by_backbone:
        tasks = {cell.task.spec.name: cell.task for cell in cells}
        texts = [getattr(plan.options.prompts, role) + text for t in tasks.values() for role, text in t.inputs()]
        for fusions in _by_template(plan, cells).values():
            distinct = list(dict.fromkeys([*texts, *fit]))
            template = next(iter(fusions.values())).template
            size = _size(plan, distinct, template)
            rate = calibration.token_seconds(plan, fusions, distinct)
            gigabytes = size.texts * _stored_bytes(fusions, plan.backbone.shape.dim) / 1e9
            whole = dataclasses.replace(
                whole,
                passes=whole.passes + 1,
                texts=whole.texts + size.texts,
                tokens=whole.tokens + size.tokens,
                pass_seconds=whole.pass_seconds + size.tokens * rate,
                memory_gb=max(whole.memory_gb, gigabytes),
            )
    return whole


def _weights(cell: Cell) -> tuple[str, int | None]:
    return cell.method.stem.name, cell.seed


def _by_template(plan: Plan, cells: Iterable[Cell]) -> dict[str | None, dict[str, Fusion]]:
    """The fusions of one pass each, built as they start; methods with the same weights share one."""
    built: dict[str | None, dict[str, Fusion]] = {}
    for cell in cells:
        key = f"{cell.method.stem.name} seed {cell.seed}" if cell.method.random else str(cell.method.fusion)
        if not any(key in fusions for fusions in built.values()):
            fusion = _fusion(plan, cell.method.stem, cell.seed)
            built.setdefault(fusion.template, {})[key] = fusion
    return built


def _fusion(plan: Plan, method: Method, seed: int | None) -> Fusion:
    with seeded(seed or 0, torch.device("cpu")):
        return method.build_fusion(plan.backbone.shape)


def _stored_bytes(fusions: Mapping[str, Fusion], dim: int) -> int:
    """Bytes a text that a pass keeps for these fusions, and one method's vector more."""
    pooled = {
        (flag, layer)
        for fusion in fusions.values()
        if fusion.needs.pooled
        for flag in (Needs.MEANS, Needs.FIRSTS)
        if flag in fusion.needs
        for layer in fusion.layers
    }
    live = sum(fusion.out_dim for fusion in fusions.values() if not fusion.needs.pooled)
    return 4 * (len(pooled) * dim + live + max(fusion.out_dim for fusion in fusions.values()))


def _size(plan: Plan, texts: Sequence[str], template: str | None) -> _Size:
    drawn = np.random.default_rng(0).permutation(len(texts))[:_COUNTED]
    ids = plan.backbone.tokenize([texts[place] for place in drawn], template).ids
    return _Size(len(texts), np.array([len(row) for row in ids]))


def _with_trainings(whole: Estimate, plan: Plan, todo: Sequence[Cell], calibration: Calibration) -> Estimate:
    """The trainings whose weights are not there, and the passes over their rows that frozen ones read from."""
    wanted: dict[tuple[str, int | None], Wanted] = {}
    for cell in todo:
        if not cell.method.trained or cell.saved is not None:
            continue
        stem, folder = cell.method.stem, saved_methods.folder_of(plan.options.out, cell.spec, cell.method)
        if plan.options.rerun or not saved_methods.is_saved(folder):
            wanted.setdefault(_weights(cell), Wanted(stem, cell.seed or 0, cell.spec, plan.training.methods[stem]))
    if not wanted:
        return whole
    once = {one.method: one for one in wanted.values()}  # an update costs the same with every seed
    states = [_states_of(plan, group) for group in _sharers(plan, once.values())]
    update = calibration.update_seconds(plan, list(once.values()), live=any(one.live for one in states))
    seconds = sum(_training_seconds(plan, one, update.get(once[one.method], 0.0)) for one in wanted.values())
    tokens = sum(one.passes * one.size.tokens for one in states)
    if tokens:
        bare = {"mean": parse("mean").on(plan.backbone.shape)[0].build_fusion(plan.backbone.shape)}
        seconds += tokens * calibration.token_seconds(plan, bare, states[0].texts)
    return dataclasses.replace(
        whole,
        trainings=len(wanted) * plan.options.training.trials,
        texts=whole.texts + sum(one.size.texts for one in states),
        tokens=whole.tokens + tokens,
        training_seconds=seconds,
        memory_gb=max((one.gigabytes for one in states), default=0.0),
    )


@dataclass(frozen=True)
class _States:
    """What frozen trainings read of the backbone.

    Attributes:
        passes: over the texts before the first update; none where the backbone runs live on each batch.
        gigabytes: kept in memory; token states lie on disk.
    """

    texts: list[str]
    size: _Size
    passes: int
    live: bool
    gigabytes: float


def _sharers(plan: Plan, trainings: Iterable[Wanted]) -> list[list[Wanted]]:
    """The frozen ones, by whether they read the same states of the same rows."""
    groups: dict[object, list[Wanted]] = {}
    for one in trainings:
        if one.spec.regime == "frozen" and one.plan is not None:
            rows = tuple((stage.spec.sha256, stage.kind) for stage in one.plan.stages)
            views = tuple(objective.views for objective in one.method.build_objectives())
            key = _fusion(plan, one.method, one.seed).needs.pooled, views, rows
            groups.setdefault(key, []).append(one)
    return list(groups.values())


def _states_of(plan: Plan, group: Sequence[Wanted]) -> _States:
    texts = texts_of(plan, [one.plan for one in group if one.plan])
    size, dim = _size(plan, texts, None), plan.backbone.shape.dim
    fusions = {one.method.name: _fusion(plan, one.method, one.seed) for one in group}
    views = 3 if any(objective.views > 1 for objective in group[0].method.build_objectives()) else 1
    if next(iter(fusions.values())).needs.pooled:
        return _States(texts, size, views, False, views * size.texts * _stored_bytes(fusions, dim) / 1e9)
    layers = {layer for fusion in fusions.values() for layer in fusion.layers}
    drawn = CachedTokenSource.gigabytes(size.lengths, len(layers), dim, views)
    live = drawn * size.texts / len(size.lengths) > plan.options.training.state_cache_gb
    return _States(texts, size, 0 if live else views, live, 0.0)


def _training_seconds(plan: Plan, one: Wanted, update_seconds: float) -> float:
    """Of all updates of all trials, and of the looks at the dev rows in between, by their tokens."""
    asked, dev = plan.options.training, plan.training.dev
    assert one.plan is not None
    first = one.plan.stages[0]
    updates = sum(asked.recipe.updates([stage.spec.count for stage in one.plan.stages]))
    seconds = updates * update_seconds
    if dev is not None:
        texts = len(first.columns) * asked.recipe.batch_size * asked.recipe.accumulate
        tokens = texts * _rows_size(plan, first).lengths.mean()
        looks = math.ceil(updates / (asked.dev_every or math.ceil(updates / _LOOKS)))
        seconds += looks * _rows_size(plan, dev).tokens * _FORWARD * update_seconds / tokens
    return seconds * asked.trials


def _rows_size(plan: Plan, rows: TrainRows) -> _Size:
    return _size(plan, list(dict.fromkeys(text for column in rows.columns for text in column)), None)
