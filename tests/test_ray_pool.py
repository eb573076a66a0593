from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from fusebench.benchmarks.store import Store
from fusebench.errors import InputError
from fusebench.study.execute import Executor, execute
from fusebench.study.plan import make_plan
from fusebench.study.ray_pool import Resources, ray_pool
from fusebench.study.run import run
from fusebench.study.unit_work import Job
from tests.killed_runs import kept
from tests.test_dispatch import assert_same, silent
from tests.tiny_gate import make_world, options
from tests.tiny_models import one_thread

# A file that a worker loads as a plugin: the first that does kills itself.
PLUGIN = """
import os, signal
from pathlib import Path
try:
    Path({mark!r}).touch(exist_ok=False)
except FileExistsError:
    pass
else:
    if os.getpid() != {driver}:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("cpus", "gpus", "machines", "slots"),
    [
        (1, 0, [{"CPU": 4.0}], 4),
        (3, 0, [{"CPU": 4.0}, {"CPU": 8.0}], 3),
        (0.5, 0, [{"CPU": 4.0}], 8),
        (1, 1, [{"CPU": 16.0, "GPU": 8.0}, {"CPU": 16.0}], 8),
        (1, 0.25, [{"CPU": 16.0, "GPU": 2.0}], 8),
        (4, 0.1, [{"CPU": 16.0, "GPU": 1.0}], 4),
        (2, 0, [{"CPU": 1.0}], 0),
    ],
)
def test_a_unit_takes_its_share_of_one_machine(cpus, gpus, machines, slots):
    assert Resources(cpus, gpus).slots(machines) == slots


def test_without_ray_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    job = Job(options(tmp_path, "mean"), (), Path.cwd(), 1)
    with pytest.raises(InputError, match=r"\[ray\]"), ray_pool("local", job, Resources(1, 0)):
        pass


@pytest.fixture
def cluster(monkeypatch):
    """A Ray cluster on this machine, of one processor and little memory, without a dashboard."""
    ray = pytest.importorskip("ray", reason="the extra fusebench[ray] is not installed")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": 40}
    ray.init(address="local", num_cpus=1, object_store_memory=100 * 2**20, **quiet)
    yield ray
    ray.shutdown()


def test_on_ray_a_killed_worker_is_replaced_and_the_records_are_those_of_one_process(cluster, tmp_path):
    world, mark = make_world(tmp_path / "world"), tmp_path / "killed"
    methods = ("mean", "max", "mean+whiten(k=4)", "mlp+batch-softmax")
    with one_thread():
        assert not run(make_plan(options(world, *methods, out=tmp_path / "here")), Store(tmp_path / "here")).failures
    plugin = tmp_path / "kills_once.py"
    plugin.write_text(PLUGIN.format(mark=str(mark), driver=os.getpid()))
    plan = make_plan(options(world, *methods, out=tmp_path / "ray"))
    outcome = execute(plan, Store(tmp_path / "ray"), Executor("ray", plugins=(plugin,)), silent)
    assert mark.exists()
    assert (outcome.finished, outcome.failures) == (8, [])
    assert_same(kept(tmp_path / "ray"), kept(tmp_path / "here"))
    with pytest.raises(InputError, match="lower --cpus or --gpus"):
        execute(plan, Store(tmp_path / "none"), Executor("ray", gpus=1.0))
