import math

import pytest
import torch
from sentence_transformers.losses import MultipleNegativesRankingLoss

from fusebench.errors import InputError
from fusebench.methods.contrastive import InfoNCE, SupervisedSimCSE, UnsupervisedSimCSE

ROWS, DIM = 6, 5


def columns(count, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(ROWS, DIM, dtype=dtype, generator=generator) for _ in range(count)]


def cosine(left, right):
    return float(left @ right / (left.norm() * right.norm()))


def loop(anchors, positives, negatives=(), *, temperature, own_offset=0.0):
    """The formula written out, a row at a time."""
    total = 0.0
    for i, anchor in enumerate(anchors):
        scores = [math.exp(cosine(anchor, one) / temperature) for one in positives]
        offsets = [own_offset if i == j else 0.0 for j in range(len(negatives))]
        away = [math.exp(cosine(anchor, one) / temperature + w) for one, w in zip(negatives, offsets, strict=True)]
        total -= math.log(scores[i] / (sum(scores) + sum(away)))
    return total / len(anchors)


@pytest.mark.parametrize("objective", [UnsupervisedSimCSE, InfoNCE])
@pytest.mark.parametrize("temperature", [0.05, 0.7])
def test_one_direction_equals_a_slow_loop(objective, temperature):
    anchors, positives = columns(2)
    found = objective(temperature=temperature)([anchors, positives], None)
    assert float(found) == pytest.approx(loop(anchors, positives, temperature=temperature), rel=1e-12)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_hard_negatives_equal_a_slow_loop(weight):
    found = SupervisedSimCSE(hard_negative_weight=weight)(columns(3), None)
    assert float(found) == pytest.approx(loop(*columns(3), temperature=0.05, own_offset=weight), rel=1e-12)


def test_the_hard_negative_weight_multiplies_the_own_negative_alone():
    anchors, positives, negatives = columns(3)
    alpha = math.exp(0.3)
    total = 0.0
    for i, anchor in enumerate(anchors):
        towards = [math.exp(cosine(anchor, one) / 0.05) for one in positives]
        away = [(alpha if i == j else 1) * math.exp(cosine(anchor, one) / 0.05) for j, one in enumerate(negatives)]
        total -= math.log(towards[i] / (sum(towards) + sum(away)))
    found = SupervisedSimCSE(hard_negative_weight=0.3)([anchors, positives, negatives])
    assert float(found) == pytest.approx(total / ROWS, rel=1e-12)


def test_pairs_agree_with_sentence_transformers():
    expected = MultipleNegativesRankingLoss(None, scale=20).compute_loss_from_embeddings(columns(2), None)
    torch.testing.assert_close(InfoNCE(temperature=0.05)(columns(2)), expected)


def test_triplets_agree_with_sentence_transformers():
    expected = MultipleNegativesRankingLoss(None, scale=20).compute_loss_from_embeddings(columns(3), None)
    torch.testing.assert_close(SupervisedSimCSE()(columns(3)), expected)


def test_equal_vectors_give_the_logarithm_of_the_number_of_candidates():
    same = torch.ones(ROWS, DIM)
    assert float(InfoNCE()([same, same])) == pytest.approx(math.log(ROWS))
    assert float(SupervisedSimCSE()([same, same, same])) == pytest.approx(math.log(2 * ROWS))


def test_lengths_of_vectors_are_irrelevant():
    first, second = columns(2)
    scaled = [3 * first, second * torch.arange(1, ROWS + 1)[:, None]]
    torch.testing.assert_close(InfoNCE()(scaled), InfoNCE()([first, second]))


@pytest.mark.parametrize(("objective", "count"), [(UnsupervisedSimCSE, 2), (InfoNCE, 2), (SupervisedSimCSE, 3)])
def test_joint_row_order_is_irrelevant(objective, count):
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(objective()([c[order] for c in columns(count)]), objective()(columns(count)))


@pytest.mark.parametrize(("objective", "count"), [(UnsupervisedSimCSE, 2), (InfoNCE, 2), (SupervisedSimCSE, 3)])
def test_gradients_are_those_of_finite_differences(objective, count):
    part = objective(temperature=0.5)
    inputs = [column.requires_grad_() for column in columns(count)]
    assert torch.autograd.gradcheck(lambda *given: part(given, None), inputs)


@pytest.mark.parametrize(("objective", "count"), [(UnsupervisedSimCSE, 2), (InfoNCE, 2), (SupervisedSimCSE, 3)])
def test_bfloat16_vectors_give_a_float32_loss(objective, count):
    small = columns(count, torch.bfloat16)
    found = objective()(small)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, objective()([column.float() for column in small]))


def test_a_temperature_of_zero_is_refused():
    for objective in (UnsupervisedSimCSE, SupervisedSimCSE, InfoNCE):
        with pytest.raises(InputError, match="must be above 0"):
            objective(temperature=0.0)
