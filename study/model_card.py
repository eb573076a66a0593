"""The README.md of an exported model: what it is, how to load it, what it was trained on and scored."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.repocard import metadata_load

from fusebench.benchmarks.board_tests import ScoreWithInterval
from fusebench.benchmarks.board_words import counted, text_set
from fusebench.benchmarks.record import Record
from fusebench.benchmarks.task_source import mteb_task
from fusebench.methods.backbone_source import Source
from fusebench.study.loading import LoadedMethod
from fusebench.study.model_usage import Usage
from fusebench.study.saved_methods import SavedMethod

_HUB_TASKS = {"STS": "sentence-similarity", "Retrieval": "text-retrieval"}  # as mteb maps its types
_MTEB = "https://github.com/embeddings-benchmark/mteb"

_CARD = """\
---
{header}
---

# {name}

Texts to vectors by the method `{sentence}`, exported by FuseBench {fusebench} {made_of}:

```python
{code}
```

{facts}
"""


def model_card(
    name: str,
    loaded: LoadedMethod,
    scores: Sequence[Record],
    difference: float,
    usage: Usage,
    *,
    intervals: Mapping[str, ScoreWithInterval],
) -> str:
    """Markdown below a YAML header as the hub reads it.

    Args:
        name: of the model.
        loaded: what was exported.
        scores: records of this very model.
        difference: the largest of a coordinate between the exported model and FuseBench.
        usage: how the folder is read.
        intervals: of the scores that were tested, by the id of their record.
    """
    sections = [_facts(loaded, difference, usage.package)]
    if loaded.saved is not None:
        sections.append("## Training\n\n" + _training(loaded.saved))
    if scores:
        sections.append("## Scores\n\n" + _scores(scores, intervals))
    return _CARD.format(
        header=_header(name, loaded.backbone.source, scores, usage),
        name=name,
        sentence=loaded.method.name,
        fusebench=_version(),
        made_of=usage.made_of,
        code=usage.code(name),
        facts="\n\n".join(sections),
    )


def stated_licence(source: Source) -> str | None:
    """What the README.md of the backbone's folder says in its header; None if it says nothing."""
    path = source.folder / "README.md"
    licence = (metadata_load(path) or {}).get("license") if path.is_file() else None
    return licence if isinstance(licence, str) else None


def _header(name: str, source: Source, scores: Sequence[Record], usage: Usage) -> str:
    data = ModelCardData(
        model_name=name,
        license=stated_licence(source),
        base_model=source.name if "/" in source.name else None,  # other names lead nowhere on the hub
        library_name=usage.tags[0],
        pipeline_tag="sentence-similarity",
        tags=[*usage.tags, "sentence-similarity", "feature-extraction", "fusebench", *["mteb"] * any(scores)],
        eval_results=[result for record in scores for result in _results(record)] or None,
    )
    return data.to_yaml().strip()


def _results(record: Record) -> list[EvalResult]:
    """One for each subset and split of the record's task, as mteb itself writes them."""
    task = record.spec.task
    return [
        EvalResult(
            task_type=_HUB_TASKS[task.type],
            task_name=task.type,
            dataset_type=_dataset(record),
            dataset_name=f"{task.name} ({score.subset})",
            dataset_config=score.subset,
            dataset_split=score.split,
            dataset_revision=task.revision,
            metric_type=score.metric,
            metric_name=score.metric,
            metric_value=round(score.value, 6),
            source_name=f"mteb {record.spec.software['mteb']}, run by FuseBench {_version()}",
            source_url=_MTEB,
        )
        for score in record.scores
        if score.is_main
    ]


def _dataset(record: Record) -> str:
    """The hub's name of the data if they came from there, else the task's."""
    task = record.spec.task
    if task.source != "hub":
        return task.name
    known = mteb_task(task.name)
    return task.name if known is None else str(known.metadata.dataset["path"])


def _facts(loaded: LoadedMethod, difference: float, package: str) -> str:
    method, source = loaded.method, loaded.backbone.source
    parts = [part for part in method.parts if part.card.kind in ("fusion", "transform")]
    rows = {
        "method": f"`{method.name}`",
        **{f"`{part.name}`": part.card.summary for part in parts},
        "backbone": f"{source.name}, revision {source.revision}",
        "its weights, sha256": source.weights_sha256 + ", before the training" * _tuned(loaded),
        "its licence": stated_licence(source) or "not stated in its folder",
        "longest input": f"{loaded.backbone.limit.tokens} tokens; the rest is cut off",
        **({"fitted on": text_set(loaded.fit.spec)} if method.fitted else {}),
        "checked with": f"{package} {importlib.metadata.version(package)}, whose vectors "
        f"differ from FuseBench's by at most {difference:.1e} a coordinate",
    }
    return _table(("", ""), list(rows.items()))


def _tuned(loaded: LoadedMethod) -> bool:
    return loaded.saved is not None and loaded.saved.regime == "finetune"


def _training(saved: SavedMethod) -> str:
    train, took = saved.train, saved.training
    own = (
        "the method's own weights, the backbone frozen" if saved.regime == "frozen" else "the backbone and the method"
    )
    rates = f"{took.learning_rate_new:g} (new weights)"
    if saved.regime == "finetune":
        rates += f", {took.learning_rate:g} (backbone)"
    rows = {
        "trained": own,
        "rows": ", then ".join(text_set(rows) for rows in train.rows),
        "budget": counted(train.epochs, "epoch") if train.epochs else counted(train.steps or 0, "update"),
        "took": f"{counted(took.updates, 'update')}, {took.examples} examples, batch size {train.batch_size}",
        "learning rate": rates + (f", best of {train.trials}" if train.trials > 1 else ""),
        "chosen on": text_set(train.dev) if train.dev else "nothing, the last weights count",
        "seed": str(saved.seed),
    }
    return _table(("", ""), list(rows.items()))


def _scores(scores: Sequence[Record], intervals: Mapping[str, ScoreWithInterval]) -> str:
    rows = [
        (
            record.spec.task.name,
            f"{score.subset}, {score.split}",
            score.metric,
            f"{score.value:.4f}",
            _interval(record, intervals),
            record.spec.software["mteb"],
        )
        for record in scores
        for score in record.scores
        if score.is_main
    ]
    return _table(("task", "subset, split", "metric", "score", "95 % interval", "mteb"), rows)


def _interval(record: Record, intervals: Mapping[str, ScoreWithInterval]) -> str:
    """Of the task's score, which is the mean where a task has several."""
    if record.spec_id not in intervals:
        return "not tested"
    interval = intervals[record.spec_id].widest_known
    return f"{interval.low:.4f} to {interval.high:.4f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _version() -> str:
    return importlib.metadata.version("fusebench")
