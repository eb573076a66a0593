"""Two processes that share a batch have the loss, the gradients and in the end the weights of one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fusebench.methods import gradients as gradients_module
from fusebench.methods import training as training_module
from fusebench.methods.gradients import BatchGradients
from fusebench.methods.parts import Sampler
from fusebench.methods.precision import build_accelerators
from fusebench.methods.process_group import SharedOrder
from fusebench.methods.training import TrainingLoop
from tests.test_training import scaling
from tests.tiny_models import one_thread
from tests.tiny_training import RECIPE, SEED, rows, trained, trainee, weights_of
from tests.two_processes import in_two_processes

BATCH = np.arange(6)
LEARNED = "mean+batch-softmax(learned_temperature=true)"
GUIDED = "mean+info-nce+mdg(factor=0.5)+pdg(factor=0.3)"
QUIET = "without noise"
# Noise is on in all others: it is drawn for each part of a batch, whoever embeds it.
CASES = {
    QUIET: ("mean+info-nce", "pairs"),
    "negatives": ("layer-attention+info-nce", "pairs"),
    "both directions": (LEARNED, "triplets"),
    "two views": ("mean+simcse", "sentences"),
    "squared error": ("mean+mse-cosine", "scored-pairs"),
    "ranking": ("mean+cosent", "scored-pairs"),
    "guides": (GUIDED, "pairs"),
}
CHUNKS = {"by length": None, "chunks": 3, "one chunk": 100}
STEPS = replace(RECIPE, epochs=None, steps=5, learning_rate=1e-4, learning_rate_new=1e-3)
TRAININGS = {
    "chunks": ("layer-attention+info-nce", replace(STEPS, chunk=3)),
    "accumulated": (LEARNED, replace(STEPS, chunk=3, accumulate=2)),
    "bf16": ("mean+info-nce", replace(STEPS, chunk=3, precision="bf16")),
    "scaled loss": ("mean+info-nce+mdg(factor=1.0)", replace(STEPS, chunk=3)),  # as under fp16
    "scaled loss of one part": ("mean+info-nce", STEPS),  # the second process has nothing to embed
    "ordered by vectors": ("mean+info-nce", replace(STEPS, chunk=3)),
}


def gradients(group, case, chunk, batch=BATCH):
    """The loss and what else is logged; gradients by name before and after they are summed over a group."""
    sentence, kind = CASES[case]
    one = trainee(sentence, replace(RECIPE, chunk=CHUNKS[chunk]))
    source = trained(one, dropout=case != QUIET)
    (one.accelerator,) = build_accelerators("no", source.device, 1)
    one.set_training(True, source.trained)
    add = BatchGradients(source, one.recipe, group).add
    with pytest.MonkeyPatch.context() as patch:
        plan = gradients_module.plan_batches
        patch.setattr(gradients_module, "plan_batches", lambda lengths, budget: plan(lengths, 24))
        terms = add(one, 0, rows(kind), batch, noise=7, shared={}, with_statistics=True)
    weights = {f"fusion.{name}": weight for name, weight in one.fusion.named_parameters()}
    weights |= {f"backbone.{name}": weight for name, weight in source.trained.model.named_parameters()}
    whole = dict(one.objectives[0].named_parameters())
    before = arrays({**weights, **whole})
    if group is not None:
        group.sum_gradients([*weights.values(), *whole.values()], whole.values())
    return terms, before, arrays({**weights, **whole})


def arrays(weights):
    return {name: weight.grad.numpy().copy() for name, weight in weights.items() if weight.grad is not None}


class ByFirstNumber(Sampler):
    """Orders rows by their vectors, as the method makes them at the start of each epoch."""

    def wants_embeddings(self, epoch):
        return True

    def order(self, epoch, texts, embeddings, *, seed):
        return np.argsort(embeddings[:, 0])


def learned(group, training):
    """All weights after a training, and its losses."""
    sentence, recipe = TRAININGS[training]
    one = trainee(sentence, recipe)
    source = trained(one)
    sampler = ByFirstNumber() if training == "ordered by vectors" else None
    if group is not None and sampler is not None:
        sampler = SharedOrder(sampler, group, source.device)
    kind = "triplets" if sentence == LEARNED else "pairs"
    with pytest.MonkeyPatch.context() as patch:
        if "scaled" in training:
            patch.setattr(training_module, "build_accelerators", scaling)
        TrainingLoop([one], [rows(kind)], source, seed=SEED, sampler=sampler, group=group).run()
    assert one.failure is None, one.failure
    return {name: tensor.numpy() for name, tensor in weights_of(one, source).items()}, one.losses


def everything(group):
    """All that these tests look at, from one pair of processes."""
    with one_thread():
        batches = {(case, chunk): gradients(group, case, chunk) for case in CASES for chunk in CHUNKS}
        trainings = {training: learned(group, training) for training in TRAININGS}
    return batches, trainings


@pytest.fixture(scope="module")
def shared():
    """By rank."""
    return in_two_processes(everything)


@pytest.fixture(scope="module")
def alone():
    return everything(None)


def assert_close(found, expected, tolerance=1e-5):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("case", CASES)
def test_two_processes_have_the_loss_and_gradients_of_one(case, chunk, shared, alone):
    terms, _, expected = alone[0][case, chunk]
    for batches, _ in shared:
        found_terms, _, found = batches[case, chunk]
        assert found_terms == pytest.approx(terms, rel=1e-5, abs=1e-6)
        assert_close(found, expected)


def test_each_process_works_on_a_part_and_neither_has_the_gradients_before_they_are_summed(shared, alone):
    _, _, expected = alone[0]["negatives", "chunks"]
    name = "backbone.embeddings.word_embeddings.weight"
    first, second = (batches["negatives", "chunks"][1][name] for batches, _ in shared)
    for part in (first, second):
        assert np.abs(part).max() > 0
        assert not np.allclose(part, expected[name], atol=1e-3 * np.abs(expected[name]).max())
    np.testing.assert_allclose(first + second, expected[name], rtol=1e-5, atol=1e-5)


def test_negatives_come_from_both_processes(shared, alone):
    """More negatives make the loss of every row larger: that of halves of the batch, each by itself, is too small."""
    local = [gradients(None, QUIET, "chunks", half)[0]["loss"] for half in (BATCH[:3], BATCH[3:])]
    expected = alone[0][QUIET, "chunks"][0]["loss"]
    assert expected > np.mean(local) + 0.1
    for batches, _ in shared:
        assert batches[QUIET, "chunks"][0]["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("training", TRAININGS)
def test_two_processes_learn_what_one_learns_and_both_the_same_bits(training, shared, alone):
    expected, losses = alone[1][training]
    (first, first_losses), (second, _) = (trainings[training] for _, trainings in shared)
    assert_close(first, expected, 1e-2 if training == "bf16" else 1e-4)
    assert first_losses == pytest.approx(losses, rel=1e-2 if training == "bf16" else 1e-4)
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


def orders(group):
    """An order that differs in the two processes, as told to both; and terms that only one of them has."""

    class Own(Sampler):
        def order(self, epoch, texts, embeddings, *, seed):
            return np.roll(np.arange(4), group.rank + 1)

    order = SharedOrder(Own(), group, torch.device("cpu")).order(0, ["a"] * 4, None, seed=0)
    return order.tolist(), group.sum_terms({"both": 1.0 + group.rank} | ({"one": 5.0} if group.rank else {}))


def test_the_first_process_makes_the_order_and_terms_are_summed_by_name():
    assert in_two_processes(orders) == [([3, 0, 1, 2], {"both": 3.0, "one": 5.0})] * 2
