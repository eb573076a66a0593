"""What paired tests say of a board, in its own columns, its caption and tables below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from fusebench.benchmarks.board_tests import BoardTests, Difference, Interval, MethodTests
from fusebench.benchmarks.statistics import p_text

INTERVAL, GROUP = "95 %", "group"


def tested_cells(tests: BoardTests, label: str) -> dict[str, str]:
    """The columns that a row of the board gets: the interval of its leading average, and its letters."""
    if tests.leading is None:
        return {}
    own = tests.method(label)
    shown = spoken(own.scores[tests.leading].widest_known) if own else ""
    return {INTERVAL: shown, GROUP: own.group if own else ""}


def lines_on_tests(tests: BoardTests | None) -> list[str]:
    """What the caption says of the tests, or that there are none."""
    if tests is None:
        return [
            "Differences are not tested for significance; with the data at hand, `run_bench.py report --test` does."
        ]
    drawn = "clusters of items that share texts" if tests.clustered else "items"
    how = f"{tests.resamples} resamples of {drawn}, seed {tests.seed}"
    lines = []
    if tests.leading is not None:
        lines += [
            f"{INTERVAL}: interval of {tests.leading} alone, from {how}; intervals of two methods may overlap where "
            "their difference is real.",
            f"{GROUP}: methods that share a letter are not told apart on {tests.leading} by the paired test, "
            "adjusted for all pairs (max-T, 5 %); bold: those not told apart from the highest. Seeds enter the test "
            "where a method has several.",
        ]
    return [*lines, f"Drawn: {'. '.join(tests.drawn)}."]


def tables_of_tests(tests: BoardTests | None) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Title, note and table of what the tests say beyond the board's own columns."""
    if tests is None:
        return
    if tests.baseline is not None and tests.leading is not None:
        schemes = "over items and over clusters of items that share texts" if tests.clustered else "over items"
        note = (
            f"Method less {tests.baseline} on {tests.leading}, x100, {schemes}; p two-sided, adjusted for all "
            f"{len(tests.methods) - 1} methods (max-T); d: difference in standard deviations of an item's part in "
            "it; detectable: the true difference that a test of it alone would find with probability 0.8."
        )
        yield f"Less {tests.baseline}", note, differences_table(tests)
    yield "Intervals", f"95 %, x100, from {tests.resamples} resamples.", intervals_table(tests)


def differences_table(tests: BoardTests) -> pd.DataFrame:
    """Differences from the baseline on the leading average, largest first."""
    assert tests.leading is not None
    found = [(own.label, own.less_baseline[tests.leading]) for own in tests.methods if own.less_baseline]
    rows = []
    for label, both in sorted(found, key=lambda one: (-one[1].items.difference, one[0])):
        row = {"method": label, **_cells(both.items, "", tests)}
        if tests.clustered:
            row |= _cells(both.clusters or both.items, " clusters", tests)
        rows.append(row)
    return pd.DataFrame(rows, dtype="str")


def _cells(found: Difference, over: str, tests: BoardTests) -> dict[str, str]:
    alone = {"difference": f"{100 * found.difference:+.2f}", "d": f"{found.effect:+.3f}"} if not over else {}
    return {
        **alone,
        f"95 %{over}": spoken(Interval(low=found.low, high=found.high)),
        f"p max-T{over}": p_text(found.adjusted, tests.resamples),
        f"detectable{over}": f"{100 * found.detectable:.2f}",
    }


def intervals_table(tests: BoardTests) -> pd.DataFrame:
    """The interval of every score; of averages and tasks with clusters that over clusters."""
    names = list(tests.methods[0].scores)
    rows = [{"method": own.label, **_intervals(own, names)} for own in tests.methods]
    return pd.DataFrame(rows, dtype="str")


def _intervals(own: MethodTests, names: Sequence[str]) -> dict[str, str]:
    return {name: spoken(own.scores[name].widest_known) for name in names}


def frame_of_tests(tests: BoardTests) -> pd.DataFrame:
    """All numbers, a row a method and a task or average: fractions, as in scores.csv."""
    rows = []
    for own in tests.methods:
        for name, score in own.scores.items():
            less = own.less_baseline.get(name)
            row: dict[str, object] = {"method": own.label, "on": name, "score": score.value}
            row |= {"low": score.items.low, "high": score.items.high}
            row |= {"low_clusters": score.clusters and score.clusters.low}
            row |= {"high_clusters": score.clusters and score.clusters.high}
            row |= {"group": own.group if name == tests.leading else ""}
            for over, found in (("", less and less.items), ("_clusters", less and less.clusters)):
                fields = found.model_dump() if found else dict.fromkeys(Difference.model_fields)
                row |= {f"{field}{over}": value for field, value in fields.items()}
            rows.append(row)
    frame = pd.DataFrame(rows)
    numbers = [name for name in frame.columns if name not in ("method", "on", "group")]
    return frame.astype(dict.fromkeys(numbers, "Float64"))


def spoken(interval: Interval) -> str:
    """`70.12 to 73.40`."""
    return f"{100 * interval.low:.2f} to {100 * interval.high:.2f}"
