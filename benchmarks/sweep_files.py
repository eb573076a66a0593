"""What is kept of a sweep: every run's flags, what became of it, and what was chosen on the dev rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from fusebench.benchmarks.atomic import atomic_write, slug
from fusebench.benchmarks.record import digest
from fusebench.benchmarks.sealed_json import sealed_text, unsealed
from fusebench.benchmarks.sweep_choice import Choice

SCHEMA = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class KeptRun(_Frozen):
    """One run of a sweep.

    Attributes:
        flags: all of them, defaults too; of paths the last part alone, and none that say where results and data lie.
        cells: the `spec_id` of each, once the run was planned.
        failures: how many; a run that could not be planned has one and no cells.
    """

    name: str
    flags: dict[str, Any]
    state: Literal["waiting", "done", "failed"] = "waiting"
    cells: tuple[str, ...] = ()
    failures: int = 0


class KeptSweep(_Frozen):
    """A sweep, resolved.

    Attributes:
        combinations: of its grid.
        sample_seed: that the runs were drawn with; None if they are the whole grid.
    """

    schema_version: int = SCHEMA
    name: str
    combinations: int
    sample_seed: int | None
    runs: tuple[KeptRun, ...]
    choices: tuple[Choice, ...] = ()

    @property
    def sweep_id(self) -> str:
        """A hash of what was asked for, whatever became of it."""
        return digest([self.name, self.combinations, self.sample_seed, [[run.name, run.flags] for run in self.runs]])


def sweep_path(out: Path, sweep: KeptSweep) -> Path:
    """Where a sweep is kept in a results folder; the same sweep has one file, however often it is run."""
    return out / "sweeps" / f"{slug(sweep.name)}-{sweep.sweep_id}.json"


def write_sweep(out: Path, sweep: KeptSweep) -> None:
    """Writes it, whole.

    Raises:
        InputError: the disk refused.
    """
    atomic_write(sweep_path(out, sweep), sealed_text(sweep.model_dump(mode="json")))


def read_sweep_file(path: Path) -> KeptSweep:
    """The sweep in a file.

    Raises:
        ValueError: the file is damaged or holds no sweep.
    """
    return KeptSweep.model_validate(unsealed(path.read_bytes()))
