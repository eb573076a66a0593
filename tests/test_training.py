"""The training loop teaches what a plain loop teaches, to each method what it would learn alone."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import fusebench.methods.training as training_module
from fusebench.errors import InputError
from fusebench.methods import gradients as gradients_module
from fusebench.methods.parts import Fusion, Sampler
from fusebench.methods.precision import build_accelerators
from fusebench.methods.recipe import Recipe, mix
from fusebench.methods.selection import Selection
from fusebench.methods.training import TrainingLoop
from tests.tiny_models import backbone_of
from tests.tiny_training import (
    RECIPE,
    SEED,
    assert_bitwise,
    assert_near,
    cached,
    live,
    one_thread,
    pooled,
    rows,
    train,
    trained,
    trainee,
    weights_of,
)

HEADS = ("mlp+info-nce", "layer-attention+info-nce", "scalar-mix+info-nce")


@pytest.fixture(autouse=True, scope="module")
def _on_one_thread():
    with one_thread():
        yield


def test_a_head_learns_what_a_plain_loop_teaches_it():
    recipe = Recipe(epochs=3, batch_size=4, learning_rate_new=1e-2, weight_decay=0.1, warmup=0.3, max_grad_norm=0.5)
    one, source, pairs = trainee("mlp+info-nce", recipe), pooled("mlp"), rows(count=14)
    head = copy.deepcopy(one.fusion).train()
    weights = list(head.parameters())
    decay = [{"params": [w for w in weights if w.ndim == 2], "weight_decay": 0.1}]
    optimizer = torch.optim.AdamW([*decay, {"params": [w for w in weights if w.ndim == 1], "weight_decay": 0.0}])
    losses = []
    for update in range(9):
        epoch, place = divmod(update, 3)
        order = np.random.default_rng(mix(mix(SEED, 1, 0), epoch)).permutation(14)
        batch = order[4 * place : 4 * place + 4]
        texts = np.concatenate([pairs.columns[0][batch], pairs.columns[1][batch]])
        anchors, positives = torch.nn.functional.normalize(head(source.states(texts, None)), dim=1).chunk(2)
        loss = torch.nn.functional.cross_entropy(anchors @ positives.T / 0.05, torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 0.5)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * ((update + 1) / 4 if update < 3 else (9 - update) / 6)
        optimizer.step()
        losses.append(loss.item())
    loop = train([one], [pairs], source)
    # The loop sums a batch in another order, and Adam takes the rounding of gradients near zero for their size.
    assert_near(dict(one.fusion.state_dict()), dict(head.state_dict()), 1e-5)
    assert one.losses == pytest.approx(losses, rel=1e-5)
    assert (loop.updates, loop.examples) == ((9,), 36)
    assert one.loss == one.losses[-1]
    assert not one.fusion.training


@pytest.mark.parametrize("sentence", HEADS)
def test_all_sources_teach_the_same(sentence, tmp_path):
    found = []
    for source in (pooled(sentence.split("+")[0]), cached(tmp_path), live()):
        one = trainee(sentence)
        train([one], [rows()], source, selection=Selection(rows("scored-pairs", seed=2)))
        found.append((weights_of(one), one.best_update))
    for weights, best in found[1:]:
        assert_near(weights, found[0][0], 1e-5)
        assert best == found[0][1]


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("kind", ["pooled", "cached"])
def test_methods_side_by_side_learn_what_each_learns_alone(kind, chunk, tmp_path):
    """Layer attention draws noise of its own in training (RReLU)."""
    recipe = replace(RECIPE, chunk=chunk, steps=4)
    heads = [*HEADS, "layer-attention+batch-softmax(learned_temperature=true)"]
    if kind == "cached":
        heads += ["hire+info-nce", "set-encoder+info-nce"]
    source = pooled(*(head.split("+")[0] for head in HEADS)) if kind == "pooled" else cached(tmp_path)
    dev = Selection(rows("scored-pairs", seed=2), every=2)
    together = [trainee(head, recipe, name=f"{head}{place}") for place, head in enumerate(heads)]
    train(together, [rows()], source, selection=dev)
    for head, one in zip(heads, together, strict=True):
        alone = trainee(head, recipe)
        train([alone], [rows()], source, selection=dev)
        assert one.failure is alone.failure is None
        assert_bitwise(weights_of(one), weights_of(alone))
        assert (one.losses, one.dev_score, one.best_update) == (alone.losses, alone.dev_score, alone.best_update)


def test_a_trained_backbone_or_a_sampler_serves_one_method_at_a_time():
    two = [trainee("mlp+info-nce", name=name) for name in "ab"]
    with pytest.raises(ValueError, match="one method at a time"):
        TrainingLoop(two, [rows()], trained(two[0]), seed=0)


# What learns, and what stays


def test_frozen_training_leaves_the_backbone_bitwise_as_it_was():
    backbone = backbone_of("bert")
    before = {name: weight.clone() for name, weight in backbone.model.state_dict().items()}
    train([trainee("layer-attention+info-nce")], [rows()], live())
    assert_bitwise(dict(backbone.model.state_dict()), before)
    assert all(weight.grad is None and not weight.requires_grad for weight in backbone.model.parameters())
    assert not backbone.model.training


@pytest.mark.parametrize("sentence", ["mean+info-nce", "layer-attention+info-nce", "mlp+info-nce"])
def test_finetuning_moves_every_weight_that_takes_part_and_not_the_original(sentence):
    original = backbone_of("bert")
    before = {name: weight.clone() for name, weight in original.model.state_dict().items()}
    one = trainee(sentence)
    source, new = trained(one), weights_of(one)
    train([one], [rows()], source)
    assert_bitwise(dict(original.model.state_dict()), before)
    for name, weight in source.trained.model.named_parameters():
        assert torch.equal(weight, before[name]) == ("pooler" in name), name
    for name, weight in weights_of(one).items():
        assert not torch.equal(weight, new[name]), name
    assert not source.trained.model.training


@pytest.mark.parametrize("guide", ["mdg(factor=2.0)", "pdg(factor=2.0)"])
def test_a_guide_changes_what_is_learned_and_one_of_factor_0_does_not(guide):
    found, events = {}, []
    free = guide.replace("2.0", "0.0")
    for sentence in ("mean+info-nce", f"mean+info-nce+{free}", f"mean+info-nce+{guide}"):
        # small steps: Adam's are as large as the learning rate, whatever the rounding of a gradient near 0
        one = trainee(sentence, replace(RECIPE, learning_rate=1e-5))
        source = trained(one, dropout=False)
        train([one], [rows()], source, log=lambda name, event: events.append(event))
        found[sentence] = weights_of(one, source)
    plain, idle, guided = found.values()
    assert_near(idle, plain, 1e-5)
    distance = sum(float((guided[name] - weight).square().sum()) for name, weight in plain.items())
    assert distance > 100 * sum(float((idle[name] - weight).square().sum()) for name, weight in plain.items())
    name = events[-1].keys()
    assert {f"{guide}.{what}" for what in ("penalty", "factor", "entropy", "first_token_share", "map_cosine")} <= name
    assert events[-1][f"{guide}.factor"] == 2.0


# Randomness


def test_equal_seeds_learn_the_same_and_others_do_not_whatever_the_global_generators_say():
    found = []
    for seed, noise in ((SEED, 1), (SEED, 2), (SEED + 1, 1)):
        torch.manual_seed(noise)
        np.random.seed(noise)
        one = trainee("layer-attention+info-nce")
        source = trained(one)
        train([one], [rows()], source, seed=seed)
        found.append(weights_of(one, source))
    assert_bitwise(found[1], found[0])
    assert any(not torch.equal(found[2][name], weight) for name, weight in found[0].items())


def test_training_leaves_the_global_generators_as_they_were(tmp_path):
    torch.manual_seed(11)
    np.random.seed(11)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    one = trainee("layer-attention+simcse")
    train([one], [rows("sentences")], trained(one), selection=Selection(rows("scored-pairs")))
    train([trainee("mlp+simcse")], [rows("sentences")], cached(tmp_path, views=(None, 0, 1)))
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.random.get_state()[1].tolist() == numpy_before


# Stages and precision


def test_every_stage_starts_with_an_optimizer_and_a_schedule_of_its_own():
    """Two stages are two trainings, the second from the weights of the first."""
    recipe = Recipe(steps=6, batch_size=4, learning_rate_new=1e-2)
    stages = [rows(), rows("scored-pairs", seed=2)]
    both = trainee("mlp+batch-softmax+mse-cosine", recipe)
    loop = train([both], stages, pooled("mlp"))
    assert loop.updates == (3, 3)
    first = trainee("mlp+batch-softmax", replace(recipe, steps=3))
    train([first], stages[:1], pooled("mlp"))
    second = trainee("mlp+mse-cosine", replace(recipe, steps=3))
    second.fusion.load_state_dict(first.fusion.state_dict())
    # The order of a stage is drawn from its place.
    alone = TrainingLoop([second], stages[1:], pooled("mlp"), seed=SEED)
    original = training_module.mix
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_module, "mix", lambda seed, stream, stage, *more: original(seed, stream, 1, *more))
        alone.run()
    assert_bitwise(weights_of(both), weights_of(second))
    assert both.losses == first.losses + second.losses


def test_a_learned_temperature_moves_at_its_own_rate():
    """Adam's first step is as long as the learning rate."""
    recipe = Recipe(steps=1, batch_size=4, max_grad_norm=1e9)
    found = []
    for rate in (0.001, 0.02):
        one = trainee(f"mlp+batch-softmax(learned_temperature=true,alpha_lr={rate})", recipe)
        train([one], [rows()], pooled("mlp"))
        found.append(abs(float(one.objectives[0].alpha.detach()) - 1))
    assert found == pytest.approx([0.001, 0.02], rel=1e-3)


