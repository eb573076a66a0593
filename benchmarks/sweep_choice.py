"""Which run of a sweep is chosen for a method: by its score on the dev rows alone, and what all of them cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from pydantic import BaseModel, ConfigDict

from fusebench.benchmarks.record import Record, Training

Who = tuple[str, str, str]  # name and hash of the backbone, method


class Choice(BaseModel):
    """A method on a backbone, and the run whose training did best on the dev rows.

    Attributes:
        backbone: its name.
        run: name of the chosen run; None where there was nothing to choose by.
        dev_score: of it, mean over the seeds.
        main_score: of it, mean over seeds and tasks; it had no part in the choice.
        runs: that have all seeds and tasks of the method, so that they can be compared.
        trials: trainings a seed, those of `--trials` included.
        updates: of all of them, over all seeds.
        examples: rows seen in them, repetitions included.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    backbone: str
    method: str
    run: str | None
    dev_score: float | None
    main_score: float | None
    runs: int
    trials: int
    updates: int
    examples: int


def choose(by_run: Mapping[str, Sequence[Record]]) -> list[Choice]:
    """A choice for every trained method on every backbone.

    A run is compared only if it has every seed and task that any run has of the method; of equal dev scores the
    first run's wins. A fine-tuned and a frozen training are two runs of one method.

    Args:
        by_run: the finished records of each run, by its name.
    """
    groups: dict[Who, dict[str, list[Record]]] = {}
    for run, records in by_run.items():
        for record in records:
            if record.training is not None:
                backbone = record.spec.backbone
                who = backbone.name, backbone.weights_sha256, record.spec.method.name
                groups.setdefault(who, {}).setdefault(run, []).append(record)
    return [_choice(who, runs) for who, runs in groups.items()]


def _choice(who: Who, runs: Mapping[str, Sequence[Record]]) -> Choice:
    wanted = {_cell(record) for records in runs.values() for record in records}
    whole = {run: records for run, records in runs.items() if {_cell(record) for record in records} == wanted}
    scores = {run: score for run, records in whole.items() if (score := _dev_score(records)) is not None}
    best = max(scores, key=scores.__getitem__, default=None)
    spent = _trainings([record for records in runs.values() for record in records])
    seeds = {seed for seed, _ in spent}
    return Choice(
        backbone=who[0],
        method=who[2],
        run=best,
        dev_score=None if best is None else scores[best],
        main_score=None if best is None else fmean(record.main_score for record in whole[best]),
        runs=len(whole),
        trials=max(sum(one.trials for (of, _), one in spent.items() if of == seed) for seed in seeds),
        updates=sum(one.updates for one in spent.values()),
        examples=sum(one.examples for one in spent.values()),
    )


def _cell(record: Record) -> tuple[int | None, str]:
    return record.spec.seed, record.spec.task.name


def _dev_score(records: Sequence[Record]) -> float | None:
    """Mean over the trainings; None if one of them was not scored on dev rows."""
    scores = [one.dev_score for one in _trainings(records).values()]
    known = [score for score in scores if score is not None]
    return fmean(known) if known and len(known) == len(scores) else None


def _trainings(records: Sequence[Record]) -> dict[tuple[int | None, str], Training]:
    """Each training once, by seed and identity, although every task has a record of it."""
    return {(r.spec.seed, r.spec.training_id): r.training for r in records if r.training is not None}
