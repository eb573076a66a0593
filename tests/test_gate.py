from __future__ import annotations

import argparse
import json
import statistics
from xml.etree import ElementTree

import pytest
import torch

from fusebench.benchmarks import gate_files
from fusebench.benchmarks.baseline import (
    Baseline,
    Cell,
    Rerun,
    Update,
    read_baseline,
    spread_of,
    tolerance_of,
    write_baseline,
)
from fusebench.benchmarks.gate import compare, key_of
from fusebench.benchmarks.run_spec import RunSpec
from fusebench.benchmarks.store import Store
from fusebench.errors import InputError
from fusebench.methods.backbone import Backbone
from fusebench.methods.layer_mix import FirstLast
from fusebench.methods.token_pooling import Mean
from fusebench.study import gate
from fusebench.study.rerun import make_again, options_of
from tests.tiny_cells import record_of
from tests.tiny_gate import bench, make_world, places, task_spec

NOISE = (0.5001, 0.4998, 0.5002)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("gated"))


@pytest.fixture(scope="module")
def out(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    bench(world, folder)
    return folder


@pytest.fixture(scope="module")
def file(world, out, tmp_path_factory):
    """A baseline of all tiny cells, written by the command."""
    path = tmp_path_factory.mktemp("baselines") / "tiny.json"
    assert gate.show(flags(world, path, out=out, update=True, reason="the first", reruns=3)) == 0
    return path


def flags(world, path, **changes):
    where = places(world)
    asked = {
        "baseline": path,
        "out": None,
        "update": False,
        "reason": None,
        "reruns": 3,
        "spreads": 3.0,
        "data_dir": where.data_dir,
        "backbone": where.backbone,
        "fit": where.fit,
        "train": where.train,
        "dev": None,
        "plugin": [],
        "markdown": None,
        "junit": None,
        "json": None,
    }
    return argparse.Namespace(**{**asked, **changes})


def invented(score=0.5, reruns=NOISE, **changes):
    """A record, and a baseline that holds it."""
    record = record_of(task_spec("LeeSTS"), main_score=score)
    spread = spread_of(score, reruns)
    cell = Cell(
        method="mean",
        task="LeeSTS",
        seed=None,
        metric=record.spec.task.metric,
        score=score,
        tolerance=tolerance_of(spread),
        spread=spread,
        rerun_scores=reruns,
        data_sha256=record.spec.task.data_sha256,
        weights_sha256=record.spec.backbone.weights_sha256,
    ).model_copy(update=changes)
    baseline = Baseline(
        rule="a rule",
        floor=1e-4,
        spreads=3.0,
        run=RunSpec.of([record.spec]),
        reruns=tuple(Rerun(batch_tokens=1, threads=1, order=i, seed_offset=i) for i in range(len(reruns))),
        updates=(Update(created="2025-01-01T00:00:00+00:00", git_commit=None, reason="because"),),
        environment=record.environment,
        cells=(cell,),
    )
    return record, baseline


def outcomes(report):
    return {(verdict.key[0], verdict.key[1]): verdict.outcome for verdict in report.verdicts}


def rerun_report(world, file):
    baseline = read_baseline(file)
    made = make_again(options_of(baseline.run, places(world)))
    return compare(baseline, made.records, made.failures)


def test_the_tolerance_is_three_standard_deviations_of_all_runs_and_never_below_the_floor():
    assert spread_of(0.5, NOISE) == pytest.approx(statistics.stdev([0.5, *NOISE]))
    assert tolerance_of(0.01) == pytest.approx(0.03)
    assert tolerance_of(1e-6) == 1e-4
    assert tolerance_of(0.01, spreads=5, floor=0.2) == 0.2


@pytest.mark.parametrize(("by", "outcome"), [(0.99, "same"), (-0.99, "same"), (1.01, "higher"), (-1.01, "lower")])
def test_a_change_above_the_tolerance_fails_in_both_directions(by, outcome):
    _, baseline = invented()
    record = record_of(task_spec("LeeSTS"), main_score=0.5 + by * baseline.cells[0].tolerance)
    (verdict,) = compare(baseline, [record]).verdicts
    assert verdict.outcome == outcome
    assert verdict.passed == (outcome == "same")


def test_a_missing_cell_fails_with_its_reason_and_a_new_one_is_said_and_passes():
    _, baseline = invented()
    new = record_of(task_spec("LeeSTS"), method="cls")
    report = compare(baseline, [new], {("mean", "LeeSTS", None): "no vectors"})
    assert outcomes(report) == {("mean", "LeeSTS"): "missing", ("cls", "LeeSTS"): "new"}
    assert [verdict.passed for verdict in report.verdicts] == [False, True]
    assert "no vectors" in gate_files.markdown(report)
    assert "1 missing, 1 new" in gate_files.summary(report)


def test_the_same_score_on_other_data_or_weights_fails():
    record, baseline = invented(data_sha256="0" * 64)
    (verdict,) = compare(baseline, [record]).verdicts
    assert (verdict.outcome, verdict.passed) == ("other inputs", False)
    assert verdict.why.startswith("the task's data: 000000000000 then")


def test_the_newest_record_of_a_cell_counts():
    old = record_of(task_spec("LeeSTS"), main_score=0.1, created="2025-01-01T00:00:00+00:00")
    new = record_of(task_spec("LeeSTS"), main_score=0.5, created="2025-02-01T00:00:00+00:00")
    for records in ([old, new], [new, old]):
        assert compare(invented()[1], records).passed


def test_the_three_files_say_the_same():
    record, baseline = invented()
    report = compare(
        baseline, [record.model_copy(update={"main_score": 0.4}), record_of(record.spec.task, method="a|b")]
    )
    held = json.loads(gate_files.as_json(report))
    assert held["passed"] is False
    assert [cell["outcome"] for cell in held["cells"]] == ["lower", "new"]
    assert held["cells"][0]["smallest_change_caught"] == baseline.cells[0].tolerance
    suite = ElementTree.fromstring(gate_files.junit(report))
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "1", "1")
    assert suite.find("testcase/failure").get("type") == "lower"
    lines = gate_files.markdown(report).splitlines()
    assert lines[0] == "## Score gate: FAILED in 1 cell: 0 of 1 the same, 1 moved, 1 new"
    assert {line.count("|") for line in lines if line.startswith("|")} == {8}


