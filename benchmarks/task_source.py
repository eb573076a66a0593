"""Builds the mteb task of a source and loads its data from the hub, a folder or an installed package."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusebench.benchmarks import embedded, hub_layout
from fusebench.benchmarks.mteb_bridge import quiet
from fusebench.benchmarks.own_tasks import own_task
from fusebench.benchmarks.record import TaskType
from fusebench.errors import InputError

if TYPE_CHECKING:
    from fusebench.benchmarks.tasks import TaskSource

_SECONDS_TO_REACH_HUB = 5.0


def mteb_task(name: str) -> Any | None:
    """The task of that name, registered or mteb's, of mteb's multilingual ones only the English part; None without.

    Raises:
        InputError: a registered task has the name of one of mteb's.
    """
    stock, own = _stock_task(name), own_task(name)
    if stock is not None and own is not None:
        raise InputError(f"task {name} of {type(own).__module__} has the name of one of mteb's: give it another")
    return own if stock is None else stock


def _stock_task(name: str) -> Any | None:
    import mteb

    with quiet():
        try:
            task = mteb.get_task(name)
            english = [s for s, langs in task.metadata.hf_subsets_to_langscripts.items() if langs == ["eng-Latn"]]
            # as in MTEB(eng, v2): of a multilingual task only the English pairs, STS17 (en-en), STS22.v2 (en)
            return mteb.get_task(name, hf_subsets=english) if english else task
        except KeyError:
            return None


def task_of(source: TaskSource) -> Any:
    """The mteb task object of a source, its data not yet loaded."""
    if source.source == "embedded":
        return embedded.embedded_task(source.name)
    task = mteb_task(source.name)
    if source.folder is None:
        return task
    dataset = {"path": str(source.folder.resolve()), "revision": hub_layout.folder_revision(source.folder)}
    if task is None:
        return _custom_task(source, dataset)
    # on the instance: the class, which all other users of the process share, keeps its pinned data
    task.metadata = task.metadata.model_copy(update={"dataset": dataset})
    return task


def _custom_task(source: TaskSource, dataset: Any) -> Any:
    from mteb.abstasks import AbsTaskRetrieval, AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata

    assert source.folder is not None
    metadata = TaskMetadata(
        name=source.name,
        description=f"Data of the folder {source.name}.",
        dataset=dataset,
        type=source.type,
        category="t2t",
        modalities=["text"],
        eval_splits=[_custom_split(source.folder, source.type)],
        eval_langs=["eng-Latn"],
        main_score="cosine_spearman" if source.type == "STS" else "ndcg_at_10",
    )
    base = AbsTaskSTS if source.type == "STS" else AbsTaskRetrieval
    return type("FolderTask", (base,), {"metadata": metadata})()


def _custom_split(folder: Path, task_type: TaskType) -> str:
    files = hub_layout.data_files(folder)
    configs = ("default", "qrels") if task_type == "Retrieval" else ("default", files[0].config)
    chosen = next((c for c in configs if any(file.config == c for file in files)), None)
    splits = {file.split for file in files if file.config == chosen and file.split} or {
        "train" if re.search("train", file.path.name) else "test" for file in files
    }
    if "test" in splits or len(splits) != 1:
        return "test"
    return splits.pop()


def load_data(task: Any, source: TaskSource) -> None:
    """Loads the data into the task.

    Raises:
        InputError: They cannot be reached or read; the message says where and what to do.
    """
    if source.source == "folder":
        assert source.folder is not None
        subsets = ["default"] if task.fast_loading else task.hf_subsets
        hub_layout.check_folder(source.type, source.folder, task.eval_splits, subsets, columns=_columns(task))
    try:
        with _place(task, source):
            task.load_data()
        if source.type == "Retrieval":
            task.convert_v1_dataset_format_to_v2(None)
    except InputError:
        raise
    except Exception as error:
        # whatever datasets, pyarrow or the network raise: for the user it is one thing
        raise InputError(_load_failure(task, source, error)) from error


def _columns(task: Any) -> tuple[str, ...]:
    from mteb.abstasks.abstask import AbsTask

    renames = type(task).dataset_transform is not AbsTask.dataset_transform
    return () if renames or task.metadata.type != "STS" else (*task.column_names, "score")


def _load_failure(task: Any, source: TaskSource, error: Exception) -> str:
    cause = (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0]
    if source.folder is not None:
        line = hub_layout.unreadable_line(source.folder)
        return line or f"task {source.name}: the data in {source.folder} cannot be read ({cause}): correct it"
    if source.source == "plugin":
        return f"task {source.name}: its plugin cannot load its data ({cause}): correct it"
    repo = task.metadata.dataset["path"]
    return (
        f"task {source.name}: cannot get {repo} from the hub ({cause}): "
        "check the network, or put a copy of the data set below --data-dir"
    )


def _place(task: Any, source: TaskSource) -> contextlib.AbstractContextManager[None]:
    """Where the data are looked for and kept."""
    if source.source == "hub":
        return _hub_reached_or_offline()
    return contextlib.nullcontext() if source.source == "plugin" else _own_cache(task.metadata.revision)


@contextlib.contextmanager
def _own_cache(revision: str) -> Iterator[None]:
    """One cache per content: `datasets` knows a folder with a README.md header by its name only."""
    import datasets

    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = Path(before) / "fusebench" / revision.removeprefix("sha256:")
    try:
        yield
    finally:
        datasets.config.HF_DATASETS_CACHE = before


@contextlib.contextmanager
def _hub_reached_or_offline() -> Iterator[None]:
    """Asks the hub once; without an answer only the cache is read, where `datasets` would retry for 23 s."""
    import datasets
    from huggingface_hub import constants, get_session

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    if not any(before):
        try:
            get_session().head(constants.ENDPOINT, timeout=_SECONDS_TO_REACH_HUB)
        except Exception:  # of whichever HTTP library huggingface_hub uses
            datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before
