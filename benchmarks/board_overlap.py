"""What of a board's tasks stood in the training or dev data of its trained rows."""

from __future__ import annotations

from collections.abc import Sequence

from fusebench.benchmarks.board_rows import Row, row_labels
from fusebench.benchmarks.board_table import MISSING, Estimate, Table, estimate
from fusebench.benchmarks.board_words import counted, listed, span
from fusebench.benchmarks.record import Overlap


def overlap_table(rows: Sequence[Row], tasks: Sequence[str]) -> Table | None:
    """Method by tasks that were also scored without the pairs whose two texts are known; None if none was.

    Both scores of a cell are over the same seeds.
    """
    labelled = sorted(zip(row_labels(list(rows)), rows, strict=True), key=lambda pair: pair[0])
    scored = {label: {task: both for task in tasks if (both := _both_scores(row, task))} for label, row in labelled}
    shown = [task for task in tasks if any(task in cells for cells in scored.values())]
    lines: list[dict[str, str | float | Estimate]] = []
    for label, cells in scored.items():
        line: dict[str, str | float | Estimate] = {"method": label}
        for task in shown:
            line[task], line[_without(task)] = cells.get(task, (MISSING, MISSING))
        lines += [line] * bool(cells)
    columns = ["method", *(name for task in shown for name in (task, _without(task)))]
    return Table.of(columns, lines) if lines else None


def overlap_lines(rows: Sequence[Row], tasks: Sequence[str]) -> list[str]:
    """How many texts and pairs of each task the trained rows may have seen."""
    known, clean, unmeasured = [], [], []
    for task in tasks:
        held = _overlaps(rows, task)
        if any(one.known_texts for one in held):
            known.append(f"{task}: {_counts(held)}")
        elif held:
            clean.append(task)
        if any(row.trained and any(r.overlap is None for r in row.cells.get(task, [])) for row in rows):
            unmeasured.append(task)
    lines = []
    if known or clean:
        none = f"none of {', '.join(clean)}" if clean else ""
        told = "; ".join([*known, *[none] * bool(clean)])
        lines.append(f"Test texts that occur in the training or dev texts, case and punctuation aside: {told}.")
    if unmeasured:
        lines.append(
            f"Not measured for every trained row, whether its training held test texts: {listed(unmeasured)}."
        )
    return lines


def _overlaps(rows: Sequence[Row], task: str) -> list[Overlap]:
    # A training-free row stands on boards of several trainings; nothing was trained whose texts could overlap.
    records = [record for row in rows if row.trained for record in row.cells.get(task, [])]
    return [record.overlap for record in records if record.overlap is not None]


def _counts(held: Sequence[Overlap]) -> str:
    texts = f"{span(one.known_texts for one in held)} of {counted(max(one.texts for one in held), 'text')}"
    paired = [(one.pairs_both_known, one.pairs) for one in held if one.pairs is not None]
    both = [count for count, _ in paired if count is not None]
    if not both:
        return texts
    return f"{texts}, both texts of {span(both)} of {counted(max(pairs for _, pairs in paired), 'pair')}"


def _both_scores(row: Row, task: str) -> tuple[Estimate, Estimate] | None:
    scored = [
        (100 * record.main_score, 100 * record.overlap.main_score_without)
        for record in row.cells.get(task, [])
        if row.trained and record.overlap is not None and record.overlap.main_score_without is not None
    ]
    if not scored:
        return None
    whole, rest = zip(*scored, strict=True)
    return estimate(whole), estimate(rest)


def _without(task: str) -> str:
    return f"{task} without"
