"""The results folder keeps what it is given, whole, and refuses what it cannot trust."""

import errno
import hashlib
import json
import os

import pytest

from fusebench.benchmarks.sealed_json import SEAL, sealed_text
from fusebench.benchmarks.store import AskedSuite, Store, slug
from fusebench.errors import InputError
from fusebench.study.boards import rebuild
from tests.invented_records import make, overlap, trained, training


def only_file(store):
    (path,) = store.out.glob("runs/*/*/*.json")
    return path


def unsealed_text(path):
    """A record as it was written before records had seals."""
    held = json.loads(path.read_text())
    del held[SEAL]
    return json.dumps(held, sort_keys=True, indent=1) + "\n"


def temporaries(folder):
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


def test_a_record_comes_back_equal_and_its_floats_exactly(tmp_path):
    record = make(value=0.1 + 0.2, method="whiten(k=256)+é|*", prompts={"query": "/find: "})
    Store(tmp_path).write(record, {"task_name": "A"})
    store = Store(tmp_path)
    assert store.records() == [record]
    assert store.finished() == {record.spec_id: record}
    assert store.read(record.spec_id) == record
    assert store.records()[0].main_score == 0.30000000000000004
    assert store.rejected == []


def test_an_empty_or_missing_folder_holds_nothing_and_is_not_created(tmp_path):
    store = Store(tmp_path / "none")
    assert (store.records(), store.suites(), store.rejected, store.quarantine()) == ([], [], [], [])
    assert store.read("0" * 16) is None
    assert store.read("../../*") is None
    assert not store.out.exists()


def test_files_are_sorted_json_with_a_final_newline_and_real_letters(tmp_path):
    record = make(method="mü")
    Store(tmp_path).write(record, {"b": 1, "a": "é"})
    text = only_file(Store(tmp_path)).read_text(encoding="utf-8")
    assert text == sealed_text(record.model_dump(mode="json"))
    (result,) = tmp_path.glob(f"mteb/{slug('org/net')}/*-{record.spec_id}/*.json")
    seal = hashlib.sha256(b'{"a": "\\u00e9", "b": 1}').hexdigest()
    assert result.read_text(encoding="utf-8") == f'{{\n "a": "é",\n "b": 1,\n "content_sha256": "{seal}"\n}}\n'


def test_undefined_side_figures_of_mteb_become_null_because_json_has_no_nan(tmp_path):
    record = make(task="STS22.v2")
    Store(tmp_path).write(record, {"scores": {"test": [{"nauc": float("nan"), "main_score": 0.5}]}})
    (result,) = tmp_path.glob("mteb/*/*/STS22.v2.json")
    assert json.loads(result.read_text())["scores"]["test"] == [{"main_score": 0.5, "nauc": None}]


def test_the_order_of_records_is_that_of_their_names_and_seeds(tmp_path):
    store = Store(tmp_path)
    wanted = [make(task="A", seed=2), make(task="A", seed=10), make(task="A", method="x"), make(task="B")]
    for record in reversed(wanted):
        store.write(record, {})
    assert store.records() == wanted


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[: len(text) // 2], "truncated or not JSON"),
        (lambda text: "", "truncated or not JSON"),
        (lambda text: "[" * 100_000, "not JSON"),
        (lambda text: "[]", "schema version None"),
        (lambda text: text.replace('"schema_version": 2', '"schema_version": 99'), "schema version 99"),
        (lambda text: text.replace('"schema_version": 2', '"schema_version": 1'), "older version (schema 1); run"),
        (lambda text: text.replace('"max_length": 128', '"max_length": 64'), "specification hashes to"),
        (lambda text: text.replace('"main_score": 0.5', '"main_score": NaN'), "NaN"),
        (lambda text: text.replace('"main_score": 0.5', '"main_score": "x"'), "main_score"),
        (lambda text: text.replace('"out_dim": 384,', ""), "out_dim"),
        (lambda text: text.replace("2026-01-01T", "soon"), "ISO 8601"),
        (lambda text: text.replace('"x86"', '"/home/someone/x"'), "holds the path '/home/someone/x'"),
        (lambda text: text.replace('"x86"', '"at C:\\\\data"'), "holds the path"),
        (lambda text: text.replace('"x86"', '"../up"'), "holds the path"),
        (lambda text: text.replace('"x86"', '"~/mine"'), "holds the path"),
    ],
)
def test_a_damaged_record_is_reported_and_never_used(tmp_path, damage, reason):
    store = Store(tmp_path)
    record = make()
    store.write(record, {})
    path = only_file(store)
    path.write_text(damage(unsealed_text(path)))
    assert store.records() == []
    assert store.read(record.spec_id) is None
    ((rejected, why),) = store.rejected
    assert rejected == path
    assert reason in why


