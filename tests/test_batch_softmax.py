import math
import warnings

import pytest
import torch
from sentence_transformers.losses import MultipleNegativesSymmetricRankingLoss

import fusebench.methods  # noqa: F401  registers the parts
from fusebench.errors import InputError
from fusebench.methods.batch_softmax import BatchSoftmax, normalize
from fusebench.methods.contrastive import InfoNCE
from fusebench.methods.grammar import parse

ROWS, DIM = 6, 5
LABELS = torch.tensor([1.0, 0.2, 0.7, 0.6, 0.0, 0.9], dtype=torch.float64)  # above 0.6: rows 0, 2, 5


def columns(count=2, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(ROWS, DIM, dtype=dtype, generator=generator) for _ in range(count)]


def loop(queries, answers, y, *, temperature, masked=frozenset()):
    """The formula written out: every row against all columns, every own column against all rows."""
    total = 0.0
    for i in range(len(queries)):
        row = [float(queries[i] @ a) / temperature for j, a in enumerate(answers) if (i, j) not in masked]
        column = [float(q @ answers[i]) / temperature for j, q in enumerate(queries) if (j, i) not in masked]
        own = float(queries[i] @ answers[i]) / temperature
        for scores in (row, column):
            total -= y[i] * (own - math.log(sum(math.exp(score) for score in scores)))
    return total / (2 * len(queries))


def unit(X):
    return X / X.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("temperature", [0.1, 1.2])
def test_it_equals_a_slow_loop(temperature):
    q, a = columns()
    y = [1, 0, 1, 0, 0, 1]
    found = BatchSoftmax(temperature=temperature)([q, a], LABELS)
    assert float(found) == pytest.approx(loop(unit(q), unit(a), y, temperature=temperature), rel=1e-12)


def test_negatives_of_triplets_are_further_columns_of_the_rows():
    q, a, b = columns(3)
    found = BatchSoftmax()([q, a, b])
    expected = loop(unit(q), torch.cat([unit(a), unit(b)]), [1] * ROWS, temperature=0.1)
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_without_labels_it_is_the_average_of_the_two_directions():
    q, a = columns()
    both = (InfoNCE(temperature=0.1)([q, a]) + InfoNCE(temperature=0.1)([a, q])) / 2
    torch.testing.assert_close(BatchSoftmax()([q, a]), both)
    torch.testing.assert_close(BatchSoftmax()([q, a], torch.ones(ROWS)), both)


def test_without_labels_it_agrees_with_sentence_transformers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = MultipleNegativesSymmetricRankingLoss(None, scale=20)
    expected = theirs.compute_loss_from_embeddings(columns(), None)
    torch.testing.assert_close(BatchSoftmax(temperature=0.05)(columns()), expected)


@pytest.mark.parametrize("average", ["rows", "positives"])
def test_without_positives_loss_and_gradient_are_zero(average):
    part = BatchSoftmax(learned_temperature=True, average=average).double()
    inputs = [column.requires_grad_() for column in columns()]
    loss = part(inputs, torch.zeros(ROWS))
    gradients = torch.autograd.grad(loss, [*inputs, part.alpha])
    assert float(loss.detach()) == 0
    assert not any(gradient.any() for gradient in gradients)


def test_queries_and_answers_may_change_places():
    q, a = columns()
    torch.testing.assert_close(BatchSoftmax()([q, a], LABELS), BatchSoftmax()([a, q], LABELS))


@pytest.mark.parametrize("params", [{}, {"normalization": "batch-range"}, {"mu": 0.3}, {"mask_duplicates": True}])
def test_joint_row_order_is_irrelevant(params):
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    groups = torch.tensor([0, 1, 1, 2, 3, 0])
    part = BatchSoftmax(**params)
    found = part([column[order] for column in columns()], LABELS[order], groups[order])
    torch.testing.assert_close(found, part(columns(), LABELS, groups))


def test_the_mean_over_rows_is_the_share_of_positives_times_the_mean_over_positives():
    over_rows = BatchSoftmax()(columns(), LABELS)
    over_positives = BatchSoftmax(average="positives")(columns(), LABELS)
    torch.testing.assert_close(over_rows, 3 / ROWS * over_positives)


def test_a_labelled_negative_still_competes():
    q, a = columns()
    kept = LABELS > 0.6
    without = BatchSoftmax(average="positives")([q[kept], a[kept]])
    assert float(BatchSoftmax(average="positives")([q, a], LABELS)) > float(without)


def test_labels_at_the_threshold_are_negatives():
    at = BatchSoftmax(threshold=0.7)(columns(), LABELS)
    torch.testing.assert_close(at, BatchSoftmax()(columns(), torch.tensor([1.0, 0, 0, 0, 0, 1])))


def test_batch_range_divides_each_column_by_its_range_in_the_batch():
    X = torch.tensor([[1.0, 2.0, 7.0], [3.0, -2.0, 7.0], [2.0, 0.0, 7.0]])
    expected = torch.tensor([[1 / 2, 2 / 4, 0], [3 / 2, -2 / 4, 0], [2 / 2, 0 / 4, 0]])
    assert torch.equal(normalize(X, "batch-range"), expected)