@pytest.mark.parametrize(
    "sentence", ["layer-attention+info-nce", "scalar-mix+info-nce", "last-k-concat+info-nce+mdg"]
)
def test_bfloat16_arithmetic_learns_nearly_the_same_in_float32_weights(sentence):
    found = []
    for precision in ("no", "bf16"):
        one = trainee(sentence, replace(RECIPE, precision=precision))
        train([one], [rows()], trained(one, dropout=False))
        assert one.failure is None
        assert all(weight.dtype == torch.float32 for weight in one.fusion.parameters())
        found.append(one.losses)
    assert found[0] != found[1]
    assert found[1][:3] == pytest.approx(found[0][:3], rel=0.05, abs=0.05)


def test_frozen_states_do_not_depend_on_the_precision_of_training():
    looked_at = []
    for precision in ("no", "bf16"):
        one = trainee("hire+info-nce", replace(RECIPE, precision=precision, steps=1))
        source, seen = live(), []
        read = source.states
        source.states = lambda numbers, view, read=read, seen=seen: seen.append(read(numbers, view)) or seen[-1]
        train([one], [rows()], source, selection=Selection(rows("scored-pairs")))
        looked_at.append(seen)
    assert len(looked_at[0]) == len(looked_at[1]) > 1
    for plain, mixed in zip(*looked_at, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(plain.hidden, mixed.hidden, strict=True))


