"""A training that was interrupted ends, once run again, bitwise where it would have ended."""

from dataclasses import replace

import pytest
import torch

from fusebench.errors import InputError
from fusebench.methods import checkpoint as files
from fusebench.methods.grammar import parse
from fusebench.methods.recipe import Recipe
from fusebench.methods.selection import Selection
from fusebench.methods.training import TrainingLoop
from tests.tiny_models import one_thread
from tests.tiny_training import assert_bitwise, pooled, rows, train, trained, trainee, weights_of

SHORT = Recipe(steps=6, batch_size=4, learning_rate=1e-3, learning_rate_new=1e-2)
DEV = Selection(rows("scored-pairs", seed=2), every=2)


@pytest.fixture(autouse=True, scope="module")
def _on_one_thread():
    with one_thread():
        yield


class Interruption(Exception):  # noqa: N818  not an error
    pass


class WritesAt(TrainingLoop):
    """Writes its checkpoint after some updates only."""

    places = frozenset()

    def write_checkpoint(self, stage, updates, stream):
        if self._done(stage, updates - 1) in self.places:
            super().write_checkpoint(stage, updates, stream)


def two_stages_side_by_side():
    names = ("layer-attention", "scalar-mix")
    sentences = [f"{name}+batch-softmax(learned_temperature=true)+mse-cosine" for name in names]
    source = pooled(*names)
    stages = [rows(), rows("scored-pairs", seed=4)]
    return [trainee(one, SHORT) for one in sentences], stages, source, {"selection": DEV}


def clusters():
    sentence = "mlp+info-nce+cluster-shuffling(clusters=3,group_size=2)"
    recipe = replace(SHORT, accumulate=2)
    sampler = parse(sentence).build_sampler()
    return [trainee(sentence, recipe)], [rows()], pooled("mlp"), {"sampler": sampler, "selection": DEV}


def finetuned():
    one = trainee(
        "layer-attention+batch-softmax(learned_temperature=true)+mdg+example-shuffling", replace(SHORT, chunk=5)
    )
    sampler = parse("mean+info-nce+example-shuffling").build_sampler()
    return [one], [rows()], trained(one), {"sampler": sampler, "selection": DEV}


def finetuned_in_stages():
    one = trainee("mean+mse-cosine+batch-softmax(learned_temperature=true)", SHORT)
    return [one], [rows("scored-pairs", seed=4), rows()], trained(one), {}


def outcome(trainees, source):
    # A stage that was over before is not gone through again, and its temperature is nobody's any more.
    return [(weights_of(one, source), dict(one.objectives[-1].state_dict()), one) for one in trainees]


def assert_same_end(found, expected):
    for (weights, temperature, one), (their_weights, their_temperature, other) in zip(found, expected, strict=True):
        assert_bitwise(weights, their_weights)
        assert (one.losses, one.dev_score, one.best_update) == (other.losses, other.dev_score, other.best_update)
        assert str(one.failure) == str(other.failure)
        assert_bitwise(temperature, their_temperature)


@pytest.mark.parametrize("build", [two_stages_side_by_side, clusters, finetuned, finetuned_in_stages])
@pytest.mark.parametrize("gap", [1, 3])
def test_it_ends_where_it_would_have_ended_wherever_it_was_interrupted(build, gap, tmp_path):
    """Interrupted at each update in turn, `gap` updates after the last checkpoint."""
    trainees, stages, source, settings = build()
    train(trainees, stages, source, **settings)
    expected = outcome(trainees, source)
    path = tmp_path / "one.safetensors"
    for kill in range(gap, 7):
        WritesAt.places = {kill - gap}

        def stop(done, total, kill=kill):
            if done == kill:
                raise Interruption

        keeping = {"checkpoint": path, "checkpoint_seconds": 0.0}
        trainees, stages, source, settings = build()
        with pytest.raises(Interruption):
            train(trainees, stages, source, kind=WritesAt, progress=stop, **keeping, **settings)
        assert path.exists() == (kill > gap)
        trainees, stages, source, settings = build()
        seen = []
        train(trainees, stages, source, progress=lambda *done, seen=seen: seen.append(done), **keeping, **settings)
        assert seen[0] == (max(0, kill - gap) + 1, 6)
        assert_same_end(outcome(trainees, source), expected)
        path.unlink(missing_ok=True)


