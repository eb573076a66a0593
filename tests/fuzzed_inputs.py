"""Seeded hostile inputs for all that reads what people write: sentences, files of texts, data folders, records."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

import fusebench.methods  # noqa: F401  # registers the parts
from fusebench.benchmarks import hub_layout
from fusebench.benchmarks.sealed_json import sealed_text, unsealed
from fusebench.benchmarks.store import Store
from fusebench.errors import InputError
from fusebench.methods.checkpoint import read_tensors, write_tensors
from fusebench.methods.grammar import parse
from fusebench.methods.registry import cards
from fusebench.study import saved_methods
from fusebench.study.record_file import read_record
from fusebench.study.row_files import read_file
from fusebench.study.text_sets import load_texts
from tests.invented_records import trained

_VALUES = [None, True, -1, 0, 2.5, 1e308, 10**400, "", "x", "\ud800", "../x", [], {}, [[]], {"a": 1}, "é" * 99]
_PIECES = [*"()+,=@.- ", "each", "untrained", "layer", "k", "-1", "1e999", "true", "none", "é", "\x00", "'", '"']
_TOKENS = [*'[{},:"1', "\t", "\n", "\r", "\x00", "NaN", "null", "score", "sentence1", "sentence2", "\ufeff", "\u2028"]
_TOKENS += ['{"text": "a"}', '"a"', "anchor,positive", "a\tb", '{"anchor": "a", "positive": ["b"]}']


def _mutated(draw: random.Random, content: bytes) -> bytes:
    """The content with some bytes flipped, cut out, doubled or put in."""
    for _ in range(draw.randrange(1, 4)):
        place, kind = draw.randrange(len(content) + 1), draw.randrange(4)
        end = min(len(content), place + draw.randrange(1, 20))
        middle = {0: b"", 1: content[place:end] * 2, 2: draw.randbytes(end - place), 3: draw.choice(_TOKENS).encode()}
        content = content[:place] + middle[kind] + content[end:]
    return content


def _with_other_values(draw: random.Random, held: object) -> object:
    """The JSON value with one value somewhere in it replaced, a key dropped or a key added."""
    if isinstance(held, dict) and held and draw.random() < 0.9:
        key = draw.choice(sorted(held))
        changed = {**held, key: _with_other_values(draw, held[key])}
        if draw.random() < 0.1:
            del changed[key]
        return {**changed, "strange": 1} if draw.random() < 0.05 else changed
    if isinstance(held, list) and held and draw.random() < 0.9:
        place = draw.randrange(len(held))
        return [*held[:place], _with_other_values(draw, held[place]), *held[place + 1 :]]
    return draw.choice(_VALUES)


def _changed_json(draw: random.Random, text: str) -> bytes:
    if draw.random() < 0.4:
        return _mutated(draw, text.encode())
    held = _with_other_values(draw, unsealed(text.encode()))
    try:  # often with a seal that fits, or the seal would be all that is ever looked at
        sealed = isinstance(held, dict) and draw.random() < 0.8
        return (sealed_text(held) if sealed else json.dumps(held)).encode("utf-8", "surrogatepass")  # type: ignore[arg-type]
    except ValueError:
        return json.dumps(held).encode()


def sentence(draw: random.Random, folder: Path) -> None:
    """A sentence of the method grammar."""
    pieces = [*_PIECES, *_PIECES, *(card.name for card in cards())]
    parse("".join(draw.choices(pieces, k=draw.randrange(12))))


def text_file(draw: random.Random, folder: Path) -> None:
    """A file of training rows or fit texts."""
    suffix = draw.choice([".txt", ".jsonl", ".csv", ".tsv"])
    text = "".join(draw.choices(_TOKENS, k=draw.randrange(15))).encode("utf-8", "surrogatepass")
    content = _mutated(draw, text) if draw.random() < 0.5 else text
    zipped = draw.random() < 0.2
    if zipped:
        content = gzip.compress(content, 1)
        content = _mutated(draw, content) if draw.random() < 0.5 else content
    path = folder / f"rows{suffix}{'.gz' if zipped else ''}"
    path.write_bytes(content)
    try:
        read_file(path) if draw.random() < 0.5 else load_texts(str(path), None)
    finally:
        path.unlink()


def data_folder(draw: random.Random, folder: Path) -> None:
    """A folder of one task: its header and the first record of each file."""
    place = folder / "Task"
    place.mkdir()
    header = "---\nconfigs:\n- config_name: default\n  data_files: [{split: test, path: test.jsonl}]\n---\n"
    if draw.random() < 0.5:
        configs = [{"config_name": "default", "data_files": [{"split": "test", "path": "test.jsonl"}]}]
        header = f"---\n{yaml.safe_dump(_with_other_values(draw, {'configs': configs}))}---\n"
    row = '{"sentence1": "a", "sentence2": "b", "score": 1}\n'
    changed = [text.encode("utf-8", "surrogatepass") for text in (header, row)]
    changed = [_mutated(draw, text) if draw.random() < 0.5 else text for text in changed]
    try:
        if draw.random() < 0.8:
            (place / "README.md").write_bytes(changed[0])
        (place / draw.choice(["test.jsonl", "test.jsonl", "test.csv", "a.parquet", "b.zip"])).write_bytes(changed[1])
        hub_layout.folder_revision(place)
        task_type = hub_layout.folder_type(place)
        hub_layout.check_folder(task_type, place, ["test"], ["default"])
    finally:
        shutil.rmtree(place)


def record(draw: random.Random, folder: Path) -> None:
    """A record, a suite or the card of a trained method."""
    kind = draw.choice(["runs/a/b/c.json", "runs/a/b/c.json", "suites/a.json", "trained/a/method.json"])
    path = folder / kind
    path.parent.mkdir(parents=True, exist_ok=True)
    one = trained()
    valid = {
        "runs": one.model_dump(mode="json"),
        "suites": {"name": "a", "title": "A", "tasks": ["T"]},
        "trained": {
            "schema_version": 1,
            "training_id": one.spec.training_id,
            "sentence": "hire+batch-softmax",
            "identity": one.spec.training_identity,
            "training": one.model_dump(mode="json")["training"],
            "weights_sha256": "a" * 64,
            "environment": one.environment.model_dump(mode="json"),
        },
    }
    path.write_bytes(_changed_json(draw, sealed_text(valid[kind.split("/")[0]])))
    store = Store(folder)
    store.finished()
    store.suites()
    if kind.startswith("runs"):
        read_record(path)
    elif kind.startswith("trained"):
        saved_methods.load(path.parent)
    elif store.rejected:
        raise InputError("refused")


def tensors(draw: random.Random, folder: Path) -> None:
    """A checkpoint, weights or what is kept of a pass."""
    path = folder / "a.safetensors"
    if not path.exists():
        write_tensors(path, {"inputs": torch.arange(32, dtype=torch.uint8), "mean.1": torch.ones(2, 3)}, {"a": 1.0})
    changed = path.with_name("b.safetensors")
    content = path.read_bytes()
    changed.write_bytes(content if draw.random() < 0.1 else _mutated(draw, content))
    read_tensors(changed)


READERS: dict[str, Callable[[random.Random, Path], None]] = {
    "sentences of methods": sentence,
    "files of rows and texts": text_file,
    "data folders": data_folder,
    "records, suites and cards": record,
    "checkpoints, weights and passes": tensors,
}


def fuzz(reader: Callable[[random.Random, Path], None], folder: Path, seeds: range) -> tuple[int, int]:
    """How many of the inputs were accepted and how many refused.

    Raises:
        AssertionError: Anything but `InputError` came out; it names the seed.
    """
    accepted = refused = 0
    for seed in seeds:
        try:
            reader(random.Random(seed), folder)
            accepted += 1
        except InputError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"{reader.__name__}, seed {seed}: {error!r}") from error
    return accepted, refused
