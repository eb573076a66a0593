"""A diagnosis: what the vectors of several methods look like on the texts of one task, and what that depends on."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from fusebench.benchmarks.embedding_space import CONVENTIONS, Space
from fusebench.benchmarks.record import (
    BackboneSpec,
    Environment,
    MethodSpec,
    Prompts,
    Regime,
    TaskSpec,
    TextSetSpec,
    digest,
)

SCHEMA = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TrainedWeights(_Frozen):
    """Weights that a training left; trainings that differ in nothing but their seed share `group`."""

    method: str
    seed: int
    regime: Regime
    training_id: str
    weights_sha256: str
    group: str


class DiagnosedMethod(_Frozen):
    """A method, whose weights it has, and whose backbone it reads.

    Attributes:
        trained: weights of the method itself; None: it has none, or random ones.
        backbone: the training that fine-tuned the backbone; None: it is the diagnosis' own, frozen.
        sweep: the same method with its default layer, where the method has a layer.
    """

    method: MethodSpec
    trained: TrainedWeights | None
    backbone: TrainedWeights | None
    sweep: str | None
    layer: int | None


class DiagnosisSpec(_Frozen):
    """Everything that a diagnosis depends on."""

    backbone: BackboneSpec
    task: TaskSpec
    methods: tuple[DiagnosedMethod, ...]
    attention: bool  # whether maps were read, in the same pass
    limit: int  # texts, and pairs, that are drawn at most
    seed: int  # of the draw, and of untrained weights
    pair_rule: str
    conventions: str = CONVENTIONS
    fit: TextSetSpec | None
    prompts: Prompts
    max_length: int
    dtype: str
    device: str
    batch_tokens: int
    software: dict[str, str]
    code: str


class Sizes(_Frozen):
    """How many distinct texts and how many pairs a task has and how many were measured; of texts that tokenise
    alike, one is."""

    texts_of_task: int
    texts: int
    pairs_of_task: int
    pairs: int
    truncated: int  # of the texts, cut at the length limit


class LayerSimilarity(_Frozen):
    """Linear CKA between the layers of a sweep."""

    sweep: str
    backbone: TrainedWeights | None
    layers: tuple[int, ...]
    cka: tuple[tuple[float, ...], ...]


class BlockAttention(_Frozen):
    """The attention maps of one block, means over texts, heads and real queries.

    Attributes:
        entropy: of a query's attention over the T real keys, by ln T: 1 is evenly spread.
        first_token: share of the attention that goes to the first real token.
        last_token: to the last one.
        head_cosine: of what two heads attend to, over positions; None where a block has one head.
    """

    block: int
    entropy: float
    first_token: float
    last_token: float
    head_cosine: float | None


class BackboneAttention(_Frozen):
    """The blocks of one backbone; `even_share` is what a token gets where attention is evenly spread."""

    backbone: TrainedWeights | None
    even_share: float
    first_token: str | None  # the special token that stands there; None: a token of the text
    last_token: str | None
    blocks: tuple[BlockAttention, ...]


class Diagnosis(_Frozen):
    """The file; `spaces` are those of `spec.methods`, in their order."""

    schema_version: int = SCHEMA
    diagnosis_id: str
    spec: DiagnosisSpec
    sizes: Sizes
    spaces: tuple[Space, ...]
    similarities: tuple[LayerSimilarity, ...]
    attention: tuple[BackboneAttention, ...]
    environment: Environment

    @classmethod
    def of(cls, spec: DiagnosisSpec, **measured: Any) -> Diagnosis:
        """A diagnosis whose id is the hash of its specification."""
        return cls(diagnosis_id=digest(spec.model_dump(mode="json")), spec=spec, **measured)
