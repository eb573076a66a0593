"""Workers of a Ray cluster: Ray places units, tries lost ones again and brings lost shards back."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fusebench.errors import InputError
from fusebench.study.dispatch import Returned
from fusebench.study.unit_work import Job, work
from fusebench.study.units import Unit

LOCAL = "local"  # the address of a cluster that is started on this machine and ends with the run
RETRIES = 3  # of a unit whose worker or machine died, or that raised an error that nobody expected
_WAIT_SECONDS = 1.0


@dataclass(frozen=True)
class Resources:
    """What one unit occupies of a machine; fractions of a GPU let several units share it."""

    cpus: float
    gpus: float

    def slots(self, machines: Sequence[Mapping[str, float]]) -> int:
        """How many units run on these machines at a time; each machine is Ray's mapping of resources."""
        return sum(
            min(
                int(machine.get(kind, 0.0) / needed + 1e-6)
                for kind, needed in (("CPU", self.cpus), ("GPU", self.gpus))
                if needed
            )
            for machine in machines
        )


@contextmanager
def ray_pool(address: str, job: Job, needs: Resources) -> Iterator[RayPool]:
    """Connects to a cluster, or to one that this process is connected to already.

    Args:
        address: `local`, `auto` for a cluster that this machine is part of, or HOST:PORT.

    Raises:
        InputError: if Ray is not installed, there is no such cluster, or no machine of it has room for a unit.
    """
    ray = _ray()
    connected = not ray.is_initialized()
    if connected:
        _connect(ray, address)
    try:
        yield RayPool(ray, job, needs)
    finally:
        if connected:
            ray.shutdown()


class RayPool:
    """Ray's workers as a pool; see `Pool`."""

    def __init__(self, ray: Any, job: Job, needs: Resources) -> None:
        self._ray, self._job = ray, job
        self.machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self.slots = needs.slots(self.machines)
        if not self.slots:
            raise InputError(
                f"no machine of the Ray cluster has {needs.cpus:g} CPUs and {needs.gpus:g} GPUs for a unit: "
                "lower --cpus or --gpus, or start Ray with what the machine has."
            )
        self._work = ray.remote(work).options(
            num_cpus=needs.cpus,
            num_gpus=needs.gpus,
            num_returns=2,
            max_retries=RETRIES,
            retry_exceptions=True,
            scheduling_strategy="SPREAD",
        )
        self._under_way: dict[Any, tuple[Unit, Any]] = {}

    def share(self, value: Any) -> Any:
        """Puts a value into Ray's object store."""
        return self._ray.put(value)

    def submit(self, unit: Unit, *inputs: Any) -> None:
        """Hands a unit to Ray's scheduler."""
        report, shard = self._work.remote(self._job, unit, *inputs)
        self._under_way[report] = unit, shard

    def returned(self) -> list[Returned]:
        """Units that have come back; waits about a second if there are none."""
        finished, waiting = self._ray.wait(list(self._under_way), num_returns=1, timeout=_WAIT_SECONDS)
        more, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0) if finished and waiting else ([], [])
        return [self._result(report) for report in [*finished, *more]]

    def _result(self, report: Any) -> Returned:
        unit, shard = self._under_way.pop(report)
        errors = self._ray.exceptions
        try:
            return Returned(unit, self._ray.get(report), shard)
        except errors.RayTaskError as error:
            return Returned(unit, None, loss=f"{type(error.cause).__name__}: {error.cause} ({RETRIES + 1} tries)")
        except errors.RayError as error:
            reason = str(error).strip().splitlines()[0]
            return Returned(unit, None, loss=f"its worker was lost {RETRIES + 1} times: {reason}")


def _ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise InputError(
            '--executor ray needs Ray: python -m pip install -c constraints.txt -e ".[ray]" (or fusebench[ray]).'
        ) from error
    return ray


def _connect(ray: Any, address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's own 15 makes workers give way to anything else on the machine, even while a command waits for them.
    os.environ.setdefault("RAY_worker_niceness", "0")
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == LOCAL:
        ray.init(address=LOCAL, include_dashboard=False, **quiet)
        return
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"--executor ray:{address}: there is no Ray cluster that this machine is part of ({error}); "
            "start one with `ray start --head`, or leave the address out."
        ) from error