def interrupted(path, trainees, at=4, *, source=None, stages=None):
    """Leaves a checkpoint of the update before."""

    def stop(done, total):
        if done == at:
            raise Interruption

    with pytest.raises(Interruption):
        train(
            trainees,
            stages or [rows()],
            source or pooled("mlp"),
            progress=stop,
            checkpoint=path,
            checkpoint_seconds=0.0,
        )
    assert path.exists()


def first_update(path, trainees, **settings):
    seen = []
    settings = {"stages": [rows()], "source": pooled("mlp"), **settings}
    train(trainees, checkpoint=path, progress=lambda done, total: seen.append(done), **settings)
    return seen[0]


def test_a_method_that_had_failed_stays_so(tmp_path):
    path = tmp_path / "one.safetensors"

    def build():
        bad = trainee("mlp+batch-softmax(learned_temperature=true)+mse-cosine", SHORT, name="bad")
        return [bad, trainee("mlp+batch-softmax+mse-cosine", SHORT, name="good")]

    two, stages = build(), [rows(), rows("scored-pairs", seed=4)]
    two[0].fusion.widen.weight.data.fill_(torch.nan)
    interrupted(path, two, 5, stages=stages)  # in the second stage, in which the failed one has no optimizer
    again = build()
    assert first_update(path, again, stages=stages) == 5
    assert "loss is nan" in str(again[0].failure)
    assert again[0].losses == []
    alone = build()[1]
    train([alone], stages, pooled("mlp"))
    assert_bitwise(weights_of(again[1]), weights_of(alone))


def test_the_checkpoint_of_others_is_ignored_and_replaced(tmp_path):
    path = tmp_path / "one.safetensors"
    interrupted(path, [trainee("mlp+info-nce", SHORT, name="others")])
    one = trainee("mlp+info-nce", SHORT, name="ours")
    assert first_update(path, [one]) == 1
    alone = trainee("mlp+info-nce", SHORT)
    train([alone], [rows()], pooled("mlp"))
    assert_bitwise(weights_of(one), weights_of(alone))


def test_a_truncated_checkpoint_is_refused_and_not_deleted(tmp_path):
    path = tmp_path / "one.safetensors"
    interrupted(path, [trainee("mlp+info-nce", SHORT)])
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InputError, match="delete it to train again"):
        first_update(path, [trainee("mlp+info-nce", SHORT)])
    assert path.exists()


@pytest.mark.parametrize("facts", [{}, {"schema": 1, "names": ["mlp+info-nce"]}])
def test_a_file_that_is_no_checkpoint_is_refused(facts, tmp_path):
    path = tmp_path / "one.safetensors"
    files.write_tensors(path, {"a": torch.ones(1)}, facts)
    with pytest.raises(InputError, match="is no checkpoint of a training; delete it"):
        first_update(path, [trainee("mlp+info-nce", SHORT)])


def test_a_checkpoint_of_another_schema_is_ignored(tmp_path):
    path = tmp_path / "one.safetensors"
    files.write_tensors(path, {"a": torch.ones(1)}, {"schema": 0, "names": ["mlp+info-nce"]})
    assert first_update(path, [trainee("mlp+info-nce", SHORT)]) == 1


def test_checkpoints_are_written_no_more_often_than_asked_for(tmp_path):
    written = []

    class Counting(TrainingLoop):
        def write_checkpoint(self, stage, updates, stream):
            super().write_checkpoint(stage, updates, stream)
            written.append(updates)

    for seconds in (0.0, 1e6):
        train(
            [trainee("mlp+info-nce", SHORT)],
            [rows()],
            pooled("mlp"),
            kind=Counting,
            checkpoint=tmp_path / "one",
            checkpoint_seconds=seconds,
        )
    assert written == [1, 2, 3, 4, 5, 6]


def test_the_checkpoint_stays_until_the_weights_are_safe_elsewhere(tmp_path):
    path = tmp_path / "one.safetensors"
    interrupted(path, [trainee("mlp+info-nce", SHORT)])
    one = trainee("mlp+info-nce", SHORT)
    loop = TrainingLoop([one], [rows()], pooled("mlp"), seed=3, checkpoint=path)
    loop.run()
    assert path.exists()
    loop.forget()
    assert not path.exists()
