"""Commands whose --out is a bucket on an S3-compatible server do what they do in a folder, from any machine."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

import fusebench
from fusebench.benchmarks.sealed_json import unsealed
from fusebench.benchmarks.store import Store
from fusebench.run_bench import main
from fusebench.study import commands, execute, sweep, train
from fusebench.study.parser import results_place
from tests.loopback_s3 import S3, SECRET
from tests.tiny_gate import make_world

TRAINED = "scalar-mix+batch-softmax"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def s3(monkeypatch):
    server = S3(monkeypatch)
    yield server
    server.stop()


@pytest.fixture
def run(world, s3, request, tmp_path, monkeypatch, capsys):
    """Gives a command with the test's bucket as --out on a machine; its exit code and what it said."""
    bucket = s3.bucket(request.node.name)

    def ask(machine, *arguments):
        monkeypatch.setenv("FUSEBENCH_CACHE", str(tmp_path / machine))
        code = main([*arguments, "--out", f"s3://{bucket}/team"])
        return code, "".join(capsys.readouterr())

    ask.bucket = bucket
    return ask


def asked(world, methods="mean,cls", tasks="TinySTS,TinySearch"):
    flags = ["--methods", methods, "--tasks", tasks, "--backbone", str(world / "models" / "tiny-bert")]
    flags += ["--data-dir", str(world / "data"), "--fit", str(world / "fit.txt"), "--no-test", "--device", "cpu"]
    return [*flags, "--train", "rows.jsonl", "--steps", "3", "--batch-size", "8", "--batch-tokens", "64"]


def records(s3, bucket):
    """Key and content of each record in the bucket."""
    return {key: content for key, content in s3.objects(bucket).items() if key.startswith("team/runs/")}


def test_an_empty_machine_goes_on_with_what_another_has_published_and_makes_the_same_boards(run, s3, world):
    assert run("first", *asked(world))[0] == 0
    published = records(s3, run.bucket)
    assert len(published) == 4
    code, said = run("second", *asked(world))
    assert (code, "0 cells scored" in said, "4 of them finished before" in said) == (0, True, True)
    assert records(s3, run.bucket) == published
    code, said = run("third", "report")
    assert code == 0
    assert re.search(r"^1 +(mean|cls) ", said, re.MULTILINE)
    read_me = s3.objects(run.bucket)["team/README.md"].decode()
    assert f"run_bench.py report --out s3://{run.bucket}/team`" in read_me


def test_what_one_machine_has_trained_another_takes(run, s3, world, monkeypatch):
    assert run("first", *asked(world, TRAINED, "TinySTS"))[0] == 0

    def refuse(*arguments, **settings):
        raise AssertionError("trained again")

    monkeypatch.setattr(train, "TrainingLoop", refuse)
    code, said = run("second", *asked(world, TRAINED, "TinySearch"))
    assert (code, "1 cells scored" in said) == (0, True), said
    assert len(records(s3, run.bucket)) == 2
    assert run("third", "diagnose", "--trained", *asked(world)[2:8])[0] == 0


