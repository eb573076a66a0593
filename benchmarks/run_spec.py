"""What a run was asked to do, read back from the specifications of its cells: names and numbers, no path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from fusebench.benchmarks.record import Prompts, Regime, Spec, TrainingSpec
from fusebench.errors import InputError

_MEASURED = {"rows", "dev", "code"}  # of a training: found out when it was planned, not asked for


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TrainingRequest(_Frozen):
    """The training that a run asked for: `TrainingSpec` without what was found out on the way."""

    data: tuple[str, ...]
    limit: int | None
    epochs: int | None
    steps: int | None
    batch_size: int
    learning_rate: float
    learning_rate_new: float
    weight_decay: float
    warmup: float
    max_grad_norm: float
    accumulate: int
    chunk: int | None
    precision: str
    dev: str | None  # name of the set
    dev_every: int | None
    trials: int

    @classmethod
    def of(cls, train: TrainingSpec) -> TrainingRequest:
        """What was asked for when this was trained."""
        return cls(dev=train.dev.name if train.dev else None, **train.model_dump(exclude=_MEASURED))


class RunSpec(_Frozen):
    """A run that can be asked for again."""

    backbone: str
    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    regime: Regime  # of the methods that are trained
    train: TrainingRequest | None
    fit: str | None  # name of the set; None: no transform is fitted
    prompts: Prompts
    max_length: int | None  # None: what the backbone's folder states
    dtype: str
    device: str
    batch_tokens: int
    limit: int | None
    remote_code: bool

    @classmethod
    def of(cls, specs: Sequence[Spec]) -> RunSpec:
        """The run that these cells came from.

        Raises:
            InputError: there are none, they are of saved weights, or no single run can have made them.
        """
        if not specs:
            raise InputError("there is no record to take a run from; run --methods first.")
        if saved := next((spec for spec in specs if spec.weights_sha256 is not None), None):
            raise InputError(
                f"{saved.method.name} was scored with saved weights, which no name leads to; train it in the run."
            )
        held: dict[str, Any] = {name: _only(name, [asked(spec)[name] for spec in specs]) for name in asked(specs[0])}
        return cls(
            methods=tuple(dict.fromkeys(spec.method.name for spec in specs)),
            tasks=tuple(dict.fromkeys(spec.task.name for spec in specs)),
            seeds=tuple(sorted({spec.seed for spec in specs if spec.seed is not None})) or (0,),
            regime=_only("regime", [spec.regime for spec in specs if spec.train]) or "training-free",
            train=_only("training", [TrainingRequest.of(spec.train) for spec in specs if spec.train]),
            fit=_only("fit texts", [spec.fit.name for spec in specs if spec.fit]),
            device=_only("device", [spec.device for spec in specs]),
            batch_tokens=_only("batch_tokens", [spec.batch_tokens for spec in specs]),
            **held,
        )

    def includes(self, spec: Spec) -> bool:
        """Whether a cell is one that this run could have made; methods, tasks and seeds aside, and the batch plan."""
        same = all(getattr(self, name) == value for name, value in asked(spec).items())
        trained_alike = spec.train is None or self.train == TrainingRequest.of(spec.train)
        return same and trained_alike and (spec.train is None or spec.regime == self.regime)


def asked(spec: Spec) -> dict[str, Any]:
    """What all cells of one run share, as it was asked for."""
    return {
        "backbone": spec.backbone.name,
        "prompts": spec.prompts,
        "max_length": spec.max_length if spec.max_length_source == "--max-length" else None,
        "dtype": spec.dtype,
        "limit": spec.limit,
        "remote_code": spec.backbone.remote_code,
    }


def _only(what: str, values: Sequence[Any]) -> Any:
    """The one value there is, or None."""
    distinct = [value for place, value in enumerate(values) if value not in values[:place]]
    if len(distinct) > 1:
        shown = " and ".join(str(value)[:60] for value in distinct[:2])
        raise InputError(
            f"the records differ in their {what} ({shown}), so no single run made them; name another --out."
        )
    return distinct[0] if distinct else None
