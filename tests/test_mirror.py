"""A mirror and its bucket hold the same, nothing half-written is ever read, and a fault loses nothing."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time

import fsspec
import numpy as np
import pytest

from fusebench.benchmarks import mirror as mirror_module
from fusebench.benchmarks import store as store_module
from fusebench.benchmarks.atomic import atomic_write
from fusebench.benchmarks.mirror import Mirror, mirror_of, mirrored
from fusebench.benchmarks.object_store import ObjectStore
from fusebench.benchmarks.sample_files import read_samples, sample_path, write_samples
from fusebench.benchmarks.samples import SamplePart, Samples
from fusebench.benchmarks.store import Store
from fusebench.errors import InputError
from tests.invented_records import make
from tests.loopback_s3 import S3

FORK = multiprocessing.get_context("fork")
MEMORY = fsspec.filesystem("memory")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes this process a machine with a cache of its own."""

    def become(name):
        monkeypatch.setenv("FUSEBENCH_CACHE", str(tmp_path / name))

    become("first")
    return become


@pytest.fixture
def url(tmp_path):
    return f"memory://{tmp_path.name}/results"


@pytest.fixture
def s3(monkeypatch):
    server = S3(monkeypatch)
    yield server
    server.stop()


def held(url):
    """What the bucket in memory has, by name."""
    root = MEMORY._strip_protocol(url)
    return {path.removeprefix(f"{root}/"): MEMORY.cat_file(path) for path in MEMORY.find(root)}


def write(folder, record):
    """A cell, as a run leaves it."""
    values = np.full(50, record.main_score, dtype=np.float32)
    part = SamplePart("default", "test", np.arange(50, dtype=np.int32), values)
    samples = Samples("cosine_spearman", "similarity", record.spec.task.data_sha256, (part,))
    write_samples(folder, record, samples)
    Store(folder).write(record, {"scores": {}})


def test_another_machine_finds_what_was_published(machine, url):
    records = [make(f"m{number}", "A", number / 10) for number in range(3)]
    here = Mirror(url)
    for record in records:
        write(here.folder, record)
    assert here.publish() == 9
    assert here.publish() == 0
    machine("second")
    there = Mirror(url)
    assert there.folder != here.folder
    assert there.fetch() == 9
    assert there.fetch() == 0
    assert Store(there.folder).records() == Store(here.folder).records() == records
    assert [read_samples(there.folder, record).parts[0].values[0] for record in records] == [
        np.float32(record.main_score) for record in records
    ]
    assert there.publish() == 0


def test_a_record_comes_after_what_it_stands_for(machine, url, monkeypatch):
    puts = []
    put = ObjectStore.put
    monkeypatch.setattr(ObjectStore, "put", lambda self, files: (puts.append(sorted(files)), put(self, files)))
    mirror = Mirror(url)
    write(mirror.folder, make())
    atomic_write(mirror.folder / "trained" / "t" / "weights.safetensors", "weights")
    atomic_write(mirror.folder / "trained" / "t" / "method.json", "card")
    atomic_write(mirror.folder / "training" / "t.jsonl", "log")
    atomic_write(mirror.folder / "README.md", "boards")
    mirror.publish(boards=True)
    kinds = [sorted({name.split("/")[0] for name in names}) for names in puts]
    assert kinds == [["mteb", "samples", "trained", "training"], ["trained"], ["runs"], ["README.md"]]
    assert puts[1] == ["trained/t/method.json"]


def test_a_fault_before_the_record_is_made_good_by_the_next_call(machine, url, monkeypatch):
    mirror = Mirror(url)
    write(mirror.folder, make())
    put = ObjectStore.put

    def failing(self, files):
        if any(name.startswith("runs/") for name in files):
            raise InputError("the network is gone.")
        put(self, files)

    monkeypatch.setattr(ObjectStore, "put", failing)
    with pytest.raises(InputError):
        mirror.publish()
    assert sorted(name.split("/")[0] for name in held(url)) == ["mteb", "samples"]
    monkeypatch.undo()
    assert mirror.publish() == 1


