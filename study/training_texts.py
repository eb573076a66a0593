"""The texts of a run's trainings: gathered, numbered, and their frozen states stored where there is room."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from fusebench.methods.engine import SharedPass
from fusebench.methods.grammar import Method
from fusebench.methods.row_batches import Rows
from fusebench.methods.seeding import seeded
from fusebench.methods.state_sources import CachedTokenSource, LiveSource, PooledSource, StateSource, View
from fusebench.methods.states import Needs
from fusebench.study.pass_journal import PassJournals
from fusebench.study.plan import Plan
from fusebench.study.training_data import TrainRows
from fusebench.study.training_plan import MethodTraining

Progress = Callable[[str, int, int], None]  # stage, done, total

_NOISE = 20210418  # the views are drawn once, whatever the seeds of the trainings


def texts_of(plan: Plan, trainings: Sequence[MethodTraining]) -> list[str]:
    """The distinct texts of the trainings' rows and of the dev rows, under the run's prompt."""
    rows = [stage for training in trainings for stage in training.stages]
    rows += [plan.training.dev] if plan.training.dev else []
    found = dict.fromkeys(text for one in rows for column in one.columns for text in column)
    return [plan.options.prompts.text + text for text in found]


def numbered(plan: Plan, rows: TrainRows, source: StateSource) -> Rows:
    """The rows with the numbers of their texts in a source."""
    prompt = plan.options.prompts.text
    columns = np.array([[source.numbers[prompt + text] for text in column] for column in rows.columns])
    labels = None if rows.labels is None else np.array(rows.labels)
    return Rows(columns, rows.columns[0], labels, np.array(rows.groups()))


def frozen_source(
    plan: Plan, trainings: Sequence[tuple[Method, MethodTraining]], journals: PassJournals | None, progress: Progress
) -> StateSource:
    """Frozen states for methods that read alike: pooled ones stored in memory, tokens on disk or else live.

    Raises:
        InputError: if the states cannot be stored.
    """
    backbone, options = plan.backbone, plan.options
    with seeded(0, torch.device("cpu")):
        fusions = {method.name: method.build_fusion(backbone.shape) for method, _ in trainings}
    texts = texts_of(plan, [training for _, training in trainings])
    rows = sorted({stage.spec.sha256 for _, training in trainings for stage in training.stages})
    noisy = any(objective.views > 1 for objective in trainings[0][0].build_objectives())
    if all(fusion.needs.pooled for fusion in fusions.values()):

        def filled(view: View) -> SharedPass:
            shared = SharedPass(
                backbone,
                fusions,
                # Noise is drawn a batch at a time, so batches are the same whatever --batch-tokens says.
                batch_tokens=options.batch_tokens if view is None else None,
                progress=lambda done, total: progress("states of the training texts", done, total),
                noise_seed=None if view is None else _NOISE + view,
                journal=journals.of(f"training {rows}, view {view}", fusions, backbone) if journals else None,
            )
            shared.ensure(texts)
            return shared

        return PooledSource(filled(None), {view: filled(view) for view in (0, 1) if noisy}, texts)
    live = LiveSource(backbone, texts, Needs.TOKENS, noise_seed=_NOISE)
    layers = sorted({layer for fusion in fusions.values() for layer in fusion.layers})
    views: tuple[View, ...] = (None, 0, 1) if noisy else (None,)
    room = CachedTokenSource.gigabytes(live.lengths, len(layers), backbone.shape.dim, len(views))
    if room > options.training.state_cache_gb:
        return live
    return CachedTokenSource(
        live,
        layers=layers,
        blocks=backbone.shape.blocks,
        dim=backbone.shape.dim,
        views=views,
        folder=options.out / "checkpoints",
        progress=lambda done, total: progress("token states of the training texts", done, total),
    )
