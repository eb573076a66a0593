"""Which records of a results folder are scores of the very model that is being exported."""

from __future__ import annotations

from pathlib import Path

from fusebench.benchmarks.board_rows import age, training_free
from fusebench.benchmarks.record import Prompts, Record, Spec, digest
from fusebench.benchmarks.store import Store
from fusebench.study.loading import LoadedMethod


def scores_of(loaded: LoadedMethod, out: Path) -> list[Record]:
    """The newest record of each task, by the task's name; none where the folder is not there.

    Smoke runs, other prompts, length limits, fit texts and weights do not count.
    """
    fitting = [record for record in Store(out).records() if _is_of(record.spec, loaded)]
    newest = {record.spec.task.name: record for record in sorted(fitting, key=age)}
    return [newest[name] for name in sorted(newest)]


def _is_of(spec: Spec, loaded: LoadedMethod) -> bool:
    backbone, fit = loaded.backbone, loaded.fit.spec if loaded.method.fitted else None
    same_method = spec.method.name == loaded.method.name and spec.fit == fit and _same_weights(spec, loaded)
    same_backbone = (spec.backbone.weights_sha256, spec.backbone.tokenizer_sha256) == (
        backbone.source.weights_sha256,
        backbone.source.tokenizer_sha256,
    )
    setting = (spec.max_length, spec.dtype, spec.prompts, spec.limit)
    return same_method and same_backbone and setting == (backbone.limit.tokens, backbone.dtype, Prompts(), None)


def _same_weights(spec: Spec, loaded: LoadedMethod) -> bool:
    """Whether the cell's weights are these: loaded from this very file, or trained in the run that left it."""
    if loaded.saved is None:
        return training_free(spec) and spec.seed is None
    if spec.weights_sha256 is not None:
        return spec.weights_sha256 == loaded.saved.weights_sha256
    return spec.train is not None and spec.training_id == digest(loaded.saved.identity)
