"""Diagnoses of invented numbers, for tests of their files and of the page."""

from __future__ import annotations

from fusebench.benchmarks.diagnosis import (
    BackboneAttention,
    BlockAttention,
    DiagnosedMethod,
    Diagnosis,
    DiagnosisSpec,
    LayerSimilarity,
    Sizes,
    TrainedWeights,
)
from fusebench.benchmarks.embedding_space import Space
from fusebench.benchmarks.record import MethodSpec
from tests.invented_records import make


def weights(method="hire+batch-softmax", seed=0, group="g" * 16, regime="frozen", **changes):
    """Weights that a training left."""
    held = {"training_id": f"{seed:016d}", "weights_sha256": f"w{seed}{group}"}
    return TrainedWeights(method=method, seed=seed, group=group, regime=regime, **(held | changes))


def diagnosed(name="mean", *, trained=None, backbone=None, sweep=None, layer=None):
    """A method on a backbone."""
    return DiagnosedMethod(
        method=MethodSpec(name=name, parts=()), trained=trained, backbone=backbone, sweep=sweep, layer=layer
    )


def space(anisotropy=0.5, **changes):
    """Numbers of a space, all different."""
    held = {"uniformity": -2.0, "alignment": 0.25, "effective_rank": 30.5, "isoscore": 0.125, "hubness": 1.5}
    held |= {"antihubs": 0.01, "norm": 3.25, "norm_spread": 0.1, "dim": 384}
    return Space(anisotropy=anisotropy, **(held | changes))


def attention(backbone=None, *, heads=2, shift=0.0):
    """Two blocks; a block with one head has no cosine of heads."""
    blocks = tuple(
        BlockAttention(
            block=block,
            entropy=0.5 + shift,
            first_token=0.25 * block,
            last_token=0.125,
            head_cosine=0.75 if heads > 1 else None,
        )
        for block in (1, 2)
    )
    return BackboneAttention(
        backbone=backbone, even_share=0.0625, first_token="[CLS]", last_token="[SEP]", blocks=blocks
    )


def similarity(sweep="mean", backbone=None, off=0.5):
    """Two layers."""
    return LayerSimilarity(sweep=sweep, backbone=backbone, layers=(0, 1), cka=((1.0, off), (off, 1.0)))


def layers():
    """A sweep of two layers and what is measured of it."""
    return (
        (diagnosed("mean(layer=0)", sweep="mean", layer=0), space(0.75)),
        (diagnosed("mean", sweep="mean", layer=1), space(0.25)),
    )


def diagnosis(*measured, similarities=(), attention=(), task="A", **changes):
    """A diagnosis of these methods and spaces; `changes` are fields of its specification."""
    measured = measured or layers()
    record = make(task=task)
    spec = DiagnosisSpec(
        backbone=record.spec.backbone,
        task=record.spec.task,
        methods=tuple(method for method, _ in measured),
        attention=bool(attention),
        limit=changes.pop("limit", 100),
        seed=0,
        pair_rule="gold score above 4",
        fit=None,
        prompts=record.spec.prompts,
        max_length=record.spec.max_length,
        dtype=record.spec.dtype,
        device="cpu",
        batch_tokens=1024,
        software={},
        code="c0de",
    ).model_copy(update=changes)
    return Diagnosis.of(
        spec,
        sizes=Sizes(texts_of_task=200, texts=100, pairs_of_task=9, pairs=9, truncated=0),
        spaces=tuple(space for _, space in measured),
        similarities=similarities,
        attention=attention,
        environment=record.environment,
    )
