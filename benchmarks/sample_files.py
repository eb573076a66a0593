"""Samples on disk: one Parquet file a cell beside its record, and no text or label in it."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fusebench.benchmarks.atomic import atomic_write, disk_error, slug
from fusebench.benchmarks.record import Record
from fusebench.benchmarks.samples import SamplePart, Samples
from fusebench.errors import InputError

_VERSION = "1"
_SEAL = "content_sha256"  # of all that is read from the file; files from before there were seals have none
_KEYS = {"fusebench_samples", "spec_id", "task", "metric", "data_sha256", _SEAL}


def sample_path(out: Path, record: Record) -> Path:
    """Where the samples of a cell lie: as its record does, below `samples` instead of `runs`."""
    spec = record.spec
    smoke = "" if spec.limit is None else f"-first{spec.limit}"
    cell = f"{slug(spec.method.name)}{smoke}-{record.spec_id}"
    return out / "samples" / slug(spec.backbone.name) / slug(spec.task.name) / f"{cell}.parquet"


def write_samples(out: Path, record: Record, samples: Samples) -> Path:
    """Stores the samples of a finished cell whole or not at all, and returns the file.

    Columns: `subset`, `split`, `row` (STS) or `query` (retrieval), `similarity` or `score`. The file's metadata name
    the cell, the metric, the hash of the data and the hash of the samples. Equal samples give equal bytes under one
    version of pyarrow.

    Raises:
        InputError: The disk refused; an older file is as it was.
        ValueError: The samples are of other data than the record, or not all finite.
    """
    if samples.data_sha256 != record.spec.task.data_sha256:
        raise ValueError(f"samples of other data than the record {record.spec_id} is of")
    if not all(np.isfinite(part.values).all() for part in samples.parts):
        raise ValueError(f"samples of {record.spec_id} that are not finite")
    path = sample_path(out, record)
    atomic_write(path, _encoded(samples, record))
    return path


def read_samples(out: Path, record: Record) -> Samples:
    """The samples of a cell.

    Raises:
        InputError: There are none, the file is truncated or damaged, or it is of another cell or of other data.
    """
    path = sample_path(out, record)
    shown, again = path.relative_to(out), "run the cell again with --rerun"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"{record.spec.method.name!r} on {record.spec.task.name} has a score but no samples ({shown}): {again}"
        ) from None
    except OSError as error:
        raise disk_error("read", path, error) from error
    try:
        with pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True) as file:
            metadata = {key.decode(): value.decode() for key, value in (file.metadata.metadata or {}).items()}
            table = file.read()
        samples = _decoded(table, metadata)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{shown} is truncated or no file of samples ({reason}): {again}") from error
    wanted = {"spec_id": record.spec_id, "data_sha256": record.spec.task.data_sha256}
    for key, value in wanted.items():
        if metadata.get(key) != value:
            raise InputError(f"{shown} is of {key} {metadata.get(key)}, its record of {value}: {again}")
    return samples


def _encoded(samples: Samples, record: Record) -> bytes:
    similar = samples.quantity == "similarity"
    item = "row" if similar else "query"
    columns = {
        "subset": np.repeat([part.subset for part in samples.parts], [len(part.items) for part in samples.parts]),
        "split": np.repeat([part.split for part in samples.parts], [len(part.items) for part in samples.parts]),
        item: np.concatenate([part.items for part in samples.parts]),
        samples.quantity: np.concatenate([part.values for part in samples.parts]),
    }
    types = (pa.string(), pa.string(), pa.int32() if similar else pa.string(), pa.float32())
    schema = pa.schema(list(zip(columns, types, strict=True)))
    arrays = [pa.array(values.tolist() if values.dtype.kind == "U" else values) for values in columns.values()]
    table = pa.table(arrays, names=list(columns)).cast(schema)
    sink = io.BytesIO()
    # The bytes of a float of equal weight lie together, which is what makes them compressible; queries that share
    # a prefix store it once.
    encodings = {item: "DELTA_BINARY_PACKED" if similar else "DELTA_BYTE_ARRAY"}
    encodings[samples.quantity] = "BYTE_STREAM_SPLIT"
    with pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level=19,
        use_dictionary=["subset", "split"],
        column_encoding=encodings,
        write_page_checksum=True,
        write_statistics=False,
        store_schema=False,
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(
            {
                "fusebench_samples": _VERSION,
                "spec_id": record.spec_id,
                "task": record.spec.task.name,
                "metric": samples.metric,
                "data_sha256": samples.data_sha256,
                _SEAL: _content_sha256(samples, record.spec_id, record.spec.task.name),
            }
        )
    return sink.getvalue()


def _decoded(table: Any, metadata: dict[str, str]) -> Samples:
    if metadata["fusebench_samples"] != _VERSION:
        raise ValueError(f"version {metadata['fusebench_samples']} of the format is not known")
    if strange := sorted(metadata.keys() - _KEYS):
        raise ValueError(f"its metadata have a key {strange[0]!r}")
    item, quantity = table.column_names[2:]
    if (item, quantity) not in (("row", "similarity"), ("query", "score")):
        raise ValueError(f"the columns are {', '.join(table.column_names)}")
    subsets, splits = table["subset"].to_numpy(), table["split"].to_numpy()
    items, values = table[item].to_numpy(), table[quantity].to_numpy()
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("a value is missing or not finite")
    starts = np.flatnonzero((subsets[1:] != subsets[:-1]) | (splits[1:] != splits[:-1])) + 1
    parts = tuple(
        SamplePart(str(subsets[rows[0]]), str(splits[rows[0]]), items[rows], values[rows].astype(np.float32))
        for rows in np.split(np.arange(len(values)), starts)
    )
    samples = Samples(metadata["metric"], quantity, metadata["data_sha256"], parts)
    seal = metadata.get(_SEAL)
    if seal is not None and seal != _content_sha256(samples, metadata["spec_id"], metadata["task"]):
        raise ValueError(f"it does not hash to its {_SEAL}")
    return samples


def _content_sha256(samples: Samples, spec_id: str, task: str) -> str:
    digest = hashlib.sha256()
    for word in (spec_id, task, samples.metric, samples.quantity, samples.data_sha256):
        digest.update(f"{word}\0".encode())
    for part in samples.parts:
        digest.update(f"{part.subset}\0{part.split}\0".encode())
        digest.update("\0".join(map(str, part.items.tolist())).encode())
        digest.update(part.values.astype("<f4").tobytes())
    return digest.hexdigest()
