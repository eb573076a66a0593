"""What a run shows on the terminal: live progress, notes, the outcome."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fusebench.study.logs import SAID
from fusebench.study.plan import Plan
from fusebench.study.run import Outcome


class LiveProgress:
    """A bar a stage; outside a terminal a line at the start of each stage and then one every ten seconds.

    Where a stage has nothing to say for so many seconds, a line says that it is still at work.
    """

    def __init__(self, console: Console, *, alive_seconds: float = 30.0) -> None:
        self._console, self._alive_seconds = console, alive_seconds
        self._stage, self._heard = "at work", time.monotonic()
        self._bars: Progress | None = None
        self._stages: dict[str, TaskID] = {}
        self._spoken: dict[str, float] = {}
        self._begun: dict[str, tuple[float, int]] = {}

    @contextmanager
    def running(self) -> Iterator[LiveProgress]:
        """Shows the bars within."""
        over = threading.Event()
        beat = threading.Thread(target=self._beat, args=(over,), daemon=True)
        beat.start()
        try:
            with self._shown():
                yield self
        finally:
            over.set()
            beat.join()

    def _beat(self, over: threading.Event) -> None:
        started = time.monotonic()
        while not over.wait(self._alive_seconds / 4):
            if time.monotonic() - self._heard > self._alive_seconds:
                self._say(f"{self._stage}: still at it, {time.monotonic() - started:.0f} s after the start")

    def _say(self, line: str) -> None:
        self._heard = time.monotonic()
        if self._bars is None:
            self._console.print(line, highlight=False)  # which logs it
        else:
            SAID.info("%s", line)

    @contextmanager
    def _shown(self) -> Iterator[None]:
        if not self._console.is_terminal:
            yield
            return
        columns = (
            TextColumn("{task.description:24}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as self._bars:
            yield
        self._bars = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Reports that `done` of `total` units of a stage are finished."""
        if self._bars is not None:
            if stage not in self._stages:
                self._stages[stage] = self._bars.add_task(stage, total=total)
            self._bars.update(self._stages[stage], completed=done, total=total)
        now = time.monotonic()
        self._stage = stage
        begun, before = self._begun.setdefault(stage, (now, done))
        if stage not in self._spoken or now - self._spoken[stage] > 10 or done == total:
            self._spoken[stage] = now
            left = (now - begun) * (total - done) / (done - before) if done > before else 0.0
            rest = f", {_duration(left)} left" if left else ""
            self._say(f"{stage}: {100 * done // max(1, total)} % ({done} of {total}{rest})")


def show_plan(plan: Plan, kept: int, console: Console) -> None:
    """What is about to be run."""
    spec = plan.cells[0].spec if plan.cells else None
    source = plan.backbone.source
    cells = f"{len(plan.methods)} methods x {len(plan.tasks)} tasks = {len(plan.cells)} cells"
    lines = [
        f"backbone {source.name} @ {source.revision[:19]}: {plan.backbone.shape.blocks} blocks, "
        f"{plan.backbone.shape.dim} wide, on {plan.backbone.device}, {plan.backbone.dtype}",
        f"at most {plan.backbone.limit.tokens} tokens a text ({plan.backbone.limit.source})",
        f"{cells}, {kept} of them finished before",
    ]
    if plan.training.methods:
        lines.append(_training_line(plan))
    if plan.fit is not None:
        lines.append(f"transforms are fitted on {plan.fit.spec.count} texts of {plan.fit.spec.name}")
    if spec is not None and spec.limit is not None:
        lines.append(f"SMOKE RUN: at most {spec.limit} pairs or queries a task; the scores mean nothing")
    for line in [*lines, *(f"note: {note}" for note in plan.notes)]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _training_line(plan: Plan) -> str:
    asked, recipe = plan.options.training, plan.options.training.recipe
    length = f"{recipe.steps} updates" if recipe.steps else _count(recipe.epochs or 1, "epoch")
    rates = f"learning rate {recipe.learning_rate_new:g}" + (
        f", of the backbone {recipe.learning_rate:g}" if asked.regime == "finetune" else ""
    )
    rows = {
        f"{one.spec.name} ({one.spec.count} {one.kind})": None
        for m in plan.training.methods.values()
        for one in m.stages
    }
    dev = plan.training.dev
    chosen = f"chosen on {dev.spec.name} ({dev.spec.count} {dev.kind})" if dev else "the last weights are kept"
    return (
        f"{_count(len(plan.training.methods), 'method')} trained, {asked.regime}, on {', '.join(rows)}: {length}, "
        f"batches of {recipe.batch_size}, {rates}, {_count(asked.trials, 'trial')}, {chosen}"
    )


def show_outcome(outcome: Outcome, seconds: float, console: Console) -> None:
    """What was done, what the shared pass saved, what failed."""
    lines = []
    if outcome.passes:
        texts = sum(one.texts for one in outcome.passes)
        inputs = sum(one.distinct_inputs for one in outcome.passes)
        passes, alone = len(outcome.passes), outcome.methods
        lines.append(
            f"{passes} backbone {'pass' if passes == 1 else 'passes'} served {alone} methods, "
            f"{alone - passes} passes saved; {inputs} distinct inputs of {texts} texts went through, in "
            f"{sum(one.seconds for one in outcome.passes):.1f} s"
        )
    lines += _training_lines(outcome)
    lines.append(
        f"{outcome.finished} cells scored ({outcome.scoring_seconds:.1f} s in mteb), {outcome.kept} kept, "
        f"{len(outcome.failures)} failed; {seconds:.1f} s in all"
    )
    for line in [*lines, *(f"FAILED {failure}" for failure in outcome.failures)]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _training_lines(outcome: Outcome) -> list[str]:
    """What was spent on each method; budgets that are not equal are said to be so."""
    budgets: dict[str, list[str]] = {}
    for method, _, took in outcome.trainings:
        budget = f"{took.examples} examples in {took.updates} updates, {_count(took.trials, 'trial')}"
        budgets.setdefault(budget, []).append(method)
    if not budgets:
        return []
    read = Counter(took.states for _, _, took in outcome.trainings)
    seconds = sum(took.seconds for _, _, took in outcome.trainings)
    lines = [
        f"{_count(len(outcome.trainings), 'training')} ({', '.join(f'{n} on {kind}' for kind, n in read.items())}), "
        f"{seconds:.1f} s of training"
    ]
    if len(budgets) == 1:
        return [*lines, f"equal budgets: {next(iter(budgets))} each"]
    shares = "; ".join(f"{', '.join(dict.fromkeys(methods))}: {budget}" for budget, methods in budgets.items())
    return [*lines, f"BUDGETS DIFFER: {shares}"]


def _duration(seconds: float) -> str:
    """Two figures of it, such as 40 s, 12 min or 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
