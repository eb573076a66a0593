"""The records behind a page's numbers: what is shown of each, and where its file lies."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fusebench.benchmarks.record import Record


def record_links(out: Path, page: Path) -> dict[str, str]:
    """For each record of the results folder `out`, by `spec_id`, the relative address of its file from `page`."""
    return {path.stem[-16:]: relative_link(path, page) for path in sorted(out.glob("runs/*/*/*.json"))}


def relative_link(path: Path, page: Path) -> str:
    """The address of a file as a page links it; a page that stays in the results folder shows no machine's path."""
    return quote(Path(os.path.relpath(path.resolve(), page.resolve().parent)).as_posix())


def held_records(records: Iterable[Record], links: dict[str, str]) -> dict[str, Any]:
    """What the page holds of each record, by `spec_id`; equal parts of specifications are stored once, in `shared`.

    A specification's parts are numbers of places in `shared`. No record holds a text of a data set.
    """
    shared: list[Any] = []
    places: dict[str, int] = {}

    def place(part: Any) -> int:
        key = json.dumps(part, sort_keys=True)
        if key not in places:
            places[key] = len(shared)
            shared.append(part)
        return places[key]

    held = {}
    for record in sorted(records, key=lambda record: record.spec_id):
        dumped = record.model_dump(mode="json")
        held[record.spec_id] = {
            "task": record.spec.task.name,
            "seed": record.spec.seed,
            "score": 100 * record.main_score,
            "metric": record.spec.task.metric,
            "created": record.environment.created,
            "link": links.get(record.spec_id, ""),
            "spec": {name: place(part) for name, part in dumped["spec"].items()},
            "measured": {
                name: place(dumped[name])
                for name in ("counts", "cost", "training", "overlap", "environment")
                if dumped[name] is not None
            },
        }
    return {"shared": shared, "records": held}