def test_fp16_without_cuda_is_refused():
    one = trainee("mlp+info-nce", replace(RECIPE, precision="fp16"))
    with pytest.raises(InputError, match="--precision fp16 needs a CUDA device"):
        TrainingLoop([one], [rows()], pooled("mlp"), seed=0)


def scaling(precision, device, count):
    """Accelerators that scale losses as under fp16, on the processor."""
    made = build_accelerators(precision, device, count)
    for one in made:
        one.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        one.unscale_gradients = lambda optimizer, one=one: one.scaler.unscale_(optimizer.optimizer)
    return made


@pytest.mark.parametrize("chunk", [None, 3])
def test_a_scaled_loss_teaches_the_same_guides_and_clipping_included(chunk, monkeypatch):
    found = []
    for accelerators in (build_accelerators, scaling):
        monkeypatch.setattr(training_module, "build_accelerators", accelerators)
        one = trainee("mean+info-nce+mdg(factor=1.0)", replace(RECIPE, chunk=chunk, accumulate=2, learning_rate=1e-4))
        source = trained(one)
        train([one], [rows()], source)
        found.append(weights_of(one, source))
    assert_near(found[1], found[0], 1e-5)


def test_an_overflow_leaves_one_step_of_one_method_out(monkeypatch, tmp_path):
    """Each method has a loss scale of its own, and an interrupted training goes on with it."""
    monkeypatch.setattr(training_module, "build_accelerators", scaling)
    scales = {}

    def run(heads, stop_at=None):
        def progress(done, total):
            scales[done] = [one.accelerator.scaler.get_scale() for one in heads]
            if done == stop_at:
                raise KeyboardInterrupt

        path = {"checkpoint": tmp_path / "one", "checkpoint_seconds": 0.0}
        train(heads, [rows()], pooled("mlp", "layer-attention"), progress=progress, **path)

    def pair():
        two = [trainee(head, name=name) for name, head in zip("ab", HEADS[:2], strict=True)]
        two[0].objectives[0] = Boom(two[0].objectives[0], 2, gradient=True)
        return two

    two = pair()
    run(two)
    assert [one.failure for one in two] == [None, None]
    assert scales[1] == [2.0**10] * 2
    assert scales[2] == scales[9] == [2.0**9, 2.0**10]
    alone = trainee(HEADS[1])
    run([alone])
    assert_bitwise(weights_of(two[1]), weights_of(alone))
    again = pair()
    with pytest.raises(KeyboardInterrupt):
        run(again, stop_at=5)
    again = pair()
    again[0].objectives[0].calls = 5
    run(again)
    assert scales[9] == [2.0**9, 2.0**10]
    for one, other in zip(again, two, strict=True):
        assert_bitwise(weights_of(one), weights_of(other))


