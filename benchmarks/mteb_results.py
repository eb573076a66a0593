"""Finished cells as mteb's result repository has them: `results/MODEL/REVISION/experiments/NAME/TASK.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusebench.benchmarks.atomic import atomic_write, slug
from fusebench.benchmarks.record import Prompts, Record, Spec, digest
from fusebench.benchmarks.sealed_json import unsealed
from fusebench.benchmarks.store import Store


@dataclass(frozen=True)
class WrittenResults:
    """What went into a result repository and what did not.

    Attributes:
        files: results, one a cell.
        smoke: cells of a run with `--limit`, which are no scores of their task.
        absent: cells whose file of mteb's is missing or damaged.
    """

    files: tuple[Path, ...]
    smoke: int
    absent: int


def write_mteb_results(store: Store, folder: Path) -> WrittenResults:
    """Writes mteb's own result of every usable cell and a `model_meta.json` beside it; older files stay.

    A method is an experiment on its backbone, as mteb calls a model with other arguments: its scores are never taken
    for those of the backbone itself, nor for another method's, seed's or setting's.

    Args:
        store: whose cells.
        folder: the repository; mteb's `ResultCache(folder)` reads it.

    Raises:
        InputError: the disk refused.
    """
    files, smoke, absent = [], 0, 0
    for record in store.records():
        result = _result(store, record)
        if record.spec.limit is not None:
            smoke += 1
        elif result is None:
            absent += 1
        else:
            files.append(_write(record, result, folder))
    return WrittenResults(tuple(files), smoke, absent)


def experiment(spec: Spec) -> dict[str, Any]:
    """What tells a cell's method and setting from all others, its task aside; short enough for a path."""
    setting = spec.model_dump(mode="json", exclude={"task"})
    seed = {} if spec.seed is None else {"seed": spec.seed}
    return {"method": slug(spec.method.name), "setting": digest(setting)[:10], **seed}


def _write(record: Record, result: Mapping[str, Any], folder: Path) -> Path:
    from mteb.cache import ResultCache

    meta = _model_meta(record)
    path = ResultCache(folder).get_task_result_path(record.spec.task.name, meta)
    atomic_write(path.with_name("model_meta.json"), json.dumps(meta.to_dict(), default=str, indent=4))
    atomic_write(path, json.dumps(result, indent=2, allow_nan=False))
    return path


def _model_meta(record: Record) -> Any:
    from mteb.models.model_meta import ModelMeta, ScoringFunction

    spec, backbone = record.spec, record.spec.backbone
    known = {
        "name": backbone.name if "/" in backbone.name else f"fusebench/{backbone.name}",
        "revision": backbone.revision.replace(":", "-"),  # a folder's name
        "experiment_kwargs": experiment(spec),
        "max_tokens": spec.max_length,
        "embed_dim": record.out_dim,
        "similarity_fn_name": ScoringFunction.COSINE,
        "use_instructions": spec.prompts != Prompts(),
        "framework": ["PyTorch"],
    }
    return ModelMeta.create_empty(overwrites=known)


def _result(store: Store, record: Record) -> dict[str, Any] | None:
    """What mteb wrote of a cell."""
    try:
        held = unsealed(store.result_path(record).read_bytes())
    except (OSError, ValueError):
        return None
    return held if isinstance(held, dict) and held.get("task_name") == record.spec.task.name else None
