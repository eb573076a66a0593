"""Gradients of a batch: chunks and accumulation change nothing, guides are added once, noise is drawn from seeds."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fusebench.methods import gradients as gradients_module
from fusebench.methods.gradients import BatchGradients, seeded
from fusebench.methods.parts import Objective
from fusebench.methods.precision import build_accelerators
from fusebench.methods.recipe import mix
from tests.tiny_models import one_thread
from tests.tiny_training import RECIPE, assert_near, pooled, rows, trained, trainee

BATCH = np.arange(6)


@pytest.fixture(autouse=True, scope="module")
def _on_one_thread():
    with one_thread():
        yield


def gradients(sentence, source_of, *, kind="pairs", recipe=RECIPE, batches=(BATCH,), noise=7, factor=None):
    """Gradients by name, what was logged of each batch, and the objective."""
    one = trainee(sentence, recipe)
    for _, guide in one.guides:
        guide.factor = guide.factor if factor is None else factor
    source = source_of(one)
    (one.accelerator,) = build_accelerators(recipe.precision, source.device, 1)
    one.set_training(True, source.trained)
    add = BatchGradients(source, recipe).add
    given = rows(kind)
    terms = [
        add(one, 0, given, batch, noise=mix(noise, k), shared={}, with_statistics=True)
        for k, batch in enumerate(batches)
    ]
    modules = {"fusion": one.fusion, "objective": one.objectives[0]}
    if source.trained is not None:
        modules["backbone"] = source.trained.model
    found = {
        f"{where}.{name}": weight.grad
        for where, module in modules.items()
        for name, weight in module.named_parameters()
        if weight.grad is not None
    }
    return found, terms


def silent(one):
    return trained(one, dropout=False)


def noisy(one):
    return trained(one)


def frozen(one):
    return pooled("mlp", "layer-attention", views=(0, 1))


CASES = [
    ("mean+info-nce", silent, "pairs"),
    ("mean+simcse-sup", silent, "triplets"),
    ("layer-attention(activation=none)+cosent", silent, "scored-pairs"),
    ("mean+batch-softmax(learned_temperature=true)", silent, "triplets"),
    ("mean+info-nce+mdg(factor=0.5)+pdg(factor=0.3)", silent, "pairs"),
    ("mlp+simcse", frozen, "sentences"),
    ("layer-attention(activation=none)+simcse", frozen, "sentences"),
    ("mlp+simcse", silent, "sentences"),
]


@pytest.mark.parametrize(("sentence", "source_of", "kind"), CASES)
def test_parts_of_similar_length_have_the_gradients_of_one_padded_batch(sentence, source_of, kind, monkeypatch):
    whole, expected = gradients(sentence, source_of, kind=kind)
    sizes = []
    plan = gradients_module.plan_batches

    def small_parts(lengths, budget):
        parts = plan(lengths, 24)
        sizes.append(len(parts))
        return parts

    monkeypatch.setattr(gradients_module, "plan_batches", small_parts)
    found, terms = gradients(sentence, source_of, kind=kind)
    assert sizes[0] > 1
    assert_near(found, whole, 1e-5)
    assert terms[0] == pytest.approx(expected[0], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("sentence", "source_of", "kind"), CASES)
@pytest.mark.parametrize(("chunk", "accumulate"), [(1, 1), (5, 1), (12, 1), (4, 2)])
def test_chunks_have_the_gradients_of_the_whole_batch(sentence, source_of, kind, chunk, accumulate):
    recipe = replace(RECIPE, accumulate=accumulate)
    batches = [BATCH[:3], BATCH[3:]] if accumulate == 2 else [BATCH]
    whole, expected = gradients(sentence, source_of, kind=kind, recipe=recipe, batches=batches)
    found, terms = gradients(sentence, source_of, kind=kind, recipe=replace(recipe, chunk=chunk), batches=batches)
    assert_near(found, whole, 1e-5)
    for term, other in zip(terms, expected, strict=True):
        assert term == pytest.approx(other, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("sentence", ["layer-attention+info-nce", "mean+info-nce+pdg", "mean+simcse"])
def test_both_passes_of_a_chunk_see_the_same_noise(sentence):
    """Every chunk is embedded twice, and the second time must give the vectors that the loss has seen."""
    recipe = replace(RECIPE, chunk=4)
    one = trainee(sentence, recipe)
    source = trained(one)
    (one.accelerator,) = build_accelerators("no", source.device, 1)
    one.set_training(True, source.trained)
    seen = []
    original = one.embed
    one.embed = lambda states: seen.append(original(states)) or seen[-1]
    kind = "sentences" if "simcse" in sentence else "pairs"
    BatchGradients(source, recipe).add(one, 0, rows(kind), BATCH, noise=1, shared={}, with_statistics=False)
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert len(first) == (4 if kind == "sentences" else 3)
    assert all(torch.equal(a, b.detach()) for a, b in zip(first, second, strict=True))
    assert not any(vectors.requires_grad for vectors in first)
    if kind == "sentences":  # its two views: chunks 0 and 1, chunks 2 and 3
        assert not torch.allclose(first[0], first[2], atol=1e-3)


def test_noise_is_drawn_from_the_seed():
    found = [gradients("mean+info-nce", noisy, noise=noise)[0] for noise in (1, 1, 2)]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert any(not torch.equal(found[0][name], found[2][name]) for name in found[0])


def test_a_text_s_two_views_are_noised_apart_where_the_backbone_learns():
    _, (terms,) = gradients("mean+simcse", noisy, kind="sentences")
    _, (clean,) = gradients("mean+simcse", silent, kind="sentences")
    assert terms["loss"] != pytest.approx(clean["loss"], abs=1e-4)


def test_two_accumulated_batches_have_the_mean_of_their_gradients():
    """Negatives come from a batch of its own each."""
    twice = replace(RECIPE, accumulate=2)
    sentence = "layer-attention+batch-softmax(learned_temperature=true)"
    found, _ = gradients(sentence, noisy, recipe=twice, batches=(BATCH[:3], BATCH[3:]))
    first, _ = gradients(sentence, noisy, batches=(BATCH[:3],))
    once = replace(RECIPE, accumulate=1)
    one = trainee(sentence, once)
    source = noisy(one)
    (one.accelerator,) = build_accelerators("no", source.device, 1)
    one.set_training(True, source.trained)
    BatchGradients(source, once).add(one, 0, rows(), BATCH[3:], noise=mix(7, 1), shared={}, with_statistics=False)
    second = {f"fusion.{name}": weight.grad for name, weight in one.fusion.named_parameters()}
    second |= {f"backbone.{name}": weight.grad for name, weight in source.trained.model.named_parameters()}
    second["objective.alpha"] = one.objectives[0].alpha.grad
    assert_near(found, {name: (first[name] + second[name]) / 2 for name in found}, 1e-5)


@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_penalty_times_its_factor_is_added_exactly_once(chunk, accumulate):
    """Gradients are linear in the factor: at factor f those of the loss plus f times those of the penalty."""
    recipe = replace(RECIPE, chunk=chunk, accumulate=accumulate)
    sentence = "mean+info-nce+mdg"
    at = {f: gradients(sentence, silent, recipe=recipe, factor=f) for f in (0.0, 1.0, 3.0)}
    plain, _ = gradients("mean+info-nce", silent, recipe=recipe)
    assert_near(at[0.0][0], plain, 1e-5)
    slope = {name: (at[1.0][0][name] - plain[name]) for name in plain}
    assert_near(at[3.0][0], {name: plain[name] + 3 * slope[name] for name in plain}, 1e-4)
    # and the slope is that of the penalty alone, computed by itself
    one = trainee(sentence)
    source = silent(one)
    columns = rows().columns[:, BATCH].reshape(-1)
    penalty = one.guides[0][1](source.states(columns, None)) / accumulate
    penalty.backward()
    for name, weight in source.trained.model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(slope[f"backbone.{name}"], weight.grad, rtol=1e-3, atol=1e-5)
    (term,) = at[3.0][1]
    assert term["mdg.penalty"] == pytest.approx(penalty.item() * accumulate, rel=1e-4)
    assert term["mdg.factor"] == 3.0
    assert term["loss"] == pytest.approx(at[0.0][1][0]["loss"], rel=1e-4)  # without the penalty


def test_no_gradient_reaches_a_frozen_backbone_and_all_of_a_trained_one_has_some():
    found, _ = gradients("layer-attention+info-nce", noisy)
    one = trainee("layer-attention+info-nce")
    names = {f"fusion.{name}" for name, _ in one.fusion.named_parameters()}
    source = trained(one)
    names |= {f"backbone.{name}" for name, _ in source.trained.model.named_parameters() if "pooler" not in name}
    assert found.keys() == names
    assert any("word_embeddings" in name for name in names)
    for name, gradient in found.items():
        assert gradient.isfinite().all(), name
        assert gradient.any(), name
    (alone, _) = gradients("layer-attention+info-nce", frozen)
    assert all(name.startswith("fusion.") for name in alone)


def test_frozen_states_are_read_once_for_all_methods_of_an_update():
    source, reads = pooled("mlp", "scalar-mix", views=(0, 1)), []
    original = source.states
    source.states = lambda numbers, view: reads.append(view) or original(numbers, view)
    shared = {}
    for sentence, kind, views in (("mlp+simcse", "sentences", [0, 1]), ("mlp+info-nce", "pairs", [0, 1, None])):
        for _ in range(2):
            one = trainee(sentence)
            (one.accelerator,) = build_accelerators("no", source.device, 1)
            add = BatchGradients(source, RECIPE).add
            add(one, 0, rows(kind), BATCH, noise=1, shared=shared, with_statistics=False)
        assert reads == views  # and a method of other views never gets theirs


class LeavesTheLastOut(Objective):
    """Looks at the first vectors alone."""

    reads = ("pairs",)

    def forward(self, embeddings, labels=None, groups=None):
        return embeddings[0][:2].square().sum()


def test_a_chunk_that_the_objective_leaves_out_has_no_gradient_and_no_failure():
    found = []
    for chunk in (None, 2):
        recipe = replace(RECIPE, chunk=chunk)
        one = trainee("mlp+info-nce", recipe)
        one.objectives[0] = LeavesTheLastOut()
        source = frozen(one)
        (one.accelerator,) = build_accelerators("no", source.device, 1)
        BatchGradients(source, recipe).add(one, 0, rows(), BATCH, noise=1, shared={}, with_statistics=False)
        found.append({name: weight.grad for name, weight in one.fusion.named_parameters()})
    assert_near(found[1], found[0], 1e-5)


def test_outside_of_a_seeded_block_nothing_has_been_drawn():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with seeded(5, torch.device("cpu")):
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with seeded(5, torch.device("cpu")):
        assert torch.equal(torch.rand(3), first)
