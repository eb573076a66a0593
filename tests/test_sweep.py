"""Sweeps from the command line on a tiny backbone: what they leave behind, what stops them and what does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fusebench.benchmarks.store import Store
from fusebench.benchmarks.sweep_files import read_sweep_file
from fusebench.methods import registry
from fusebench.run_bench import main
from fusebench.study import sweep as sweep_module
from tests.tiny_models import folder_of

ROWS = [{"sentence1": f"the cat w{i}", "sentence2": f"a dog w{i * i % 7}", "score": i / 2} for i in range(8)]
PLUGIN = """
from fusebench.methods.registry import register
from fusebench.methods.token_pooling import Mean


@register("gone-wrong", paper="none")
class GoneWrong(Mean):
    def forward(self, states):
        return states.mean(self.layers[0]) * float("nan")
"""


@pytest.fixture
def bench(tmp_path, tiny, monkeypatch, capsys):
    """Runs a sweep in a folder of its own: exit code, output, messages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_CARDS", dict(registry._CARDS))
    tiny.write_sts("Tiny", ROWS)
    tiny.write_jsonl(tmp_path / "dev.jsonl", [{**row, "sentence1": f"w{i + 9} sat"} for i, row in enumerate(ROWS)])
    tiny.write_jsonl(tmp_path / "rows.jsonl", [{"anchor": f"w{i}", "positive": f"w{i} mat"} for i in range(12)])
    (tmp_path / "plugin.py").write_text(PLUGIN)

    def bench(grid, *arguments, methods="mean,scalar-mix+batch-softmax", more="seeds = [0, 1]"):
        (tmp_path / "rates.toml").write_text(
            f'methods = "{methods}"\ntasks = ["Tiny"]\ndata-dir = "."\nbackbone = "{folder_of("bert")}"\n'
            f'train = "rows.jsonl"\ndev = "dev.jsonl"\nsteps = 2\nbatch-size = 4\n{more}\n[grid]\n{grid}\n'
            if "backbone" not in grid
            else f'methods = "{methods}"\ntasks = ["Tiny"]\ndata-dir = "."\n{more}\n[grid]\n{grid}\n'
        )
        try:
            code = main(["--sweep", "rates.toml", "--out", "res", "--device", "cpu", *arguments])
        except SystemExit as stop:
            code = stop.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return bench


def kept(tmp_path):
    """What the only sweep of the results folder left."""
    (path,) = (tmp_path / "res" / "sweeps").iterdir()
    return read_sweep_file(path)


def test_a_sweep_leaves_the_records_of_its_runs_and_itself_with_every_flag_and_no_path(bench, tmp_path):
    code, out, err = bench("lr-new = [1e-3, 1e-1]")
    assert code == 0
    records = Store(tmp_path / "res").records()
    rates = [r.training.learning_rate_new for r in records if r.training]
    assert sorted(rates) == [1e-3, 1e-3, 1e-1, 1e-1]
    assert sum(r.training is None for r in records) == 1  # mean, which no rate changes, is one cell of both runs
    sweep = kept(tmp_path)
    assert [run.state for run in sweep.runs] == ["done", "done"]
    assert {cell for run in sweep.runs for cell in run.cells} == {r.spec_id for r in records}
    assert [run.flags["lr-new"] for run in sweep.runs] == [1e-3, 1e-1]
    assert sweep.runs[0].flags["backbone"] == "bert"
    assert sweep.runs[0].flags["accumulate"] == 1  # a default
    assert str(tmp_path) not in json.dumps(sweep.model_dump(mode="json"))
    (choice,) = sweep.choices
    best = max((0, 1), key=lambda k: _dev_mean(records, (1e-3, 1e-1)[k]))
    assert choice.run == sweep.runs[best].name
    assert (choice.trials, choice.updates) == (2, 8)
    assert choice.run in out
    assert "2 of 2 runs without a failure" in err


def _dev_mean(records, rate):
    scores = [r.training.dev_score for r in records if r.training and r.training.learning_rate_new == rate]
    return sum(scores) / len(scores)


def test_the_same_command_resumes_and_ends_in_the_same_file(bench, tmp_path, monkeypatch):
    compute = sweep_module.compute

    def killed(plan, store, executor, messages):
        if plan.options.training.recipe.learning_rate_new > 0.01:
            raise KeyboardInterrupt
        return compute(plan, store, executor, messages)

    monkeypatch.setattr(sweep_module, "compute", killed)
    code, _, _ = bench("lr-new = [1e-3, 1e-1]", more="")
    assert code == 130
    assert [run.state for run in kept(tmp_path).runs] == ["done", "waiting"]
    monkeypatch.setattr(sweep_module, "compute", compute)
    code, _, err = bench("lr-new = [1e-3, 1e-1]", more="")
    assert code == 0
    assert "0 cells scored (0.0 s in mteb), 2 kept" in err
    assert [run.state for run in kept(tmp_path).runs] == ["done", "done"]


def test_a_run_that_cannot_be_planned_and_a_cell_that_fails_stop_nothing(bench, tmp_path):
    grid = f'backbone = ["no-such-folder/x/y", "{folder_of("bert")}"]'
    code, _, err = bench(grid, "--plugin", "plugin.py", methods="gone-wrong,mean", more="")
    assert code == 1
    assert err.count("FAILED 1: backbone=no-such-folder/x/y: ") == 1
    assert "FAILED 2: backbone=bert: gone-wrong on Tiny: " in err
    assert [r.spec.method.name for r in Store(tmp_path / "res").records()] == ["mean"]
    assert [(run.state, run.failures, len(run.cells)) for run in kept(tmp_path).runs] == [
        ("failed", 1, 0),
        ("failed", 1, 2),
    ]
    assert "Traceback" not in err


def test_a_sweep_of_which_no_run_can_be_planned_has_exit_code_2(bench):
    assert bench('backbone = ["no/such/one"]', methods="mean", more="")[0] == 2
    assert bench('backbone = ["no/such/one"]', "--dry-run", methods="mean", more="")[0] == 2


def test_a_dry_run_counts_a_cell_once_and_writes_nothing(bench, tmp_path):
    code, out, err = bench("lr-new = [1e-3, 1e-1]", "--dry-run")
    assert code == 0
    states = [line.rsplit("  ", 1)[1] for line in out.splitlines()]
    assert states == ["to do"] * 3 + ["there"] + ["to do"] * 2
    assert not Path("res").exists()
    total = next(line for line in err.splitlines() if line.startswith("│ all"))
    cells, there, passes, trainings = (int(cell) for cell in total.split("│")[2:6])
    assert (cells, there, passes, trainings) == (6, 1, 2, 4)
