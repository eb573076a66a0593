"""A local data folder in the hub's layout: its files, a hash of them, and what is wrong with it."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fusebench.benchmarks.compressed import require_bounded
from fusebench.benchmarks.record import TaskType
from fusebench.errors import InputError

STS_COLUMNS = ("sentence1", "sentence2", "score")
_QRELS_COLUMNS = ("query-id", "corpus-id", "score")
_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_LAYOUT_HELP = "its README.md header needs configs 'corpus', 'queries' and 'default' (the judgements)"


@dataclass(frozen=True)
class DataFile:
    """One file of a folder and the place the header gives it; None where the header is silent."""

    config: str | None
    split: str | None
    path: Path


def data_files(folder: Path) -> list[DataFile]:
    """The data files of a folder: those its README.md header names under `configs:`, else all.

    Raises:
        InputError: The folder or a named file is missing, a file lies outside of it, the header is no YAML.
    """
    if not folder.is_dir():
        raise InputError(f"the data folder {folder} does not exist: give one folder per task below --data-dir")
    configs = _header(folder).get("configs")
    if configs:
        if not isinstance(configs, list):
            raise InputError(f"the configs in the header of {folder / 'README.md'} are no list: write one entry each")
        files = [file for entry in configs for file in _entry_files(folder, entry)]
    else:
        names = sorted(p for p in folder.rglob("*") if p.suffix in _SUFFIXES and not _hidden(p, folder))
        files = [DataFile(None, None, _inside(folder, path)) for path in names]
    if not files:
        raise InputError(f"the data folder {folder} holds no data file ({', '.join(_SUFFIXES)})")
    return files


def folder_type(folder: Path) -> TaskType:
    """Retrieval when the header names a corpus or queries, or files of those names lie there, else STS."""
    parts = {file.config or file.path.stem for file in data_files(folder)}
    return "Retrieval" if any(part.endswith(("corpus", "queries")) for part in parts) else "STS"


def folder_revision(folder: Path) -> str:
    """`sha256:...` over the header's configs and the data files' relative names and bytes."""
    # the header's options, such as a separator, change what is read from the same bytes
    digest = hashlib.sha256(json.dumps(_header(folder).get("configs"), sort_keys=True, default=str).encode())
    for file in sorted(data_files(folder), key=lambda file: (str(file.config), str(file.split), file.path)):
        with file.path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        place = [file.config, file.split, file.path.relative_to(folder).as_posix(), content]
        digest.update(json.dumps(place).encode())
    return f"sha256:{digest.hexdigest()}"


def check_folder(
    task_type: TaskType,
    folder: Path,
    splits: Sequence[str],
    subsets: Sequence[str],
    *,
    columns: Sequence[str] = STS_COLUMNS,
) -> None:
    """Looks at the header, the list of files and the first record of each; reads no whole file.

    Args:
        task_type: What the folder shall be used for.
        folder: The folder of one task.
        splits: The splits the task reads.
        subsets: The subsets the task reads; `("default",)` for a task without subsets.
        columns: Needed columns of an STS file.

    Raises:
        InputError: Something is missing, empty or has other columns; the message names the file.
    """
    files = data_files(folder)
    for path in dict.fromkeys(file.path for file in files):
        require_bounded(path)
    _check_one_format(folder, files)
    parts = _retrieval_parts(folder, files, subsets) if task_type == "Retrieval" else _sts_parts(files, subsets)
    for config, needed in parts:
        chosen = [file for file in files if config in (file.config, "*")]
        _check_splits(folder, config, chosen, splits, lone_is_enough=task_type == "Retrieval")
        for file in chosen:
            if file.split is None or file.split in splits or len({f.split for f in chosen}) == 1:
                _check_columns(file.path, columns if task_type == "STS" else needed)


def unreadable_line(folder: Path) -> str | None:
    """File and line of the first record that is no JSON object, for a folder that could not be loaded."""
    for path in dict.fromkeys(file.path for file in data_files(folder) if file.path.suffix == ".jsonl"):
        try:
            for _ in _json_records(path):
                pass
        except InputError as error:
            return str(error)
    return None


def _header(folder: Path) -> dict[str, Any]:
    readme = folder / "README.md"
    try:
        text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    except ValueError as error:
        raise InputError(f"{readme} is not UTF-8 text ({error}): correct it") from error
    lines = text.splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    end = next((i for i, line in enumerate(lines[1:], 1) if line.strip() == "---"), len(lines))
    text = "\n".join(lines[1:end])
    try:
        # Ten aliases of ten aliases of ten ... are a short header and more configs than fit into memory.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise InputError(f"the header of {readme} uses YAML aliases: write out what they stand for")
        header = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"the header of {readme} is not valid YAML: {' '.join(str(error).split())}") from error
    return header if isinstance(header, dict) else {}


def _entry_files(folder: Path, entry: Any) -> Iterator[DataFile]:
    if not isinstance(entry, dict) or not isinstance(entry.get("config_name", "default"), str):
        raise InputError(f"the configs in the header of {folder / 'README.md'} need a config_name and data_files")
    config = entry.get("config_name", "default")
    listed = entry.get("data_files", f"{entry.get('data_dir', '.')}/**/*")
    for item in listed if isinstance(listed, list) else [listed]:
        split = item.get("split") if isinstance(item, dict) else None
        if not isinstance(split, str | None):
            raise InputError(
                f"the header of {folder / 'README.md'} has the split {split!r}, which is no name: correct it"
            )
        patterns = item.get("path", "") if isinstance(item, dict) else item
        for pattern in patterns if isinstance(patterns, list) else [patterns]:
            for path in _matches(folder, str(pattern)):
                yield DataFile(config, split, _inside(folder, path))


def _matches(folder: Path, pattern: str) -> list[Path]:
    if "://" in pattern or Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise InputError(f"the header of {folder / 'README.md'} names {pattern}: only files in the folder are read")
    try:
        found = sorted(path for path in folder.glob(pattern) if path.is_file())
    except (ValueError, NotImplementedError, OSError) as error:
        raise InputError(
            f"the header of {folder / 'README.md'} names {pattern!r}, which is no path: {error}"
        ) from error
    if not found:
        raise InputError(f"the header of {folder / 'README.md'} names {pattern}, but no such file is there: add it")
    return found


def _inside(folder: Path, path: Path) -> Path:
    # a link may lead to any file of the machine, and its target is not part of what is shared with the folder
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{path} is a link that leads out of the data folder: copy the file into it")
    return path


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith((".", "__")) for part in path.relative_to(folder).parts)


def _retrieval_parts(
    folder: Path, files: Sequence[DataFile], subsets: Sequence[str]
) -> list[tuple[str, tuple[str, ...]]]:
    present = {file.config for file in files}
    parts: list[tuple[str, tuple[str, ...]]] = []
    for subset in subsets:
        before = "" if subset == "default" else f"{subset}-"
        qrels = "default" if not before and "default" in present else f"{before}qrels"
        queries = "query" if "query" in present else f"{before}queries"
        for config in (f"{before}corpus", queries, qrels):
            if config not in present:
                raise InputError(f"the data folder {folder} has no {config!r}: {_LAYOUT_HELP}")
        parts += [(f"{before}corpus", ("_id", "text")), (queries, ("_id", "text")), (qrels, _QRELS_COLUMNS)]
    return parts


def _sts_parts(files: Sequence[DataFile], subsets: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    configs = list(dict.fromkeys(file.config for file in files if file.config is not None))
    if not configs:
        return [("*", STS_COLUMNS)]
    if list(subsets) == ["default"]:
        return [("default" if "default" in configs else configs[0], STS_COLUMNS)]
    return [(subset if subset in configs else "default", STS_COLUMNS) for subset in subsets]


def _check_splits(
    folder: Path, config: str, files: Sequence[DataFile], splits: Sequence[str], *, lone_is_enough: bool
) -> None:
    known = list(dict.fromkeys(file.split for file in files))
    if not known:
        raise InputError(f"the data folder {folder} has no config {config!r}: add it to the header of its README.md")
    # mteb reads a part that has a single split whatever that split is called
    if None in known or (lone_is_enough and len(known) == 1):
        return
    for split in splits:
        if split not in known:
            names = ", ".join(str(name) for name in known)
            raise InputError(f"{config!r} in the data folder {folder} has no split {split!r}, only: {names}")


def _check_one_format(folder: Path, files: Sequence[DataFile]) -> None:
    # `datasets` chooses one reader for all configs of a folder and fails on the others in words about bytes
    formats = sorted({file.path.suffix.replace(".jsonl", ".json") for file in files})
    if len(formats) > 1:
        raise InputError(f"the data folder {folder} mixes {' and '.join(formats)}: use one format for all files")


def _check_columns(path: Path, needed: Sequence[str]) -> None:
    found = _columns(path)
    if found is None:
        return
    names = {"_id" if name == "id" else name for name in found}
    missing = [name for name in needed if name not in names]
    if missing:
        raise InputError(
            f"{path} has the columns {', '.join(found)} but needs {', '.join(needed)}: "
            f"rename or add {', '.join(missing)}"
        )


def _columns(path: Path) -> list[str] | None:
    """Column names by the first record; None for a format that only `datasets` reads."""
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty: it needs at least one record")
    if path.suffix == ".jsonl":
        first = next(_json_records(path), None)
        if first is None:
            raise InputError(f"{path} is empty: it needs at least one record")
        return list(first)
    if path.suffix in (".csv", ".tsv"):
        try:
            with path.open(encoding="utf-8-sig", newline="") as stream:
                return next(csv.reader(stream, delimiter="\t" if path.suffix == ".tsv" else ","), [])
        except (ValueError, csv.Error) as error:
            raise InputError(f"{path} cannot be read as {path.suffix[1:]} ({error}): correct it") from error
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return list(pq.read_schema(path).names)
    return None


def _json_records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise InputError(f"{path} line {number} is not JSON ({error}): correct or remove the line") from error
            if not isinstance(record, dict):
                raise InputError(f"{path} line {number} is not a JSON object: correct or remove the line")
            yield record
