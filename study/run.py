"""Runs a plan: one backbone pass for all methods, then each method's vectors through mteb, a record a cell."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float

from fusebench.benchmarks.mteb_bridge import judge
from fusebench.benchmarks.record import Cost, Counts, Prompts, Record
from fusebench.benchmarks.store import Store
from fusebench.benchmarks.tasks import LoadedTask
from fusebench.errors import InputError
from fusebench.methods.encoder import fit_transforms
from fusebench.methods.engine import PassStatistics, SharedPass
from fusebench.methods.grammar import Method
from fusebench.methods.parts import Fusion, Transform
from fusebench.study.environment import environment, peak_memory_mb
from fusebench.study.plan import Cell, Plan

Progress = Callable[[str, int, int], None]  # stage, done, total

_LOG = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What a run did."""

    kept: int = 0  # cells that were already there
    finished: int = 0
    failures: list[str] = field(default_factory=list)  # a sentence a cell
    methods: int = 0  # that went through a pass
    passes: list[PassStatistics] = field(default_factory=list)
    scoring_seconds: float = 0.0


@dataclass(frozen=True)
class _Group:
    """The cells of one method and seed: they share vectors."""

    method: Method
    seed: int | None
    cells: tuple[Cell, ...]

    @property
    def fusion_key(self) -> str:
        """Methods with the same fusion and seed share its vectors; the seed matters only to random weights."""
        return f"{self.method.fusion}" + (f" seed {self.seed}" if self.method.fusion.untrained else "")


def run(plan: Plan, store: Store, progress: Progress = lambda stage, done, total: None) -> Outcome:
    """Computes the cells that the store lacks and writes each record as soon as it is finished.

    Raises:
        InputError: if the results folder cannot be written.
    """
    store.require_writable()
    for view in plan.views:
        store.remember_suite(view.name, view.title, view.tasks)
    finished = {} if plan.options.rerun else store.finished()
    wanted = [cell for cell in plan.cells if cell.spec.spec_id not in finished]
    outcome = Outcome(kept=len(plan.cells) - len(wanted))
    groups = [
        _Group(method, seed, tuple(cells))
        for (method, seed), cells in itertools.groupby(wanted, key=lambda cell: (cell.method, cell.seed))
    ]
    if not groups:
        return outcome
    outcome.methods = len(groups)
    tasks = list({cell.task.spec.name: cell.task for cell in wanted}.values())
    passes = _passes(plan, groups, tasks, progress)
    outcome.passes = [one.statistics for one in passes.values()]
    shares = {
        template: {task.spec.name: _share(task, plan, shared) for task in tasks}
        for template, shared in passes.items()
    }
    done = 0
    template_of = {key: template for template, shared in passes.items() for key in shared.fusions}
    for group in groups:
        template = template_of[group.fusion_key]
        _score_group(plan, group, passes[template], shares[template], store, outcome)
        done += len(group.cells)
        progress("scoring", done, len(wanted))
    return outcome


def _passes(
    plan: Plan, groups: Sequence[_Group], tasks: Sequence[LoadedTask], progress: Progress
) -> dict[str | None, SharedPass]:
    """One pass a template, finished over all texts of the tasks and the fit texts."""
    fusions: dict[str | None, dict[str, Fusion]] = {}
    for group in groups:
        with torch.random.fork_rng():
            torch.manual_seed(group.seed or 0)
            fusion = group.method.build_fusion(plan.backbone.shape)
        fusions.setdefault(fusion.template, {}).setdefault(group.fusion_key, fusion)
    texts = [text for task in tasks for text in _inputs(task, plan.options.prompts)]
    fit_texts = _fit_inputs(plan)
    passes = {}
    for number, (template, of_template) in enumerate(fusions.items(), start=1):
        stage = f"backbone pass {number} of {len(fusions)}"
        passes[template] = SharedPass(
            plan.backbone,
            of_template,
            batch_tokens=plan.options.batch_tokens,
            progress=lambda done, total, stage=stage: progress(stage, done, total),  # type: ignore[misc]
        )
        fitted = any(group.method.fitted and group.fusion_key in of_template for group in groups)
        passes[template].ensure(texts + (fit_texts if fitted else []))
    return passes


def _fit_inputs(plan: Plan) -> list[str]:
    """The fit texts under the prompt that `--prompt` puts before every text."""
    return [plan.options.prompts.text + text for text in plan.fit.texts] if plan.fit else []


def _inputs(task: LoadedTask, prompts: Prompts) -> list[str]:
    return [getattr(prompts, role) + text for role, text in task.inputs()]


