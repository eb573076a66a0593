"""Makes diagnoses: every backbone examined in turn, a file's content a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fusebench.benchmarks.diagnosis import DiagnosedMethod, Diagnosis, DiagnosisSpec
from fusebench.methods.backbone import Backbone
from fusebench.methods.engine import BATCH_TOKENS
from fusebench.study.code_identity import code_sha256
from fusebench.study.diagnosis_pass import Examination, Findings, Settings
from fusebench.study.diagnosis_subjects import Subject
from fusebench.study.diagnosis_texts import Sample
from fusebench.study.environment import SOFTWARE, environment, versions
from fusebench.study.plan import backbone_spec
from fusebench.study.text_sets import TextSet

Progress = Callable[[str, int, int], None]  # stage, done, total

_MEASURES = tuple(
    f"fusebench.{name}"
    for name in (
        "benchmarks.embedding_space",
        "benchmarks.positive_pairs",
        "study.attention_reader",
        "study.diagnosis_texts",
    )
)


def diagnose(
    backbone: Backbone,
    subjects: Sequence[Subject],
    samples: Sequence[Sample],
    fit: TextSet,
    settings: Settings,
    progress: Progress = lambda stage, done, total: None,
) -> tuple[list[Diagnosis], list[str]]:
    """A diagnosis a task, and a sentence for each method that has none.

    Raises:
        InputError: saved weights are not those that their card names, or a text does not go through the backbone.
    """
    findings = {sample.task.spec.name: Findings() for sample in samples}
    failures: list[str] = []
    for number, subject in enumerate(subjects, start=1):
        stage = f"backbone {number} of {len(subjects)}"
        Examination(backbone, subject, samples, fit, settings).into(findings, failures, stage, progress)
    made = []
    for sample in samples:
        found = findings[sample.task.spec.name]
        if found.methods and found.sizes is not None:
            made.append(
                Diagnosis.of(
                    _spec(backbone, subjects, sample, tuple(found.methods), fit, settings),
                    sizes=found.sizes,
                    spaces=tuple(found.spaces),
                    similarities=tuple(found.similarities),
                    attention=tuple(found.attention),
                    environment=environment(),
                )
            )
    return made, failures


def _spec(
    backbone: Backbone,
    subjects: Sequence[Subject],
    sample: Sample,
    methods: tuple[DiagnosedMethod, ...],
    fit: TextSet,
    settings: Settings,
) -> DiagnosisSpec:
    kind = backbone.device.type
    asked = [one.method for subject in subjects for one in subject.methods]
    parts = {part.card.part.__module__ for method in asked for part in method.parts}
    return DiagnosisSpec(
        backbone=backbone_spec(backbone),
        task=sample.task.spec,
        methods=methods,
        attention=settings.attention,
        limit=settings.limit,
        seed=settings.seed,
        pair_rule=sample.rule,
        fit=fit.spec if any(method.fitted for method in asked) else None,
        prompts=settings.prompts,
        max_length=backbone.limit.tokens,
        dtype=backbone.dtype,
        device=kind,
        batch_tokens=settings.batch_tokens or BATCH_TOKENS[kind],
        software=versions(SOFTWARE),
        code=code_sha256((*_MEASURES, *parts)),
    )
