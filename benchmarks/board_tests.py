"""Stored tests of a board: intervals of its scores, differences from a baseline, and who can be told apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fusebench.benchmarks.atomic import atomic_write, slug
from fusebench.benchmarks.sealed_json import sealed_text, unsealed

FOLDER = "tests"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Interval(_Frozen):
    """Ends of a 95 % interval, fractions as mteb's scores are."""

    low: float
    high: float


class ScoreWithInterval(_Frozen):
    """A score with its interval over items and, where items share texts, over clusters of them."""

    value: float
    items: Interval
    clusters: Interval | None

    @property
    def widest_known(self) -> Interval:
        """The interval to quote: over clusters, where there are any."""
        return self.clusters or self.items


class Difference(_Frozen):
    """A difference of two scores: `p` of it alone, `adjusted` for all that were tested together."""

    difference: float
    low: float
    high: float
    p: float
    adjusted: float
    effect: float
    detectable: float


class DifferenceFromBaseline(_Frozen):
    """The same difference over items and, where items share texts, over clusters; adjusted by max-T."""

    items: Difference
    clusters: Difference | None


class MethodTests(_Frozen):
    """A row of the board.

    Attributes:
        label: the row's, on its board.
        scores: by task and average.
        less_baseline: by task and average; empty for the baseline, and where there is none.
        group: letters that it shares with the methods it is not told apart from.
        among_the_best: whether it is not told apart from the method with the highest score.
    """

    label: str
    scores: dict[str, ScoreWithInterval]
    less_baseline: dict[str, DifferenceFromBaseline]
    group: str
    among_the_best: bool


class Pair(_Frozen):
    """Two methods by their labels; `tested.adjusted` is Benjamini and Hochberg's."""

    one: str
    other: str
    tested: Difference


class BoardTests(_Frozen):
    """What paired tests say of a board.

    Attributes:
        identity: of the board whose records were tested; see `identity_of`.
        title: of the board, for readers of the file.
        resamples: of items, and of clusters.
        seed: of the resamples.
        baseline: label of the method that all others are compared with, or None.
        leading: the task or average that groups and pairs are about; None where the board has no average.
        methods: rows with a record of every task, in the board's order; what equals another row is left out.
        pairs: every pair on `leading`: exploratory.
        records: interval of each cell's main score, by `spec_id`.
        drawn: a sentence a task: its items, and what is drawn of them.
        untested: labels of rows that were left out.
    """

    schema_version: Literal[1] = 1
    identity: str
    title: str
    resamples: int
    seed: int
    baseline: str | None
    leading: str | None
    methods: tuple[MethodTests, ...]
    pairs: tuple[Pair, ...]
    records: dict[str, ScoreWithInterval]
    drawn: tuple[str, ...]
    untested: tuple[str, ...]

    @property
    def clustered(self) -> bool:
        """Whether clusters were drawn too."""
        return any(score.clusters for method in self.methods for score in method.scores.values())

    def covers(self, tasks: Sequence[str], *, averaged: bool) -> bool:
        """Whether they are about just these tasks, and their averages if there are any."""
        scores = self.methods[0].scores
        return all(task in scores for task in tasks) and averaged == (self.leading is not None)

    def method(self, label: str) -> MethodTests | None:
        """The row with this label, if it was tested."""
        return next((method for method in self.methods if method.label == label), None)


def identity_of(spec_ids: Iterable[str]) -> str:
    """What a board's tests belong to: the cells behind it. One more record, and they are out of date."""
    return hashlib.sha256("\n".join(sorted(spec_ids)).encode()).hexdigest()[:16]


def path_of_tests(out: Path, backbone_folder: str, suite: str, aspect: str) -> Path:
    """Where a board's tests lie: beside others of its backbone, under its suite and the hash of its setting."""
    return out / FOLDER / backbone_folder / f"{slug(f'{suite}-{aspect}')}.json"


def write_tests(path: Path, tests: BoardTests) -> None:
    """Stores the tests whole or not at all.

    Raises:
        InputError: the disk refused; the old file is as it was.
    """
    # Six digits: what lies beyond is noise of the resamples, and files stay small.
    atomic_write(path, sealed_text(_rounded(tests.model_dump(mode="json"))))


def read_tests(out: Path) -> tuple[list[BoardTests], list[tuple[Path, str]]]:
    """The tests in a results folder by file name, and the files that hold none, with the reason."""
    found, rejected = [], []
    for path in sorted((out / FOLDER).glob("*/*.json")):
        try:
            found.append(BoardTests.model_validate(unsealed(path.read_bytes())))
        except ValidationError as error:
            first = error.errors()[0]
            rejected.append((path, f"holds no tests of a board: {'.'.join(map(str, first['loc']))}: {first['msg']}"))
        except (OSError, ValueError) as error:
            rejected.append((path, f"holds no tests of a board: {error}"))
    return found, rejected


def record_intervals(tests: Sequence[BoardTests]) -> dict[str, ScoreWithInterval]:
    """The interval of each tested cell; of several, that of the most resamples."""
    found: dict[str, ScoreWithInterval] = {}
    for one in sorted(tests, key=lambda one: one.resamples):
        found |= one.records
    return found


def _rounded(held: Any) -> Any:
    if isinstance(held, dict):
        return {key: _rounded(value) for key, value in held.items()}
    if isinstance(held, list):
        return [_rounded(value) for value in held]
    return round(held, 6) if isinstance(held, float) else held
