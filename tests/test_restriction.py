from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from fusebench.benchmarks.mteb_bridge import judge
from fusebench.benchmarks.restriction import restrictable, restricted
from fusebench.errors import InputError


@pytest.fixture
def lookup():
    """A vector of its own for every text, the same each time."""
    known = {}
    rng = np.random.default_rng(0)

    def vectors(role, texts):
        return np.stack([known.setdefault(text, rng.normal(size=8)) for text in texts]).astype(np.float32)

    return vectors


def score(task, lookup):
    return judge(task, lookup, name="mean", revision="0", experiment={}).main_score


def cosine(left, right):
    return (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


def test_the_score_of_a_part_is_spearmans_correlation_on_those_pairs(tiny, lookup):
    records = [{**row, "score": (7 * i) % 5} for i, row in enumerate(tiny.pairs(40))]
    tiny.write_sts("Own", records)
    task = tiny.load("Own")
    keep = np.random.default_rng(1).random(40) < 0.4
    kept = [record for record, one in zip(records, keep, strict=True) if one]
    left, right = (lookup("text", [record[key] for record in kept]) for key in ("sentence1", "sentence2"))
    expected = spearmanr(cosine(left, right), [record["score"] for record in kept]).statistic
    assert score(restricted(task, keep), lookup) == pytest.approx(expected, abs=1e-6)


def test_the_task_itself_stays_as_it_is(tiny, lookup):
    tiny.write_sts("Own", [{**row, "score": (7 * i) % 5} for i, row in enumerate(tiny.pairs(20))])
    task = tiny.load("Own")
    before, spec, texts = score(task, lookup), task.spec, list(task.inputs())
    part = restricted(task, np.arange(20) % 2 == 0)
    assert score(part, lookup) != before
    assert (score(task, lookup), task.spec, list(task.inputs())) == (before, spec, texts)
    assert list(part.inputs()) == texts[:20:2] + texts[20::2]


def test_a_part_has_a_hash_of_its_own_and_all_pairs_the_same(tiny):
    tiny.write_sts("Own", tiny.pairs(6))
    task = tiny.load("Own")
    some, every = (restricted(task, keep).spec for keep in (np.arange(6) > 1, np.ones(6, dtype=bool)))
    assert some.data_sha256 != task.spec.data_sha256
    assert every == task.spec


def test_empty_texts_are_counted_anew(tiny):
    records = tiny.pairs(6)
    records[0]["sentence1"] = records[4]["sentence2"] = ""
    tiny.write_sts("Own", records)
    task = tiny.load("Own", allow_empty=True)
    assert (task.empty_texts, restricted(task, np.arange(6) > 0).empty_texts) == (2, 1)


def test_subsets_and_splits_follow_one_another(tiny, tmp_path):
    rows = [{**row, "lang": "en-en"} for row in tiny.pairs(5)]
    tiny.write_jsonl(tmp_path / "STS17" / "test.jsonl", rows)
    part = restricted(tiny.load("STS17"), np.array([True, False, True, True, True]))
    assert [text for _, text in part.inputs()][:4] == ["left 0", "left 2", "left 3", "left 4"]


@pytest.mark.parametrize(
    ("keep", "fine"),
    [([0, 1], False), ([0, 1, 2], False), ([0, 1, 3], True), ([], False)],
)
def test_a_part_without_a_correlation_is_refused(tiny, keep, fine):
    tiny.write_sts("Own", [{**row, "score": max(0, i - 2)} for i, row in enumerate(tiny.pairs(6))])
    task = tiny.load("Own")
    mask = np.isin(np.arange(6), keep)
    assert restrictable(task, mask) == fine
    if not fine:
        with pytest.raises(InputError, match="no correlation"):
            restricted(task, mask)


def test_a_mask_of_another_length_is_a_mistake(tiny):
    tiny.write_sts("Own", tiny.pairs(6))
    tiny.write_retrieval("Found")
    for name in ("Own", "Found"):
        with pytest.raises(ValueError, match="is not the shape of the pairs"):
            restricted(tiny.load(name), np.ones(7, dtype=bool))
