"""The baseline file of the score gate: a score and a tolerance a cell, and how the tolerance was measured."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fusebench.benchmarks.atomic import atomic_write
from fusebench.benchmarks.record import Environment
from fusebench.benchmarks.run_spec import RunSpec
from fusebench.benchmarks.sealed_json import refuse_constant
from fusebench.errors import InputError

SCHEMA = 1
FLOOR = 1e-4  # the digits that boards print
SPREADS = 3.0

Key = tuple[str, str, int | None]  # method, task, seed


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Rerun(_Frozen):
    """How one rerun differed from the run whose scores are the baseline."""

    batch_tokens: int
    threads: int
    order: int  # seed of the order in which texts went in, and so of which texts shared a batch
    seed_offset: int  # added to the seed of every method that has one


class Cell(_Frozen):
    """One gated score.

    `spread` is the standard deviation of the score and the scores of the reruns; `tolerance` is
    `max(floor, spreads x spread)`.
    """

    method: str
    task: str
    seed: int | None
    metric: str
    score: float
    tolerance: float
    spread: float
    rerun_scores: tuple[float, ...]  # in the order of the baseline's reruns
    data_sha256: str
    weights_sha256: str  # of the backbone

    @property
    def key(self) -> Key:
        """What identifies the cell."""
        return self.method, self.task, self.seed


class Update(_Frozen):
    """One writing of the file."""

    created: str
    git_commit: str | None
    reason: str


class Baseline(_Frozen):
    """The file."""

    schema_version: int = SCHEMA
    rule: str
    floor: float
    spreads: float  # k
    run: RunSpec
    reruns: tuple[Rerun, ...]
    updates: tuple[Update, ...]  # newest last
    environment: Environment
    cells: tuple[Cell, ...]


def spread_of(score: float, rerun_scores: Sequence[float]) -> float:
    """The standard deviation, n - 1 in the denominator, of all runs of one cell."""
    return statistics.stdev([score, *rerun_scores])


def tolerance_of(spread: float, *, spreads: float = SPREADS, floor: float = FLOOR) -> float:
    """`max(floor, spreads x spread)`."""
    return max(floor, spreads * spread)


def rule(reruns: int, spreads: float, floor: float) -> str:
    """The tolerance in words."""
    return (
        f"tolerance = max({floor:g}, {spreads:g} x standard deviation over the run and {reruns} reruns that change "
        "batch size, order of texts, threads and, for methods with a seed, the seed)"
    )


def read_baseline(path: Path) -> Baseline:
    """The baseline of a file.

    Raises:
        InputError: there is none, it is no baseline, or it does not agree with itself.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse_constant)
    except FileNotFoundError as error:
        raise InputError(
            f"there is no baseline {path}; make one of the records of a run: "
            f"gate --baseline {path} --out DIR --update --reason TEXT."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no baseline: it cannot be read as JSON ({error}).") from error
    version = held.get("schema_version") if isinstance(held, dict) else None
    if version != SCHEMA:
        raise InputError(
            f"{path} has schema version {version!r}, this version reads {SCHEMA}; write it anew by --update."
        )
    try:
        baseline = Baseline.model_validate(held)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{path} is no baseline: {place}: {first['msg']}; write it anew by --update.") from error
    _check(path, baseline)
    return baseline


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Writes it whole or not at all, cells in a fixed order.

    Raises:
        InputError: the disk refuses.
    """
    ordered = sorted(
        baseline.cells, key=lambda cell: (cell.task, cell.method, -1 if cell.seed is None else cell.seed)
    )
    held: Any = baseline.model_copy(update={"cells": tuple(ordered)}).model_dump(mode="json")
    atomic_write(path, json.dumps(held, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _check(path: Path, baseline: Baseline) -> None:
    if not baseline.cells:
        raise InputError(f"{path} holds no cell, so there is nothing to compare with; write it anew by --update.")
    keys = [cell.key for cell in baseline.cells]
    for place, cell in enumerate(baseline.cells):
        where = f"{path}: {cell.method} on {cell.task}"
        if cell.key in keys[:place]:
            raise InputError(f"{where} is there twice; delete one of the two, or write the file anew by --update.")
        if len(cell.rerun_scores) != len(baseline.reruns) or not cell.rerun_scores:
            raise InputError(
                f"{where} has {len(cell.rerun_scores)} scores for {len(baseline.reruns)} reruns, so its tolerance is "
                "measured by nothing; write the file anew by --update."
            )
        spread = spread_of(cell.score, cell.rerun_scores)
        expected = tolerance_of(spread, spreads=baseline.spreads, floor=baseline.floor)
        if not (math.isclose(cell.spread, spread, abs_tol=1e-12) and math.isclose(cell.tolerance, expected)):
            raise InputError(
                f"{where} has the tolerance {cell.tolerance:g}, but its reruns give {expected:g}; it was changed by "
                "hand: write the file anew by --update."
            )
