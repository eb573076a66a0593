"""Gives the methods of a run their weights: saved ones, or trained now, frozen ones side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fusebench.benchmarks.atomic import slug
from fusebench.benchmarks.record import Spec, Training, digest
from fusebench.methods.backbone import Backbone
from fusebench.methods.checkpoint import load_module, module_state
from fusebench.methods.grammar import Method
from fusebench.methods.parts import Fusion
from fusebench.methods.seeding import seeded
from fusebench.methods.state_sources import StateSource
from fusebench.methods.trainee import Trainee
from fusebench.methods.training import Selection, TrainingLoop
from fusebench.study import saved_methods
from fusebench.study.environment import environment
from fusebench.study.fine_tuning import build_trainee, trained_source
from fusebench.study.pass_journal import PassJournals
from fusebench.study.plan import Plan
from fusebench.study.processes import train_in_processes
from fusebench.study.rank import Shared
from fusebench.study.training_log import TrainingLog
from fusebench.study.training_plan import MethodTraining, trial_recipes
from fusebench.study.training_texts import frozen_source, numbered, texts_of

Progress = Callable[[str, int, int], None]  # stage, done, total


@dataclass(frozen=True, eq=False)
class Wanted:
    """One method with one seed that needs weights.

    Attributes:
        method: without transforms.
        spec: of any cell of it; its training identity counts.
        plan: how it is trained; None when saved weights were asked for.
        saved: weights to be taken as they are.
    """

    method: Method
    seed: int
    spec: Spec
    plan: MethodTraining | None
    saved: saved_methods.SavedMethod | None = None


@dataclass(frozen=True, eq=False)
class Ready:
    """A method with its weights, and the backbone that they belong to."""

    fusion: Fusion
    backbone: Backbone
    training: Training


@dataclass(eq=False)
class _Trial:
    """One learning rate of one method."""

    wanted: Wanted
    trainee: Trainee
    updates: int = 0
    examples: int = 0
    seconds: float = 0.0

    @property
    def score(self) -> float:
        """What the best trial is chosen by; without dev rows there is one trial."""
        return 0.0 if self.trainee.dev_score is None else self.trainee.dev_score


class Trainer:
    """Trains methods, or takes the weights that an earlier run left in the results folder.

    Args:
        plan: of the run.
        progress: called after each update.
        journals: keep the passes over training texts.
    """

    def __init__(self, plan: Plan, progress: Progress, journals: PassJournals | None = None) -> None:
        self.plan, self.progress, self.journals = plan, progress, journals
        self.options = plan.options.training
        self.recipes = trial_recipes(self.options.recipe, self.options.trials)
        self.failures: dict[Wanted, Exception] = {}

    def frozen(self, wanted: Sequence[Wanted]) -> dict[Wanted, Ready]:
        """Methods whose backbone stays as it is; those that failed are in `failures`."""
        ready: dict[Wanted, Ready] = {}
        waiting = []
        for one in wanted:
            if (found := self._saved(one)) is not None:
                ready[one] = self._with_weights(one, found.tensors(), self.plan.backbone, found.training)
            else:
                waiting.append(one)
        done = len(ready)
        for sharers in _grouped(waiting, self._reads):
            trainings = [(one.method, one.plan) for one in sharers if one.plan]
            source = frozen_source(self.plan, trainings, self.journals, self.progress)
            # A sampler may ask for vectors of its own method, so its order is nobody else's.
            for group in _grouped(sharers, lambda one: (one.seed, id(one) if one.method.sampler else None)):
                stage = f"training {done + 1} to {done + len(group)} of {len(wanted)}"
                trials = [self._trial(one, number) for one in group for number in range(len(self.recipes))]
                loop = self._run(trials, source, stage)
                for one in group:
                    if (made := self._finish(one, trials, source)) is not None:
                        ready[one] = self._with_weights(one, made[0], self.plan.backbone, made[1])
                loop.forget()
                done += len(group)
        return ready

    def finetuned(self, one: Wanted, stage: str) -> Ready | None:
        """A method whose backbone learns along; None if it failed, then it is in `failures`."""
        if (found := self._saved(one)) is not None:
            return self._with_weights(one, found.tensors(), self.plan.backbone.trainable_copy(), found.training)
        assert one.plan is not None
        texts = texts_of(self.plan, [one.plan])
        trials: list[_Trial] = []
        loops: list[TrainingLoop] = []
        best: dict[str, Tensor] = {}
        for number in range(len(self.recipes)):
            backbone = self.plan.backbone.trainable_copy()
            trial = self._trial(one, number)
            source = trained_source(backbone, texts, trial.trainee)
            loops.append(self._run([trial], source, stage))
            if trial.trainee.failure is None and all(
                trial.score > other.score for other in trials if other.trainee.failure is None
            ):
                best = module_state(backbone.model, "backbone.")
            trials.append(trial)
        made = self._finish(one, trials, source, best)
        for loop in loops:
            loop.forget()
        return made and self._with_weights(one, made[0], self.plan.backbone.trainable_copy(), made[1])

    def _reads(self, one: Wanted) -> Hashable:
        """Methods that agree in it can read the same stored states of the same rows."""
        assert one.plan is not None
        views = tuple(objective.views for objective in one.method.build_objectives())
        rows = tuple((stage.spec.sha256, stage.kind) for stage in one.plan.stages)
        return self._build(one).needs.pooled, views, rows

    def _build(self, one: Wanted) -> Fusion:
        """The fusion as its training starts; nothing is drawn from the global generator."""
        with seeded(one.seed, torch.device("cpu")):
            return one.method.build_fusion(self.plan.backbone.shape)

    # Saved weights

    def _saved(self, one: Wanted) -> saved_methods.SavedMethod | None:
        if one.saved is not None:
            return one.saved
        folder = saved_methods.folder_of(self.plan.options.out, one.spec, one.method)
        if self.plan.options.rerun or not saved_methods.is_saved(folder):
            return None
        return saved_methods.load(folder)

    def _with_weights(self, one: Wanted, tensors: dict[str, Tensor], backbone: Backbone, training: Training) -> Ready:
        fusion = self._build(one)
        load_module(fusion, tensors, "fusion.")
        if one.spec.regime == "finetune":
            load_module(backbone.model, tensors, "backbone.")
            backbone.model.requires_grad_(False).eval()
        return Ready(fusion.eval().requires_grad_(False), backbone, training)

    # One training

    def _trial(self, one: Wanted, number: int) -> _Trial:
        name = f"{slug(one.method.name)}-seed{one.seed}-{one.spec.training_id}" + f"-trial{number}" * bool(number)
        shape = self.plan.backbone.shape
        return _Trial(one, build_trainee(name, one.method, shape, one.seed, self.recipes[number]))

    def _run(self, trials: Sequence[_Trial], source: StateSource, stage: str) -> TrainingLoop:
        """Trains to the end; the loop's checkpoint stays until the weights are saved."""
        first = trials[0].wanted
        assert first.plan is not None
        out, dev = self.plan.options.out, self.plan.training.dev
        with ExitStack() as open_logs:
            logs = {
                trial.trainee.name: open_logs.enter_context(
                    TrainingLog(out / "training" / trial.trainee.name, _config(trial), self.options.track)
                )
                for trial in trials
            }
            loop = TrainingLoop(
                [trial.trainee for trial in trials],
                [numbered(self.plan, rows, source) for rows in first.plan.stages],
                source,
                seed=first.seed,
                sampler=first.method.build_sampler(),
                selection=Selection(numbered(self.plan, dev, source), self.options.dev_every) if dev else None,
                checkpoint=out / "checkpoints" / f"{digest(sorted(logs))}.safetensors",
                log=lambda name, event: logs[name](event),
                progress=lambda done, total: self.progress(stage, done, total),
            )
            if source.trained is None or self.options.processes == 1:
                started = time.perf_counter()
                loop.run()
                seconds = time.perf_counter() - started
            else:
                seconds = train_in_processes(loop, self._shared(first, loop), self.options.processes)
        for trial in trials:
            trial.updates, trial.examples = sum(loop.updates), loop.examples
            trial.seconds = seconds / len(trials)
        return loop

    def _shared(self, one: Wanted, loop: TrainingLoop) -> Shared:
        """The loop's only training, as other processes can make it."""
        options, backbone = self.plan.options, self.plan.backbone
        return Shared(
            name=loop.trainees[0].name,
            sentence=one.method.name,
            seed=one.seed,
            recipe=loop.recipe,
            source=backbone.source,
            device=backbone.device.type,
            dtype=options.dtype,
            max_length=options.max_length,
            remote_code=options.remote_code,
            texts=list(loop.source.numbers),
            stages=loop.stages,
            selection=loop.selection,
            checkpoint=loop.checkpoint,
            checkpoint_seconds=loop.checkpoint_seconds,
            threads=max(1, torch.get_num_threads() // self.options.processes),
            plugins=options.plugins,
        )

    def _finish(
        self, one: Wanted, trials: Sequence[_Trial], source: StateSource, backbone: dict[str, Tensor] | None = None
    ) -> tuple[dict[str, Tensor], Training] | None:
        """Saves and returns the best trial's weights and what all trials of the method took."""
        own = [trial for trial in trials if trial.wanted is one]
        alive = [trial for trial in own if trial.trainee.failure is None]
        if not alive:
            self.failures[one] = own[0].trainee.failure or ArithmeticError("the training failed")
            return None
        best = max(alive, key=lambda trial: trial.score)
        tensors = {**module_state(best.trainee.fusion, "fusion."), **(backbone or {})}
        training = Training(
            states=source.kind,
            updates=sum(trial.updates for trial in own),
            examples=sum(trial.examples for trial in own),
            trials=len(own),
            seconds=round(sum(trial.seconds for trial in own), 2),
            trained_parameters=best.trainee.trained_parameters,
            learning_rate=best.trainee.recipe.learning_rate,
            learning_rate_new=best.trainee.recipe.learning_rate_new,
            loss=best.trainee.loss,
            best_update=best.trainee.best_update,
            dev_score=best.trainee.dev_score,
        )
        folder = saved_methods.folder_of(self.plan.options.out, one.spec, one.method)
        saved_methods.save(folder, one.spec, one.method, tensors, training, environment())
        return tensors, training


def _config(trial: _Trial) -> dict[str, Any]:
    """What a tracked run is named by: plain values only."""
    recipe = trial.trainee.recipe
    return {
        "method": trial.wanted.method.name,
        "seed": trial.wanted.seed,
        "regime": trial.wanted.spec.regime,
        "training_id": trial.wanted.spec.training_id,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "learning_rate_new": recipe.learning_rate_new,
    }


def _grouped(wanted: Sequence[Wanted], key: Callable[[Wanted], Hashable]) -> list[list[Wanted]]:
    groups: dict[Hashable, list[Wanted]] = {}
    for one in wanted:
        groups.setdefault(key(one), []).append(one)
    return list(groups.values())
