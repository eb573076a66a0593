"""A sweep's TOML file: the flags of every run, the values that are varied, and the runs that these make."""

from __future__ import annotations

import argparse
import difflib
import itertools
import math
import random
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fusebench.benchmarks.redaction import redacted
from fusebench.errors import InputError
from fusebench.study.flags import run_parser
from fusebench.study.parser import Parser

T = TypeVar("T")
_Several = Annotated[tuple[T, ...], Field(min_length=1)]
_Count = Annotated[int, Field(gt=0, strict=True)]
_Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Scalar = bool | int | float | str

# Flags of a whole sweep: they say where things are and how it is run, so the command line may give them too.
_OF_THE_SWEEP = ("out", "data-dir", "device", "executor", "cpus", "gpus", "processes", "plugin", "rerun", "limit")
_MAY_BE_PATHS = ("backbone", "train", "dev", "fit", "methods")
_OF_THE_TERMINAL = ("help", "sweep", "config", "dry-run", "verbose", "quiet", "test")


class _Table(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=lambda name: name.replace("_", "-"), allow_inf_nan=False
    )


class Grid(_Table):
    """What is varied: every combination of the values is a run; names are those of the flags."""

    backbone: _Several[str] | None = None
    regime: _Several[Literal["frozen", "finetune"]] | None = None
    train: _Several[str] | None = None
    limit_train: _Several[_Count] | None = None
    max_length: _Several[_Count] | None = None
    epochs: _Several[_Count] | None = None
    steps: _Several[_Count] | None = None
    batch_size: _Several[_Count] | None = None
    accumulate: _Several[_Count] | None = None
    precision: _Several[Literal["no", "bf16", "fp16"]] | None = None
    lr: _Several[_Rate] | None = None
    lr_new: _Several[_Rate] | None = None


class Sample(_Table):
    """Not the whole grid, but so many runs of it, drawn without replacement."""

    runs: _Count
    seed: Annotated[int, Field(ge=0, strict=True)] = 0


class _File(_Table):
    name: Annotated[str, Field(min_length=1, max_length=60)] | None = None
    flags: dict[str, _Scalar | list[_Scalar]] = {}
    grid: Grid
    sample: Sample | None = None


@dataclass(frozen=True, eq=False)
class SweepRun:
    """One run of a sweep.

    Attributes:
        name: its number and its values of what is varied, such as `2: backbone=x lr=3e-05`; no path.
        flags: as the command line would have given them.
    """

    name: str
    flags: argparse.Namespace


@dataclass(frozen=True)
class Sweep:
    """A sweep with its runs, those of one backbone one after the other.

    Attributes:
        combinations: of the whole grid; there are fewer runs where some were drawn.
    """

    name: str
    runs: tuple[SweepRun, ...]
    combinations: int
    sample: Sample | None


def read_sweep(path: Path, arguments: Sequence[str]) -> Sweep:
    """The runs that a file asks for.

    Args:
        path: TOML. Beside flags by their long names, it has a table `[grid]` with lists of values and may have a
            `name` and a table `[sample]`.
        arguments: of the command line; what they say of the whole sweep counts more than the file.

    Raises:
        InputError: the file cannot be read, or a key or value in it or on the command line makes no sense there.
    """
    try:
        held = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"--sweep {path} cannot be read as TOML ({error}).") from error
    own = {name: value for name, value in held.items() if name in ("name", "grid", "sample")}
    try:
        file = _File.model_validate({**own, "flags": {k: v for k, v in held.items() if k not in own}})
    except ValidationError as error:
        raise InputError(f"{path}: {_sentence(error)}") from error
    given = _given(arguments)
    varied = {name: values for name, values in file.grid.model_dump(by_alias=True).items() if values is not None}
    if not varied:
        raise InputError(f"{path}: [grid] varies nothing; give a list to one of {', '.join(_keys(Grid))}.")
    for name in varied:
        if name in file.flags:
            raise InputError(f"{path}: {name} stands beside [grid] and in it; leave one of them out.")
    for name in file.flags:
        _require_flag(path, name)
    chosen = _chosen(varied, file.sample)
    runs = tuple(
        SweepRun(_name(number, values), _flags(path, {**file.flags, **values}, given))
        for number, values in enumerate(chosen, start=1)
    )
    return Sweep(file.name or path.stem, runs, math.prod(map(len, varied.values())), file.sample)


