"""Vectors and records for tests that need a finished cell and no backbone."""

from __future__ import annotations

import zlib

import numpy as np

from fusebench.benchmarks.record import (
    BackboneSpec,
    Cost,
    Counts,
    Environment,
    MethodSpec,
    PartSpec,
    Prompts,
    Record,
    Spec,
)


def embed(role, texts, dim=16):
    """Vectors that share words where the texts do, so that scores are neither chance nor perfect."""
    rows = [
        sum(np.random.default_rng(zlib.crc32(word.encode())).standard_normal(dim) for word in text.split())
        for text in texts
    ]
    return np.asarray(rows, dtype=np.float32).reshape(len(texts), dim)


def record_of(
    task, main_score=0.5, method="mean", seed=None, created="2025-01-01T00:00:00+00:00", equal_to=None, **changes
):
    """A record on this task; `changes` are fields of its specification."""
    spec = Spec(
        backbone=BackboneSpec(
            name="tiny/net",
            revision="0" * 40,
            weights_sha256="1" * 64,
            tokenizer_sha256="2" * 64,
            architecture="BertModel",
            blocks=2,
            dim=16,
            final_norm="none",
            remote_code=False,
        ),
        method=MethodSpec(name=method, parts=(PartSpec(kind="fusion", name="mean", params={}),)),
        task=task,
        seed=seed,
        regime="training-free",
        train=None,
        fit=None,
        prompts=Prompts(),
        max_length=32,
        max_length_source="test",
        dtype="float32",
        device="cpu",
        padding_side="right",
        batch_tokens=128,
        limit=None,
        software={},
        code="3" * 64,
    ).model_copy(update=changes)
    return Record.of(
        spec,
        scores=(),
        main_score=main_score,
        out_dim=16,
        added_parameters=0,
        equal_to=equal_to,
        counts=Counts(texts=1, distinct_texts=1, truncated_texts=0, empty_texts=0),
        cost=Cost(
            pass_seconds=0,
            fusion_seconds=0,
            scoring_seconds=0,
            peak_memory_mb=0,
            effective_batch_tokens=1,
            threads=1,
        ),
        environment=Environment(
            created=created,
            platform="test",
            python="3",
            processor="test",
            git_commit=None,
            git_dirty=None,
            versions={},
        ),
    )
