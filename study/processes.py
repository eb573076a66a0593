"""Has a fine-tuning done by several processes, one a GPU, and ends them all when one of them ends."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import tempfile
from contextlib import ExitStack
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import cast

import safetensors.torch
import torch

from fusebench.errors import InputError
from fusebench.methods.engine import BATCH_TOKENS
from fusebench.methods.training import TrainingLoop
from fusebench.study.rank import Message, Shared, work

# Not forked: CUDA does not survive it, and neither do the threads of torch.
_CONTEXT = multiprocessing.get_context("spawn")
_LAST_WORDS = 20.0  # seconds that processes have to say why, once one of them has lost the others

_LOG = logging.getLogger(__name__)


def check_processes(processes: int, regime: str, device: torch.device) -> list[str]:
    """What a user should know who asks for so many processes a fine-tuning.

    Raises:
        InputError: if there is no device for each, or this command is one of several equal ones.
    """
    if (started := os.environ.get("WORLD_SIZE", "1")) not in ("", "0", "1"):
        raise InputError(
            f"WORLD_SIZE={started} says that this command was started so many times, as accelerate launch and "
            f"torchrun do: start it once, with --processes {started} if it fine-tunes."
        )
    if processes == 1:
        return []
    asked = f"--processes {processes}"
    if regime != "finetune":
        return [f"{asked} changes nothing here: heads on a frozen backbone are trained in one process"]
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"{asked} shares GPUs, or the processor by --device cpu; --device {device} is neither.")
    if device.type == "cpu":
        return []
    if ":" in str(device):
        raise InputError(
            f"{asked} takes the first GPUs there are: say which by CUDA_VISIBLE_DEVICES, not by --device."
        )
    if (there := torch.cuda.device_count()) < processes:
        raise InputError(f"{asked} needs a GPU for each process, and torch sees {there}: ask for no more than that.")
    return []


def train_in_processes(loop: TrainingLoop, shared: Shared, processes: int) -> float:
    """What `loop.run` does, by so many processes; the seconds that it took them.

    Noise, order and updates are those of one process, and so are the weights but for rounding. The loop's only
    trainee and its backbone have the learned weights afterwards; a method that fails has its `failure` set.

    Args:
        loop: of a backbone in training; its log and progress are called here.
        shared: the same training, for the processes.
        processes: how many.

    Raises:
        InputError: if a process dies, or the checkpoint is damaged or cannot be written.
    """
    _warn_of_idle(loop, processes)
    pipes: dict[Connection, tuple[int, BaseProcess]] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        meeting = Path(folder) / "meeting"
        for rank in range(processes):
            receiver, sender = _CONTEXT.Pipe(duplex=False)
            running.enter_context(receiver)
            with sender:  # a process that dies leaves no other end behind
                process = _CONTEXT.Process(
                    target=work, args=(shared, rank, processes, meeting, sender), name=f"rank {rank}"
                )
                process.start()
            running.callback(_end, process)
            pipes[receiver] = rank, process
        return _follow(pipes, loop)


def _end(process: BaseProcess) -> None:
    process.kill()
    process.join()


def _follow(pipes: dict[Connection, tuple[int, BaseProcess]], loop: TrainingLoop) -> float:
    """Hands on what the processes say until the first of them has finished; none has anything to do after that."""
    (trainee,), waiting, processes = loop.trainees, dict(pipes), len(pipes)
    lost = ""
    while waiting and (ready := wait(list(waiting), _LAST_WORDS if lost else None)):
        for pipe in cast(list[Connection], ready):
            message = _received(pipe)
            if message is None:
                _require_end(*waiting.pop(pipe), processes, trainee.name)
            elif message.kind == "progress":
                loop.progress(*message.content)
            elif message.kind == "log":
                loop.log(*message.content)
            elif message.kind == "done":
                return _take_over(loop, *message.content)
            elif message.kind == "failed":
                (trainee.failure,) = message.content
                return 0.0
            elif message.kind == "refused":
                raise InputError(*message.content)
            elif message.kind == "broken":
                raise RuntimeError(f"process {waiting[pipe][0]} of {processes}:\n{message.content[0]}")
            elif message.kind == "lost":
                (lost,) = message.content
    raise InputError(
        f"the {processes} processes that trained {trainee.name} lost each other ({lost}); the same command goes on "
        "from its last checkpoint."
    )


def _received(pipe: Connection) -> Message | None:
    """The next message; None at the end of the process."""
    try:
        message: Message = pipe.recv()
    except (EOFError, ConnectionError):
        return None
    return message


def _require_end(rank: int, process: BaseProcess, processes: int, name: str) -> None:
    """Checks that a process has ended in order.

    Raises:
        InputError: if it was killed or broke off.
    """
    process.join()
    code = process.exitcode or 0
    if code == 0:
        return
    how = f"was killed by {signal.Signals(-code).name}, as the system does when memory is full" if code < 0 else ""
    raise InputError(
        f"process {rank} of the {processes} that trained {name} {how or f'ended with code {code}, see above'}; the "
        "same command goes on from the last checkpoint."
    )


def _take_over(loop: TrainingLoop, seconds: float, learned: dict[str, object], weights: bytes) -> float:
    """Puts what the first process has learned into the trainee and the backbone of this one."""
    (trainee,) = loop.trainees
    trainee.load_weights(safetensors.torch.load(weights), loop.source.trained)
    for name, value in learned.items():
        setattr(trainee, name, value)
    trainee.accelerator = None
    return seconds


def _warn_of_idle(loop: TrainingLoop, processes: int) -> None:
    """A batch is shared by its parts, and one of few short texts may be a single part."""
    (trainee,), chunk = loop.trainees, loop.recipe.chunk
    texts, parts = [], []
    for rows, objective in zip(loop.stages, trainee.objectives, strict=True):
        count = min(loop.recipe.batch_size, len(rows)) * len(rows.columns)
        tokens = count * loop.source.lengths[rows.columns].mean()
        whole = count / chunk if chunk else tokens / BATCH_TOKENS[loop.source.device.type]
        texts.append(count)
        parts.append(math.ceil(whole) * objective.views)
    if min(parts) < processes:
        _LOG.warning(
            "%s: a batch of %d texts makes %d part(s) for %d processes, and the rest of them will wait; --chunk %d "
            "makes one for each",
            trainee.name,
            min(texts),
            min(parts),
            processes,
            math.ceil(min(texts) / processes),
        )