def test_a_record_from_before_there_were_seals_is_read(tmp_path):
    Store(tmp_path).write(make(), {})
    path = only_file(Store(tmp_path))
    path.write_text(unsealed_text(path))
    assert Store(tmp_path).records() == [make()]


def test_every_flipped_byte_of_a_record_is_found_or_changes_nothing(tmp_path):
    """White space may become other white space; then what is read is what was written."""
    store, record = Store(tmp_path), make()
    store.write(record, {})
    path = only_file(store)
    whole = path.read_bytes()
    for place in range(0, len(whole), 11):
        for bit in (1, 32):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            found = Store(tmp_path).read(record.spec_id)
            assert found is None or (found == record and whole[place : place + 1].isspace()), (place, bit)


def test_a_sealed_record_that_was_edited_is_refused(tmp_path):
    store = Store(tmp_path)
    store.write(make(), {})
    path = only_file(store)
    path.write_text(path.read_text().replace('"main_score": 0.5', '"main_score": 0.6'))
    assert store.records() == []
    ((_, why),) = store.rejected
    assert why == "is not as it was written: it does not hash to its content_sha256"


def test_mteb_reads_a_sealed_result_as_its_own(tmp_path):
    from mteb.results import TaskResult

    result = {"dataset_revision": "1", "task_name": "STS12", "mteb_version": "2.26.24", "evaluation_time": 1.0}
    score = {"main_score": 0.5, "hf_subset": "default", "languages": ["eng-Latn"]}
    Store(tmp_path).write(make(task="STS12"), {**result, "scores": {"test": [score]}})
    (path,) = tmp_path.glob("mteb/*/*/STS12.json")
    assert TaskResult.from_disk(path).get_score() == 0.5


def test_bytes_that_are_no_text_and_folders_are_rejected_too(tmp_path):
    folder = tmp_path / "runs" / "b" / "t"
    folder.mkdir(parents=True)
    (folder / "bytes.json").write_bytes(b"\xff\xfe\x00")
    (folder / "folder.json").mkdir()
    store = Store(tmp_path)
    assert store.records() == []
    assert [path.name for path, _ in store.rejected] == ["bytes.json", "folder.json"]


def test_a_record_of_the_first_schema_is_refused_by_name_and_stands_in_nobodys_way(tmp_path):
    store = Store(tmp_path)
    old = make()
    store.write(old, {})
    held = json.loads(unsealed_text(only_file(store)))
    held["schema_version"] = 1
    del held["training"], held["overlap"], held["spec"]["weights_sha256"]
    only_file(store).rename(path := only_file(store).with_name(f"mean-{'0' * 16}.json"))
    path.write_text(json.dumps(held))
    store.write(old, {})
    assert store.records() == [old]
    assert store.read("0" * 16) is None
    assert [why.startswith("was written by an older version") for _, why in store.rejected] == [True]


def test_a_record_of_a_trained_cell_comes_back_equal(tmp_path):
    record = trained(overlap=overlap(3, 1, 0.1 + 0.2), training=training(seconds=1e-9), weights="ab" * 32)
    Store(tmp_path).write(record, {})
    assert Store(tmp_path).records() == [record]


def test_logs_and_weights_of_trainings_are_neither_records_nor_suites(tmp_path):
    store = Store(tmp_path)
    store.write(make(), {})
    for name in ("training/a.jsonl", "training/b/c.json", "trained/a/b/c.json", "samples/a/b/c.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{")
    assert (store.records(), store.suites(), store.rejected) == ([make()], [], [])