# Failures


class Boom(torch.nn.Module):
    """Fails, or turns to NaN, in its n-th call."""

    def __init__(self, inner, call, *, nan=False, gradient=False):
        super().__init__()
        self.inner, self.call, self.nan, self.gradient, self.calls = inner, call, nan, gradient, 0
        self.reads, self.views = inner.reads, inner.views
        self.own_learning_rate = inner.own_learning_rate

    def forward(self, *given):
        self.calls += 1
        loss = self.inner(*given)
        if self.calls != self.call:
            return loss
        if self.gradient:  # 0 in value, infinite in slope
            return loss + (given[0][0].sum() * 0).sqrt()
        if self.nan:
            return loss * torch.nan
        raise RuntimeError("boom")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({}, "boom"), ({"nan": True}, "loss is nan at update 4"), ({"gradient": True}, "gradients are not finite")],
)
def test_a_method_that_fails_leaves_the_others_as_they_would_have_been(settings, message):
    dev, source = Selection(rows("scored-pairs", seed=2), every=2), pooled("mlp", "layer-attention")
    three = [trainee(head, name=name) for name, head in zip("abc", (HEADS[1], HEADS[0], HEADS[1]), strict=True)]
    three[1].objectives[0] = Boom(three[1].objectives[0], 4, **settings)
    train(three, [rows()], source, selection=dev)
    assert message in str(three[1].failure)
    assert len(three[1].losses) == 3
    assert all(weight.isfinite().all() for weight in three[1].fusion.parameters())
    alone = trainee(HEADS[1])
    train([alone], [rows()], source, selection=dev)
    for one in (three[0], three[2]):
        assert one.failure is None
        assert_bitwise(weights_of(one), weights_of(alone))


def test_a_head_that_cannot_be_evaluated_fails_alone():
    class Shy(torch.nn.Linear):
        """Cannot embed without noise."""

        layers, out_dim = (3,), 32
        layer_shares = Fusion.layer_shares

        def forward(self, states):
            if not self.training:
                raise RuntimeError("boom")
            return super().forward(states.mean(3))

    bad, good = trainee(HEADS[0], name="bad"), trainee(HEADS[0], name="good")
    bad.fusion = Shy(32, 32)
    train([bad, good], [rows()], pooled("mlp"), selection=Selection(rows("scored-pairs", seed=2)))
    assert "boom" in str(bad.failure)
    assert good.failure is None


def test_weights_that_sum_to_0_end_one_training_and_not_all():
    bad, good = trainee("weighted-layers+info-nce", name="bad"), trainee("mlp+info-nce", name="good")
    bad.fusion.weights.data.copy_(torch.tensor([1.0, -1.0, 0.0]))
    train([bad, good], [rows()], pooled("mlp", "weighted-layers"))
    assert isinstance(bad.failure, InputError)
    assert good.failure is None


class Clustered(Sampler):
    """Reads vectors in every epoch and chokes on those that are not finite."""

    def wants_embeddings(self, epoch):
        return True

    def order(self, epoch, texts, embeddings, *, seed):
        if not np.isfinite(embeddings).all():
            raise ValueError("vectors are not finite")
        return np.argsort(embeddings[:, 0])


def test_a_sampler_that_cannot_order_the_rows_is_the_failure_of_its_method():
    one = trainee("mlp+info-nce")
    one.fusion.narrow.bias.data.fill_(torch.nan)
    train([one], [rows()], pooled("mlp"), sampler=Clustered())
    assert "vectors are not finite" in str(one.failure)


