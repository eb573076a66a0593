"""How many updates a budget makes, how the learning rate goes, what is decayed, and what AdamW does to it."""

import pytest
import torch
from torch import nn

from fusebench.errors import InputError
from fusebench.methods.batch_softmax import BatchSoftmax
from fusebench.methods.recipe import Recipe, batches_in, build_optimizer, mix


@pytest.mark.parametrize(
    ("recipe", "rows", "updates"),
    [
        (Recipe(epochs=3, batch_size=4), [14], (9,)),  # 3 whole batches, 2 rows wait
        (Recipe(epochs=3, batch_size=4), [16], (12,)),
        (Recipe(epochs=2, batch_size=64), [5], (2,)),  # all there is makes a batch
        (Recipe(epochs=4, batch_size=4, accumulate=2), [14], (6,)),
        (Recipe(epochs=1, batch_size=4, accumulate=8), [14], (1,)),  # never none at all
        (Recipe(epochs=2, batch_size=4), [16, 40], (4, 10)),  # each stage one pass over its own rows
        (Recipe(epochs=None, steps=7, batch_size=4), [16], (7,)),
        (Recipe(epochs=3, steps=7, batch_size=4), [16, 400], (4, 3)),  # steps win; the first stages get the rest
    ],
)
def test_updates_of_a_budget(recipe, rows, updates):
    assert recipe.updates(rows) == updates


def test_a_stage_without_an_update_is_refused():
    with pytest.raises(InputError, match="2 objectives needs at least 2"):
        Recipe(steps=1).updates([10, 10])


def test_batches_are_whole_unless_there_is_but_one():
    assert [batches_in(rows, 4) for rows in (1, 3, 4, 7, 8)] == [1, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ("warmup", "updates", "factors"),
    [
        (0.0, 4, [1.0, 0.75, 0.5, 0.25]),
        (0.5, 4, [1 / 3, 2 / 3, 1.0, 0.5]),
        (0.3, 10, [1 / 4, 2 / 4, 3 / 4, 1, 6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7]),
        (1.0, 3, [1 / 4, 2 / 4, 3 / 4]),
        (0.1, 1, [1.0]),
    ],
)
def test_the_learning_rate_rises_and_falls_linearly_and_is_never_0(warmup, updates, factors):
    recipe = Recipe(warmup=warmup)
    assert [recipe.rate_factor(update, updates) for update in range(updates)] == pytest.approx(factors)


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[1.0, -2.0]]))
        self.vector = nn.Parameter(torch.tensor([3.0, 4.0]))
        self.scalar = nn.Parameter(torch.tensor(5.0))
        self.fixed = nn.Parameter(torch.ones(2, 2), requires_grad=False)


def test_matrices_decay_and_vectors_and_scalars_do_not():
    recipe = Recipe(learning_rate=1e-4, learning_rate_new=1e-2, weight_decay=0.3)
    head, backbone, objective = Head(), Head(), nn.Bilinear(2, 2, 2)
    optimizer = build_optimizer(recipe, head, {"bias": 0.5}, objective, backbone)
    found = {id(w): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for w in g["params"]}
    assert found == {
        id(backbone.matrix): (1e-4, 0.3),
        id(backbone.vector): (1e-4, 0.0),
        id(backbone.scalar): (1e-4, 0.0),
        id(head.matrix): (1e-2, 0.3),
        id(head.vector): (1e-2, 0.0),
        id(head.scalar): (1e-2, 0.0),
        id(objective.weight): (1e-2, 0.0),  # without a rate of its own that of the head, and no decay
        id(objective.bias): (0.5, 0.0),
    }


def test_a_learned_temperature_has_a_rate_of_its_own_and_no_decay():
    objective = BatchSoftmax(learned_temperature=True, alpha_lr=0.07)
    optimizer = build_optimizer(Recipe(weight_decay=0.3), Head(), objective.own_learning_rate, objective, None)
    (group,) = [g for g in optimizer.param_groups if any(w is objective.alpha for w in g["params"])]
    assert (group["lr"], group["weight_decay"], len(group["params"])) == (0.07, 0.0, 1)


def test_two_steps_are_those_of_adam_with_decoupled_decay():
    """Loshchilov and Hutter 2019, algorithm 2, written out for one weight of each group."""
    recipe = Recipe(learning_rate_new=0.1, weight_decay=0.3)
    head = Head().double()
    optimizer = build_optimizer(recipe, head, {}, nn.Module(), None)
    for weight, start, decay in ((head.matrix, -2.0, 0.3), (head.vector, 4.0, 0.0)):
        w, m, v = start, 0.0, 0.0
        optimizer.state.clear()
        for t, g in ((1, 0.5), (2, -0.25)):
            optimizer.zero_grad()
            weight.grad = torch.full_like(weight, g)
            optimizer.step()
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            w = w - 0.1 * decay * w - 0.1 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)) ** 0.5 + 1e-8)
        assert weight.flatten()[-1].item() == pytest.approx(w, rel=1e-9)


def test_mixed_seeds_do_not_meet():
    seeds = {mix(a, b) for a in range(40) for b in range(40)}
    assert len(seeds) == 1600
    assert mix(1, 2) != mix(2, 1)
    assert mix(1, 2) == mix(1, 2)
