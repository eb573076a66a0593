"""A pass that was cut off goes on where its journal ends, and gives what it would have given."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from fusebench.benchmarks.store import Store
from fusebench.methods import engine
from fusebench.methods.engine import SharedPass
from fusebench.study.pass_journal import PassJournal, PassJournals
from tests.test_engine import Counted, fusions_of, limit_rows, texts_of
from tests.tiny_models import backbone_of

SENTENCES = ["mean", "cls(layer=1)", "max", "sbert-wk"]
TEXTS = texts_of(60, seed=3)


@pytest.fixture
def bert():
    return backbone_of("bert")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def journal(store, names=SENTENCES, **settings):
    given = {"room": 10**9, "seconds": 0.0} | settings
    return PassJournal(store.out / "checkpoints" / "pass-x", "part", {n: n for n in names}, store=store, **given)


def passed(backbone, kept, sentences=SENTENCES, **settings):
    settings = {"batch_tokens": 200, "workers": 1} | settings
    return SharedPass(backbone, fusions_of(backbone, sentences), journal=kept, **settings)


def vectors(shared, texts=TEXTS):
    rows = shared.rows(texts)
    return {name: shared.vectors(name)[rows] for name in shared.fusions}


def cut_off(backbone, monkeypatch, kept, after, **settings):
    """A pass that dies after so many batches, as far as its journal can tell: it is never told of the end."""
    states, calls = backbone.states, []

    def dying(ids, *more):
        calls.append(len(ids))
        if len(calls) > after:
            raise KeyboardInterrupt
        return states(ids, *more)

    with monkeypatch.context() as patch:
        patch.setattr(backbone, "states", dying)
        patch.setattr(kept, "flush", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            passed(backbone, kept, **settings).ensure(TEXTS)


@pytest.mark.parametrize("after", [1, 4])
def test_it_goes_on_and_gives_what_it_would_have_given_bit_for_bit(bert, store, monkeypatch, after):
    whole = vectors(passed(bert, None))
    cut_off(bert, monkeypatch, journal(store), after)
    counted = Counted(bert, monkeypatch)
    resumed = passed(bert, journal(store))
    found = vectors(resumed)
    assert all(np.array_equal(found[name], whole[name]) for name in SENTENCES)
    batches = len(engine.plan_batches(resumed.lengths(TEXTS), 200))
    assert counted.calls == batches - after
    assert resumed.statistics.tokens == resumed.lengths(TEXTS).sum()


def test_a_pass_that_is_whole_is_not_run_again_also_for_fewer_methods_and_texts(bert, store, monkeypatch):
    whole = vectors(passed(bert, journal(store)))
    counted = Counted(bert, monkeypatch)
    found = vectors(passed(bert, journal(store), ["cls(layer=1)", "max"]), TEXTS[:20])
    assert counted.calls == 0
    assert all(np.array_equal(found[name], whole[name][:20]) for name in found)
    passed(bert, journal(store), ["mean(layer=2)"]).ensure(TEXTS)
    assert counted.calls > 0


def test_other_weights_of_a_head_take_nothing_over(bert, store, monkeypatch):
    passed(bert, journal(store)).ensure(TEXTS)
    counted = Counted(bert, monkeypatch)
    other = PassJournal(store.out / "checkpoints" / "pass-x", "part", {"max": "other"}, room=10**9, store=store)
    passed(bert, other, ["max"]).ensure(TEXTS)
    assert counted.calls > 0


def test_vectors_of_a_fusion_that_failed_are_never_taken_over(bert, store, monkeypatch):
    def fail(states):
        raise ValueError("planted")

    broken = passed(bert, journal(store))
    monkeypatch.setattr(broken.live["max"], "forward", fail)
    broken.ensure(TEXTS)
    mended = passed(bert, journal(store))
    assert np.array_equal(vectors(mended)["max"], vectors(passed(bert, None))["max"])


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign"])
def test_a_damaged_file_goes_to_quarantine_and_its_rows_are_computed_again(bert, store, monkeypatch, damage):
    whole = vectors(passed(bert, journal(store)))
    path = sorted(store.out.glob("checkpoints/pass-x/*"))[2]
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes({"cut": content[:-9], "flipped": content, "foreign": b"{}"}[damage])
    counted = Counted(bert, monkeypatch)
    found = vectors(passed(bert, journal(store)))
    assert all(np.array_equal(found[name], whole[name]) for name in SENTENCES)
    assert counted.calls == 1
    assert (store.out / "quarantine" / path.relative_to(store.out)).exists()


def test_a_pass_that_is_over_before_its_time_leaves_nothing(bert, store):
    passed(bert, journal(store, seconds=3600.0)).ensure(TEXTS)
    assert list(store.out.iterdir()) == []


@pytest.mark.parametrize("room", [0, 30_000])
def test_no_more_is_kept_than_there_is_room_for(bert, store, room):
    whole = vectors(passed(bert, None))
    found = vectors(passed(bert, journal(store, room=room)))
    assert all(np.array_equal(found[name], whole[name]) for name in SENTENCES)
    sizes = [path.stat().st_size for path in store.out.glob("checkpoints/pass-x/*")]
    assert bool(sizes) == bool(room)
    assert sum(sizes) < room + 1000 * len(sizes) + 1  # headers aside


def test_a_disk_that_refuses_costs_the_journal_and_not_the_run(bert, store, monkeypatch, caplog):
    def refuse(path, *_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fusebench.study.pass_journal.write_tensors", refuse)
    found = vectors(passed(bert, journal(store)))
    assert np.array_equal(found["max"], vectors(passed(bert, None))["max"])
    assert caplog.text.count("is not kept") == 1


def test_what_was_spent_before_is_counted_and_so_is_the_batch_that_fitted(bert, store, monkeypatch):
    monkeypatch.setattr(engine, "_fitting", {})
    with monkeypatch.context() as patch:
        limit_rows(bert, patch, 3)
        first = passed(bert, journal(store))
        first.ensure(TEXTS)
    engine._fitting.clear()  # another process
    again = passed(bert, journal(store))
    again.ensure(TEXTS)
    assert first.statistics.effective_batch_tokens < 200
    assert again.statistics.effective_batch_tokens == first.statistics.effective_batch_tokens
    assert again.statistics.seconds > 0.5 * first.statistics.seconds
    assert again.statistics.fusion_seconds["sbert-wk"] >= 0.99 * first.statistics.fusion_seconds["sbert-wk"]


def test_noise_of_a_batch_depends_on_no_batch_before_it(bert, store, monkeypatch):
    whole = vectors(passed(bert, None, noise_seed=7))
    assert not np.array_equal(whole["mean"], vectors(passed(bert, None))["mean"])
    assert not np.array_equal(whole["mean"], vectors(passed(bert, None, noise_seed=8))["mean"])
    cut_off(bert, monkeypatch, journal(store), 3, noise_seed=7)
    found = vectors(passed(bert, journal(store), noise_seed=7))
    assert all(np.array_equal(found[name], whole[name]) for name in SENTENCES)


def test_template_and_inputs_of_one_spelling_are_kept_apart_by_the_place_of_the_mask(bert, store):
    whole = vectors(passed(bert, None, ["prompt-mask"]))
    passed(bert, journal(store, ["prompt-mask"]), ["prompt-mask"]).ensure(TEXTS)
    found = vectors(passed(bert, journal(store, ["prompt-mask"]), ["prompt-mask"]))
    assert np.array_equal(found["prompt-mask"], whole["prompt-mask"])


def test_what_nobody_comes_back_to_is_deleted_after_a_week(store):
    folders = [store.out / "checkpoints" / f"pass-{name}" for name in ("old", "young")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "part-0.safetensors").write_text("x")
    os.utime(folders[0], (0, 0))
    PassJournals.forget_abandoned(store.out)
    assert [folder.exists() for folder in folders] == [False, True]
    shutil.rmtree(folders[1])
