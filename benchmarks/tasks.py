"""Finds tasks by name and loads them, checked and hashed, ready to be judged."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fusebench.benchmarks import embedded, hub_layout
from fusebench.benchmarks.mteb_bridge import quiet
from fusebench.benchmarks.own_tasks import code_of, loads_its_own_data, own_task_names
from fusebench.benchmarks.record import TaskSpec, TaskType
from fusebench.benchmarks.task_source import load_data, mteb_task, task_of
from fusebench.errors import InputError

if TYPE_CHECKING:
    from fusebench.benchmarks.task_data import Role

_PROTOCOLS = {
    "STS": "sts: all pairs of a split together",
    "Retrieval": "retrieval: metrics over queries with judgements",
}


@dataclass(frozen=True)
class TaskSource:
    """A task and where its data comes from; nothing of the data is read yet."""

    name: str
    type: TaskType
    source: Literal["hub", "folder", "embedded", "plugin"]
    folder: Path | None


@dataclass(frozen=True)
class LoadedTask:
    """A task with its data in memory.

    Attributes:
        task: The mteb task.
        spec: What a record says about it.
        limit: How many pairs or queries were kept of each split, None for all.
        empty_texts: How many of its texts are empty.
    """

    task: Any
    spec: TaskSpec
    limit: int | None
    empty_texts: int

    def inputs(self) -> Iterator[tuple[Role, str]]:
        """Role and text of everything that mteb will hand to `encode`, repetitions included."""
        from fusebench.benchmarks import task_data

        for _, _, data in task_data.parts(self.task):
            for role, _, values in task_data.texts(self.task, data):
                for text in values:
                    yield role, text


def find_tasks(names: Sequence[str], data_dir: Path | None) -> list[TaskSource]:
    """The tasks of these names, repeated names once.

    Args:
        names: Embedded tasks, mteb tasks, registered ones, or folders of `data_dir`.
        data_dir: One folder per task, in the hub's layout; a task found here is never downloaded.

    Raises:
        InputError: A name is unknown, or its task is neither STS nor retrieval over text.
    """
    if data_dir is not None and not data_dir.is_dir():
        raise InputError(f"--data-dir {data_dir} is not a folder: give the folder that holds one folder per task")
    return [_find(name, data_dir) for name in dict.fromkeys(names)]


def missing_tasks(names: Sequence[str], data_dir: Path | None) -> list[str]:
    """The names that would need a download: neither embedded, nor registered, nor a folder of `data_dir`."""
    there = {*embedded.EMBEDDED_TASKS, *own_task_names()}
    return [name for name in names if name not in there and _folder(name, data_dir) is None]


def available_tasks() -> list[str]:
    """Names for `list tasks`: embedded tasks, registered ones, mteb's English STS and retrieval tasks over text."""
    import mteb

    with quiet():
        found = mteb.get_tasks(
            task_types=["STS", "Retrieval"],
            languages=["eng"],
            modalities=["text"],
            exclusive_modality_filter=True,
            exclude_superseded=False,
            exclude_aggregate=True,
        )
    names = {task.metadata.name for task in found if _unsupported(task) is None}
    return [*embedded.EMBEDDED_TASKS, *own_task_names(), *sorted(names)]


def load_task(source: TaskSource, *, limit: int | None, allow_empty: bool) -> LoadedTask:
    """Loads and checks the data of a task.

    Args:
        source: From `find_tasks`.
        limit: Keep the first pairs of each split, or the first judged queries with their judged documents and
            20 times as many others; None keeps everything.
        allow_empty: Count empty texts instead of refusing them.

    Raises:
        InputError: The data cannot be reached or used; the message names the task and what to do.
    """
    if limit is not None and limit <= 0:
        raise InputError(f"a limit of {limit} leaves nothing to judge: give a positive number")
    if limit is not None and limit < 3 and source.type == "STS":
        raise InputError(f"a limit of {limit} pairs is too few for a correlation: give at least 3")
    from fusebench.benchmarks import task_data, task_preparation

    task = task_of(source)
    with quiet():
        load_data(task, source)
        for subset, split, data in task_data.parts(task):
            if source.type == "STS":
                prepared: Any = task_preparation.prepare_sts(task, data, limit)
            else:
                prepared = task_preparation.prepare_retrieval(task, data, limit, strict=source.source != "hub")
            task_data.replace(task, subset, split, prepared)
        found = (entry for _, _, data in task_data.parts(task) for entry in task_data.texts(task, data))
        empty = task_preparation.count_empty(source.name, found, allow=allow_empty)
        spec = _spec(task, source, task_data.content_sha256(task))
    return LoadedTask(task=task, spec=spec, limit=limit, empty_texts=empty)