def test_a_baseline_is_read_as_it_was_written(tmp_path):
    _, baseline = invented()
    write_baseline(tmp_path / "b.json", baseline)
    assert read_baseline(tmp_path / "b.json") == baseline


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda held: held.update(schema_version=7), "schema version 7"),
        (lambda held: held.update(cells=[]), "holds no cell"),
        (lambda held: held["cells"].append(held["cells"][0]), "is there twice"),
        (lambda held: held["cells"][0].update(tolerance=0.5), "changed by hand"),
        (lambda held: held["cells"][0].update(score=0.6), "changed by hand"),
        (lambda held: held["cells"][0].update(rerun_scores=[]), "measured by nothing"),
        (lambda held: held["cells"][0].pop("score"), "cells.0.score: Field required"),
    ],
)
def test_a_baseline_that_does_not_agree_with_itself_is_refused(tmp_path, change, said):
    held = invented()[1].model_dump(mode="json")
    change(held)
    path = tmp_path / "b.json"
    path.write_text(json.dumps(held))
    with pytest.raises(InputError, match=said):
        read_baseline(path)


@pytest.mark.parametrize("text", ["", "[1", '{"schema_version": 1, "floor": NaN}', "[]"])
def test_a_file_that_is_no_baseline_is_refused(tmp_path, text):
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"b\.json"):
        read_baseline(path)


