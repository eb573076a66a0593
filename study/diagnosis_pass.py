"""One pass of a backbone over the texts of all tasks, and of it the space of every method that reads it."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float

from fusebench.benchmarks.diagnosis import (
    BackboneAttention,
    DiagnosedMethod,
    LayerSimilarity,
    Sizes,
    TrainedWeights,
)
from fusebench.benchmarks.embedding_space import Space, space_of
from fusebench.benchmarks.geometry import linear_cka
from fusebench.benchmarks.record import Prompts
from fusebench.methods.backbone import Backbone
from fusebench.methods.checkpoint import load_module
from fusebench.methods.encoder import fit_transforms
from fusebench.methods.engine import SharedPass
from fusebench.methods.parts import Fusion
from fusebench.methods.seeding import seeded
from fusebench.study.attention_reader import KEY, AttentionReader, read_attention
from fusebench.study.diagnosis_subjects import Subject, described, trained_weights
from fusebench.study.diagnosis_texts import Sample
from fusebench.study.plan import Chosen
from fusebench.study.text_sets import TextSet

Progress = Callable[[str, int, int], None]  # stage, done, total

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How a diagnosis is made; see the flags of `diagnose`."""

    attention: bool
    limit: int
    seed: int
    prompts: Prompts
    batch_tokens: int | None


@dataclass
class Findings:
    """What was measured on one task so far."""

    methods: list[DiagnosedMethod] = field(default_factory=list)
    spaces: list[Space] = field(default_factory=list)
    similarities: list[LayerSimilarity] = field(default_factory=list)
    attention: list[BackboneAttention] = field(default_factory=list)
    sizes: Sizes | None = None


@dataclass(frozen=True)
class _Rows:
    """Where the texts and pairs of a sample are among the vectors of a pass; texts that tokenise alike count once."""

    texts: np.ndarray
    lengths: np.ndarray  # tokens of these texts
    left: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, sample: Sample, shared: SharedPass) -> _Rows:
        texts, first = np.unique(shared.rows(sample.texts), return_index=True)
        lengths = shared.lengths(sample.texts)[first]
        return cls(texts, lengths, shared.rows(sample.left), shared.rows(sample.right))


class Examination:
    """One backbone and the methods that read it."""

    def __init__(
        self, frozen: Backbone, subject: Subject, samples: Sequence[Sample], fit: TextSet, settings: Settings
    ) -> None:
        self.subject, self.samples, self.fit, self.settings = subject, samples, fit, settings
        self.trained: TrainedWeights | None = trained_weights(subject.tuned)
        self.backbone = frozen
        if subject.tuned is not None:
            self.backbone = frozen.trainable_copy()
            load_module(self.backbone.model, subject.tuned.tensors(), "backbone.")
            self.backbone.model.requires_grad_(False)

    def into(self, findings: Mapping[str, Findings], failures: list[str], stage: str, progress: Progress) -> None:
        """Runs the passes and adds what they tell."""
        passes = self._passes(stage, progress)
        layers: dict[tuple[str, str], dict[int, np.ndarray]] = defaultdict(dict)
        for one in self.subject.methods:
            shared = next(made for made in passes if _key(one) in made.fusions)
            try:
                vectors = self._vectors(one, shared)
            except Exception as error:  # a third-party part can raise anything
                failures.append(self._failure(one, "", error))
                continue
            for sample in self.samples:
                try:
                    self._measure(one, vectors, sample, shared, findings, layers)
                except ArithmeticError as error:
                    failures.append(self._failure(one, f" on {sample.task.spec.name}", error))
        for (task, sweep), held in layers.items():
            if len(held) > 1:
                numbers = tuple(sorted(held))
                cka = linear_cka([held[layer] for layer in numbers])
                findings[task].similarities.append(
                    LayerSimilarity(sweep=sweep, backbone=self.trained, layers=numbers, cka=_nested(cka))
                )
        for shared in passes:
            if KEY in shared.fusions:
                for sample in self.samples:
                    rows = _Rows.of(sample, shared)
                    found = read_attention(shared, rows.texts, rows.lengths, self.trained)
                    findings[sample.task.spec.name].attention.append(found)

    def _passes(self, stage: str, progress: Progress) -> list[SharedPass]:
        """One pass a template, finished over the texts of all tasks; the maps are read in that without a template."""
        by_template: dict[str | None, dict[str, Fusion]] = {}
        for one in self.subject.methods:
            fusion = self._fusion(one)
            by_template.setdefault(fusion.template, {})[_key(one)] = fusion
        if self.settings.attention:
            by_template.setdefault(None, {})[KEY] = AttentionReader(self.backbone.shape)
        texts = [text for sample in self.samples for text in sample.every_text()]
        fitted = {_key(one) for one in self.subject.methods if one.method.fitted}
        passes = []
        for fusions in by_template.values():
            shared = SharedPass(
                self.backbone,
                fusions,
                batch_tokens=self.settings.batch_tokens,
                progress=lambda done, total: progress(stage, done, total),
            )
            shared.ensure(texts + (self._fit_texts() if fitted & fusions.keys() else []))
            passes.append(shared)
        return passes

    def _fusion(self, one: Chosen) -> Fusion:
        with seeded(self.settings.seed, torch.device("cpu")):
            fusion = one.method.build_fusion(self.backbone.shape)
        if one.saved is not None:
            load_module(fusion, one.saved.tensors(), "fusion.")
        return fusion.eval().requires_grad_(False)

    def _fit_texts(self) -> list[str]:
        return [self.settings.prompts.text + text for text in self.fit.texts]

    def _vectors(self, one: Chosen, shared: SharedPass) -> Float[np.ndarray, "inputs dim"]:
        """The method's vectors of all that went through the pass."""
        vectors = shared.vectors(_key(one))
        fit = vectors[shared.rows(self._fit_texts())] if one.method.fitted else None
        for transform in fit_transforms(one.method, fit):
            vectors = transform(vectors)
        return vectors

    def _measure(
        self,
        one: Chosen,
        vectors: np.ndarray,
        sample: Sample,
        shared: SharedPass,
        findings: Mapping[str, Findings],
        layers: dict[tuple[str, str], dict[int, np.ndarray]],
    ) -> None:
        name, rows = sample.task.spec.name, _Rows.of(sample, shared)
        space = space_of(vectors[rows.texts], vectors[rows.left], vectors[rows.right])
        method = described(one, self.subject.tuned, self.backbone)
        found = findings[name]
        found.methods.append(method)
        found.spaces.append(space)
        found.sizes = found.sizes or Sizes(
            texts_of_task=sample.texts_of_task,
            texts=len(rows.texts),
            pairs_of_task=sample.pairs_of_task,
            pairs=len(rows.left),
            truncated=shared.truncated(sample.texts),
        )
        if method.sweep is not None and method.layer is not None and one.saved is None:
            layers[name, method.sweep][method.layer] = vectors[rows.texts]

    def _failure(self, one: Chosen, where: str, error: Exception) -> str:
        tuned = f", read from {self.trained.method}, seed {self.trained.seed}" if self.trained else ""
        _LOG.info("%s%s", one.method.name, where, exc_info=error)
        return f"{one.method.name}{tuned}{where}: {error}"


def _key(one: Chosen) -> str:
    """Methods with the same weights share the fusion's vectors."""
    return one.method.stem.name + (f" saved {one.saved.weights_sha256}" if one.saved else "")


def _nested(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())
