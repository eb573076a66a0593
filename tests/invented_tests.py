"""Tests of a board with invented numbers, for tests of all that shows them."""

from __future__ import annotations

import itertools

from fusebench.benchmarks.board_tests import (
    BoardTests,
    Difference,
    DifferenceFromBaseline,
    Interval,
    MethodTests,
    Pair,
    ScoreWithInterval,
    identity_of,
)


def score(value):
    """A score with an interval over items, and a wider one over clusters."""
    items, clusters = (Interval(low=value - width, high=value + width) for width in (0.02, 0.03))
    return ScoreWithInterval(value=value, items=items, clusters=clusters)


def difference(value):
    """A difference that is told apart if it is above 0.05."""
    p = 0.001 if abs(value) > 0.05 else 0.5
    return Difference(
        difference=value, low=value - 0.05, high=value + 0.05, p=p, adjusted=2 * p, effect=value, detectable=0.07
    )


def invented_tests(board, baseline="mean"):
    """Tests of those rows of a complete board that equal no other."""
    rows = board.table[~board.table["rank"].str.startswith("=")].set_index("method")
    columns = [*board.tasks, *board.averages]
    held = {label: {name: row[name] / 100 for name in columns} for label, row in rows.iterrows()}
    leading = board.averages[-1]
    top = max(own[leading] for own in held.values())
    methods = [
        MethodTests(
            label=label,
            scores={name: score(value) for name, value in own.items()},
            less_baseline={
                name: DifferenceFromBaseline(
                    items=difference(value - held[baseline][name]), clusters=difference(value - held[baseline][name])
                )
                for name, value in own.items()
                if label != baseline
            },
            group="a" if top - own[leading] <= 0.05 else "b",
            among_the_best=top - own[leading] <= 0.05,
        )
        for label, own in held.items()
    ]
    pairs = [
        Pair(one=one, other=other, tested=difference(held[one][leading] - held[other][leading]))
        for one, other in itertools.combinations(held, 2)
    ]
    return BoardTests(
        identity=identity_of(board.spec_ids),
        title=board.title,
        resamples=1000,
        seed=0,
        baseline=baseline,
        leading=leading,
        methods=tuple(methods),
        pairs=tuple(pairs),
        records={},
        drawn=tuple(f"{task}: 10 items, each by itself" for task in board.tasks),
        untested=(),
    )
