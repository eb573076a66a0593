"""What a user asks of a run, one field a flag."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fusebench.benchmarks.record import Prompts
from fusebench.methods import backbone_source
from fusebench.methods.recipe import Recipe
from fusebench.study import named_sets, text_sets


@dataclass(frozen=True)
class TrainingOptions:
    """How learned methods are trained.

    Attributes:
        regime: whether the backbone is frozen or learns along.
        data: sets offered; each objective takes the first that suits it.
        limit: rows taken of each set.
        recipe: the budget.
        dev: rows that the best weights and the best trial are chosen on; None keeps the last weights.
        dev_every: updates between two looks at them; None is four looks a training.
        trials: learning rates that are tried.
        drop_leaks: whether training rows that are test pairs are left out instead of refused.
        state_cache_gb: room on disk for token states of the training texts.
        track: trackers that get the log too.
        processes: that share each fine-tuning, one a GPU; what is learned depends on them by rounding alone.
    """

    regime: Literal["frozen", "finetune"] = "frozen"
    data: tuple[str, ...] = (named_sets.DEFAULT,)
    limit: int | None = None
    recipe: Recipe = field(default_factory=Recipe)
    dev: str | None = None
    dev_every: int | None = None
    trials: int = 1
    drop_leaks: bool = False
    state_cache_gb: float = 8.0
    track: tuple[str, ...] = ()
    processes: int = 1


@dataclass(frozen=True)
class Options:
    """A run before anything is looked up.

    Attributes:
        methods: sentences, catalogue names, folders of saved methods; `all`, and none at all, mean the whole
            catalogue.
        suites: names; with `tasks` empty too, the embedded suite.
        tasks: task names.
        plugins: files that define methods and tasks, for processes that are started later.
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
    training: TrainingOptions = field(default_factory=TrainingOptions)
    prompts: Prompts = field(default_factory=Prompts)
    device: str = "auto"
    dtype: str = "float32"
    max_length: int | None = None
    batch_tokens: int | None = None
    limit: int | None = None
    allow_empty: bool = False
    remote_code: bool = False
    rerun: bool = False
    plugins: tuple[Path, ...] = ()