def test_words_with_slashes_are_not_paths(tmp_path):
    record = make(processor="Intel / AMD 3/4", platform="and/or", task="org/task", method="a / b")
    Store(tmp_path).write(record, {})
    assert Store(tmp_path).records() == [record]


def test_a_record_that_would_be_refused_is_not_written(tmp_path):
    with pytest.raises(InputError, match="holds the path '/data/x'"):
        Store(tmp_path).write(make(processor="/data/x"), {})
    forged = make().model_copy(update={"spec_id": "0" * 16})
    with pytest.raises(InputError, match="specification hashes to"):
        Store(tmp_path).write(forged, {})
    assert list(tmp_path.iterdir()) == []


def test_tokens_and_passwords_are_never_stored(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "the-users-own-token")
    secrets = ["hf_" + "aB3" * 11, "https://me:pass@example.org/x", "the-users-own-token", "Bearer abcdefghij"]
    for secret in secrets:
        for change in ({"prompts": {"text": secret}}, {"task": secret}, {"processor": secret}, {"method": secret}):
            with pytest.raises(InputError, match="access token or a password in record") as caught:
                Store(tmp_path).write(make(**change), {})
            assert "prompts" not in change or secret not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_second_file_of_a_cell_is_rejected(tmp_path):
    store = Store(tmp_path)
    store.write(make(), {})
    path = only_file(store)
    path.with_name("z.json").write_text(path.read_text())
    assert store.records() == [make()]
    assert [(p.name, "second file" in why) for p, why in store.rejected] == [("z.json", True)]


def test_only_quarantine_moves_rejected_files_and_it_overwrites_nothing(tmp_path):
    store = Store(tmp_path)
    store.write(make(), {})
    path = only_file(store)
    kept = []
    for content in ("first", "second"):
        path.write_text(content)
        store.records()
        assert path.exists()
        kept += store.quarantine()
        assert not path.exists()
    assert [place.read_text() for place in kept] == ["first", "second"]
    assert all(place.is_relative_to(tmp_path / "quarantine") for place in kept)
    assert (store.records(), store.rejected) == ([], [])


def test_records_of_other_versions_and_second_files_are_left_where_they_are(tmp_path):
    store = Store(tmp_path)
    store.write(make(), {})
    path = only_file(store)
    path.with_name("z.json").write_text(path.read_text())
    held = {**json.loads(unsealed_text(path)), "schema_version": 3}
    path.with_name("newer.json").write_text(sealed_text(held))
    assert store.records() == [make()]
    assert len(store.rejected) == 2
    assert store.quarantine() == store.damaged == []
    assert len(list(path.parent.iterdir())) == 3


def test_a_file_that_another_run_has_moved_away_is_no_error(tmp_path):
    one, other = Store(tmp_path), Store(tmp_path)
    one.write(make(), {})
    only_file(one).write_text("{")
    assert one.records() == other.records() == []
    assert len(one.quarantine()) == 1
    assert other.quarantine() == []


@pytest.mark.parametrize("link", ["runs", "samples/a", "training/a.jsonl", "leaderboards/deep/er", "README.md"])
def test_a_link_that_leads_out_is_refused_before_anything_is_written(tmp_path, link):
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    place = out / link
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(outside, target_is_directory=True)
    with pytest.raises(InputError, match="is a link that leads out of"):
        Store(out).require_writable()
    with pytest.raises(InputError, match="is a link that leads out of"):
        rebuild(Store(out))
    assert list(outside.iterdir()) == []


def test_links_that_stay_inside_and_links_of_the_users_own_are_no_matter(tmp_path):
    out = tmp_path / "real"
    (out / "elsewhere").mkdir(parents=True)
    (out / "runs").symlink_to(out / "elsewhere")
    (out / ".venv").symlink_to("/usr")
    (tmp_path / "out").symlink_to(out)  # the folder itself may be a link: the user named it
    store = Store(tmp_path / "out")
    store.require_writable()
    store.write(make(), {})
    assert store.records() == [make()]


def test_a_mended_file_is_no_longer_rejected(tmp_path):
    store = Store(tmp_path)
    store.write(make(), {})
    only_file(store).write_text("{")
    assert (store.records(), len(store.rejected)) == ([], 1)
    store.write(make(), {})
    assert (store.records(), store.rejected) == ([make()], [])


