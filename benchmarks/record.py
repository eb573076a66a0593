"""The run record: one cell (backbone x method x task x seed x specification) and what was measured in it."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

SCHEMA = 2

TaskType = Literal["STS", "Retrieval"]
Regime = Literal["training-free", "frozen", "finetune"]
RowKind = Literal["sentences", "pairs", "triplets", "scored-pairs"]


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

    kind: Literal["fusion", "objective", "guide", "sampler", "transform"]
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
    source: Literal["hub", "folder", "embedded", "plugin"]  # plugin: a task that loads its data in its own way
    revision: str  # hub commit, a plugin's own word, or "sha256:..." of a folder's files
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


class RowSetSpec(TextSetSpec):
    """A set of training or dev rows; `count` is the number of rows, the hash covers kind, texts and labels."""

    kind: RowKind


class TrainingSpec(_Frozen):
    """How a method was trained; what a run asks for, and so equal for all its methods, but for `rows` and `code`."""

    data: tuple[str, ...]  # names of the sets offered, in order of preference
    limit: int | None  # rows taken of each
    rows: tuple[RowSetSpec, ...]  # what each objective was trained on, in their order
    epochs: int | None  # passes over the rows, all objectives together; or
    steps: int | None  # updates, all objectives together
    batch_size: int  # rows an update
    learning_rate: float  # of the backbone's weights
    learning_rate_new: float  # of the method's own weights
    weight_decay: float
    warmup: float  # share of the updates over which the learning rate rises; then it falls to 0
    max_grad_norm: float
    accumulate: int  # batches an update; in-batch negatives come from one batch
    chunk: int | None  # texts that go through the backbone at a time (GradCache); None: the whole batch
    precision: Literal["no", "bf16", "fp16"]  # of mixed-precision arithmetic
    dev: RowSetSpec | None  # what the best weights and the best trial are chosen on
    dev_every: int | None  # updates between two looks at the dev rows
    trials: int  # learning rates tried, the best on the dev rows kept
    code: str  # hash of the source files that train


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
    regime: Regime
    train: TrainingSpec | None
    weights_sha256: str | None = None  # of saved weights that were loaded as they are; None: trained as `train` says
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
        return digest(self.model_dump(mode="json"))

    @property
    def training_id(self) -> str:
        """The same over `training_identity`."""
        return digest(self.training_identity)

    @property
    def training_identity(self) -> dict[str, Any]:
        """What trained weights depend on: no task, no transform, nothing of how scores are made from vectors."""
        held = self.model_dump(
            mode="json",
            exclude={"task", "fit", "batch_tokens", "limit", "code", "weights_sha256", "method", "prompts"},
        )
        parts = [part.model_dump(mode="json") for part in self.method.parts if part.kind != "transform"]
        return {**held, "parts": parts, "prompt": self.prompts.text}


def digest(held: Any) -> str:
    """The first 16 hexadecimal digits of the sha256 of canonical JSON."""
    canonical = json.dumps(held, sort_keys=True, ensure_ascii=True, allow_nan=False)
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


class Training(_Frozen):
    """What the training of a cell's method took; trials are counted in."""

    states: Literal["pooled states", "cached token states", "live states", "trained backbone"]  # what was read
    updates: int
    examples: int  # rows seen, repetitions included
    trials: int
    seconds: float
    trained_parameters: int
    learning_rate: float  # of the best trial
    learning_rate_new: float
    loss: float  # mean over the last tenth of the updates
    best_update: int | None  # whose weights were kept; None: the last, nothing was chosen
    dev_score: float | None


class Overlap(_Frozen):
    """What of a task occurs in the training and dev texts, case and punctuation aside."""

    texts: int  # distinct, of the task
    known_texts: int
    pairs: int | None  # of an STS task
    pairs_both_known: int | None
    main_score_without: float | None  # main score without the pairs whose two texts are known, where it was asked for


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
    training: Training | None = None  # None: nothing was trained
    overlap: Overlap | None = None
    environment: Environment

    @classmethod
    def of(cls, spec: Spec, **measured: Any) -> Record:
        """A record whose id is computed from its specification."""
        return cls(spec_id=spec.spec_id, spec=spec, **measured)
