"""Which records share a board: equal settings, equal data, one way of training beside what is training-free."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from fusebench.benchmarks.atomic import slug
from fusebench.benchmarks.board_rows import age, training_free
from fusebench.benchmarks.record import Record, Spec, TrainingSpec


def board_groups(records: Iterable[Record], tasks: Sequence[str]) -> Iterator[list[Record]]:
    """The records of each board with columns `tasks`.

    A board holds what was trained in one way and every training-free record of the same setting. Those
    training-free records that no such board shows have boards of their own.
    """
    by_setting: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.spec.task.name in tasks:
            by_setting[repr(_setting(record.spec))].append(record)
    for group in by_setting.values():
        free = [record for record in group if training_free(record.spec)]
        by_training: dict[str, list[Record]] = defaultdict(list)
        for record in group:
            if not training_free(record.spec):
                by_training[repr(_training(record.spec))].append(record)
        trained = [
            edition
            for own in by_training.values()
            for edition in _editions(own + free)
            if not all(training_free(record.spec) for record in edition)
        ]
        shown = [spec_ids(edition) for edition in trained]
        yield from trained
        yield from (edition for edition in _editions(free) if not any(spec_ids(edition) <= ids for ids in shown))


def spec_ids(records: Iterable[Record]) -> frozenset[str]:
    """The identities of the records."""
    return frozenset(record.spec_id for record in records)


def leading_spec(records: Sequence[Record]) -> Spec:
    """The specification that stands for the setting of a board: of a trained record, if there is one."""
    return next((record.spec for record in records if not training_free(record.spec)), records[0].spec)


def aspects(records: Sequence[Record], suite: str) -> tuple[str, ...]:
    """Words for file names that tell boards apart, the last of them a hash of all that they depend on."""
    spec = leading_spec(records)
    prompted = any(spec.prompts.model_dump().values())
    data = sorted({(record.spec.task.name, _measured(record)) for record in records})
    return (
        f"len{spec.max_length}",
        slug(spec.dtype),
        slug(spec.regime),
        *_training_aspects(spec.train),
        f"first{spec.limit}" if spec.limit is not None else "",
        f"prompts-{_digest(repr(spec.prompts))}" if prompted else "",
        _digest(repr((suite, _setting(spec), _training(spec), data))),
    )


def _training_aspects(train: TrainingSpec | None) -> tuple[str, ...]:
    if train is None:
        return ("",) * 7
    return (
        f"train-{slug('+'.join(train.data))}",
        f"rows{train.limit}" if train.limit is not None else "",
        f"epochs{train.epochs}" if train.steps is None else f"steps{train.steps}",
        f"b{train.batch_size}" + f"x{train.accumulate}" * (train.accumulate > 1),
        slug(f"lr{train.learning_rate:g}-{train.learning_rate_new:g}"),
        f"dev-{slug(train.dev.name)}" if train.dev else "",
        f"trials{train.trials}" if train.trials > 1 else "",
    )


def _setting(spec: Spec) -> tuple[object, ...]:
    """What must be equal for any two rows of a board; the hashes because names can lie."""
    net = spec.backbone
    identity = (net.name, net.revision, net.weights_sha256, net.tokenizer_sha256)
    return (*identity, spec.max_length, spec.dtype, spec.limit, spec.prompts)


def _training(spec: Spec) -> tuple[object, ...]:
    """What must be equal for two trained rows of a board.

    Each objective reads its own kind of rows, and the hash of the code covers the parts of the method.
    """
    return spec.regime, spec.train and spec.train.model_copy(update={"rows": (), "code": ""})


def _editions(records: list[Record]) -> list[list[Record]]:
    """Splits records so that a task has the same data throughout each part: newest data first, then older."""
    versions: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in sorted(records, key=age, reverse=True):
        versions[record.spec.task.name][_measured(record)].append(record)
    newest_first = [list(of_task.values()) for of_task in versions.values()]
    count = max((len(of_task) for of_task in newest_first), default=0)
    return [[r for of_task in newest_first for r in of_task[min(k, len(of_task) - 1)]] for k in range(count)]


def _measured(record: Record) -> str:
    task = record.spec.task
    return repr((task.data_sha256, sorted(task.splits), sorted(task.subsets), task.metric, task.protocol))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
