from __future__ import annotations

import pytest
import torch

from fusebench.benchmarks.store import Store
from fusebench.errors import InputError
from fusebench.study.commands import executor_of
from fusebench.study.execute import Executor, execute
from fusebench.study.flags import run_parser
from fusebench.study.plan import make_plan
from tests.tiny_gate import make_world, options


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("execute"))


@pytest.mark.parametrize(
    ("flags", "executor"),
    [
        ([], Executor()),
        (["--executor", "ray"], Executor("ray")),
        (["--executor", "ray:10.0.0.1:6379", "--cpus", "4", "--gpus", "0.5"], Executor("ray:10.0.0.1:6379", 4, 0.5)),
    ],
)
def test_flags_say_where_cells_are_computed(flags, executor):
    assert executor_of(run_parser().parse_args(["--methods", *flags])) == executor


@pytest.mark.parametrize(
    "flags",
    [
        ["--executor", "slurm"],
        ["--executor", "local:2"],
        ["--executor", "ray:ray://host:10001"],
        ["--cpus", "1.5"],
        ["--gpus", "-1"],
        ["--cpus", "nan"],
    ],
    ids=str,
)
def test_other_places_and_amounts_are_refused(flags, capsys):
    with pytest.raises(SystemExit) as ended:
        run_parser().parse_args(["--methods", *flags])
    assert ended.value.code == 2
    assert flags[1] in capsys.readouterr().err


def test_in_one_process_cpus_are_threads_and_records_say_how_many(world, tmp_path):
    before = torch.get_num_threads()
    try:
        execute(make_plan(options(world, "mean", out=tmp_path)), Store(tmp_path), Executor(cpus=1))
    finally:
        torch.set_num_threads(before)
    assert {record.cost.threads for record in Store(tmp_path).records()} == {1}


def test_gpus_of_units_mean_nothing_in_one_process(world, tmp_path):
    plan = make_plan(options(world, "mean", out=tmp_path))
    with pytest.raises(InputError, match="add --executor ray"):
        execute(plan, Store(tmp_path), Executor(gpus=1.0))


def test_a_finished_run_needs_no_cluster(world, tmp_path):
    plan = make_plan(options(world, "mean", out=tmp_path))
    execute(plan, Store(tmp_path), Executor())
    assert execute(plan, Store(tmp_path), Executor("ray:nowhere:1")).kept == len(plan.cells)
