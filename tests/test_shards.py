from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fusebench.errors import InputError
from fusebench.methods.batching import plan_batches
from fusebench.methods.engine import SharedPass
from fusebench.methods.gradients import seeded
from fusebench.methods.grammar import parse
from fusebench.study.shards import MergedPass, encode_shard, index_pass, statistics_of
from tests.tiny_models import backbone_of

WORDS = [f"w{i}" for i in range(40)]
BUDGET = 96
# Of the stored means and first tokens: a mean, a product of matrices, attention. Of the live batch: two.
SENTENCES = ["mean", "layer-attention(untrained)", "mlp(untrained)", "max", "hire(untrained)"]


def texts_of(count):
    generator = np.random.default_rng(0)
    made = [" ".join(generator.choice(WORDS, generator.integers(1, 12))) for _ in range(count)]
    return [*made, *made[:7], "W3 w4", "w3 w4"]  # repetitions, and two texts of the same tokens


TEXTS = texts_of(600)


def fusions(*sentences):
    with seeded(0, torch.device("cpu")):
        return {name: parse(name).build_fusion(backbone_of("bert").shape).eval() for name in sentences}


def one_pass(*sentences, texts=TEXTS):
    shared = SharedPass(backbone_of("bert"), fusions(*sentences), batch_tokens=BUDGET)
    shared.ensure(texts)
    return shared


def merged(workers, *sentences, texts=TEXTS, read=None):
    backbone = backbone_of("bert")
    index = index_pass(backbone, texts, None, batch_tokens=BUDGET, workers=workers)
    distinct = list(dict.fromkeys(texts))
    shards = [
        encode_shard(backbone, fusions(*sentences), index.texts_of(number, distinct), batch_tokens=BUDGET)
        for number in range(len(index.shards))
    ]
    return MergedPass(backbone, fusions(*(read or sentences)), texts, index, shards, BUDGET)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(1, 400), st.randoms())
def test_some_batches_of_a_plan_are_planned_alone_as_the_same_batches(lengths, budget, random):
    batches = plan_batches(lengths, budget)
    some = [batch for batch in batches if random.random() < 0.5] or batches[-1:]
    inputs = np.concatenate(some)
    again = plan_batches(np.array(lengths)[inputs], budget)
    assert [inputs[batch].tolist() for batch in again] == [batch.tolist() for batch in some]


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_vectors_from_shards_are_those_of_one_pass_to_the_last_bit(workers):
    whole, parts = one_pass(*SENTENCES), merged(workers, *SENTENCES)
    assert len(parts.shards) == workers
    assert len(parts.index.lengths) > 512
    assert np.array_equal(parts.rows(TEXTS), whole.rows(TEXTS))
    for name in SENTENCES:
        assert np.array_equal(parts.vectors(name), whole.vectors(name)), name


def test_a_method_is_read_from_shards_that_served_others_too():
    assert np.array_equal(merged(3, *SENTENCES, read=["max"]).vectors("max"), one_pass("max").vectors("max"))


def test_each_input_is_in_one_shard_and_shards_cost_about_the_same():
    index = merged(4, "mean").index
    assert sorted(np.concatenate(index.shards)) == list(range(len(index.lengths)))
    tokens = [index.lengths[shard].sum() for shard in index.shards]
    assert max(tokens) - min(tokens) <= 2 * BUDGET


def test_there_are_no_more_shards_than_batches():
    assert len(merged(9, "mean", texts=["w1 w2", "w3", "w4"]).shards) == 1


def test_what_is_counted_is_what_one_pass_counts():
    whole, parts = one_pass("mean", "max"), merged(3, "mean", "max")
    for name in ("texts", "distinct_texts", "distinct_inputs", "truncated", "tokens", "padded_tokens", "batches"):
        assert getattr(parts.statistics, name) == getattr(whole.statistics, name), name
    assert parts.statistics.effective_batch_tokens == BUDGET
    some = TEXTS[10:40]
    assert parts.token_share(some) == whole.token_share(some)


def test_seconds_of_shards_add_up():
    shards = merged(3, "mean", "max").shards
    whole = statistics_of(merged(3, "mean").index, [shard.statistics for shard in shards])
    assert whole.seconds == pytest.approx(sum(shard.statistics.seconds for shard in shards))
    assert whole.fusion_seconds["max"] == pytest.approx(sum(s.statistics.fusion_seconds["max"] for s in shards))


def test_cut_texts_are_counted():
    long = [" ".join(WORDS * 8), "w1"]
    assert merged(2, "mean", texts=long).truncated(long) == one_pass("mean", texts=long).truncated(long) == 1


def test_a_text_that_was_not_announced_is_run_when_it_is_asked_for():
    whole, parts = one_pass("mean", "max"), merged(2, "mean", "max")
    late = ["w9 w8 w7 w6 w5 w9", TEXTS[3]]
    rows, expected = parts.rows(late), whole.rows(late)
    for name in ("mean", "max"):
        assert np.array_equal(parts.vectors(name)[rows], whole.vectors(name)[expected])


def test_a_fusion_that_fails_in_a_shard_fails_alone(monkeypatch):
    broken = fusions("max")["max"]
    monkeypatch.setattr(type(broken), "forward", lambda self, states: 1 / 0)
    parts = merged(2, "mean", "max")
    assert np.isfinite(parts.vectors("mean")).all()
    with pytest.raises(InputError, match="ZeroDivisionError: division by zero"):
        parts.vectors("max")