def test_every_part_of_a_results_folder_is_published_or_belongs_to_the_machine():
    ours = {"checkpoints", "locks", "logs", "quarantine"}
    published = {*mirror_module._READ, *mirror_module._BOARDS, "README.md"}
    assert published | ours == set(store_module._OWN)
    assert not published & ours
    assert set(mirror_module._WORK) <= set(mirror_module._READ)


def test_weights_are_fetched_when_they_are_asked_for(machine, url, monkeypatch):
    for name in ("wanted", "other"):
        MEMORY.pipe_file(f"{url}/trained/{name}/method.json", b"card")
        MEMORY.pipe_file(f"{url}/trained/{name}/weights.safetensors", b"weights")
    mirror = Mirror(url)
    assert mirror.fetch() == 2
    trained = mirror.folder / "trained"
    assert mirror.fetch_weights({trained / "wanted", trained / "never-trained", mirror.folder.parent}) == 1
    assert sorted(path.parent.name for path in trained.glob("*/weights.safetensors")) == ["wanted"]


def test_of_two_machines_that_train_the_same_the_first_one_s_weights_and_card_stand(machine, url):
    mirrors = []
    for name in ("first", "second"):
        machine(name)
        mirrors.append(Mirror(url))
        atomic_write(mirrors[-1].folder / "trained" / "t" / "weights.safetensors", f"weights of {name}")
        atomic_write(mirrors[-1].folder / "trained" / "t" / "method.json", f"card of {name}")
    assert [mirror.publish() for mirror in mirrors] == [2, 0]
    assert set(held(url).values()) == {b"weights of first", b"card of first"}
    atomic_write(mirrors[0].folder / "trained" / "t" / "method.json", "a new card of first")  # as after damage
    assert mirrors[0].publish() == 1


def test_what_changes_is_fetched_anew_unless_there_is_news_of_it_here(machine, url):
    here = Mirror(url)
    store = Store(here.folder)
    for name in ("changed there", "changed here"):
        store.remember_suite(name, "first", ["A"])
    here.publish()
    machine("second")
    there = Mirror(url)
    there.fetch()
    for name in ("changed there", "changed here"):
        Store(there.folder).remember_suite(name, "there", ["A"])
    there.publish()
    store.remember_suite("changed here", "here", ["A"])
    here.fetch()
    assert {suite.name: suite.title for suite in store.suites()} == {"changed there": "there", "changed here": "here"}


def test_what_is_gone_from_the_bucket_is_published_again(machine, url):
    mirror = Mirror(url)
    write(mirror.folder, make())
    mirror.publish()
    before = held(url)
    MEMORY.rm(url, recursive=True)
    mirror.fetch()
    mirror.publish()
    assert held(url) == before


def test_locks_logs_and_what_is_under_way_stay_on_the_machine(machine, url):
    with mirrored(url, writes=True) as mirror:
        atomic_write(mirror.folder / "trained" / "t" / "weights.safetensors", "whose card is not there yet")
        for name in ("locks/a.lock", "logs/fusebench.log", "checkpoints/c.safetensors", "quarantine/x", "runs/.tmp"):
            atomic_write(mirror.folder / name, "here")
    assert list(held(url)) == ["fusebench.json"]


def test_what_is_finished_is_published_while_the_command_goes_on(machine, url, monkeypatch):
    monkeypatch.setattr(mirror_module, "_SECONDS", 0.01)
    with mirrored(url, writes=True) as mirror:
        assert mirror_of(mirror.folder) is mirror
        write(mirror.folder, make())
        for _ in range(1000):
            if any(name.startswith("runs/") for name in held(url)):
                break
            time.sleep(0.01)
        else:
            pytest.fail("the record was not published")
    assert mirror_of(mirror.folder) is None


