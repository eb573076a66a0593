"""Tests boards: intervals of their scores, every method against a baseline, and who cannot be told apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fusebench.benchmarks import board_tests
from fusebench.benchmarks.board_rows import Row, method_rows, row_labels, twin
from fusebench.benchmarks.board_tests import (
    BoardTests,
    DifferenceFromBaseline,
    Interval,
    MethodTests,
    Pair,
    ScoreWithInterval,
)
from fusebench.benchmarks.bootstrap import Floats
from fusebench.benchmarks.comparison import Difference, Estimate, Resampled, board_averages
from fusebench.benchmarks.leaderboard import Board
from fusebench.benchmarks.record import Record
from fusebench.benchmarks.statistics import letters
from fusebench.benchmarks.task_data import parts
from fusebench.benchmarks.tasks import LoadedTask
from fusebench.errors import InputError
from fusebench.study.compare_choice import Variant, variants
from fusebench.study.evidence import gather
from fusebench.study.resampled_tasks import BothSchemes, drawn_sentences, resample_both, single_tasks

BASELINE = "mean"
RESAMPLES = 10_000
FEWEST_RESAMPLES = 100  # for an interval
AT_ONCE = 100_000  # numbers of single items that a run tests without being asked: some seconds of work

Progress = Callable[[str, int, int], None]  # stage, done, total


def write_board_tests(
    boards: Sequence[Board],
    records: Iterable[Record],
    tasks: Mapping[str, LoadedTask],
    out: Path,
    *,
    baseline: str = BASELINE,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Progress = lambda stage, done, total: None,
) -> list[str]:
    """Tests each board and stores what is found below `out`; a sentence for each that could not be tested.

    Args:
        boards: of the results folder.
        records: of the results folder.
        tasks: loaded, by name; those of every board.
        out: the results folder.
        baseline: that every method is compared with on boards that have it.
        resamples: of items, and of clusters.
        seed: of the resamples.
        progress: called before and after each board.

    Raises:
        InputError: the disk refused.
    """
    by_id = {record.spec_id: record for record in records}
    problems = []
    for number, board in enumerate(boards):
        progress("testing boards", number, len(boards))
        own = [by_id[spec_id] for spec_id in sorted(board.spec_ids)]
        try:
            tests = board_tests_of(board, own, tasks, out, baseline=baseline, resamples=resamples, seed=seed)
        except InputError as error:
            problems.append(f"{board.title}: {board.backbone} is not tested: {error}")
            continue
        board_tests.write_tests(place_of_tests(board, out), tests)
    progress("testing boards", len(boards), len(boards))
    return problems


def place_of_tests(board: Board, out: Path) -> Path:
    """Where the tests of a board lie."""
    return board_tests.path_of_tests(out, board.folder, board.suite, board.aspects[-1])


def numbers_of(board: Board, records: Mapping[str, Record], tasks: Mapping[str, LoadedTask]) -> int:
    """How many numbers of single items a test of the board reads: what its cost grows with."""
    items = {name: sum(_count(data) for _, _, data in parts(tasks[name].task)) for name in board.tasks}
    return sum(items[records[spec_id].spec.task.name] for spec_id in board.spec_ids)


def board_tests_of(
    board: Board,
    records: Sequence[Record],
    tasks: Mapping[str, LoadedTask],
    out: Path,
    *,
    baseline: str,
    resamples: int,
    seed: int,
) -> BoardTests:
    """The tests of a board's rows that have every task and equal no other row.

    Args:
        board: that the tests are of.
        records: behind it.
        tasks: loaded, by name.
        out: where the samples are.
        baseline: label of the row that all others are compared with; none where the board has no such row.
        resamples: of items, and of clusters.
        seed: of the resamples.

    Raises:
        InputError: samples are missing or damaged, the data have changed, or there is nothing to test.
    """
    rows = method_rows(list(records))
    labels = dict(zip(row_labels(rows), rows, strict=True))
    complete = {label: row for label, row in labels.items() if set(row.cells) == set(board.tasks)}
    chosen = {label: row for label, row in complete.items() if twin(row, list(complete.values())) is None}
    ordered = [label for label in map(str, board.table["method"]) if label in chosen]
    if not ordered:
        raise InputError("no row has a record of every task")
    evidence = gather(
        _variants([chosen[label] for label in ordered]),
        [tasks[name] for name in board.tasks],
        out,
        match_seeds=False,
    )
    both = resample_both(evidence, seed=seed, resamples=resamples)
    averages = board_averages({task.name: task.type for task in evidence.tasks}) if board.averages else {}
    tested = _Tested(both, ordered, single_tasks(evidence) | averages)
    leading = board.averages[-1] if board.averages else None
    return BoardTests(
        identity=board_tests.identity_of(board.spec_ids),
        title=f"{board.title}: {board.backbone}",
        resamples=resamples,
        seed=seed,
        baseline=baseline if baseline in ordered else None,
        leading=leading,
        methods=tested.methods(baseline, leading),
        pairs=tested.pairs(leading),
        records=tested.records([chosen[label] for label in ordered]),
        drawn=tuple(drawn_sentences(evidence.tasks)),
        untested=tuple(label for label in labels if label not in chosen),
    )


def _count(data: object) -> int:
    return len(data["queries"]) if isinstance(data, dict) else len(data)  # type: ignore[arg-type]


def _variants(rows: Sequence[Row]) -> list[Variant]:
    """One a row; a row's records share all that tells variants apart."""
    found = []
    for row in rows:
        (variant,) = variants(row.records)
        found.append(variant)
    return found


