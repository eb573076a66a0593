"""Runs a plan: weights where something is trained, a backbone pass for many methods, their vectors through mteb."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float

from fusebench.benchmarks.mteb_bridge import judge
from fusebench.benchmarks.record import Cost, Counts, Overlap, Prompts, Record, Training
from fusebench.benchmarks.sample_files import write_samples
from fusebench.benchmarks.store import Store
from fusebench.benchmarks.tasks import LoadedTask
from fusebench.errors import InputError
from fusebench.methods.backbone import Backbone
from fusebench.methods.encoder import fit_transforms
from fusebench.methods.engine import PassStatistics, SharedPass
from fusebench.methods.grammar import Method
from fusebench.methods.parts import Fusion, Transform
from fusebench.methods.seeding import seeded
from fusebench.study.environment import environment, peak_memory_mb
from fusebench.study.pass_journal import PassJournals
from fusebench.study.plan import Cell, Plan
from fusebench.study.train import Ready, Trainer, Wanted

Progress = Callable[[str, int, int], None]  # stage, done, total

_AT_ONCE = 1 << 28  # bytes of a method's vectors that are kept

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
    trainings: list[tuple[str, int, Training]] = field(default_factory=list)  # method, seed, what it took


class Pass(Protocol):
    """What scoring reads of a pass that holds every text of the tasks; see `SharedPass`."""

    @property
    def fusions(self) -> Mapping[str, Fusion]: ...  # noqa: D102

    @property
    def statistics(self) -> PassStatistics: ...  # noqa: D102

    @property
    def workers(self) -> int: ...  # noqa: D102

    def rows(self, texts: Sequence[str]) -> np.ndarray: ...  # noqa: D102

    def vectors(  # noqa: D102
        self, name: str, rows: np.ndarray | None = None
    ) -> Float[np.ndarray, "inputs out"]: ...

    def truncated(self, texts: Iterable[str]) -> int: ...  # noqa: D102

    def token_share(self, texts: Iterable[str]) -> float: ...  # noqa: D102


class PassMaker(Protocol):
    """Runs all texts through a backbone, for fusions with one template; `progress` is told tokens done and in all."""

    def __call__(  # noqa: D102
        self,
        plan: Plan,
        backbone: Backbone,
        fusions: Mapping[str, Fusion],
        texts: Sequence[str],
        progress: Callable[[int, int], None],
    ) -> Pass: ...


@dataclass(frozen=True)
class Group:
    """The cells of one method, seed and weights: they share vectors."""

    method: Method
    seed: int | None
    cells: tuple[Cell, ...]

    @property
    def fusion_key(self) -> str:
        """Methods with the same weights share the fusion's vectors; the seed matters only to random weights."""
        if not self.method.random:
            return str(self.method.fusion)
        saved = self.cells[0].spec.weights_sha256
        return f"{self.method.stem.name} seed {self.seed}" + (f" saved {saved[:8]}" if saved else "")


def run(plan: Plan, store: Store, progress: Progress = lambda stage, done, total: None) -> Outcome:
    """Computes the cells that the store lacks and writes each record as soon as it is finished.

    Raises:
        InputError: if the results folder cannot be written.
    """
    wanted = missing_cells(plan, store)
    journals = PassJournals(plan, store)
    outcome = compute(plan, wanted, store, progress, journals=journals)
    outcome.kept = len(plan.cells) - len(wanted)
    if not outcome.failures:
        journals.forget()
    return outcome


def missing_cells(plan: Plan, store: Store) -> list[Cell]:
    """The cells that are to be computed; the folder is made ready and remembers the suites asked for.

    Raises:
        InputError: if the results folder cannot be written.
    """
    store.require_writable()
    for view in plan.views:
        store.remember_suite(view.name, view.title, view.tasks)
    finished = {} if plan.options.rerun else store.finished()
    return [cell for cell in plan.cells if cell.spec.spec_id not in finished]


def compute(
    plan: Plan,
    cells: Sequence[Cell],
    store: Store,
    progress: Progress = lambda stage, done, total: None,
    *,
    tasks: Collection[str] = (),
    make_pass: PassMaker | None = None,
    journals: PassJournals | None = None,
) -> Outcome:
    """Computes these cells of a plan, whether or not the store has them.

    Args:
        tasks: whose texts a pass holds besides those of the cells.
        make_pass: what makes it, in the place of the engine.
        journals: keep what passes have finished for the same command after a kill.

    Raises:
        InputError: if the results folder cannot be written.
    """
    under_way = _Run(plan, store, progress, len(cells), tasks, make_pass, journals)
    under_way.of(groups_of(cells))
    return under_way.outcome


