import math

import pytest
import torch
from sentence_transformers.losses import CoSENTLoss, CosineSimilarityLoss

from fusebench.errors import InputError
from fusebench.methods.regression import CoSENT, MeanSquaredCosine

LABELS = torch.tensor([1.0, 0.2, 0.7, 0.7, 0.0, 0.9], dtype=torch.float64)


def pair(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(6, 5, dtype=dtype, generator=generator) for _ in range(2)]


def cosines():
    left, right = pair()
    return [float(u @ v / (u.norm() * v.norm())) for u, v in zip(left, right, strict=True)]


def test_the_squared_error_is_the_formula():
    expected = sum((cosine - float(label)) ** 2 for cosine, label in zip(cosines(), LABELS, strict=True)) / 6
    assert float(MeanSquaredCosine()(pair(), LABELS)) == pytest.approx(expected, rel=1e-12)


def test_the_squared_error_agrees_with_sentence_transformers():
    expected = CosineSimilarityLoss(None).compute_loss_from_embeddings(pair(torch.float32), LABELS)
    torch.testing.assert_close(MeanSquaredCosine()(pair(torch.float32), LABELS), expected)


@pytest.mark.parametrize("scale", [20.0, 1.0])
def test_cosent_equals_a_slow_loop(scale):
    total = 1.0
    for cosine_i, label_i in zip(cosines(), LABELS, strict=True):
        for cosine_j, label_j in zip(cosines(), LABELS, strict=True):
            if label_i > label_j:
                total += math.exp(scale * (cosine_j - cosine_i))
    assert float(CoSENT(scale=scale)(pair(), LABELS)) == pytest.approx(math.log(total), rel=1e-12)


def test_cosent_agrees_with_sentence_transformers():
    expected = CoSENTLoss(None).compute_loss_from_embeddings(pair(), LABELS)
    torch.testing.assert_close(CoSENT()(pair(), LABELS), expected)


def test_cosent_sees_only_the_order_of_the_labels():
    torch.testing.assert_close(CoSENT()(pair(), LABELS**3 / 2), CoSENT()(pair(), LABELS))


def test_cosent_is_zero_when_all_labels_are_equal():
    inputs = [column.requires_grad_() for column in pair()]
    loss = CoSENT()(inputs, torch.full((6,), 0.5))
    gradients = torch.autograd.grad(loss, inputs)
    assert float(loss.detach()) == 0
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("objective", [MeanSquaredCosine, CoSENT])
def test_gradients_are_those_of_finite_differences(objective):
    inputs = [column.requires_grad_() for column in pair()]
    assert torch.autograd.gradcheck(lambda *given: objective()(given, LABELS), inputs)


@pytest.mark.parametrize("objective", [MeanSquaredCosine, CoSENT])
def test_bfloat16_vectors_give_a_float32_loss(objective):
    small = pair(torch.bfloat16)
    found = objective()(small, LABELS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, objective()([column.float() for column in small], LABELS))


@pytest.mark.parametrize("objective", [MeanSquaredCosine, CoSENT])
def test_missing_labels_raise(objective):
    with pytest.raises(ValueError, match="scored pairs"):
        objective()(pair(), None)


def test_a_scale_of_zero_is_refused():
    with pytest.raises(InputError, match="above 0"):
        CoSENT(scale=0.0)
