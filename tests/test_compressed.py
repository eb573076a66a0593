"""A small file from elsewhere fills neither memory nor disk."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fusebench.benchmarks import compressed
from fusebench.benchmarks.compressed import VARIABLE, require_bounded, unpacked
from fusebench.errors import InputError
from fusebench.study.text_files import read_records

MEGABYTES = 3


@pytest.fixture
def bomb(tmp_path, monkeypatch):
    """A gzipped file of a few kilobytes that holds more than the limit."""
    monkeypatch.setenv(VARIABLE, str(MEGABYTES))
    path = tmp_path / "texts.txt.gz"
    path.write_bytes(gzip.compress(b"a line\n" * (MEGABYTES * 200_000), 9))
    assert path.stat().st_size < 100_000
    return path


@pytest.mark.parametrize("read", [unpacked, require_bounded, lambda path: read_records(path, "texts")])
def test_a_gzip_bomb_is_refused_with_the_limit_and_how_to_raise_it(bomb, read, monkeypatch):
    with pytest.raises(InputError, match=rf"texts.txt.gz holds more than {MEGABYTES} MB .* set {VARIABLE}"):
        read(bomb)
    monkeypatch.setenv(VARIABLE, str(2 * MEGABYTES))
    read(bomb)


@pytest.mark.parametrize("given", ["", "0", "-1", "many", "²"])
def test_a_limit_that_is_no_number_is_refused(bomb, given, monkeypatch):
    monkeypatch.setenv(VARIABLE, given)
    with pytest.raises(InputError, match="whole number of megabytes"):
        unpacked(bomb)


def test_a_parquet_bomb_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a" * 1000] * 5000}), path, compression="zstd", use_dictionary=False)
    require_bounded(path)
    monkeypatch.setenv(VARIABLE, str(MEGABYTES))
    with pytest.raises(InputError, match=r"a\.parquet holds 5 MB once unpacked"):
        require_bounded(path)
    monkeypatch.setenv(VARIABLE, "4096")
    monkeypatch.setattr(compressed, "_MOST_ROWS", 4999)
    with pytest.raises(InputError, match="holds 5000 rows, more than 4999"):
        require_bounded(path)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.jsonl.xz", "a.jsonl.zst"])
def test_archives_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"is an archive: unpack it"):
        require_bounded(tmp_path / name)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet"])
def test_garbage_in_their_place_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"garbage")
    with pytest.raises(InputError, match="correct it"):
        require_bounded(tmp_path / name)


def test_a_task_of_a_bomb_is_refused_before_it_is_unpacked(tiny, bomb):
    folder = tiny.write_sts("Bomb", tiny.pairs())
    (folder / "test.jsonl").unlink()
    rows = "".join(json.dumps(row) + "\n" for row in tiny.pairs()) * 20_000
    (folder / "test.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files: [{split: test, path: test.jsonl.gz}]\n---\n"
    )
    with pytest.raises(InputError, match=f"set {VARIABLE}"):
        tiny.load("Bomb")


def test_a_header_of_aliases_of_aliases_is_refused(tiny):
    folder = tiny.write_sts("Laughs", tiny.pairs())
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    (folder / "README.md").write_text("\n".join(["---", *lines, "configs: *a11", "---"]))
    with pytest.raises(InputError, match="uses YAML aliases"):
        tiny.load("Laughs")
