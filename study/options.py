"""What a user asks of a run, one field a flag."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fusebench.benchmarks.record import Prompts
from fusebench.methods import backbone_source
from fusebench.study import text_sets


@dataclass(frozen=True)
class Options:
    """A run before anything is looked up.

    Attributes:
        methods: sentences and catalogue names; `all`, and none at all, mean the whole catalogue.
        suites: names; with `tasks` empty too, the embedded suite.
        tasks: task names.
    """

    methods: tuple[str, ...] = ()
    backbone: str = backbone_source.DEFAULT
    suites: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    data_dir: Path | None = None
    available_only: bool = False
    out: Path = Path("results")
    seeds: tuple[int, ...] = (0,)
    fit: str = text_sets.DEFAULT
    prompts: Prompts = field(default_factory=Prompts)
    device: str = "auto"
    dtype: str = "float32"
    max_length: int | None = None
    batch_tokens: int | None = None
    limit: int | None = None
    allow_empty: bool = False
    remote_code: bool = False
    rerun: bool = False