def test_a_sampler_whose_method_has_failed_is_not_asked_again():
    one = trainee("mlp+info-nce")
    one.objectives[0] = Boom(one.objectives[0], 1)
    seen = []
    loop = train([one], [rows()], pooled("mlp"), sampler=Clustered(), progress=lambda *done: seen.append(done))
    assert "boom" in str(one.failure)
    assert seen[-1] == (sum(loop.updates),) * 2


def test_a_step_that_runs_out_of_memory_is_taken_part_by_part_with_the_same_gradients_and_noise(monkeypatch):
    plan = gradients_module.plan_batches
    monkeypatch.setattr(gradients_module, "plan_batches", lambda lengths, budget: plan(lengths, 24))
    recipe, learned, events = replace(RECIPE, epochs=None, steps=4, accumulate=2), [], []
    for runs_out in (False, True):
        one = trainee("layer-attention+info-nce", recipe)
        source, calls = trained(one), []
        states = source.states

        def limited(numbers, view, calls=calls, states=states, runs_out=runs_out):
            calls.append(len(numbers))
            if runs_out and len(calls) == 11:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return states(numbers, view)

        monkeypatch.setattr(source, "states", limited)
        train([one], [rows()], source, log=lambda name, event: events.append(event))
        assert one.failure is None
        learned.append((weights_of(one, source), one.losses, len(calls)))
    (whole, losses, few), (found, found_losses, many) = learned
    assert many > few + 11
    assert found_losses == pytest.approx(losses, rel=1e-4)
    assert_near(found, whole, 1e-3)
    (told,) = [event for event in events if "out_of_memory" in event]
    assert told == {"update": 2, "out_of_memory": True}


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_method_whose_parts_do_not_fit_either_fails_alone_and_says_what_to_do(error):
    one, other = trainee("mlp+info-nce"), trainee("scalar-mix+info-nce")

    def forward(states):
        raise error

    one.fusion.forward = forward
    train([one, other], [rows()], pooled("mlp", "scalar-mix"))
    assert isinstance(one.failure, InputError)
    assert "--chunk 16" in str(one.failure)
    assert one.failure.__context__ is None  # else the tensors that there is no room for would stay
    assert other.failure is None
    assert len(other.losses) == 9


# What is told


def test_updates_are_counted_through_all_stages_and_layer_weights_are_logged():
    events, seen = [], []
    recipe = Recipe(steps=4, batch_size=4)
    train(
        [trainee("scalar-mix+batch-softmax+mse-cosine", recipe)],
        [rows(), rows("scored-pairs")],
        pooled("scalar-mix"),
        selection=Selection(rows("scored-pairs", seed=2), every=2),
        log=lambda name, event: events.append((name, event)),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert {name for name, _ in events} == {"scalar-mix+batch-softmax+mse-cosine"}
    updates = [(event["stage"], event["update"]) for _, event in events if "stage" in event]
    assert updates == [(0, 1), (0, 2), (1, 3), (1, 4)]
    assert [event["update"] for _, event in events if "dev_score" in event] == [2, 4]
    first = events[0][1]
    assert first["learning_rate"] == recipe.learning_rate_new
    assert {"loss", "gradient_norm"} <= first.keys()
    assert sum(first[f"layer_weight.{layer}"] for layer in range(4)) == pytest.approx(1)


def test_a_long_stage_logs_about_a_hundred_updates():
    events = []
    train(
        [trainee("scalar-mix+info-nce", Recipe(steps=230, batch_size=2))],
        [rows()],
        pooled("scalar-mix"),
        log=lambda name, event: events.append(event["update"]),
    )
    assert events == [*range(1, 231, 2), 230]


@pytest.mark.parametrize("sentence", ["layer-attention", "cls-attention", "weighted-layers", "scalar-mix"])
def test_what_layers_count_for_is_logged_and_sums_to_1(sentence):
    events = []
    train(
        [trainee(f"{sentence}+info-nce", Recipe(steps=3, batch_size=2))],
        [rows()],
        pooled(sentence),
        log=lambda name, event: events.append(event),
    )
    for event in (events[0], events[-1]):
        weights = [value for key, value in event.items() if key.startswith("layer_weight.")]
        assert len(weights) > 1
        assert sum(weights) == pytest.approx(1, abs=1e-5)