def groups_of(cells: Iterable[Cell]) -> list[Group]:
    """Cells by method, seed and weights, in the plan's order."""
    alike = itertools.groupby(cells, key=lambda cell: (cell.method, cell.seed, cell.spec.weights_sha256))
    return [Group(method, seed, tuple(own)) for (method, seed, _), own in alike]


class _Run:
    """One run under way."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        progress: Progress,
        cells: int,
        tasks: Collection[str],
        make_pass: PassMaker | None,
        journals: PassJournals | None,
    ) -> None:
        self.plan, self.store, self.progress, self.cells = plan, store, progress, cells
        self.tasks, self.make_pass, self.journals = tasks, make_pass or self._shared_pass, journals
        self.outcome = Outcome()
        self.done = 0
        self.trainer = Trainer(plan, progress, journals)

    def of(self, groups: Sequence[Group]) -> None:
        """Frozen methods together first, then each fine-tuned backbone with the methods that read it."""
        tuned = [group for group in groups if group.cells[0].spec.regime == "finetune"]
        together = [group for group in groups if group not in tuned]
        wanted = {group.fusion_key: wanted_of(self.plan, group) for group in groups if group.method.trained}
        frozen = self.trainer.frozen([wanted[key] for key in _keys(together) if key in wanted])
        self._judge(self.plan.backbone, together, {key: frozen.get(one) for key, one in wanted.items()}, wanted)
        for number, key in enumerate(_keys(tuned), start=1):
            stage = f"fine-tuning {number} of {len(_keys(tuned))}"
            ready = self.trainer.finetuned(wanted[key], stage)
            backbone = ready.backbone if ready else self.plan.backbone
            own = [group for group in tuned if group.fusion_key == key]
            self._judge(backbone, own, {key: ready}, wanted)

    def _judge(
        self,
        backbone: Backbone,
        groups: Sequence[Group],
        ready: Mapping[str, Ready | None],
        wanted: Mapping[str, Wanted],
    ) -> None:
        """One pass a template over all texts of the tasks, then the scores of each method."""
        able = []
        for group in groups:
            if group.method.trained and ready[group.fusion_key] is None:
                error = self.trainer.failures[wanted[group.fusion_key]]
                self.outcome.failures.extend(failure_of(cell, error) for cell in group.cells)
                self._advance(group)
            else:
                able.append(group)
        if not able:
            return
        self.outcome.methods += len(able)
        asked = {*self.tasks, *(cell.task.spec.name for group in able for cell in group.cells)}
        tasks = [task for task in self.plan.tasks if task.spec.name in asked]
        fusions = {group.fusion_key: fusion_of(self.plan, group, ready.get(group.fusion_key)) for group in able}
        passes = _passes(self.plan, backbone, fusions, tasks, self.progress, self.make_pass)
        self.outcome.passes += [one.statistics for one in passes.values()]
        shares = {
            template: {task.spec.name: _share(task, self.plan, shared) for task in tasks}
            for template, shared in passes.items()
        }
        template_of = {key: template for template, shared in passes.items() for key in shared.fusions}
        ahead = _one_ahead(lambda group: _Vectors(self.plan, group, passes[template_of[group.fusion_key]]), able)
        for group, vectors in zip(able, ahead, strict=True):
            template, trained = template_of[group.fusion_key], ready.get(group.fusion_key)
            if trained is not None:
                self.outcome.trainings.append((group.method.stem.name, group.seed or 0, trained.training))
            training = trained.training if trained else None
            scores = _Scores(self.plan, group, passes[template], shares[template], training)
            scores.write(vectors, self.store, self.outcome)
            self._advance(group)

    def _shared_pass(
        self,
        plan: Plan,
        backbone: Backbone,
        fusions: Mapping[str, Fusion],
        texts: Sequence[str],
        progress: Callable[[int, int], None],
    ) -> SharedPass:
        template = next(iter(fusions.values())).template
        journal = self.journals.of(f"tasks {template}", fusions, backbone) if self.journals else None
        tokens = plan.options.batch_tokens
        shared = SharedPass(backbone, fusions, batch_tokens=tokens, progress=progress, journal=journal)
        shared.ensure(texts)
        return shared

    def _advance(self, group: Group) -> None:
        self.done += len(group.cells)
        self.progress("scoring", self.done, self.cells)


def _keys(groups: Sequence[Group]) -> list[str]:
    return list(dict.fromkeys(group.fusion_key for group in groups))


def wanted_of(plan: Plan, group: Group) -> Wanted:
    """What the trainer is asked for, for the cells of a trained method."""
    cell, stem = group.cells[0], group.method.stem
    return Wanted(stem, group.seed or 0, cell.spec, plan.training.methods.get(stem), cell.saved)


def fusion_of(plan: Plan, group: Group, ready: Ready | None) -> Fusion:
    """The fusion with its weights; without `ready`, those of the seed."""
    if ready is not None:
        return ready.fusion
    with seeded(group.seed or 0, torch.device("cpu")):
        return group.method.build_fusion(plan.backbone.shape)


def _passes(
    plan: Plan,
    backbone: Backbone,
    fusions: Mapping[str, Fusion],
    tasks: Sequence[LoadedTask],
    progress: Progress,
    make_pass: PassMaker,
) -> dict[str | None, Pass]:
    """One pass a template, finished over all texts of the tasks and the fit texts."""
    by_template: dict[str | None, dict[str, Fusion]] = {}
    for key, fusion in fusions.items():
        by_template.setdefault(fusion.template, {})[key] = fusion
    texts = pass_texts(plan, tasks)
    passes = {}
    for number, (template, of_template) in enumerate(by_template.items(), start=1):
        stage = f"backbone pass {number} of {len(by_template)}"
        passes[template] = make_pass(
            plan,
            backbone,
            of_template,
            texts,
            lambda done, total, stage=stage: progress(stage, done, total),  # type: ignore[misc]
        )
    return passes


def pass_texts(plan: Plan, tasks: Iterable[LoadedTask]) -> list[str]:
    """What goes through the backbone for these tasks, repetitions included.

    The fit texts are there also where no method that is left to run is fitted: a run that was interrupted goes on
    with equal batches.
    """
    return [text for task in tasks for text in _inputs(task, plan.options.prompts)] + _fit_inputs(plan)


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


def _share(task: LoadedTask, plan: Plan, shared: Pass) -> _Share:
    inputs = _inputs(task, plan.options.prompts)
    distinct = set(inputs)
    counts = Counts(
        texts=len(inputs),
        distinct_texts=len(distinct),
        truncated_texts=shared.truncated(distinct),
        empty_texts=task.empty_texts,
    )
    return _Share(counts, shared.token_share(distinct))


def _one_ahead(make: Callable[[Group], _Vectors], groups: Sequence[Group]) -> Iterator[Future[_Vectors]]:
    """The vectors of each in turn; the next are made while one's are scored, which keeps one processor busy only."""

    def begin(group: Group) -> Future[_Vectors]:
        made: Future[_Vectors] = Future()

        def work() -> None:
            try:
                made.set_result(make(group))
            except BaseException as error:  # raised where the vectors are asked for
                made.set_exception(error)

        # A daemon, and no executor, whose threads are waited for: a run that is interrupted ends at once.
        threading.Thread(target=work, daemon=True).start()
        return made

    coming = begin(groups[0])
    for following in (*groups[1:], None):
        made = coming
        while not made.done():
            wait([made], timeout=0.05)  # Ctrl-C does not end a wait without a limit
        if following is not None:
            coming = begin(following)
        yield made