def _find(name: str, data_dir: Path | None) -> TaskSource:
    if name in embedded.EMBEDDED_TASKS:
        return TaskSource(name, "STS" if name == "LeeSTS" else "Retrieval", "embedded", None)
    folder = _folder(name, data_dir)
    task = mteb_task(name)
    if task is None:
        if folder is None:
            raise InputError(f"no task {name!r}. {_suggestion(name, data_dir)}")
        return TaskSource(name, hub_layout.folder_type(folder), "folder", folder)
    by_itself = folder is None and name in own_task_names() and loads_its_own_data(task)
    reason = _unsupported(task) or (_no_folder(task) if folder else None if by_itself else _unpinned(task))
    if reason:
        raise InputError(f"task {name} {reason}")
    if by_itself:
        return TaskSource(name, task.metadata.type, "plugin", None)
    return TaskSource(task.metadata.name, task.metadata.type, "folder" if folder else "hub", folder)


def _folder(name: str, data_dir: Path | None) -> Path | None:
    # a name is one folder: nothing outside of data_dir can be named
    if data_dir is None or not name or Path(name).name != name or name.startswith("."):
        return None
    return data_dir / name if (data_dir / name).is_dir() else None


def _unsupported(task: Any) -> str | None:
    metadata = task.metadata
    if metadata.type not in ("STS", "Retrieval"):
        return f"is of type {metadata.type}: only STS and Retrieval tasks are judged"
    if list(metadata.modalities) != ["text"]:
        return f"is about {' and '.join(metadata.modalities)}: only tasks over text alone are judged"
    if task.is_aggregate:
        return "is made of other tasks: name those one by one"
    if metadata.type == "STS" and not all(isinstance(column, str) for column in task.column_names):
        return "mixes several kinds of input: only tasks over text alone are judged"
    return None


def _unpinned(task: Any) -> str | None:
    revision = str(task.metadata.dataset.get("revision"))
    if re.fullmatch("[0-9a-f]{40}", revision):
        return None
    return f"has no pinned data revision in mteb (it says {revision!r}): put a copy of its data below --data-dir"


def _no_folder(task: Any) -> str | None:
    if not loads_its_own_data(task):
        return None
    return "loads its data in its own way, not from a folder: leave its folder out of --data-dir"


def _suggestion(name: str, data_dir: Path | None) -> str:
    folders = sorted(path.name for path in data_dir.iterdir() if path.is_dir()) if data_dir else []
    near = difflib.get_close_matches(name, dict.fromkeys([*available_tasks(), *folders]), n=3)
    if near:
        return f"Did you mean {' or '.join(map(repr, near))}?"
    return "`list tasks` shows all names; data of your own goes into a folder of that name below --data-dir."


def _spec(task: Any, source: TaskSource, data_sha256: str) -> TaskSpec:
    notes = ["own id ignored"] if source.type == "Retrieval" and task.ignore_identical_ids else []
    if source.name in own_task_names():
        notes.append(f"by the plugin's code {code_of(task)}")
    return TaskSpec(
        name=source.name,
        type=source.type,
        source=source.source,
        revision=task.metadata.dataset["revision"],
        data_sha256=data_sha256,
        splits=tuple(task.eval_splits),
        subsets=tuple(task.hf_subsets),
        metric=task.metadata.main_score,
        protocol="; ".join([_PROTOCOLS[source.type], *notes]),
    )