@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failing_write_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch, call, failure):
    store = Store(tmp_path)
    store.write(make(), {})
    before = only_file(store).read_bytes()

    def fail(*_):
        raise failure

    monkeypatch.setattr(os, call, fail)
    wanted = InputError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(wanted) as caught:
        store.write(make(), {})
    assert wanted is KeyboardInterrupt or "free some space" in str(caught.value)
    assert only_file(store).read_bytes() == before
    assert temporaries(tmp_path) == []


def test_what_json_cannot_hold_fails_before_the_disk_is_touched(tmp_path):
    with pytest.raises(TypeError):
        Store(tmp_path).write(make(), {"scores": object()})
    assert list(tmp_path.iterdir()) == []


def test_no_record_is_on_disk_before_the_result_of_mteb(tmp_path, monkeypatch):
    placed = []
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (placed.append(new), real(old, new)))
    Store(tmp_path).write(make(), {})
    assert [path.relative_to(tmp_path).parts[0] for path in placed] == ["mteb", "runs"]


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="--out"):
        Store(tmp_path / "out")
    with pytest.raises(InputError, match="--out"):
        Store(tmp_path / "out" / "deeper").require_writable()
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="--out"):
        Store(tmp_path / "out").require_writable()


def test_suites_are_remembered_in_order_and_the_last_call_counts(tmp_path):
    store = Store(tmp_path)
    store.remember_suite("sts", "old", ["A"])
    store.remember_suite("sts", "English STS", ["B", "A", "B"])
    store.remember_suite("STS", "another", ("A",))
    assert store.suites() == [
        AskedSuite("STS", "another", ("A",)),
        AskedSuite("sts", "English STS", ("B", "A")),
    ]


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "x"}', '{"name": 1, "title": "", "tasks": []}'])
def test_a_damaged_suite_is_rejected(tmp_path, text):
    store = Store(tmp_path)
    store.remember_suite("sts", "t", ["A"])
    (tmp_path / "suites" / "sts.json").write_text(text)
    assert store.suites() == []
    assert [path.name for path, _ in store.rejected] == ["sts.json"]


HOSTILE = ["../x", "..", ".", "/etc/passwd", "a/../b", "a\\b", "a:b", "", " ", "a b", "a\x00", "a\n"]
HOSTILE += ["con", "CON", "nul.json", " com1.x", "STS12", "sts12", "Sts12", "a.", "a", "A", ".a", "-a"]
HOSTILE += ["x" * 500, "x" * 501, "é", "e\u0301", "日本", "本日"]


def test_slugs_are_safe_names_that_differ_even_without_case():
    slugs = [slug(text) for text in [*HOSTILE, *map(slug, HOSTILE)]]
    for name in slugs:
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._+=-")
        assert name[0].isalnum()
        assert name[-1].isalnum()
        assert len(name) <= 71
        assert name.split(".")[0] not in {"con", "nul", "com1"}
    assert len({name.lower() for name in slugs}) == len({*HOSTILE, *map(slug, HOSTILE)})


def test_a_plain_name_is_its_own_slug():
    assert slug("mean+whiten") == "mean+whiten"
    assert slug("stsb-v2.1") == "stsb-v2.1"
    assert slug("sentence-transformers/all-MiniLM-L6-v2").startswith("sentence-transformers-all-minilm-l6-v2-")


def test_hostile_names_stay_inside_the_folder(tmp_path):
    """Of methods, tasks, backbones, revisions and suites, in everything that a report writes too."""
    out = tmp_path / "a" / "b" / "out"
    hostile = ["..", "a/../../../b", "con", "..\\..\\x", "$(touch x)"]
    for name in hostile:
        record = make(method=name, task=name.replace("/", "|"), backbone={"name": name.replace("/", "|")})
        Store(out).write(record, {})
        Store(out).remember_suite(name, name, [name.replace("/", "|")])
    boards, files = rebuild(Store(out))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["out"]
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "leaderboards", "locks", "mteb", "runs", "scores.csv", "scores.parquet", "suites",
    ]  # fmt: skip
    assert len(Store(out).records()) == len(boards) == len(hostile)
    assert all(path.resolve().is_relative_to(out) for path in files)
