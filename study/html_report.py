"""The HTML report of a results folder, from its records, tests of its boards, training logs and diagnoses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fusebench.benchmarks.atomic import atomic_write
from fusebench.benchmarks.board_files import file_names
from fusebench.benchmarks.board_rows import method_rows
from fusebench.benchmarks.board_tests import read_tests
from fusebench.benchmarks.diagnosis_files import read_diagnoses
from fusebench.benchmarks.leaderboard import Board, build_boards
from fusebench.benchmarks.mirror import shown_place
from fusebench.benchmarks.record import Record
from fusebench.benchmarks.report_board import board_table, labelled_rows, side_table
from fusebench.benchmarks.report_cost import cost_section
from fusebench.benchmarks.report_diagnostics import diagnosis_sections
from fusebench.benchmarks.report_figure import Section
from fusebench.benchmarks.report_logs import TrainingCurve, read_curves
from fusebench.benchmarks.report_page import BoardPage, Page, render
from fusebench.benchmarks.report_records import held_records, record_links, relative_link
from fusebench.benchmarks.report_significance import significance_section
from fusebench.benchmarks.report_sweeps import sweep_section
from fusebench.benchmarks.report_training import curve_section, curves_of, weight_section
from fusebench.benchmarks.store import Store


def write_report(store: Store, out_file: Path) -> Path:
    """Writes the report as one HTML file that opens without a network, and returns it.

    The page depends on nothing but the files of the results folder and, for its links, its own place.

    Raises:
        InputError: plotly is not installed, or the disk refused; the old file is as it was.
    """
    records = store.records()
    tests, bad_tests = read_tests(store.out)
    boards = build_boards(records, store.suites(), tests)
    curves, bad_logs = read_curves(store.out / "training")
    diagnoses, bad_diagnoses = read_diagnoses(store.out / "diagnostics")
    by_id = {record.spec_id: record for record in records}
    pages, shown = [], set()
    for board, name in zip(boards, file_names(boards), strict=True):
        own = [by_id[spec_id] for spec_id in sorted(board.spec_ids)]
        told_apart = name.removeprefix(board.suite).strip("-")
        files = _board_links(board, name, store.out, out_file)
        pages.append(_board_page(board, told_apart, own, curves, files))
        shown |= {record.spec.training_id for record in own if record.training is not None}
    on_boards = frozenset().union(*(board.spec_ids for board in boards))
    page = Page(
        name=shown_place(store.out),
        facts=_facts(records, curves),
        boards=sorted(pages, key=lambda page: -len(page.table.columns)),  # the widest suite stands open
        sections=[
            *diagnosis_sections(diagnoses, records),
            *_unscored([curve for curve in curves if curve.training_id not in shown]),
        ],
        rejected=_by_reason([*store.rejected, *bad_logs, *bad_tests, *bad_diagnoses], store.out),
        records=held_records((by_id[i] for i in on_boards), record_links(store.out, out_file)),
    )
    atomic_write(out_file, render(page))
    return out_file


def _board_page(
    board: Board,
    told_apart: str,
    records: list[Record],
    curves: Sequence[TrainingCurve],
    files: Mapping[str, str],
) -> BoardPage:
    labelled = labelled_rows(method_rows(records))
    trained = curves_of(labelled, curves)
    sections = [
        significance_section(board.tests),
        sweep_section(board, [row for _, row in labelled]),
        cost_section(board, labelled),
        weight_section(trained),
        curve_section(trained),
    ]
    return BoardPage(
        title=board.title,
        backbone=board.backbone,
        chips=tuple(aspect for aspect in board.aspects[:-1] if aspect),
        told_apart=told_apart,
        caption=board.caption,
        table=board_table(board, labelled),
        files=files,
        sections=[section for section in sections if section is not None],
        training=side_table(board.training),
        overlap=side_table(board.overlap),
    )


def _board_links(board: Board, name: str, out: Path, page: Path) -> dict[str, str]:
    places = {
        kind: out / "leaderboards" / board.folder / f"{name}{suffix}"
        for kind, suffix in (("Markdown", ".md"), ("CSV", ".csv"), ("LaTeX", ".tex"))
    }
    return {kind: relative_link(path, page) for kind, path in places.items() if path.is_file()}


def _unscored(curves: Sequence[TrainingCurve]) -> list[Section]:
    """Trainings that no board shows: interrupted ones, and such as are under way."""
    by_method: dict[str, list[TrainingCurve]] = defaultdict(list)
    for curve in curves:
        by_method[curve.method].append(curve)
    sections = [section for section in (weight_section(by_method), curve_section(by_method)) if section]
    if not sections:
        return []
    figures = [figure for section in sections for figure in section.figures]
    weights = f" {sections[0].text}" if len(sections) > 1 else ""
    tables = {heading: table for section in sections for heading, table in section.tables.items()}
    text = f"Logs of trainings that no board shows yet.{weights}"
    return [Section("Trainings without scores", text, figures, tables)]


def _facts(records: Sequence[Record], curves: Sequence[TrainingCurve]) -> dict[str, str]:
    specs = [record.spec for record in records]
    facts = {
        "methods": len({spec.method.name for spec in specs}),
        "tasks": len({spec.task.name for spec in specs}),
        "backbones": len({spec.backbone.name for spec in specs}),
        "records": len(records),
        "training logs": len(curves),
    }
    newest = max((record.environment.created for record in records), default="")[:10]
    return {name: f"{count:,}" for name, count in facts.items() if count} | (
        {"newest record": newest} if newest else {}
    )


def _by_reason(rejected: Iterable[tuple[Path, str]], out: Path) -> list[tuple[str, str]]:
    """Reasons with the first file of each and how many more there are."""
    files: dict[str, list[str]] = defaultdict(list)
    for path, reason in rejected:
        files[reason].append(path.relative_to(out).as_posix() if path.is_relative_to(out) else path.name)
    return [
        (reason, names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else ""))
        for reason, names in sorted(files.items())
    ]
