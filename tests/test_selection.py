"""The weights that are kept are those of the best look at the dev rows."""

import math

import numpy as np
import pytest
import torch

from fusebench.methods.parts import Fusion
from fusebench.methods.precision import build_accelerators
from fusebench.methods.recipe import Recipe
from fusebench.methods.selection import Selection, current_vectors
from tests.tiny_models import one_thread
from tests.tiny_training import RECIPE, assert_bitwise, pooled, rows, train, trained, trainee, weights_of

DEV = rows("scored-pairs", seed=2)


@pytest.fixture(autouse=True, scope="module")
def _on_one_thread():
    with one_thread():
        yield


@pytest.mark.parametrize(
    ("every", "total", "looks"),
    [
        (None, 1, [1]),
        (None, 3, [1, 2, 3]),
        (None, 4, [1, 2, 3, 4]),
        (None, 7, [2, 4, 6, 7]),
        (None, 100, [25, 50, 75, 100]),
        (3, 7, [3, 6, 7]),
        (50, 7, [7]),
    ],
)
def test_looks_are_evenly_spaced_and_the_end_is_one(every, total, looks):
    due = Selection(DEV, every).is_due
    assert [done for done in range(1, total + 1) if due(done, total)] == looks


def looks_of(sentence, recipe, source_of, every=1):
    """Scores at each look, and the weights at the time."""
    events, history = {}, {}
    one = trainee(sentence, recipe)
    source = source_of(one)

    def log(name, event):
        if "dev_score" in event:
            events[event["update"]] = event["dev_score"]
            history[event["update"]] = weights_of(one, source)

    train([one], [rows()], source, selection=Selection(DEV, every), log=log)
    return one, source, events, history


@pytest.mark.parametrize(
    ("sentence", "source_of"),
    [("mlp+info-nce", lambda one: pooled("mlp")), ("mlp+info-nce", trained)],
    ids=["frozen", "finetune"],
)
def test_the_weights_of_the_best_look_are_kept_where_later_ones_are_worse(sentence, source_of):
    """Ten times too fast a training on random rows goes up and down on rows of other labels."""
    recipe = Recipe(steps=12, batch_size=4, learning_rate=1e-2, learning_rate_new=0.1)
    one, source, events, history = looks_of(sentence, recipe, source_of)
    best = max(events, key=events.get)  # the first of equals
    assert best != max(events)
    assert (one.best_update, one.dev_score) == (best, events[best])
    assert_bitwise(weights_of(one, source), history[best])
    assert one.best == {}


class Spoiled(torch.nn.Linear):
    """A linear head whose vectors are spoiled from an evaluation on: (of its calls without noise)."""

    layers, out_dim = (3,), 32
    layer_shares = Fusion.layer_shares

    def __init__(self, how, calls):
        super().__init__(32, 32)
        self.how, self.calls, self.seen = how, calls, 0

    def forward(self, states):
        vectors = super().forward(states.mean(3))
        if self.training:
            return vectors
        self.seen += 1
        if self.seen in self.calls:
            return vectors * torch.nan if self.how == "nan" else torch.ones_like(vectors)
        return vectors


@pytest.mark.parametrize("how", ["nan", "alike"])
def test_weights_that_cannot_be_scored_are_never_the_best(how):
    one, events = trainee("mlp+info-nce", Recipe(steps=3, batch_size=4)), []
    one.fusion = Spoiled(how, {1, 3})
    train([one], [rows()], pooled("mlp"), selection=Selection(DEV, 1), log=lambda name, event: events.append(event))
    scores = [event["dev_score"] for event in events if "dev_score" in event]
    assert [score is None for score in scores] == [True, False, True]
    assert (one.best_update, one.dev_score, one.failure) == (2, scores[1], None)
    assert math.isfinite(one.dev_score)


@pytest.mark.parametrize("how", ["nan", "alike"])
def test_a_method_that_is_never_scored_has_failed_and_the_others_have_not(how):
    bad, good = trainee("mlp+info-nce", name="bad"), trainee("mlp+info-nce", name="good")
    bad.fusion = Spoiled(how, range(100))
    train([bad, good], [rows()], pooled("mlp"), selection=Selection(DEV))
    assert "no look at the dev rows" in str(bad.failure)
    assert good.failure is None
    assert good.best_update is not None


def test_looking_changes_nothing_of_what_is_learned():
    found = []
    for selection in (None, Selection(DEV, 1)):
        one = trainee("layer-attention+info-nce")
        source = trained(one)
        last = {}
        train(
            [one],
            [rows()],
            source,
            selection=selection,
            log=lambda name, event, last=last: last.update(loss=event["loss"]) if "loss" in event else None,
        )
        found.append((one.losses, last))
    assert found[0] == found[1]


def test_current_vectors_are_those_of_the_method_without_noise_in_the_order_asked_for():
    one, source = trainee("layer-attention+info-nce", RECIPE), pooled("layer-attention")
    train([one], [rows()], source)
    train([one], [rows()], source)  # and whatever it has learnt by now
    numbers = np.array([9, 2, 2, 17])
    (one.accelerator,) = build_accelerators("no", source.device, 1)
    ((found, vectors),) = current_vectors([one], source, numbers)
    assert found is one
    with torch.no_grad():
        expected = [one.fusion.eval()(source.states(np.array([n]), None))[0].numpy() for n in numbers]
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)
