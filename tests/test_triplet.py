import pytest
import torch
from sentence_transformers.losses import TripletDistanceMetric, TripletLoss

from fusebench.errors import InputError
from fusebench.methods.triplet import Triplet


def triplets(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(6, 5, dtype=dtype, generator=generator) for _ in range(3)]


def cosine_distance(left, right):
    return 1 - float(left @ right / (left.norm() * right.norm()))


def euclidean_distance(left, right):
    return float((left - right).square().sum().sqrt())


@pytest.mark.parametrize(("name", "distance"), [("cosine", cosine_distance), ("euclidean", euclidean_distance)])
@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_it_equals_a_slow_loop(name, distance, margin):
    total = 0.0
    for anchor, positive, negative in zip(*triplets(), strict=True):
        total += max(0.0, distance(anchor, positive) - distance(anchor, negative) + margin)
    assert float(Triplet(margin=margin, distance=name)(triplets())) == pytest.approx(total / 6, rel=1e-12)


@pytest.mark.parametrize("name", ["cosine", "euclidean"])
def test_it_agrees_with_sentence_transformers(name):
    theirs = TripletLoss(None, getattr(TripletDistanceMetric, name.upper()), triplet_margin=0.5)
    torch.testing.assert_close(
        Triplet(distance=name)(triplets()), theirs.compute_loss_from_embeddings(triplets(), None)
    )


@pytest.mark.parametrize("name", ["cosine", "euclidean"])
def test_gradients_are_those_of_finite_differences(name):
    inputs = [column.requires_grad_() for column in triplets()]
    assert torch.autograd.gradcheck(lambda *given: Triplet(distance=name)(given), inputs)


@pytest.mark.parametrize("name", ["cosine", "euclidean"])
def test_equal_vectors_give_the_margin_and_a_finite_gradient(name):
    same = torch.ones(4, 5, requires_grad=True)
    loss = Triplet(margin=0.25, distance=name)([same, same, same])
    (gradient,) = torch.autograd.grad(loss, [same])
    assert float(loss.detach()) == pytest.approx(0.25)
    assert gradient.isfinite().all()


def test_bfloat16_vectors_give_a_float32_loss():
    found = Triplet()(triplets(torch.bfloat16))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, Triplet()([column.float() for column in triplets(torch.bfloat16)]))


def test_a_negative_margin_is_refused():
    with pytest.raises(InputError, match="at least 0"):
        Triplet(margin=-0.1)