def test_what_is_only_read_writes_nothing(machine, url):
    with mirrored(url, writes=False) as mirror:
        write(mirror.folder, make())
    assert held(url) == {}


def test_an_index_that_is_damaged_is_named(machine, url):
    atomic_write(Mirror(url).folder / "mirror.json", '{"published": ')
    with pytest.raises(InputError, match=r"mirror\.json cannot be used .*; delete it"):
        Mirror(url)


def killed_between(url, cache):
    """A process that ends by force when samples are in the bucket and their record is not."""
    os.environ["FUSEBENCH_CACHE"] = str(cache)
    put = ObjectStore.put

    def dying(self, files):
        if any(name.startswith("runs/") for name in files):
            os.kill(os.getpid(), signal.SIGKILL)
        put(self, files)

    ObjectStore.put = dying
    with mirrored(url, writes=True) as mirror:
        write(mirror.folder, make())


def test_a_kill_between_samples_and_record_leaves_no_half_cell_and_the_next_command_publishes_it(
    machine, s3, tmp_path, request
):
    bucket = s3.bucket(request.node.name)
    url = f"s3://{bucket}/team"
    child = FORK.Process(target=killed_between, args=(url, tmp_path / "first"))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert sorted(name.split("/")[1] for name in s3.objects(bucket)) == ["fusebench.json", "mteb", "samples"]
    machine("second")
    with mirrored(url, writes=False) as other:
        assert Store(other.folder).records() == []
    machine("first")
    with mirrored(url, writes=True) as own:
        assert Store(own.folder).records() == [make()]
    machine("third")
    with mirrored(url, writes=False) as other:
        assert Store(other.folder).records() == [make()]
        assert read_samples(other.folder, make()).quantity == "similarity"


def write_as(number, url, cache, together):
    """A machine that writes cells of its own, and one that every machine writes."""
    os.environ["FUSEBENCH_CACHE"] = str(cache / str(number))
    with mirrored(url, writes=True) as mirror:
        together.wait(60)
        write(mirror.folder, make("all", "A", 0.5, created=f"2026-01-0{number + 1}T00:00:00+00:00"))
        write(mirror.folder, make(f"m{number}", "A", 0.5))
        mirror.publish()


def test_machines_that_write_at_once_lose_nothing_and_mix_nothing(machine, s3, tmp_path, request):
    bucket = s3.bucket(request.node.name)
    url, together = f"s3://{bucket}/team", FORK.Barrier(3)
    writers = [FORK.Process(target=write_as, args=(n, url, tmp_path, together)) for n in range(3)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(60)
    assert [process.exitcode for process in writers] == [0, 0, 0]
    machine("reader")
    with mirrored(url, writes=False) as mirror:
        store = Store(mirror.folder)
        found = store.records()
    assert store.rejected == []
    assert sorted(record.spec.method.name for record in found) == ["all", "m0", "m1", "m2"]
    assert all(sample_path(mirror.folder, record).is_file() for record in found)


def test_a_server_that_goes_away_loses_nothing(machine, s3, request):
    bucket = s3.bucket(request.node.name)
    url = f"s3://{bucket}/team"

    def interrupted():
        with mirrored(url, writes=True) as mirror:
            write(mirror.folder, make())
            s3.stop()

    with pytest.raises(InputError, match=r"Connect.*nothing is lost: .*/first/mirrors/.* the same command publishes"):
        interrupted()
    s3.start()
    with mirrored(url, writes=True):
        pass
    records = [json.loads(content) for name, content in s3.objects(bucket).items() if "/runs/" in name]
    assert [record["spec_id"] for record in records] == [make().spec_id]


def test_a_bucket_that_is_not_there_is_said_before_anything_is_done(machine, s3):
    with (
        pytest.raises(InputError, match=r"s3://nowhere/team .*bucket does not exist"),
        mirrored("s3://nowhere/team", writes=True),
    ):
        pytest.fail("the command began")