def test_a_missing_baseline_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match="--update --reason"):
        read_baseline(tmp_path / "b.json")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"update": True}, "--reason TEXT"),
        ({"update": True, "reason": " "}, "--reason TEXT"),
        ({"reason": "x"}, "goes with --update"),
        ({"update": True, "reason": "x", "reruns": 1}, "at least 2"),
        ({"update": True, "reason": "x"}, "--out DIR"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(tmp_path, world, changes, said):
    with pytest.raises(InputError, match=said):
        gate.show(flags(world, tmp_path / "none.json", **changes))


def test_records_of_two_settings_make_no_run():
    task = task_spec("LeeSTS")
    with pytest.raises(InputError, match="differ in their dtype"):
        RunSpec.of([record_of(task).spec, record_of(task, dtype="float16").spec])


def test_the_written_baseline_holds_every_cell_with_its_score_and_no_path(world, out, file):
    baseline, records = read_baseline(file), Store(out).records()
    assert {cell.key: cell.score for cell in baseline.cells} == pytest.approx(
        {key_of(record): record.main_score for record in records}, abs=1e-6
    )
    assert len(baseline.cells) == 14
    assert {len({getattr(rerun, name) for rerun in baseline.reruns}) for name in Rerun.model_fields} <= {2, 3}
    assert str(world) not in file.read_text()


def test_training_free_noise_is_below_the_floor_and_seeds_are_not(file):
    cells = read_baseline(file).cells
    assert all(cell.tolerance == 1e-4 for cell in cells if cell.seed is None)
    assert max(cell.spread for cell in cells if cell.seed is not None) > 1e-6


def test_unchanged_code_passes_in_a_rerun_and_from_records(world, out, file, tmp_path):
    names = ("markdown", "junit", "json")
    written = {name: tmp_path / name for name in names}
    assert gate.show(flags(world, file, **written)) == 0
    assert all(path.stat().st_size for path in written.values())
    assert gate.show(flags(world, file, out=out)) == 0


def test_records_of_another_setting_are_not_taken_for_the_gated_ones(world, file, tmp_path):
    bench(world, tmp_path, "mean", limit=30)
    assert gate.show(flags(world, file, out=tmp_path)) == 1


@pytest.mark.parametrize(
    ("batch_tokens", "threads", "order"), [(12, 1, 7), (33, 2, 8), (200, 1, 9), (1000, 2, 10), (64, 3, 11)]
)
def test_other_batches_threads_and_orders_raise_no_alarm(world, file, batch_tokens, threads, order):
    baseline = read_baseline(file)
    before = torch.get_num_threads()
    change = Rerun(batch_tokens=batch_tokens, threads=threads, order=order, seed_offset=0)
    made = make_again(options_of(baseline.run, places(world)), change)
    assert compare(baseline, made.records).passed
    assert torch.get_num_threads() == before


def caught(report):
    return {method for (method, _), outcome in outcomes(report).items() if outcome in ("lower", "higher")}


def test_a_fusion_that_quietly_takes_the_last_layer_is_caught(world, file, monkeypatch):
    monkeypatch.setattr(FirstLast, "forward", lambda self, states: states.mean(self.layers[-1]))
    assert caught(rerun_report(world, file)) == {"first-last"}


def test_a_mask_that_lets_padding_in_is_caught(world, file, monkeypatch):
    pad = Backbone.pad

    def unmasked(self, ids):
        tokens, mask = pad(self, ids)
        return tokens, torch.ones_like(mask)

    monkeypatch.setattr(Backbone, "pad", unmasked)
    assert {"mean", "max", "mean(layer=1)", "first-last", "mean+whiten(k=4)"} <= caught(rerun_report(world, file))


def test_a_layer_index_off_by_one_is_caught(world, file, monkeypatch):
    forward = Backbone.forward

    def shifted(self, *arguments):
        states = forward(self, *arguments)
        return type(states)((states.hidden[0], *states.hidden[:-1]), states.mask, states.attention, states.marker)

    monkeypatch.setattr(Backbone, "forward", shifted)
    assert {"mean", "cls", "max", "mean(layer=1)", "first-last"} <= caught(rerun_report(world, file))


def test_cls_in_the_place_of_the_mean_is_caught(world, file, monkeypatch):
    monkeypatch.setattr(Mean, "needs", Mean.needs | Mean.needs.__class__.FIRSTS)
    monkeypatch.setattr(Mean, "forward", lambda self, states: states.first(self.layer))
    assert {"mean", "mean(layer=1)", "mean+whiten(k=4)"} <= caught(rerun_report(world, file))


def test_a_method_that_fails_now_is_missing_with_its_reason(world, file, monkeypatch, capsys):
    monkeypatch.setattr(FirstLast, "forward", lambda self, states: 1 / 0)
    assert gate.show(flags(world, file)) == 1
    assert "MISSING (division by zero)" in capsys.readouterr().out


def test_an_update_keeps_the_reasons_before_it(world, file, tmp_path):
    copy = tmp_path / "b.json"
    copy.write_text(file.read_text())
    assert gate.show(flags(world, copy, update=True, reason=" another ", reruns=2)) == 0
    baseline = read_baseline(copy)
    assert [update.reason for update in baseline.updates] == ["the first", "another"]
    assert len(baseline.reruns) == 2
