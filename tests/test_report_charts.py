"""What the charts of the report are made of: fronts, sweeps, curves, weights."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from statistics import fmean, stdev

import pytest

from fusebench.benchmarks.board_rows import method_rows
from fusebench.benchmarks.report_board import labelled_rows
from fusebench.benchmarks.report_cost import Point, pareto_front
from fusebench.benchmarks.report_logs import TrainingCurve, bin_width, binned, mean_curve, read_curves
from fusebench.benchmarks.report_sweeps import sweeps
from fusebench.benchmarks.report_training import curve_section, curves_of, layer_weights
from tests.invented_records import make, trained, training


def curve(losses=(), weights=None, training_id="t", seed=0, rates=(None, None)):
    losses = dict(enumerate(losses, start=1))
    return TrainingCurve("m", seed, training_id, rates, losses, {}, dict(weights or {}))


def test_the_front_holds_every_point_that_no_other_beats():
    grid = [(c, s) for c in range(4) for s in range(4) if (c * 7 + s * 5) % 3]
    points = [Point(f"{c}{s}", "frozen", float(c), float(s)) for c, s in grid]
    points.append(points[0]._replace(label="again"))

    def beats(one, other):
        better = one.cost < other.cost or one.score > other.score
        return one.cost <= other.cost and one.score >= other.score and better

    expected = {point.label for point in points if not any(beats(other, point) for other in points)}
    assert {point.label for point in pareto_front(points)} == expected


def test_a_sweep_has_the_bare_pooling_as_its_last_layer():
    (found,) = sweeps(["mean", "mean(layer=0)", "mean(layer=3)", "cls", "cls(layer=1)", "max"], blocks=6)
    assert (found.name, dict(found.rows)) == ("mean", {0: "mean(layer=0)", 3: "mean(layer=3)", 6: "mean"})


def test_a_sweep_of_a_transformed_pooling_is_a_sweep_of_its_own():
    labels = ["mean", *(f"mean(layer={k})+whiten" for k in (0, 1)), *(f"mean(layer={k})" for k in (2, 4))]
    assert {sweep.name: list(sweep.rows) for sweep in sweeps(labels, 6)} == {"mean": [2, 4, 6], "mean+whiten": [0, 1]}


def test_other_parameters_are_no_sweep():
    assert sweeps(["first-last(first=0)", "x(layer=1, k=2)", "x(layer=2, k=2)"], 6) == []


@pytest.mark.parametrize("count", [1, 79, 80, 81, 1000])
def test_a_bin_is_the_mean_of_its_updates(count):
    losses = {update: math.sin(update) for update in range(1, count + 1)}
    width = bin_width([curve(losses.values())])
    points = binned(losses, width)
    assert len(points) <= 80
    for end, value in points.items():
        assert value == pytest.approx(fmean(losses[u] for u in range(end - width + 1, end + 1) if u in losses))


def test_the_mean_curve_ends_where_a_seed_ends():
    assert mean_curve([{1: 2.0, 2: 3.0}, {1: 4.0}]) == {1: 3.0}


def test_layer_weights_are_mean_and_spread_over_seeds():
    seeds = [{0: 0.2, 1: 0.8}, {0: 0.4, 1: 0.6}, {0: 0.3, 1: 0.7}]
    found = layer_weights([curve(weights=own) for own in seeds] + [curve()])
    for layer in (0, 1):
        values = [own[layer] for own in seeds]
        assert found[layer] == pytest.approx((fmean(values), stdev(values)))


def test_a_log_gives_losses_dev_scores_and_the_last_weights(tmp_path):
    events = [
        {"config": {"method": "m", "seed": 1, "training_id": "t", "learning_rate": 0.1, "learning_rate_new": 0.2}},
        {"stage": 0, "update": 1, "loss": 3.0, "layer_weight.0": 0.5, "layer_weight.2": 0.5},
        {"stage": 0, "update": 2, "loss": None},
        {"update": 2, "dev_score": 0.5},
        {"stage": 0, "update": 3, "loss": 1.0, "layer_weight.0": 0.1, "layer_weight.2": 0.9},
    ]
    text = "".join(json.dumps(event) + "\n" for event in events)
    (tmp_path / "a.jsonl").write_text(text + '{"stage": 0, "upd')  # as an interrupted training leaves it
    (found,), rejected = read_curves(tmp_path)
    assert rejected == []
    assert (found.method, found.seed, found.training_id, found.learning_rates) == ("m", 1, "t", (0.1, 0.2))
    assert (found.losses, found.dev_scores) == ({1: 3.0, 3: 1.0}, {2: 0.5})
    assert (found.layer_weights, found.updates) == ({0: 0.1, 2: 0.9}, 3)


def test_what_guides_logged_is_kept_from_the_first_update_and_the_last(tmp_path):
    name = 'mdg(layers="5,6")'
    events = [{"config": {"method": "m", "seed": 1, "training_id": "t"}}]
    for update, cosine in enumerate((0.9, 0.7, 0.6), start=1):
        own = {f"{name}.map_cosine": cosine, f"{name}.penalty": 1.0, f"{name}.factor": 0.001}
        events.append({"stage": 0, "update": update, "loss": 1.0, **own})
    events.append({"update": 4, "loss": 1.0})  # an update without a look at the maps
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (found,), _ = read_curves(tmp_path)
    assert found.guides == {f"{name}.map_cosine": (0.9, 0.6), f"{name}.penalty": (1.0, 1.0)}


def test_what_guides_logged_is_a_table_of_means_and_spreads_over_seeds():
    pytest.importorskip("plotly")
    seeds = [replace(curve([1.0]), guides={"mdg.entropy": ends}) for ends in ((0.4, 0.5), (0.6, 0.9))]
    section = curve_section({"guided": seeds, "bare": [curve([1.0])]})
    (table,) = section.tables.values()
    (line,) = table.lines
    assert [cell.text for cell in line] == ["guided", "mdg.entropy", "0.5000", "0.7000"]
    assert line[3].spread == f"{stdev((0.5, 0.9)):.4f}"
    assert curve_section({"bare": [curve([1.0])]}).tables == {}


@pytest.mark.parametrize(
    "text",
    [
        "x\n",
        "[1]\n",
        '{"update": 1}\n',
        "",
        '{"config": {"method": 3}}\n',
        '{"config": {"method": "m", "seed": "0"}}\n',
    ],
)
def test_a_file_that_is_no_log_is_refused_with_a_reason(tmp_path, text):
    (tmp_path / "a.jsonl").write_text(text)
    curves, [(path, reason)] = read_curves(tmp_path)
    assert (curves, path.name) == ([], "a.jsonl")
    assert "no log" in reason


def test_of_several_trials_the_one_that_was_kept_is_shown():
    record = trained(training=training(trials=2, learning_rate_new=3e-3))
    tried = [curve(training_id=record.spec.training_id, rates=(2e-5, rate)) for rate in (1e-3, 3e-3)]
    assert curves_of(labelled_rows(method_rows([record])), tried) == {"hire+batch-softmax": [tried[1]]}


def test_a_training_counts_once_however_many_transforms_follow():
    records = [trained("m+loss"), trained("m+loss+whiten"), make("mean")]
    assert len({record.spec.training_id for record in records[:2]}) == 1
    own = curve(training_id=records[0].spec.training_id, rates=(2e-5, 1e-3))
    assert curves_of(labelled_rows(method_rows(records)), [own]) == {"m+loss": [own]}