@dataclass(frozen=True)
class _Share:
    """A task's part in a pass: what it counts, and what share of the tokens it needs."""

    counts: Counts
    tokens: float


def _share(task: LoadedTask, plan: Plan, shared: SharedPass) -> _Share:
    inputs = _inputs(task, plan.options.prompts)
    distinct = set(inputs)
    counts = Counts(
        texts=len(inputs),
        distinct_texts=len(distinct),
        truncated_texts=shared.truncated(distinct),
        empty_texts=task.empty_texts,
    )
    return _Share(counts, shared.token_share(distinct))


class _Vectors:
    """One method's finished vectors for every text of the pass, computed once."""

    def __init__(self, plan: Plan, group: _Group, shared: SharedPass) -> None:
        self._shared, self._key, self._prompts = shared, group.fusion_key, plan.options.prompts
        started = time.perf_counter()
        fused = shared.vectors(self._key)
        fit = fused[shared.rows(_fit_inputs(plan))] if group.method.fitted else None
        if fit is not None and not np.isfinite(fit).all():
            raise ArithmeticError("the vectors of the fit texts hold NaN or infinity")
        self._transforms: list[Transform] = fit_transforms(group.method, fit)
        self._finished = self._transformed(fused)
        inside_the_pass = shared.statistics.fusion_seconds.get(self._key, 0.0)
        self.seconds = time.perf_counter() - started + inside_the_pass

    def _transformed(self, vectors: Float[np.ndarray, "inputs dim"]) -> Float[np.ndarray, "inputs out"]:
        for transform in self._transforms:
            vectors = transform(vectors)
        return vectors

    @property
    def out_dim(self) -> int:
        return int(self._finished.shape[1])

    def __call__(self, role: str, texts: Sequence[str]) -> Float[np.ndarray, "texts out"]:
        """Rows for these texts; a text that the tasks did not announce is run now."""
        prompt = getattr(self._prompts, role)
        rows = self._shared.rows([prompt + text for text in texts] if prompt else texts)
        if rows.max(initial=-1) >= len(self._finished):
            self._finished = self._transformed(self._shared.vectors(self._key))
        return self._finished[rows]


def _score_group(
    plan: Plan, group: _Group, shared: SharedPass, shares: dict[str, _Share], store: Store, outcome: Outcome
) -> None:
    try:
        vectors = _Vectors(plan, group, shared)
    except Exception as error:  # a third-party part can raise anything, and the other methods go on
        outcome.failures.extend(_failure(cell, error) for cell in group.cells)
        return
    parameters = sum(weight.numel() for weight in shared.fusions[group.fusion_key].parameters())
    for cell in group.cells:
        name, task = cell.method.name, cell.task.spec.name
        try:
            judged = judge(
                cell.task,
                vectors,
                name=f"{cell.spec.backbone.name.replace('/', '__')}__{name}",
                revision=cell.spec.spec_id,
                experiment={"method": name},
            )
        except Exception as error:  # the same
            outcome.failures.append(_failure(cell, error))
            continue
        outcome.scoring_seconds += judged.seconds
        record = Record.of(
            cell.spec,
            scores=judged.scores,
            main_score=judged.main_score,
            out_dim=vectors.out_dim,
            added_parameters=parameters,
            equal_to=cell.method.equal_to(plan.backbone.shape),
            counts=shares[task].counts,
            cost=_cost(shared, shares[task].tokens, vectors.seconds, judged.seconds),
            environment=environment(),
        )
        store.write(record, judged.mteb_result)
        outcome.finished += 1


def _failure(cell: Cell, error: Exception) -> str:
    method, task = cell.method.name, cell.task.spec.name
    _LOG.info("%s on %s", method, task, exc_info=error)
    kind = "" if isinstance(error, ArithmeticError | InputError) else f"{type(error).__name__}: "
    reason = str(error).split(f" on {task}: ", 1)[-1]  # what judges names the method itself
    return f"{method} on {task}: {kind}{reason}"


def _cost(shared: SharedPass, share: float, fusion_seconds: float, scoring_seconds: float) -> Cost:
    """Seconds of the pass and of the fusion by the task's share of the tokens, so that tasks add up."""
    live = sum(shared.statistics.fusion_seconds.values()) / max(1, shared.workers)
    return Cost(
        pass_seconds=round(share * max(0.0, shared.statistics.seconds - live), 4),
        fusion_seconds=round(share * fusion_seconds, 4),
        scoring_seconds=round(scoring_seconds, 4),
        peak_memory_mb=peak_memory_mb(),
        effective_batch_tokens=shared.statistics.effective_batch_tokens,
        threads=torch.get_num_threads(),
    )