@pytest.mark.parametrize("normalization", ["batch-range", "none"])
def test_other_normalizations_equal_a_slow_loop(normalization):
    q, a, b = columns(3)
    answers = torch.cat([a, b])
    found = BatchSoftmax(normalization=normalization, temperature=1.2)([q, a, b])
    if normalization == "batch-range":
        q = q / (q.max(dim=0).values - q.min(dim=0).values)
        answers = answers / (answers.max(dim=0).values - answers.min(dim=0).values)
    assert float(found) == pytest.approx(loop(q, answers, [1] * ROWS, temperature=1.2), rel=1e-12)


def test_a_constant_column_has_a_finite_gradient_under_batch_range():
    q, a = columns()
    q[:, 2] = 4.0
    q.requires_grad_()
    (gradient,) = torch.autograd.grad(BatchSoftmax(normalization="batch-range")([q, a]), [q])
    assert gradient.isfinite().all()


def test_the_mixture_is_its_two_parts():
    q, a = columns()
    error = sum((float(unit(q)[i] @ unit(a)[i]) - float(LABELS[i])) ** 2 for i in range(ROWS)) / ROWS
    expected = 0.3 * float(BatchSoftmax()([q, a], LABELS)) + 0.7 * error
    assert float(BatchSoftmax(mu=0.3)([q, a], LABELS)) == pytest.approx(expected, rel=1e-12)


def test_the_squared_error_does_not_see_the_normalization():
    part = BatchSoftmax(mu=0.0, normalization="batch-range")
    torch.testing.assert_close(part(columns(), LABELS), BatchSoftmax(mu=0.0)(columns(), LABELS))


def test_the_mixture_reads_scored_pairs_only():
    assert "pairs" in BatchSoftmax().reads
    assert BatchSoftmax(mu=0.5).reads == ("scored-pairs",)
    with pytest.raises(ValueError, match="scored pairs"):
        BatchSoftmax(mu=0.5)(columns())


def test_a_learned_temperature_starts_at_one_and_has_its_own_rate():
    part = BatchSoftmax(learned_temperature=True, alpha_lr=0.005)
    torch.testing.assert_close(part(columns(), LABELS), BatchSoftmax(temperature=1.0)(columns(), LABELS))
    part.alpha.data.fill_(20.0)
    torch.testing.assert_close(part(columns(), LABELS), BatchSoftmax(temperature=0.05)(columns(), LABELS))
    assert dict(part.own_learning_rate) == {"alpha": 0.005}
    assert set(part.own_learning_rate) == {name for name, _ in part.named_parameters()}


def test_a_fixed_temperature_leaves_nothing_to_learn():
    part = BatchSoftmax()
    assert not list(part.parameters())
    assert not part.own_learning_rate


def test_masked_duplicates_are_not_negatives_of_each_other():
    q, a, b = columns(3)
    groups = torch.tensor([7, 1, 7, 3, 4, 1])
    same = {(0, 2), (2, 0), (1, 5), (5, 1)}
    found = BatchSoftmax(mask_duplicates=True)([q, a, b], None, groups)
    answers = torch.cat([unit(a), unit(b)])
    assert float(found) == pytest.approx(loop(unit(q), answers, [1] * ROWS, temperature=0.1, masked=same), rel=1e-12)


def test_groups_are_ignored_unless_asked_for():
    groups = torch.zeros(ROWS, dtype=torch.int64)
    assert torch.equal(BatchSoftmax()(columns(), LABELS, groups), BatchSoftmax()(columns(), LABELS))
    with pytest.raises(ValueError, match="needs the groups"):
        BatchSoftmax(mask_duplicates=True)(columns(), LABELS)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"normalization": "batch-range", "temperature": 1.2},
        {"mu": 0.3},
        {"learned_temperature": True},
        {"mask_duplicates": True, "average": "positives"},
    ],
    ids=str,
)
def test_gradients_are_those_of_finite_differences(params):
    part = BatchSoftmax(**params).double()
    groups = torch.tensor([0, 1, 1, 2, 3, 0])
    inputs = [column.requires_grad_() for column in columns()]
    weights = dict(part.named_parameters())

    def loss(*given):
        named = dict(zip(weights, given[2:], strict=True))
        return torch.func.functional_call(part, named, (given[:2], LABELS, groups))

    assert torch.autograd.gradcheck(loss, (*inputs, *weights.values()))


def test_bfloat16_vectors_give_a_float32_loss():
    small = columns(dtype=torch.bfloat16)
    found = BatchSoftmax(mu=0.5)(small, LABELS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, BatchSoftmax(mu=0.5)([column.float() for column in small], LABELS))


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0.0},
        {"alpha_lr": 0.0},
        {"mu": 1.5},
        {"threshold": -0.1},
        {"temperature": 0.5, "learned_temperature": True},
    ],
    ids=str,
)
def test_impossible_hyper_parameters_are_refused(params):
    with pytest.raises(InputError, match="batch-softmax"):
        BatchSoftmax(**params)


def test_it_is_written_in_a_sentence():
    sentence = "mean+batch-softmax(temperature=1.2,normalization=batch-range,mu=0.1)"
    assert parse(sentence).name == sentence
    assert parse("mean+batch-softmax(learned_temperature=true)").objectives[0].name == "batch-softmax"
