"""Functions run by two processes that talk through gloo, and what each of them gave."""

from __future__ import annotations

import tempfile
import traceback
from pathlib import Path

import torch
import torch.distributed as dist

from fusebench.methods.process_group import ProcessGroup
from tests.killed_runs import SERVER
from tests.tiny_models import backbone_of


def in_two_processes(function):
    """What `function(group)` gives in each process, by rank; it is a module's own, and gives no tensors."""
    with tempfile.TemporaryDirectory() as folder:
        given = []
        for rank in range(2):
            receiver, sender = SERVER.Pipe(duplex=False)
            with sender:
                process = SERVER.Process(target=_work, args=(function, rank, Path(folder) / "meeting", sender))
                process.start()
            given.append((process, receiver))
        try:
            found = [receiver.recv() for _, receiver in given]
        finally:
            for process, _ in given:
                process.kill()
                process.join()
    broken = [str(one) for one in found if isinstance(one, RaisedError)]
    assert not broken, "\n".join(broken)
    return found


class RaisedError(Exception):
    """An error in one of the processes, with its traceback."""


def _work(function, rank, meeting, pipe):
    torch.set_num_threads(1)
    backbone_of("bert")  # transformers saves models in the first process of a group alone
    try:
        dist.init_process_group("gloo", init_method=meeting.as_uri(), rank=rank, world_size=2)
        pipe.send(function(ProcessGroup()))
    except Exception:
        pipe.send(RaisedError(traceback.format_exc()))
