"""What one of several processes does that share a fine-tuning: it trains, and tells the run that started it."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor

from fusebench.errors import InputError
from fusebench.methods.backbone import Backbone
from fusebench.methods.backbone_source import Source
from fusebench.methods.grammar import parse
from fusebench.methods.process_group import LostProcessError, ProcessGroup, SharedOrder, reachable
from fusebench.methods.recipe import Recipe
from fusebench.methods.registry import load_plugins
from fusebench.methods.row_batches import Rows
from fusebench.methods.selection import Selection
from fusebench.methods.trainee import Trainee
from fusebench.methods.training import TrainingLoop
from fusebench.study.fine_tuning import build_trainee, trained_source

# How long a process waits for the others, of which the first looks at dev rows and makes orders for all. One that
# dies is not waited for: the run sees it end.
_PATIENCE = timedelta(hours=2)

Kind = Literal["progress", "log", "done", "failed", "refused", "lost", "broken"]


@dataclass(frozen=True)
class Message:
    """What a process tells the run.

    Attributes:
        kind: `failed` as a method fails in one process, `refused` for what ends the whole command, `lost` where
            another process is gone, `broken` for an error that nobody expects.
    """

    kind: Kind
    content: tuple[Any, ...] = ()


@dataclass(frozen=True, eq=False)
class Shared:
    """A fine-tuning that processes share: all that it is made of, to be made again in each of them.

    Attributes:
        name: of the training.
        sentence: of the method.
        source: of the backbone.
        device: kind of the processes' devices.
        texts: by number.
        stages: rows of each stage.
        threads: of a process.
        plugins: files that define parts.
    """

    name: str
    sentence: str
    seed: int
    recipe: Recipe
    source: Source
    device: str
    dtype: str
    max_length: int | None
    remote_code: bool
    texts: Sequence[str]
    stages: Sequence[Rows]
    selection: Selection | None
    checkpoint: Path | None
    checkpoint_seconds: float
    threads: int
    plugins: Sequence[Path]


def work(shared: Shared, rank: int, size: int, meeting: Path, pipe: Connection) -> None:
    """Trains as one of so many processes; whatever happens is told through the pipe.

    Args:
        meeting: a file that is not there yet, by which the processes find each other.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of them; the run ends its processes itself
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    try:
        _train(shared, rank, size, meeting, pipe)
    except _FailedError as failed:
        pipe.send(failed.message)
    except LostProcessError as error:
        pipe.send(Message("lost", (str(error),)))
    except InputError as error:
        pipe.send(Message("refused", (str(error),)))
    except Exception:
        pipe.send(Message("broken", (traceback.format_exc(),)))


def _end_with_the_run() -> None:
    """A run that was killed has let go of its lock, and another may train the same by now."""
    run = multiprocessing.parent_process()
    assert run is not None
    wait([run.sentinel])
    os._exit(1)


class _FailedError(Exception):
    """The training does not go on in this process."""

    def __init__(self, failure: Exception) -> None:
        super().__init__(str(failure))
        if isinstance(failure, LostProcessError):
            self.message = Message("lost", (str(failure),))
        elif type(failure) in (InputError, ArithmeticError):
            self.message = Message("failed", (failure,))
        else:  # it may be of a class that the run does not know
            self.message = Message("failed", (RuntimeError(f"{type(failure).__name__}: {failure}"),))


def _train(shared: Shared, rank: int, size: int, meeting: Path, pipe: Connection) -> None:
    """Trains to the end; the first process tells what was learned.

    Raises:
        _FailedError: if the method fails, in this process at least.
        InputError: if nothing can be trained at all.
    """
    load_plugins(shared.plugins)
    group = _join(shared, rank, size, meeting)
    device = torch.device(shared.device, rank) if shared.device == "cuda" else torch.device(shared.device)
    backbone = Backbone(
        shared.source,
        device=str(device),
        dtype=shared.dtype,
        max_length=shared.max_length,
        remote_code=shared.remote_code,
    ).trainable_copy()
    method = parse(shared.sentence)
    trainee = build_trainee(shared.name, method, backbone.shape, shared.seed, shared.recipe)
    sampler, first = method.build_sampler(), rank == 0

    def progress(done: int, total: int) -> None:
        if trainee.failure is not None:  # the others cannot go on either
            raise _FailedError(trainee.failure)
        if first:
            pipe.send(Message("progress", (done, total)))

    def log(name: str, event: dict[str, Any]) -> None:
        if first:
            pipe.send(Message("log", (name, event)))

    loop = TrainingLoop(
        [trainee],
        shared.stages,
        trained_source(backbone, shared.texts, trainee),
        seed=shared.seed,
        sampler=None if sampler is None else SharedOrder(sampler, group, device),
        selection=shared.selection if first else None,
        checkpoint=shared.checkpoint,
        checkpoint_seconds=shared.checkpoint_seconds if first else math.inf,  # all read it, one writes it
        group=group,
        log=log,
        progress=progress,
    )
    started = time.perf_counter()
    loop.run()
    seconds = time.perf_counter() - started
    if trainee.failure is not None:
        raise _FailedError(trainee.failure)
    torch.distributed.destroy_process_group()
    if first:
        pipe.send(_done(trainee, backbone, seconds))


def _join(shared: Shared, rank: int, size: int, meeting: Path) -> ProcessGroup:
    """Sets up the processes' connections: NCCL between GPUs, gloo between processors.

    Raises:
        LostProcessError: if they do not find each other.
    """
    from accelerate import PartialState

    torch.set_num_threads(shared.threads)
    # accelerate reads from these that there are several processes; the number of threads it would choose itself.
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    os.environ.update({key: str(value) for key, value in {**numbers, "OMP_NUM_THREADS": shared.threads}.items()})
    where = {"init_method": meeting.as_uri(), "rank": rank, "world_size": size, "timeout": _PATIENCE}
    with reachable():
        PartialState(cpu=shared.device == "cpu", **where)
    return ProcessGroup()


def _done(trainee: Trainee, backbone: Backbone, seconds: float) -> Message:
    learned = {
        "losses": trainee.losses,
        "dev_score": trainee.dev_score,
        "best_update": trainee.best_update,
        "trained_parameters": trainee.trained_parameters,
    }
    # Copies, because safetensors refuses weights that share their memory.
    weights: dict[str, Tensor] = {name: one.detach().cpu().clone() for name, one in trainee.weights(backbone).items()}
    return Message("done", (seconds, learned, safetensors.torch.save(weights)))