class _Vectors:
    """One method's finished vectors, of all texts of the pass at once; of very many, of those that are asked for."""

    def __init__(self, plan: Plan, group: Group, shared: Pass) -> None:
        self._shared, self._key, self._prompts = shared, group.fusion_key, plan.options.prompts
        started = time.perf_counter()
        fit = shared.vectors(self._key, shared.rows(_fit_inputs(plan))) if group.method.fitted else None
        if fit is not None and not np.isfinite(fit).all():
            raise ArithmeticError("the vectors of the fit texts hold NaN or infinity")
        self._transforms: list[Transform] = fit_transforms(group.method, fit)
        one = self._of(np.zeros(1, dtype=np.int64))
        self.out_dim = one.shape[1]
        few = 4 * shared.statistics.distinct_inputs * max(self.out_dim, shared.fusions[self._key].out_dim) <= _AT_ONCE
        self._finished = self._of(None) if few else one[:0]
        inside_the_pass = shared.statistics.fusion_seconds.get(self._key, 0.0)
        self.seconds = time.perf_counter() - started + inside_the_pass

    def _of(self, rows: np.ndarray | None) -> Float[np.ndarray, "inputs out"]:
        vectors = self._shared.vectors(self._key, rows)
        for transform in self._transforms:
            vectors = transform(vectors)
        return vectors

    def __call__(self, role: str, texts: Sequence[str]) -> Float[np.ndarray, "texts out"]:
        """Rows for these texts; a text that the tasks did not announce is run now."""
        prompt = getattr(self._prompts, role)
        rows = self._shared.rows([prompt + text for text in texts] if prompt else texts)
        known = rows.max(initial=-1) < len(self._finished)
        return self._finished[rows] if known else self._of(rows)


