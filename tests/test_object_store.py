"""Objects are listed, fetched and put whole, and whatever cannot be is said in a sentence."""

from __future__ import annotations

import importlib.util

import fsspec
import pytest

from fusebench.benchmarks import object_store
from fusebench.benchmarks.object_store import ObjectStore
from fusebench.errors import InputError

MEMORY = fsspec.filesystem("memory")


@pytest.fixture
def place(tmp_path):
    """A prefix in memory that no other test has."""
    return f"memory://{tmp_path.name}/results"


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("ftp://host/results", "name a folder"),
        ("file:///results", "without file://"),
        ("s3://", "s3://BUCKET/PREFIX"),
        ("s3://key:password@bucket/results", "environment"),
    ],
)
def test_a_url_that_cannot_hold_results_is_refused_with_what_to_write(url, advice):
    with pytest.raises(InputError, match=advice) as refused:
        ObjectStore(url)
    assert "password" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "install"), [("s3://b/p", r'"fusebench\[object-store\]"'), ("gs://b/p", "gcsfs"), ("az://b/p", "adlfs")]
)
def test_a_missing_package_is_named(url, install, monkeypatch):
    found = importlib.util.find_spec
    missing = ("s3fs", "gcsfs", "adlfs")
    monkeypatch.setattr(
        object_store.importlib.util, "find_spec", lambda name: None if name in missing else found(name)
    )
    with pytest.raises(InputError, match=rf"pip install {install}\.$"):
        ObjectStore(url)


def test_what_was_put_is_listed_and_fetched(place, tmp_path):
    (tmp_path / "here").write_bytes(b"content")
    store = ObjectStore(f"{place}/")
    store.put({"runs/a/x.json": tmp_path / "here", "README.md": tmp_path / "here"})
    assert store.names() == ["README.md", "runs/a/x.json"]
    store.fetch(["runs/a/x.json"], tmp_path / "there")
    assert (tmp_path / "there" / "runs" / "a" / "x.json").read_bytes() == b"content"


@pytest.mark.parametrize("name", ["../../outside", "a/../../../outside", ".hidden", "a//b", "a\\b", "a:b", "a\nb"])
def test_an_object_whose_name_leads_elsewhere_is_left_out(name, place):
    root = MEMORY._strip_protocol(f"{place}/runs")
    MEMORY.pipe_file(f"{place}/runs/good.json", b"1")
    MEMORY.store[f"{root}/{name}"] = MEMORY.store[f"{root}/good.json"]  # past the file system, which tidies names up
    assert ObjectStore(place).names() == ["runs/good.json"]


def test_a_fetch_that_fails_leaves_no_half_file(place, tmp_path):
    MEMORY.pipe_file(f"{place}/runs/a", b"1")
    with pytest.raises(InputError, match=r"cannot fetch objects from memory://"):
        ObjectStore(place).fetch(["runs/a", "runs/missing"], tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_same_bucket_on_another_server_is_another_place(monkeypatch, place):
    here = ObjectStore(place).identity
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://elsewhere:9000")
    assert ObjectStore(place).identity != here
