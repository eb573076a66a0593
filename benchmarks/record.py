"""The run record: one cell (backbone x method x task x seed x specification) and what was measured in it."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

SCHEMA = 1

TaskType = Literal["STS", "Retrieval"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BackboneSpec(_Frozen):
    """The transformer: its name for people, its hashes for identity; never a path."""

    name: str
    revision: str  # hub commit, or "sha256:..." over a folder's files
    weights_sha256: str
    tokenizer_sha256: str
    architecture: str  # e.g. "BertModel"
    blocks: int  # L; states are numbered 0 (embedding output) .. L
    dim: int
    final_norm: Literal["none", "last-state-only"]  # whether state L alone carries a final norm
    remote_code: bool


class PartSpec(_Frozen):
    """One part of a method with every hyper-parameter, defaults included."""

    kind: Literal["fusion", "objective", "guide", "transform"]
    name: str
    params: dict[str, Any]


class MethodSpec(_Frozen):
    """The method: canonical sentence and its parts."""

    name: str
    parts: tuple[PartSpec, ...]


class TaskSpec(_Frozen):
    """The task: which data, which of it, which number counts."""

    name: str
    type: TaskType
    source: Literal["hub", "folder", "embedded"]
    revision: str  # hub commit, or "sha256:..." of a folder's files
    data_sha256: str  # of the texts and labels as loaded, whatever their source
    splits: tuple[str, ...]
    subsets: tuple[str, ...]
    metric: str  # mteb's main metric
    protocol: str  # e.g. "sts: all pairs of a split together"


class TextSetSpec(_Frozen):
    """A set of texts that something was fitted or trained on."""

    name: str
    sha256: str
    count: int


class Prompts(_Frozen):
    """Texts put before each input: STS texts, queries, documents."""

    text: str = ""
    query: str = ""
    document: str = ""


class Spec(_Frozen):
    """Everything a score depends on; `spec_id` is its hash."""

    backbone: BackboneSpec
    method: MethodSpec
    task: TaskSpec
    seed: int | None  # None: nothing in the method is random
    regime: Literal["training-free", "frozen", "finetune"]
    train: TextSetSpec | None
    fit: TextSetSpec | None  # None: no transform in the method
    prompts: Prompts
    max_length: int
    max_length_source: str
    dtype: str
    device: str  # "cpu", "cuda", "mps": kind, not number
    padding_side: Literal["left", "right"]
    batch_tokens: int
    limit: int | None
    software: dict[str, str]  # versions of the packages that compute the score
    code: str  # hash of the project's source files that compute the score

    @property
    def spec_id(self) -> str:
        """The first 16 hexadecimal digits of the sha256 of the canonical JSON."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class Score(_Frozen):
    """One number of mteb's for one subset and split, as mteb's fraction."""

    subset: str
    split: str
    metric: str
    value: float
    is_main: bool


class Cost(_Frozen):
    """What the cell took; seconds are wall time on the machine of `Environment`.

    A pass serves many tasks at once; a task is charged by its share of the tokens.
    """

    pass_seconds: float  # the backbone pass, shared by every method of the run
    fusion_seconds: float  # this method's own work on the states, transforms included
    scoring_seconds: float
    peak_memory_mb: float
    effective_batch_tokens: int  # smaller than asked for after running out of memory
    threads: int


class Counts(_Frozen):
    """What went through the backbone for this cell."""

    texts: int
    distinct_texts: int
    truncated_texts: int  # of the distinct texts of the task
    empty_texts: int


class Environment(_Frozen):
    """Where and when the cell was computed; not part of its identity."""

    created: str  # ISO 8601, UTC
    platform: str
    python: str
    processor: str
    git_commit: str | None
    git_dirty: bool | None
    versions: dict[str, str]


class Record(_Frozen):
    """One finished cell."""

    schema_version: int = SCHEMA
    spec_id: str
    spec: Spec
    scores: tuple[Score, ...]
    main_score: float  # mteb's main score of the task: mean over subsets and splits
    out_dim: int
    added_parameters: int
    equal_to: str | None  # a method that ranks every pair alike under cosine, e.g. "mean" for "mean-sqrt-len"
    counts: Counts
    cost: Cost
    environment: Environment

    @classmethod
    def of(cls, spec: Spec, **measured: Any) -> Record:
        """A record whose id is computed from its specification."""
        return cls(spec_id=spec.spec_id, spec=spec, **measured)
