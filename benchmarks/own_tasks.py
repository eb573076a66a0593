"""Tasks of third parties: mteb task classes that a plugin file or an installed package registers."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import inspect
from pathlib import Path
from typing import Any, TypeVar

from fusebench.errors import InputError

T = TypeVar("T", bound=type)

_TASKS: dict[str, Any] = {}


def register_task(task: T) -> T:
    """Makes a class of mteb's `AbsTaskSTS` or `AbsTaskRetrieval` known by the name in its metadata.

    It stands above the class; `--tasks` then takes the name, and mteb evaluates the class as it is.

    Raises:
        ValueError: another class has this name.
    """
    name = task.metadata.name  # type: ignore[attr-defined]  # of mteb's classes
    if name in _TASKS:
        raise ValueError(f"a task named {name!r} is already registered by {_TASKS[name].__module__}")
    _TASKS[name] = task
    return task


def own_task(name: str) -> Any | None:
    """A fresh object of the task registered under a name, its data not yet loaded; None if there is none.

    Raises:
        InputError: an installed package's tasks cannot be imported.
    """
    _load_installed()
    return _TASKS[name]() if name in _TASKS else None


def own_task_names() -> list[str]:
    """The names registered so far, those of installed packages included."""
    _load_installed()
    return sorted(_TASKS)


def loads_its_own_data(task: Any) -> bool:
    """Whether a task gets its data otherwise than mteb does for all tasks."""
    from mteb.abstasks.abstask import AbsTask
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    return type(task).load_data not in (AbsTask.load_data, AbsTaskRetrieval.load_data)


def code_of(task: Any) -> str:
    """Hash of the file that a registered task's class is in, which its scores depend on.

    Raises:
        InputError: if it is in none, as in a notebook.
    """
    try:
        file = Path(inspect.getfile(type(task)))
    except (TypeError, OSError) as error:
        raise InputError(
            f"task {type(task).__name__} is in no file, so a changed one could not be told from it; write it into "
            "one and name that by --plugin."
        ) from error
    return hashlib.sha256(file.read_bytes()).hexdigest()[:10]


@functools.cache
def _load_installed() -> None:
    for entry in importlib.metadata.entry_points(group="fusebench.tasks"):
        try:
            entry.load()
        except Exception as error:
            raise InputError(
                f"tasks {entry.name} = {entry.value} cannot be imported: {type(error).__name__}: {error}"
            ) from error
