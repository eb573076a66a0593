"""The files of diagnoses, in the folder `diagnostics` of a results folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fusebench.benchmarks.atomic import atomic_write, slug
from fusebench.benchmarks.diagnosis import SCHEMA, Diagnosis
from fusebench.benchmarks.record import digest
from fusebench.benchmarks.sealed_json import refuse_constant


def write_diagnosis(out: Path, held: Diagnosis) -> Path:
    """Writes it whole or not at all below `<out>/diagnostics`, and returns the file.

    Raises:
        InputError: the disk refuses.
    """
    path = out / "diagnostics" / f"{slug(held.spec.task.name)}-{held.diagnosis_id}.json"
    text = json.dumps(held.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    atomic_write(path, text + "\n")
    return path


def read_diagnoses(folder: Path) -> tuple[list[Diagnosis], list[tuple[Path, str]]]:
    """The diagnoses by file name, and the files that are none, with the reason."""
    found, rejected = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(_checked(json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse_constant)))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            rejected.append((path, f"is no diagnosis: {'.'.join(map(str, first['loc']))}: {first['msg']}"))
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror or "cannot be read" if isinstance(error, OSError) else str(error)
            rejected.append((path, f"is no diagnosis: {reason}"))
    return found, rejected


def _checked(held: Any) -> Diagnosis:
    version = held.get("schema_version") if isinstance(held, dict) else None
    if version != SCHEMA:
        raise ValueError(f"it has schema version {version!r}, this version reads {SCHEMA}")
    found = Diagnosis.model_validate(held)
    if found.diagnosis_id != digest(found.spec.model_dump(mode="json")):
        raise ValueError("its specification does not hash to its id")
    if len(found.spaces) != len(found.spec.methods):
        raise ValueError(f"it has {len(found.spaces)} spaces of {len(found.spec.methods)} methods")
    return found
