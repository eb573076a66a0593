"""A fine-tuning that processes share gives what one process gives, and outlives those of its processes that die."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from fusebench.benchmarks.store import Store
from fusebench.errors import InputError
from fusebench.methods.recipe import Recipe
from fusebench.methods.training import TrainingLoop
from fusebench.study import processes, rank, saved_methods, train
from fusebench.study.execute import Executor, execute
from fusebench.study.plan import make_plan
from fusebench.study.processes import check_processes
from fusebench.study.run import run
from tests.killed_runs import SERVER
from tests.tiny_gate import make_world, options
from tests.tiny_models import WORDS
from tests.tiny_training import rows, trained, trainee

SENTENCE = "mean+info-nce"
STEPS = 6


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = make_world(tmp_path_factory.mktemp("processes"))
    lines = [
        f"the {a} cat w{n}\ta {b} dog w{n}\t{n % 5}" for n, (a, b) in enumerate(zip(WORDS, WORDS[5:], strict=False))
    ]
    (root / "dev.tsv").write_text("\n".join(["sentence1\tsentence2\tscore", *lines]))
    return root


@pytest.fixture(autouse=True)
def _started_fast(monkeypatch):
    """Processes are forks of a server that has imported everything; checkpoints are written after every update."""
    monkeypatch.setattr(processes, "_CONTEXT", SERVER)
    monkeypatch.setattr(train, "TrainingLoop", functools.partial(TrainingLoop, checkpoint_seconds=0.0))


def asked(world, out, count=2, **more):
    """A fine-tuning by so many processes, in chunks that are fewer texts than a batch has."""
    made = options(world, SENTENCE, out=out)
    recipe = replace(made.training.recipe, steps=STEPS, chunk=4, learning_rate=1e-4)
    chosen = {"dev": str(world / "dev.tsv"), "dev_every": 2, "recipe": replace(recipe, **more)}
    training = replace(made.training, regime="finetune", processes=count, **chosen)
    return replace(made, training=training)


def scored(wanted, progress=lambda stage, done, total: None):
    """Scores by task, all weights, the log's numbers, and what the run did."""
    plan, store = make_plan(wanted), Store(wanted.out)
    outcome = run(plan, store, progress)
    scores = {record.spec.task.name: record.main_score for record in store.records()}
    cell = plan.cells[0]
    folder = saved_methods.folder_of(wanted.out, cell.spec, cell.method)
    weights = saved_methods.load(folder).tensors() if saved_methods.is_saved(folder) else {}
    log = [json.loads(line) for path in (wanted.out / "training").iterdir() for line in path.read_text().splitlines()]
    return scores, weights, log, outcome


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """What two processes give that nobody disturbs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "_CONTEXT", SERVER)
        return scored(asked(world, tmp_path_factory.mktemp("whole")))


def test_two_processes_give_the_weights_scores_and_log_of_one(world, whole, tmp_path):
    scores, weights, log, outcome = scored(asked(world, tmp_path, 1))
    found_scores, found, found_log, found_outcome = whole
    assert found_outcome.failures == outcome.failures == []
    assert found_scores == pytest.approx(scores, abs=1e-4)
    assert found.keys() == weights.keys()
    for name, tensor in weights.items():
        np.testing.assert_allclose(found[name], tensor, rtol=1e-4, atol=1e-5, err_msg=name)
    assert len(found_log) == len(log) == 1 + STEPS + STEPS // 2  # with the looks at the dev rows
    for event, expected in zip(found_log[1:], log[1:], strict=True):
        assert event == pytest.approx(expected, rel=1e-4)
    (_, _, one), (_, _, two) = outcome.trainings[0], found_outcome.trainings[0]
    same = ("states", "updates", "examples", "trials", "trained_parameters", "best_update")
    assert [getattr(two, name) for name in same] == [getattr(one, name) for name in same]
    assert two.loss == pytest.approx(one.loss, rel=1e-4)


def test_the_number_of_processes_is_no_part_of_a_specification(world, tmp_path):
    one, two = (make_plan(asked(world, tmp_path, count)).cells for count in (1, 2))
    assert [cell.spec for cell in one] == [cell.spec for cell in two]


def test_a_killed_process_ends_the_training_and_the_same_command_goes_on(world, whole, tmp_path):
    wanted, seen = asked(world, tmp_path), []

    def kill(stage, done, total):
        seen.append(done)
        if done == 3:
            (second,) = [one for one in multiprocessing.active_children() if one.name == "rank 1"]
            os.kill(second.pid, signal.SIGKILL)

    with pytest.raises(InputError, match=r"process 1 of the 2 that trained .* was killed by SIGKILL.*goes on"):
        scored(wanted, kill)
    assert [one for one in multiprocessing.active_children() if one.name.startswith("rank")] == []
    assert list((tmp_path / "checkpoints").glob("*.safetensors"))
    seen.clear()
    scores, weights, _, outcome = scored(wanted, lambda stage, done, total: seen.append(done))
    assert seen[0] > 2
    assert outcome.failures == []
    assert scores == whole[0]
    for name, tensor in whole[1].items():
        assert torch.equal(weights[name], tensor), name
    assert not list((tmp_path / "checkpoints").glob("*"))


def test_an_interrupted_run_ends_its_processes(world, tmp_path):
    def interrupt(stage, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scored(asked(world, tmp_path), interrupt)
    assert [one for one in multiprocessing.active_children() if one.name.startswith("rank")] == []


def test_a_method_that_fails_in_its_processes_fails_as_in_one(world, tmp_path):
    said = [scored(asked(world, tmp_path / str(count), count, learning_rate=1e30))[-1].failures for count in (1, 2)]
    assert said[0] == said[1]
    assert "try a smaller learning rate" in said[0][0]


def watched(pipe):
    """Starts a process that would sleep for long, and is killed."""
    threading.Thread(target=rank._end_with_the_run, daemon=True).start()
    pipe.send("started")
    time.sleep(100)


def run_that_is_killed(pipe):
    multiprocessing.get_context("fork").Process(target=watched, args=(pipe,)).start()
    time.sleep(100)


def test_the_processes_of_a_run_that_is_killed_end_with_it():
    receiver, sender = SERVER.Pipe(duplex=False)
    with sender:
        killed = SERVER.Process(target=run_that_is_killed, args=(sender,))
        killed.start()
    assert receiver.recv() == "started"
    killed.kill()
    assert receiver.poll(30)  # the pipe ends with the last process that holds it
    with pytest.raises(EOFError):
        receiver.recv()


@pytest.mark.parametrize(("chunk", "parts"), [(None, 1), (4, 2), (2, 4)])
def test_a_batch_of_too_few_parts_is_told_with_the_chunk_that_makes_enough(chunk, parts, caplog):
    one = trainee("mean+info-nce", Recipe(batch_size=4, chunk=chunk))
    loop = TrainingLoop([one], [rows()], trained(one), seed=0)
    processes._warn_of_idle(loop, 4)
    told = f"a batch of 8 texts makes {parts} part(s) for 4 processes"
    assert (told in caplog.text and "--chunk 2 makes one for each" in caplog.text) == (parts < 4)


# What is refused


def test_one_process_is_never_refused_and_heads_are_said_to_be_trained_in_one():
    assert check_processes(1, "finetune", torch.device("mps")) == []
    assert check_processes(2, "finetune", torch.device("cpu")) == []
    (note,) = check_processes(2, "frozen", torch.device("mps"))
    assert "--processes 2 changes nothing here" in note


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("mps", "by --device cpu; --device mps is neither"),
        ("cuda:1", "CUDA_VISIBLE_DEVICES"),
        ("cuda", "needs a GPU for each process, and torch sees 1"),
    ],
)
def test_what_cannot_be_shared_is_refused_with_what_to_do(device, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match=message):
        check_processes(2, "finetune", torch.device(device))


def test_a_command_that_a_launcher_started_several_times_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match="start it once, with --processes 4"):
        check_processes(1, "finetune", torch.device("cpu"))


def test_a_unit_on_ray_needs_a_gpu_for_each_process(world, tmp_path, monkeypatch):
    plan = make_plan(asked(world, tmp_path))
    monkeypatch.setattr(plan.backbone, "device", torch.device("cuda"))
    with pytest.raises(InputError, match="--processes 2 takes a GPU each, and a unit has 1: give --gpus 2"):
        execute(plan, Store(tmp_path), Executor("ray"))
