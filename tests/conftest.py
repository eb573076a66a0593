"""Settings and fixtures of all tests: no network, caches in a folder of their own."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

# before anything imports huggingface_hub, which reads these once
_CACHE = tempfile.mkdtemp(prefix="fusebench-tests-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    HF_HOME=_CACHE,
    HF_DATASETS_CACHE=f"{_CACHE}/datasets",
)

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

# The same examples each time, however slow the machine: a test passes or fails, it is not lucky.
settings.register_profile("fusebench", deadline=None, derandomize=True)
settings.load_profile("fusebench")

# Shapes in annotations are checked at every call, under pytest only.
install_import_hook("fusebench.methods", "beartype.beartype")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real data in the hub's layout: $FUSEBENCH_DATA, else ../shared/data beside the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("FUSEBENCH_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set FUSEBENCH_DATA")
    return folder


_HEADER = """---
configs:
- config_name: corpus
  data_files: [{split: corpus, path: corpus.jsonl}]
- config_name: queries
  data_files: [{split: queries, path: queries.jsonl}]
- config_name: default
  data_files: [{split: test, path: qrels/test.jsonl}]
---
"""

Rows = list[dict[str, Any]]


class TinyData:
    """Writes data folders in the hub's layout below a root and loads them as tasks."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write_jsonl(self, path: Path, records: Rows) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")

    def pairs(self, count: int = 6) -> Rows:
        return [{"sentence1": f"left {i}", "sentence2": f"right {i}", "score": i / 2} for i in range(count)]

    def write_sts(self, name: str, records: Rows) -> Path:
        self.write_jsonl(self.root / name / "test.jsonl", records)
        return self.root / name

    def write_retrieval(
        self, name: str, *, corpus: Rows | None = None, queries: Rows | None = None, qrels: Rows | None = None
    ) -> Path:
        """200 documents and 8 queries, of which 2 to 7 have document 150 + i as the relevant one."""
        documents = [
            {"_id": f"d{i}", "title": f"Title {i}" if i % 2 else "", "text": f"body {i}"} for i in range(200)
        ]
        asked = [{"_id": f"q{i}", "text": f"query {i}"} for i in range(8)]
        judged = [{"query-id": f"q{i}", "corpus-id": f"d{150 + i}", "score": 1} for i in range(2, 8)]
        self.write_jsonl(self.root / name / "corpus.jsonl", documents if corpus is None else corpus)
        self.write_jsonl(self.root / name / "queries.jsonl", queries or asked)
        self.write_jsonl(self.root / name / "qrels" / "test.jsonl", qrels or judged)
        (self.root / name / "README.md").write_text(_HEADER)
        return self.root / name

    def load(self, name: str, *, limit: int | None = None, allow_empty: bool = False) -> Any:
        from fusebench.benchmarks.tasks import find_tasks, load_task

        (source,) = find_tasks([name], self.root)
        return load_task(source, limit=limit, allow_empty=allow_empty)


@pytest.fixture
def tiny(tmp_path: Path) -> TinyData:
    """A writer of small data folders in a fresh folder."""
    return TinyData(tmp_path)
