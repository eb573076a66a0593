"""What the score gate leaves behind: a Markdown summary, JUnit XML, JSON."""

from __future__ import annotations

import json
from xml.etree import ElementTree

from fusebench.benchmarks.gate import GateReport, Verdict

COLUMNS = ("task", "method", "baseline", "now", "change", "changes caught above", "verdict")


def summary(report: GateReport) -> str:
    """One sentence on all cells."""
    failed = sum(not verdict.passed for verdict in report.verdicts)
    counts = {
        "moved": report.count("lower", "higher"),
        "missing": report.count("missing"),
        "with other inputs": report.count("other inputs"),
        "new": report.count("new"),
    }
    said = "".join(f", {count} {what}" for what, count in counts.items() if count)
    cells = len(report.baseline.cells)
    head = "passed" if report.passed else f"FAILED in {failed} {'cell' if failed == 1 else 'cells'}"
    return f"{head}: {report.count('same')} of {cells} the same{said}"


def row(verdict: Verdict) -> tuple[str, ...]:
    """The cells of `COLUMNS`."""
    cell, said = verdict.cell, verdict.outcome if verdict.passed else verdict.outcome.upper()
    return (
        verdict.key[1],
        verdict.label,
        "" if cell is None else f"{cell.score:.5f}",
        "" if verdict.score is None else f"{verdict.score:.5f}",
        "" if verdict.change is None else f"{verdict.change:+.1e}",
        "" if cell is None else f"{cell.tolerance:.1e}",
        f"{said} ({verdict.why})" if verdict.why else said,
    )


def markdown(report: GateReport) -> str:
    """A summary for people, failed cells first."""
    ordered = sorted(report.verdicts, key=lambda verdict: verdict.passed)
    lines = [
        f"## Score gate: {summary(report)}",
        "",
        f"{report.baseline.run.backbone}; {report.baseline.rule}. Changes count in both directions.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
        *(f"| {' | '.join(text.replace('|', '/') for text in row(verdict))} |" for verdict in ordered),
        "",
        f"Last update: {report.baseline.updates[-1].reason}",
    ]
    return "\n".join(lines) + "\n"


def junit(report: GateReport) -> str:
    """JUnit XML, a test case a cell; new cells are skipped ones."""
    failed = sum(not verdict.passed for verdict in report.verdicts)
    counts = {"tests": len(report.verdicts), "failures": failed, "skipped": report.count("new"), "errors": 0}
    suite = ElementTree.Element("testsuite", {"name": "score gate", **{k: str(v) for k, v in counts.items()}})
    for verdict in report.verdicts:
        case = ElementTree.SubElement(suite, "testcase", {"classname": verdict.key[1], "name": verdict.label})
        said = ", ".join(f"{name}: {text}" for name, text in zip(COLUMNS[2:], row(verdict)[2:], strict=True) if text)
        if not verdict.passed:
            ElementTree.SubElement(case, "failure", {"message": said, "type": verdict.outcome})
        elif verdict.outcome == "new":
            ElementTree.SubElement(case, "skipped", {"message": "not in the baseline"})
        else:
            ElementTree.SubElement(case, "system-out").text = said
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def as_json(report: GateReport) -> str:
    """The verdicts as JSON, one object a cell."""
    cells = [
        {
            "method": verdict.key[0],
            "task": verdict.key[1],
            "seed": verdict.key[2],
            "outcome": verdict.outcome,
            "passed": verdict.passed,
            "baseline": verdict.cell.score if verdict.cell else None,
            "score": verdict.score,
            "change": verdict.change,
            "smallest_change_caught": verdict.cell.tolerance if verdict.cell else None,
            "why": verdict.why or None,
        }
        for verdict in report.verdicts
    ]
    held = {"passed": report.passed, "summary": summary(report), "rule": report.baseline.rule, "cells": cells}
    return json.dumps(held, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
