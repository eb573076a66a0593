"""Sweep files: which runs they make, and what is said of those that make no sense."""

from __future__ import annotations

import itertools

import pytest

from fusebench.errors import InputError
from fusebench.study.commands import options_of
from fusebench.study.sweep_file import Grid, read_sweep

GRID = """
methods = ["mean", "hire(hidden=8)"]
tasks = ["A", "B"]
seeds = [3, 4]
dev = "stsb-dev"
drop-leaks = true

[grid]
backbone = ["x", "y"]
lr = [1e-5, 2e-5, 5e-5]
batch-size = [8, 16]
"""


@pytest.fixture
def read(tmp_path):
    """The sweep of a file with this text, beside these arguments."""

    def read(text, *arguments):
        path = tmp_path / "rates.toml"
        path.write_text(text)
        return read_sweep(path, ["--sweep", str(path), *arguments])

    return read


def test_a_grid_is_every_combination_with_the_backbone_varied_last(read):
    sweep = read(GRID)
    varied = [(run.flags.backbone, run.flags.batch_size, run.flags.lr) for run in sweep.runs]
    assert varied == list(itertools.product(["x", "y"], [8, 16], [1e-5, 2e-5, 5e-5]))
    assert (sweep.name, sweep.combinations) == ("rates", 12)
    assert sweep.runs[0].name == "1: backbone=x batch-size=8 lr=1e-05"


def test_each_run_asks_for_what_the_command_line_would(read):
    options = options_of(read(GRID).runs[-1].flags)
    assert options.methods == ("mean", "hire(hidden=8)")
    assert (options.tasks, options.seeds, options.backbone) == (("A", "B"), (3, 4), "y")
    assert (options.training.dev, options.training.drop_leaks) == ("stsb-dev", True)
    assert (options.training.recipe.batch_size, options.training.recipe.learning_rate) == (16, 5e-5)
    assert options.training.recipe.epochs == 3


def test_without_methods_the_catalogue_is_run(read):
    assert options_of(read("[grid]\nsteps = [1]").runs[0].flags).methods == ("all",)


def test_a_sample_is_drawn_from_the_grid_without_repetition_and_the_seed_decides(read):
    whole = [run.name.split(": ")[1] for run in read(GRID).runs]
    drawn = {
        seed: [run.name.split(": ")[1] for run in read(f"{GRID}\n[sample]\nruns = 5\nseed = {seed}").runs]
        for seed in (0, 1, 2)
    }
    for names in drawn.values():
        assert len(set(names)) == 5
        assert names == [name for name in whole if name in names]
    assert len({tuple(names) for names in drawn.values()}) > 1
    assert len(read(f"{GRID}\n[sample]\nruns = 50").runs) == 12


def test_a_sample_of_a_huge_grid_is_drawn_without_listing_it(read):
    many = ", ".join(map(str, range(1, 2001)))
    sweep = read(f"[grid]\nsteps = [{many}]\nbatch-size = [{many}]\nlimit-train = [{many}]\n[sample]\nruns = 3")
    assert (sweep.combinations, len(sweep.runs)) == (2000**3, 3)


def test_the_command_line_says_where_and_the_file_says_what(read, tmp_path):
    sweep = read(GRID + "", "--out", str(tmp_path / "there"), "--limit", "5", "--dry-run")
    assert {(run.flags.out, run.flags.limit, run.flags.dry_run) for run in sweep.runs} == {
        (tmp_path / "there", 5, True)
    }
    with pytest.raises(InputError, match="--methods belongs into the file"):
        read(GRID, "--methods", "cls")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[grid]\nlr = [-1.0]", r"\[grid\] lr 0: input should be greater than 0, and it is -1.0"),
        ("[grid]\nbatch-size = [8.5]", r"\[grid\] batch-size 0: input should be a valid integer"),
        ("[grid]\nregime = ['cold']", "'frozen' or 'finetune', and it is 'cold'"),
        ("[grid]\nlr = []", "at least 1 item"),
        ("[grid]\nbatchsize = [8]", r"\[grid\]: there is no key 'batchsize' here; did you mean 'batch-size'"),
        ("[grid]\ntasks = ['A']", r"there is no key 'tasks' here; there are backbone, regime"),
        ("[grid]", r"\[grid\] varies nothing; give a list to one of backbone"),
        ("methods = ['mean']", r"there is no table \[grid\]"),
        ("method = ['mean']\n[grid]\nlr = [1.0]", "no key 'method' here; did you mean 'methods'"),
        ("out-dir = 'x'\n[grid]\nlr = [1.0]", "there is no key 'out-dir' here"),
        ("dry-run = true\n[grid]\nlr = [1.0]", "there is no key 'dry-run' here"),
        ("lr = 1.0\n[grid]\nlr = [1.0]", r"lr stands beside \[grid\] and in it"),
        ("epochs = 2\n[grid]\nsteps = [1]", "steps: not allowed with epochs"),
        ("seeds = [-1]\n[grid]\nlr = [1.0]", "seeds are 0 to"),
        ("dev = 1979-05-27\n[grid]\nlr = [1.0]", "dev: give a text, a number, true or false"),
        ("[grid]\nlr = [1.0]\n[sample]\nruns = 0", r"\[sample\] runs: input should be greater than 0"),
        ("[grid]\nlr = [1.0]\n[sample]\ncount = 4", r"\[sample\]: there is no key 'count' here"),
        ("[grid\nlr", "cannot be read as TOML"),
    ],
)
def test_what_makes_no_sense_is_named_with_its_key_and_what_is_allowed(read, text, said):
    with pytest.raises(InputError, match=said) as error:
        read(text)
    assert "\n" not in str(error.value)
    assert "rates.toml" in str(error.value)


def test_the_keys_of_the_grid_are_flags_of_the_command_line():
    from fusebench.study.flags import run_parser

    flags = {option for action in run_parser()._actions for option in action.option_strings}
    assert {f"--{field.alias}" for field in Grid.model_fields.values()} <= flags
