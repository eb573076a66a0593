"""Records of invented numbers, for tests of all that reads records."""

from __future__ import annotations

from fusebench.benchmarks.record import (
    BackboneSpec,
    Cost,
    Counts,
    Environment,
    MethodSpec,
    Overlap,
    Prompts,
    Record,
    RowSetSpec,
    Score,
    Spec,
    TaskSpec,
    Training,
    TrainingSpec,
)


def row_set(name="nli", kind="triplets", count=300, digest="a1b2c3d4e5"):
    """A set of training rows."""
    return RowSetSpec(name=name, sha256=digest, count=count, kind=kind)


def training_spec(**changes):
    """Three epochs of the triplets of nli; `changes` are fields of TrainingSpec."""
    asked = {"data": ("nli",), "limit": None, "rows": (row_set(),), "epochs": 3, "steps": None, "batch_size": 64}
    asked |= {"learning_rate": 2e-5, "learning_rate_new": 1e-3, "weight_decay": 0.01, "warmup": 0.1}
    asked |= {"max_grad_norm": 1.0, "accumulate": 1, "chunk": None, "precision": "no", "dev": None}
    asked |= {"dev_every": None, "trials": 1, "code": "c0de"}
    return TrainingSpec(**(asked | changes))


def training(**changes):
    """What a training took; `changes` are fields of Training."""
    took = {"states": "cached token states", "updates": 15, "examples": 900, "trials": 1, "seconds": 12.5}
    took |= {"trained_parameters": 1000, "learning_rate": 2e-5, "learning_rate_new": 1e-3, "loss": 0.5}
    return Training(**(took | {"best_update": None, "dev_score": None} | changes))


def overlap(known=0, both=0, without=None, texts=20, pairs=10):
    """How much of a task is known."""
    return Overlap(texts=texts, known_texts=known, pairs=pairs, pairs_both_known=both, main_score_without=without)


def trained(method="hire+batch-softmax", task="A", value=0.5, seed=1, **changes):
    """A record of a method that was trained on a frozen backbone."""
    given = {"regime": "frozen", "train": training_spec(), "training": training()}
    return make(method, task, value, seed=seed, **(given | changes))


def make(method="mean", task="A", value=0.5, **changes):
    """A record of invented numbers; `changes` are fields of Spec, TaskSpec, Cost, Environment or Record."""
    net = {"name": "org/net", "revision": "0123456789abcdef", "weights_sha256": "w", "tokenizer_sha256": "t"}
    net |= {"architecture": "BertModel", "blocks": 6, "dim": 384, "final_norm": "none", "remote_code": False}
    net |= changes.pop("backbone", {})
    kind = changes.pop("type", "STS")
    metric = {"STS": "cosine_spearman", "Retrieval": "ndcg_at_10"}[kind]
    judged = {"name": task, "type": kind, "source": "embedded", "revision": "1", "metric": metric}
    judged |= {"data_sha256": changes.pop("data", f"data of {task}")}
    judged |= {"splits": ("test",), "subsets": ("default",)}
    spec = Spec(
        backbone=BackboneSpec(**net),
        method=MethodSpec(name=method, parts=()),
        task=TaskSpec(**judged, protocol=f"{kind}: as mteb"),
        seed=changes.pop("seed", None),
        regime=changes.pop("regime", "training-free"),
        train=changes.pop("train", None),
        weights_sha256=changes.pop("weights", None),
        fit=changes.pop("fit", None),
        prompts=Prompts(**changes.pop("prompts", {})),
        max_length=changes.pop("max_length", 128),
        max_length_source="model config",
        dtype=changes.pop("dtype", "float32"),
        device="cpu",
        padding_side="right",
        batch_tokens=4096,
        limit=changes.pop("limit", None),
        software={"mteb": "2.26.24"},
        code=changes.pop("code", "c0de"),
    )
    score = {"subset": "default", "split": "test", "metric": metric, "value": value, "is_main": True}
    cost = {"pass_seconds": 2.0, "fusion_seconds": 0.25, "scoring_seconds": 0.1, "peak_memory_mb": 1.0}
    stamp = {"created": "2026-01-01T00:00:00+00:00", "platform": "Linux", "python": "3.11"}
    stamp |= {"processor": "x86", "git_commit": None, "git_dirty": None, "versions": {}}
    return Record.of(
        spec,
        scores=changes.pop("scores", (Score(**score),)),
        main_score=value,
        out_dim=changes.pop("out_dim", 384),
        added_parameters=0,
        equal_to=changes.pop("equal_to", None),
        counts=Counts(texts=10, distinct_texts=9, truncated_texts=0, empty_texts=0),
        training=changes.pop("training", None),
        overlap=changes.pop("overlap", None),
        cost=Cost(**cost, effective_batch_tokens=4096, threads=2),
        environment=Environment(**(stamp | changes)),
    )