@dataclass(frozen=True)
class _Scores:
    """Judges one method's vectors on its tasks."""

    plan: Plan
    group: Group
    shared: Pass
    shares: Mapping[str, _Share]
    training: Training | None

    def write(self, finished: Future[_Vectors], store: Store, outcome: Outcome) -> None:
        """A record a cell; a cell that fails is a sentence in the outcome, and the others go on."""
        try:
            vectors = finished.result()
        except Exception as error:  # a third-party part can raise anything
            outcome.failures.extend(failure_of(cell, error) for cell in self.group.cells)
            return
        for cell in self.group.cells:
            try:
                self._write(cell, vectors, store, outcome)
            except InputError:  # the disk refuses, and will refuse the next cell too
                raise
            except Exception as error:  # a third-party part can raise anything
                outcome.failures.append(failure_of(cell, error))

    def _write(self, cell: Cell, vectors: _Vectors, store: Store, outcome: Outcome) -> None:
        name, share = cell.method.name, self.shares[cell.task.spec.name]
        identity = {
            "name": f"{cell.spec.backbone.name.replace('/', '__')}__{name}",
            "revision": cell.spec.spec_id,
            "experiment": {"method": name},
        }
        judged = judge(cell.task, vectors, **identity)  # type: ignore[arg-type]
        fusion = self.shared.fusions[self.group.fusion_key]
        record = Record.of(
            cell.spec,
            scores=judged.scores,
            main_score=judged.main_score,
            out_dim=vectors.out_dim,
            added_parameters=sum(weight.numel() for weight in fusion.parameters()),
            equal_to=cell.method.equal_to(self.plan.backbone.shape),
            counts=share.counts,
            cost=_cost(self.shared, share.tokens, vectors.seconds, judged.seconds),
            training=self.training,
            overlap=self._overlap(cell, vectors, identity),
            environment=environment(),
        )
        write_samples(store.out, record, judged.samples)
        store.write(record, judged.mteb_result)
        outcome.scoring_seconds += judged.seconds
        outcome.finished += 1

    def _overlap(self, cell: Cell, vectors: _Vectors, identity: Mapping[str, object]) -> Overlap | None:
        """What the task shares with the texts the method saw, and the score without the known pairs."""
        plan, leaks = self.plan.training.methods.get(cell.method.stem), self.plan.training.leaks
        if plan is None or leaks is None or cell.saved is not None:
            return None
        seen = [*plan.stages, *([self.plan.training.dev] if self.plan.training.dev else [])]
        overlap = leaks.overlap(cell.task.spec.name, seen)
        rest = leaks.without_known(cell.task, seen)
        if rest is None:
            return overlap
        without = judge(rest, vectors, **identity).main_score  # type: ignore[arg-type]
        return overlap.model_copy(update={"main_score_without": without})


def failure_of(cell: Cell, error: Exception) -> str:
    """The sentence on a cell that failed."""
    method, task = cell.method.name, cell.task.spec.name
    _LOG.info("%s on %s", method, task, exc_info=error)
    kind = "" if isinstance(error, ArithmeticError | InputError) else f"{type(error).__name__}: "
    reason = str(error).split(f" on {task}: ", 1)[-1]  # what judges names the method itself
    return f"{method} on {task}: {kind}{reason}"


def _cost(shared: Pass, share: float, fusion_seconds: float, scoring_seconds: float) -> Cost:
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