@dataclass(frozen=True, eq=False)
class _Tested:
    """The rows of a board, resampled; `on` has the weights of the tasks by task and average."""

    both: BothSchemes
    labels: Sequence[str]
    on: Mapping[str, Floats]

    def methods(self, baseline: str, leading: str | None) -> tuple[MethodTests, ...]:
        """Every row with its intervals, its differences from the baseline and its letters."""
        numbers = range(len(self.labels))
        groups = self.both.careful.groups(self.on[leading]) if leading else []
        marks = letters(groups, len(self.labels)) if leading else [""] * len(self.labels)
        best = self._best(leading) if leading else None
        with_best = {k for group in groups if best in group for k in group}
        less = {name: self._less(baseline, on) for name, on in self.on.items()}
        return tuple(
            MethodTests(
                label=self.labels[k],
                scores={name: _score(self.both, k, on) for name, on in self.on.items()},
                less_baseline={name: own[k] for name, own in less.items() if k in own},
                group=marks[k],
                among_the_best=k in with_best,
            )
            for k in numbers
        )

    def pairs(self, leading: str | None) -> tuple[Pair, ...]:
        """Every pair on the leading average, exploratory."""
        if leading is None or len(self.labels) < 2:
            return ()
        return tuple(
            Pair(one=self.labels[found.one], other=self.labels[found.other], tested=_difference(found))
            for found in self.both.careful.every_pair(self.on[leading])
        )

    def records(self, rows: Sequence[Row]) -> dict[str, ScoreWithInterval]:
        """The interval of each cell: of one seed on one task."""
        names = self.both.items.tasks
        clusters = self.both.clusters
        singles = BothSchemes(self.both.items.by_seed(), clusters.by_seed() if clusters else None)
        by_place = [
            {(record.spec.seed, name): record for name in names for record in row.cells[name]} for row in rows
        ]
        series = [
            (found, seed)
            for found, contender in zip(by_place, self.both.items.contenders, strict=True)
            for seed in contender.seeds
        ]
        return {
            found[seed, name].spec_id: _score(singles, k, self.on[name])
            for k, (found, seed) in enumerate(series)
            for name in names
        }

    def _best(self, leading: str) -> int:
        return max(range(len(self.labels)), key=lambda k: self.both.items.estimate(k, self.on[leading]).value)

    def _less(self, baseline: str, on: Floats) -> dict[int, DifferenceFromBaseline]:
        """Every other row less the baseline."""
        if baseline not in self.labels or len(self.labels) < 2:
            return {}
        place = list(self.labels).index(baseline)
        families: list[list[Difference]] = [scheme.against(place, on) for scheme in self.both.schemes]
        return {
            items.one: DifferenceFromBaseline(
                items=_difference(items), clusters=_difference(clusters[0]) if clusters else None
            )
            for items, *clusters in zip(*families, strict=True)
        }


def _score(both: BothSchemes, contender: int, on: Floats) -> ScoreWithInterval:
    def of(scheme: Resampled) -> Estimate:
        return scheme.estimate(contender, on)

    items = of(both.items)
    return ScoreWithInterval(
        value=items.value,
        items=_interval(items),
        clusters=_interval(of(both.clusters)) if both.clusters else None,
    )


def _interval(estimate: Estimate) -> Interval:
    return Interval(low=estimate.low, high=estimate.high)


def _difference(found: Difference) -> board_tests.Difference:
    return board_tests.Difference(
        difference=found.estimate.value,
        low=found.estimate.low,
        high=found.estimate.high,
        p=found.p,
        adjusted=found.adjusted,
        effect=found.effect,
        detectable=found.detectable,
    )