def _chosen(varied: Mapping[str, Sequence[_Scalar]], sample: Sample | None) -> list[dict[str, _Scalar]]:
    """The combinations in the grid's order, the first key varied last; all, or those drawn."""
    sizes = [len(values) for values in varied.values()]
    total = math.prod(sizes)
    numbers: Sequence[int] = range(total)
    if sample is not None and sample.runs < total:
        numbers = sorted(random.Random(sample.seed).sample(numbers, sample.runs))
    strides = [math.prod(sizes[place + 1 :]) for place in range(len(sizes))]
    return [
        {
            name: values[number // stride % len(values)]
            for (name, values), stride in zip(varied.items(), strides, strict=True)
        }
        for number in numbers
    ]


def _name(number: int, values: Mapping[str, _Scalar]) -> str:
    shown = {name: plain(name, value) for name, value in values.items()}
    return f"{number}: " + " ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in shown.items()
    )


def plain(name: str, value: Any) -> Any:
    """The value of a flag as it can be kept: no token, and of a path that is there the last part alone."""
    if isinstance(value, list | tuple):
        return [plain(name, one) for one in value]
    if not isinstance(value, str):
        return value
    if name in _MAY_BE_PATHS and Path(value).expanduser().exists():
        return redacted(Path(value).expanduser().resolve().name)
    return redacted(value)


def _flags(path: Path, options: Mapping[str, Any], given: argparse.Namespace) -> argparse.Namespace:
    parser = run_parser(_FileParser)
    parser.prog = str(path)
    flags = parser.parse_args(parser.arguments(options))
    for name, value in vars(given).items():
        setattr(flags, name, value)
    if flags.methods is None:
        flags.methods = [["all"]]
    return flags


class _FileParser(Parser):
    """The command line's own parser, whose errors name the file."""

    def error(self, message: str) -> NoReturn:
        """An InputError instead of an exit."""
        raise InputError(f"{self.prog}: {message.replace('argument --', '')}.")


def _given(arguments: Sequence[str]) -> argparse.Namespace:
    """The flags of the whole sweep that stand on the command line itself.

    Raises:
        InputError: others stand there.
    """
    parser = run_parser()
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    given = parser.parse_args(list(arguments))
    del given.sweep
    known = {name.replace("-", "_") for name in (*_OF_THE_SWEEP, "dry-run", "verbose", "quiet")}
    for name in vars(given):
        if name not in known:
            raise InputError(
                f"--{name.replace('_', '-')} belongs into the file of the sweep; beside --sweep there can be "
                f"{', '.join(f'--{one}' for one in _OF_THE_SWEEP)} and --dry-run."
            )
    return given


def _require_flag(path: Path, name: str) -> None:
    options = itertools.chain.from_iterable(action.option_strings for action in run_parser()._actions)
    known = [option[2:] for option in options if option.startswith("--")]
    known = sorted(one for one in known if one not in _OF_THE_TERMINAL and not one.startswith("no-"))
    if name not in known:
        raise InputError(f"{path}: {_no_such_key(name, [*known, 'name', 'grid', 'sample'])}")


def _no_such_key(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}."
    return f"there is no key '{name}' here; {hint}"


def _keys(table: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in table.model_fields.items()]


def _sentence(error: ValidationError) -> str:
    """The first thing that is wrong: which key, what is allowed there."""
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")  # misspelt before missing
    place = [str(step) for step in first["loc"]]
    tables: dict[str, type[BaseModel]] = {"grid": Grid, "sample": Sample}
    table = tables.get(place[0])
    if first["type"] == "missing" and place == ["grid"]:
        return "there is no table [grid]; it holds lists of the values that are varied."
    if first["type"] == "extra_forbidden" and table is not None:
        return f"[{place[0]}]: {_no_such_key(place[-1], _keys(table))}"
    if place[0] == "flags":
        return f"{place[1]}: give a text, a number, true or false, or a list of them."
    where = " ".join(f"[{step}]" if k == 0 and table else step for k, step in enumerate(place))
    return f"{where}: {first['msg'].lower()}, and it is {first['input']!r}."
