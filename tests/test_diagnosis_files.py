"""The file of a diagnosis comes back as it was, or is refused with a reason."""

from __future__ import annotations

import json

import pytest

from fusebench.benchmarks.diagnosis_files import read_diagnoses, write_diagnosis
from tests.invented_diagnoses import attention, diagnosis, similarity


def test_a_diagnosis_comes_back_as_it_was_written(tmp_path):
    held = diagnosis(similarities=(similarity(),), attention=(attention(heads=1),))
    path = write_diagnosis(tmp_path, held)
    assert path.name.endswith(f"-{held.diagnosis_id}.json")
    assert read_diagnoses(tmp_path / "diagnostics") == ([held], [])


def test_what_a_diagnosis_depends_on_gives_it_another_file(tmp_path):
    written = {write_diagnosis(tmp_path, diagnosis(**changes)) for changes in ({}, {"seed": 1}, {"code": "other"})}
    written.add(write_diagnosis(tmp_path, diagnosis()))
    assert len(written) == 3


def other(held, **changes):
    return json.dumps(held | changes)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda held: "{", "is no diagnosis: Expecting"),
        (lambda held: "[]", "schema version None"),
        (lambda held: other(held, schema_version=9), "schema version 9, this version reads 1"),
        (lambda held: other(held, spaces=[]), "0 spaces of 2 methods"),
        (lambda held: other(held, spec=held["spec"] | {"seed": 4}), "does not hash to its id"),
        (lambda held: other(held, sizes="many"), "is no diagnosis: sizes"),
        (lambda held: json.dumps(held).replace("0.75", "NaN"), "NaN"),
    ],
)
def test_a_file_that_is_none_is_refused_with_the_reason(tmp_path, spoil, reason):
    path = write_diagnosis(tmp_path, diagnosis())
    path.write_text(spoil(json.loads(path.read_text())))
    found, [(refused, why)] = read_diagnoses(tmp_path / "diagnostics")
    assert (found, refused) == ([], path)
    assert reason in why


def test_a_folder_that_is_not_there_holds_none(tmp_path):
    assert read_diagnoses(tmp_path / "nowhere") == ([], [])
