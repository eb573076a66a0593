"""Experiment trackers that a training log is sent to as well, each through its package's own interface."""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from fusebench.errors import InputError

PROJECT = "fusebench"


class Tracker(Protocol):
    """One tracked training. Several are open at a time, because methods are trained side by side."""

    def log(self, numbers: Mapping[str, float], update: int) -> None:
        """Sends what is known of an update."""

    def finish(self) -> None:
        """Ends the tracked run."""


def start_tracker(kind: str, path: Path, config: Mapping[str, Any]) -> Tracker:
    """A tracker of one training.

    Args:
        kind: of `TRACKERS`.
        path: its name is the name of the tracked run; TensorBoard's files are in a folder of this path.
        config: what is trained; plain values.

    Raises:
        InputError: if the tracker's package is not installed or its service cannot be used.
    """
    try:
        return TRACKERS[kind](path, config)
    except ImportError as error:
        raise InputError(f"--track {kind}: {error}; python -m pip install {kind}.") from error


class _TensorBoard:
    """Event files in the folder `path`."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._kind, self._path, self._config = SummaryWriter, path, dict(config)
        self._writer: Any = None

    def log(self, numbers: Mapping[str, float], update: int) -> None:
        if self._writer is None:
            # A training that goes on begins at its last checkpoint; what was drawn behind that is drawn anew.
            self._writer = self._kind(str(self._path), purge_step=update, flush_secs=10)
            self._writer.add_hparams(self._config, {}, run_name=os.curdir)
        for name, number in numbers.items():
            self._writer.add_scalar(name, number, update)

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _Wandb:
    """A run of the project `fusebench`; its files are where wandb keeps them: `wandb/` here, or below `WANDB_DIR`.

    Never in a results folder: wandb leaves links to files elsewhere, and a results folder with such is refused.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        import wandb

        try:
            self._run = wandb.init(
                project=PROJECT,
                name=path.name,
                config=dict(config),
                reinit="create_new",
                settings=wandb.Settings(console="off"),
            )
        except wandb.Error as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"--track wandb: {reason}; run wandb login, or set WANDB_MODE=offline to keep the runs here."
            ) from error
        # wandb's own step may not go back, as it does in a training that goes on from a checkpoint.
        self._run.define_metric("*", step_metric="update")

    def log(self, numbers: Mapping[str, float], update: int) -> None:
        self._run.log({"update": update, **numbers})

    def finish(self) -> None:
        self._run.finish()


class _Trackio:
    """A run of the project `fusebench` in trackio's own database."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        import trackio

        # trackio ends the run of its context when it begins another there; and its words are no results.
        with contextlib.redirect_stdout(sys.stderr):
            self._run = contextvars.copy_context().run(
                trackio.init,
                project=PROJECT,
                name=path.name,
                config=dict(config),
                resume="allow",
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

    def log(self, numbers: Mapping[str, float], update: int) -> None:
        self._run.log(dict(numbers), step=update)

    def finish(self) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._run.finish()


TRACKERS: dict[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "trackio": _Trackio,
}