def test_a_run_from_python_publishes_too(run, s3, world, tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEBENCH_CACHE", str(tmp_path / "first"))
    places = {"backbone": world / "models" / "tiny-bert", "data_dir": world / "data", "fit": world / "fit.txt"}
    frame = fusebench.run("mean", out=f"s3://{run.bucket}/team", tasks="TinySTS", device="cpu", **places)
    (record,) = records(s3, run.bucket).values()
    assert set(frame["spec_id"]) == {unsealed(record)["spec_id"]}


def test_a_page_that_no_report_wrote_is_not_overwritten(run, s3, world):
    s3.client().put_object(Bucket=run.bucket, Key="team/README.md", Body=b"mine")
    code, said = run("first", *asked(world, "mean"))
    assert (code, "was not written by a report" in said) == (2, True)
    assert s3.objects(run.bucket)["team/README.md"] == b"mine"


def test_a_truncated_object_is_not_used_and_made_anew(run, s3, world):
    run("first", *asked(world, "mean"))
    (key, whole), *_ = records(s3, run.bucket).items()
    s3.client().put_object(Bucket=run.bucket, Key=key, Body=whole[: len(whole) // 2])
    code, said = run("second", "report")
    assert (code, "not used: runs/" in said) == (0, True)
    code, said = run("third", *asked(world, "mean"))
    assert (code, "to quarantine: runs/" in said, "1 cells scored" in said) == (0, True, True)
    assert unsealed(records(s3, run.bucket)[key])["spec_id"] in key


def test_a_server_that_goes_away_in_the_middle_of_a_run_costs_nothing(run, s3, world, monkeypatch):
    write = Store.write

    def write_and_unplug(store, record, result):
        write(store, record, result)
        if s3.running:
            s3.stop()

    monkeypatch.setattr(Store, "write", write_and_unplug)
    code, said = run("first", *asked(world))
    assert code == 2
    assert re.search(
        r"^error: cannot put .* nothing is lost: .* the same command publishes it\.$", said, re.MULTILINE
    )
    assert "Traceback" not in said
    monkeypatch.setattr(Store, "write", write)
    s3.start()
    code, said = run("first", *asked(world))
    assert (code, "0 cells scored" in said) == (0, True)
    assert len(records(s3, run.bucket)) == 4


def test_no_secret_is_said_or_kept(run, s3, world, tmp_path):
    _, said = run("first", *asked(world, "mean", "TinySTS"), "-vv")
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    for content in (*files, *s3.objects(run.bucket).values(), said.encode()):
        assert SECRET.encode() not in content


@pytest.mark.parametrize("arguments", [["--methods", "mean"], ["report"], ["compare", "mean", "cls"]])
def test_a_bucket_that_is_not_there_ends_a_command_before_it_computes(arguments, s3, monkeypatch, capsys, tmp_path):
    def refuse(options):
        raise AssertionError("planned")

    monkeypatch.setattr(commands, "make_plan", refuse)
    monkeypatch.setenv("FUSEBENCH_CACHE", str(tmp_path))
    assert main([*arguments, "--out", "s3://nowhere/team"]) == 2
    assert re.match(r"error: cannot \w+.* s3://nowhere/team \(FileNotFoundError: .*bucket", capsys.readouterr().err)


def test_a_dry_run_leaves_nothing_in_the_bucket(run, s3, world):
    assert run("first", *asked(world, "mean"), "--dry-run")[0] == 0
    assert s3.objects(run.bucket) == {}


def test_all_runs_of_a_sweep_go_to_the_bucket(run, s3, world, tmp_path, monkeypatch):
    places = []
    monkeypatch.setattr(sweep, "make_plan", lambda options: places.append(options.out) or _stop())
    file = tmp_path / "two.toml"
    file.write_text('methods = "mean"\n[grid]\nbackbone = ["a", "b"]\n')
    assert run("first", "--sweep", str(file))[0] == 2
    assert len(places) == 2
    assert all(place.is_relative_to(tmp_path / "first" / "mirrors") for place in places)
    assert any(key.startswith("team/sweeps/") for key in s3.objects(run.bucket))


def _stop():
    raise ValueError("planned enough")


def test_workers_of_several_machines_are_refused(run, world, monkeypatch):
    @contextmanager
    def two_machines(address, job, needs):
        yield SimpleNamespace(machines=[{"CPU": 1.0}, {"CPU": 1.0}], slots=2)

    monkeypatch.setattr(execute, "ray_pool", two_machines)
    code, said = run("first", *asked(world, "mean"), "--executor", "ray:auto")
    assert (code, "several machines" in said) == (2, True)


def test_a_path_that_was_a_url_is_no_folder(capsys):
    assert results_place("s3://b/p") == "s3://b/p"
    assert results_place("some/folder") == Path("some/folder")
    with pytest.raises(SystemExit):
        main(["report", "--out", str(Path("s3://b/p"))])
    assert "two slashes" in capsys.readouterr().err
