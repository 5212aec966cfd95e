"""Losses: values, derivatives, stability, reductions, and what they refuse."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import ArgumentError, DataError, DTypeError, ShapeError
from tests.cases.ops import floats

LABELS = np.array([2, 0, 1, 2, 2])
Z = floats((5, 3), -3, 3)
T = floats((5, 3), -3, 3, seed=4) + 0.031
SIGNS = np.where(floats((5, 3), seed=5) > 0, 1.0, -1.0)
SHARES = floats((5, 3), 0.05, 0.9, seed=6)
WEIGHT = np.array([0.5, 2.0, 1.0])
COUNTS = np.array([[0.0, 1.0, 2.0], [5.0, 0.0, 3.0], [1.0, 1.0, 4.0], [0.0, 0.0, 7.0], [2.0, 3.0, 1.0]])
TOGETHER = np.array([1, -1, 1, -1, -1])

# A row for each loss: its class, its options, a target, and its values entry by entry.
LOSSES = {
    "MSELoss": (nn.MSELoss, {}, T, lambda z, t: (z - t) ** 2),
    "L1Loss": (nn.L1Loss, {}, T, lambda z, t: abs(z - t)),
    "HuberLoss": (
        nn.HuberLoss, {"delta": 0.7}, T, lambda z, t: np.where(abs(z - t) <= 0.7, (z - t) ** 2 / 2, 0.7 * (abs(z - t) - 0.35)),
    ),
    "HingeLoss": (nn.HingeLoss, {}, SIGNS, lambda z, t: np.maximum(0, 1 - t * z)),
    "BCEWithLogitsLoss": (
        nn.BCEWithLogitsLoss, {}, SHARES, lambda z, t: -t * np.log(1 / (1 + np.exp(-z))) - (1 - t) * np.log(1 / (1 + np.exp(z))),
    ),
    "CrossEntropyLoss": (nn.CrossEntropyLoss, {}, LABELS, lambda z, y: -logp(z)[np.arange(len(y)), y]),
    "CrossEntropyLoss smoothed": (
        nn.CrossEntropyLoss, {"label_smoothing": 0.1}, LABELS, lambda z, y: -np.sum((0.9 * np.eye(3)[y] + 0.1 / 3) * logp(z), 1),
    ),
    "BCEWithLogitsLoss weighted": (
        nn.BCEWithLogitsLoss, {"weight": WEIGHT, "pos_weight": WEIGHT[::-1]}, SHARES,
        lambda z, t: WEIGHT * (WEIGHT[::-1] * t * np.log1p(np.exp(-z)) + (1 - t) * np.log1p(np.exp(z))),
    ),
    "NLLLoss": (nn.NLLLoss, {}, LABELS, lambda z, y: -z[np.arange(len(y)), y]),
    "KLDivLoss": (nn.KLDivLoss, {}, SHARES, lambda z, t: np.sum(t * (np.log(t) - z), 1)),
    "KLDivLoss of logarithms": (nn.KLDivLoss, {"log_target": True}, np.log(SHARES), lambda z, t: np.sum(np.exp(t) * (t - z), 1)),
    "PoissonNLLLoss": (nn.PoissonNLLLoss, {}, COUNTS, lambda z, t: np.exp(z) - t * z),
    "PoissonNLLLoss full": (nn.PoissonNLLLoss, {"full": True}, COUNTS, lambda z, t: np.exp(z) - t * z + stirling(t)),
}  # fmt: skip

# Losses of more than one prediction: besides, the other arguments.
VECTORS = {
    "CosineEmbeddingLoss": (
        nn.CosineEmbeddingLoss, {"margin": -0.2}, (T, TOGETHER),
        lambda a, b, t: np.where(t == 1, 1 - cosine(a, b), np.maximum(cosine(a, b) + 0.2, 0)),
    ),
    "TripletMarginLoss": (
        nn.TripletMarginLoss, {"margin": 2.5}, (T, SHARES),
        lambda a, p, n: np.maximum(np.linalg.norm(a - p, axis=1) - np.linalg.norm(a - n, axis=1) + 2.5, 0),
    ),
    "TripletMarginLoss swapped": (
        nn.TripletMarginLoss, {"swap": True}, (T, SHARES),
        lambda a, p, n: np.maximum(
            np.linalg.norm(a - p, axis=1) - np.minimum(np.linalg.norm(a - n, axis=1), np.linalg.norm(p - n, axis=1)) + 1, 0
        ),
    ),
}  # fmt: skip

rows = pytest.mark.parametrize("name", LOSSES)


def stirling(t):
    s = np.where(t > 1, t, 1)
    return np.where(t > 1, s * np.log(s) - s + 0.5 * np.log(2 * np.pi * s), 0)


def cosine(a, b):
    return np.sum(a * b, 1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def logp(z):
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def test_each_loss_has_a_row():
    exported = {
        v for n in nn.__all__ if inspect.isclass(v := getattr(nn, n)) and issubclass(v, nn.Loss) and v is not nn.Loss
    }
    assert {row[0] for row in (LOSSES | VECTORS).values()} == exported


@rows
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_values_and_derivatives(name, reduction):
    kind, options, target, value = LOSSES[name]
    loss_fn = kind(**options, reduction=reduction)
    expected = value(Z, target)
    expected = {"mean": np.mean, "sum": np.sum, "none": np.asarray}[reduction](expected)
    loss = loss_fn(mf.tensor(Z), target)
    assert loss.shape == expected.shape
    np.testing.assert_allclose(loss.data, expected, rtol=1e-13)
    assert mf.gradcheck(lambda z: loss_fn(z, target), Z) <= 1e-6
    assert mf.gradcheck(mf.grad(lambda z: np.sum(np.square(loss_fn(z, target)))), Z) <= 1e-6


@rows
def test_float32_and_repeated_walks(name):
    kind, options, target, _ = LOSSES[name]
    z = mf.tensor(Z.astype(np.float32), requires_grad=True)
    loss = kind(**options)(z, target)
    assert loss.dtype == np.float32 and loss.shape == ()
    loss.backward(retain_graph=True)
    first = z.grad.copy()
    z.zero_grad()
    loss.backward()
    assert z.grad.dtype == np.float32
    np.testing.assert_array_equal(first, z.grad)
    np.testing.assert_allclose(first, mf.grad(lambda t: kind(**options)(t, target))(Z), rtol=1e-4, atol=1e-6)


@rows
def test_one_row(name):
    kind, options, target, value = LOSSES[name]
    assert mf.gradcheck(lambda z: kind(**options)(z, target[:1]), Z[:1]) <= 1e-6


@pytest.mark.parametrize("name", ["MSELoss", "L1Loss", "HuberLoss", "BCEWithLogitsLoss"])
def test_a_target_may_need_a_gradient_or_be_a_tensor(name):
    kind, options, target, _ = LOSSES[name]
    loss = kind(**options)(mf.tensor(Z), mf.tensor(target))
    np.testing.assert_array_equal(loss.data, kind(**options)(mf.tensor(Z), target).data)


@pytest.mark.parametrize("name", ["MSELoss", "L1Loss", "HuberLoss"])
def test_the_gradient_by_the_target_is_the_opposite(name):
    kind, options, target, _ = LOSSES[name]
    a, b = mf.grad(lambda z, t: kind(**options)(z, t), (0, 1))(Z, target)
    np.testing.assert_allclose(a, -b)


@pytest.mark.parametrize("shape", [(), (7,), (5, 1), (40, 500), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int8])
def test_the_plain_squared_error_is_what_weights_of_1_give(shape, dtype):
    """The one is an op of its own, with sums of its own for few entries and for many."""
    rng = np.random.default_rng(0)
    z, t = (np.asarray(rng.normal(0, 5, shape), dtype) for _ in range(2))
    y = nn.MSELoss()(mf.tensor(z), t)
    squares = nn.MSELoss("none")(mf.tensor(z), t)
    assert y.dtype == (np.float64 if dtype in (np.int32, np.int8) else dtype)
    np.testing.assert_allclose(y.data, squares.data.mean(dtype=np.float64), rtol=1e-6)
    if dtype is np.float64:
        slope = mf.grad(nn.MSELoss())(z, t)
        np.testing.assert_allclose(slope, 2 * (z - t) / z.size, rtol=1e-15)


def test_the_plain_squared_error_is_one_node():
    z = mf.tensor(np.ones((3, 2)), requires_grad=True)
    assert nn.MSELoss()(z, np.zeros((3, 2)))._node.parents == (z._leaf, None)
    with pytest.raises(ShapeError, match=r"^squared_error: expected two arrays of one shape .*got \(3, 2\) and \(2,\)"):
        mf.ops.loss.squared_error(z, np.zeros(2))
    with pytest.raises(ShapeError, match="at least one entry"):
        mf.ops.loss.squared_error(mf.tensor(np.zeros((0, 2))), np.zeros((0, 2)))


# Vectors


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_values_and_derivatives_of_vectors(name, reduction):
    kind, options, others, value = VECTORS[name]
    loss_fn = kind(**options, reduction=reduction)
    expected = {"mean": np.mean, "sum": np.sum, "none": np.asarray}[reduction](value(Z, *others))
    *vectors, target = others
    if kind is nn.TripletMarginLoss:
        vectors, target = [*vectors, target], ()
    else:
        target = (target,)
    loss = loss_fn(mf.tensor(Z), *(mf.tensor(v) for v in vectors), *target)
    np.testing.assert_allclose(loss.data, expected, rtol=1e-12)
    assert mf.gradcheck(lambda *v: loss_fn(*v, *target), Z, *vectors) <= 1e-6
    again = mf.grad(lambda *v: np.sum(np.square(loss_fn(*v, *target))), range(1 + len(vectors)))
    assert mf.gradcheck(again, Z, *vectors) <= 1e-6
    single = [mf.tensor(v.astype(np.float32)) for v in (Z, *vectors)]
    assert loss_fn(*single, *target).dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zero_vectors_cost_what_they_should(dtype):
    zero, some = np.zeros((2, 3), dtype), np.ones((2, 3), dtype)
    a = mf.tensor(zero, requires_grad=True)
    loss = nn.CosineEmbeddingLoss(margin=-0.5, reduction="none")(a, mf.tensor(some), np.array([1, -1]))
    np.testing.assert_array_equal(loss.data, [1, 0.5])
    loss.sum().backward()
    np.testing.assert_array_equal(a.grad, 0)
    a.zero_grad()
    loss = nn.TripletMarginLoss(reduction="none")(a, mf.tensor(zero), mf.tensor(zero))
    np.testing.assert_array_equal(loss.data, 1)
    loss.sum().backward()
    np.testing.assert_array_equal(a.grad, 0)
    big = mf.tensor(np.full((1, 3), np.finfo(dtype).max / 8), requires_grad=True)
    loss = nn.CosineEmbeddingLoss()(big, mf.tensor(some[:1]), np.array([1]))
    loss.backward()
    assert abs(loss.item()) < 1e-6 and np.isfinite(big.grad).all()


# Weights of the rows


@rows
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_sample_weights(name, reduction):
    kind, options, target, value = LOSSES[name]
    w = np.array([1.0, 0.0, 2.0, 3.0, 0.5])
    loss_fn = kind(**options, reduction=reduction)
    losses = value(Z, target)
    weighted = losses * w.reshape(-1, *[1] * (losses.ndim - 1))
    expected = {"mean": weighted.sum() / (w.sum() * losses[0].size), "sum": weighted.sum(), "none": weighted}[reduction]
    np.testing.assert_allclose(loss_fn(mf.tensor(Z), target, w).data, expected, rtol=1e-13)
    assert mf.gradcheck(lambda z: loss_fn(z, target, sample_weight=w), Z) <= 1e-6
    z = mf.tensor(Z.astype(np.float32))
    assert loss_fn(z, target, w).dtype == np.float32


@pytest.mark.parametrize("name", VECTORS)
def test_sample_weights_of_vectors(name):
    kind, options, others, value = VECTORS[name]
    w = np.array([1.0, 0.0, 2.0, 3.0, 0.5])
    given = [mf.tensor(o) if o.dtype.kind == "f" else o for o in others]
    got = kind(**options)(mf.tensor(Z), *given, w)
    np.testing.assert_allclose(got.data, np.sum(value(Z, *others) * w) / w.sum(), rtol=1e-12)


@rows
def test_a_weight_of_two_is_the_row_twice(name):
    kind, options, target, _ = LOSSES[name]
    twice = [0, 1, 1, 2, 3, 4, 4]
    a = kind(**options)(mf.tensor(Z), target, [1, 2, 1, 1, 2])
    np.testing.assert_allclose(a.data, kind(**options)(mf.tensor(Z[twice]), target[twice]).data, rtol=1e-12)


@rows
def test_bad_sample_weights(name):
    kind, options, target, _ = LOSSES[name]
    loss_fn = kind(**options)
    with pytest.raises(ShapeError, match=r"expected a sample_weight for each of 5 rows, got shape \(4,\)"):
        loss_fn(mf.tensor(Z), target, np.ones(4))
    for bad in ([1, 1, -1, 1, 1], [1, np.nan, 1, 1, 1], [np.inf, 1, 1, 1, 1]):
        with pytest.raises(DataError, match="expected a sample_weight of at least 0 for each row, got"):
            loss_fn(mf.tensor(Z), target, bad)
    with pytest.raises(DataError, match="with a positive weight, got none in this batch"):
        loss_fn(mf.tensor(Z), target, np.zeros(5))


def test_class_and_sample_weights_together():
    w = np.array([1.0, 0.0, 2.0, 3.0, 0.5])
    for kind, scores in ((nn.CrossEntropyLoss, Z), (nn.NLLLoss, logp(Z))):
        got = kind(weight=WEIGHT)(mf.tensor(scores), LABELS, w)
        both = WEIGHT[LABELS] * w
        np.testing.assert_allclose(got.data, np.sum(-both * logp(Z)[np.arange(5), LABELS]) / both.sum(), rtol=1e-13)


# Labels that do not count


@pytest.mark.parametrize("kind", [nn.CrossEntropyLoss, nn.NLLLoss])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignored", [-100, 2])
def test_ignored_labels(kind, reduction, ignored):
    labels = np.array([ignored, 0, 1, ignored, 1])
    kept = labels != ignored
    loss_fn = kind(weight=WEIGHT, reduction=reduction, ignore_index=ignored)
    scores = Z if kind is nn.CrossEntropyLoss else logp(Z)
    got, rest = loss_fn(mf.tensor(scores), labels), loss_fn(mf.tensor(scores[kept]), labels[kept])
    if reduction == "none":
        np.testing.assert_array_equal(got.data[~kept], 0)
        got = got[kept]
    np.testing.assert_allclose(got.data, rest.data, rtol=1e-14)
    slope = mf.grad(lambda z: loss_fn(z, labels).sum())(scores)
    np.testing.assert_array_equal(slope[~kept], 0)
    assert mf.gradcheck(lambda z: loss_fn(z, labels), scores) <= 1e-6
    with pytest.raises(DataError, match=f"expected a label other than ignore_index {ignored}, got none in this batch"):
        loss_fn(mf.tensor(scores), np.full(5, ignored))
    with pytest.raises(DataError, match="expected labels from 0 to 2, got 3 at row 4"):
        loss_fn(mf.tensor(scores), np.array([ignored, 0, 1, ignored, 3]))


# Class weights and smoothing


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smooth", [0.0, 0.2, 1.0])
def test_class_weights(reduction, smooth):
    loss_fn = nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=smooth, reduction=reduction)
    target = (1 - smooth) * np.eye(3)[LABELS] + smooth / 3
    losses = -np.sum(WEIGHT * target * logp(Z), axis=1)
    expected = {"mean": losses.sum() / WEIGHT[LABELS].sum(), "sum": losses.sum(), "none": losses}[reduction]
    np.testing.assert_allclose(loss_fn(mf.tensor(Z), LABELS).data, expected, rtol=1e-13)
    assert mf.gradcheck(lambda z: loss_fn(z, LABELS), Z) <= 1e-6


def test_weights_of_one_change_nothing():
    plain, weighted = nn.CrossEntropyLoss(), nn.CrossEntropyLoss(weight=[1, 1, 1])
    np.testing.assert_allclose(
        mf.grad(lambda z: plain(z, LABELS))(Z), mf.grad(lambda z: weighted(z, LABELS))(Z), atol=1e-15
    )


def test_a_class_of_weight_zero_has_no_say():
    loss_fn = nn.CrossEntropyLoss(weight=[1, 1, 0])
    gradient = mf.grad(lambda z: loss_fn(z, LABELS))(Z)
    np.testing.assert_array_equal(gradient[LABELS == 2], 0)
    with pytest.raises(DataError, match="expected a label with a positive weight, got none in this batch"):
        loss_fn(mf.tensor(Z), np.full(5, 2))


# Stability


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "options", [{}, {"reduction": "sum"}, {"label_smoothing": 0.1}, {"weight": [1.0, 2.0]}], ids=str
)
def test_cross_entropy_of_huge_logits(dtype, options):
    loss_fn = nn.CrossEntropyLoss(**options)
    for good, y in ((1, [0, 1]), (-1, [1, 0])):
        z = mf.tensor(good * np.array([[1e4, -1e4], [-1e4, 1e4]], dtype), requires_grad=True)
        loss = loss_fn(z, np.array(y))
        loss.backward()
        assert np.isfinite(loss.data) and np.isfinite(z.grad).all()
        if not options:
            assert abs(loss.item()) < 1e-6
            np.testing.assert_array_equal(z.grad, 0)
    z = mf.tensor(np.array([[1e4, -1e4]], dtype), requires_grad=True)
    loss = nn.CrossEntropyLoss()(z, np.array([1]))
    loss.backward()
    assert loss.item() == 2e4
    np.testing.assert_array_equal(z.grad, [[1, -1]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_very_different_size_do_not_disturb_each_other(dtype):
    """One row of huge logits, and one whose digits must survive beside it."""
    z = np.array([[0.3, -0.2, 0.9], [1e4, 0, -1e4], [-60.0, -61.0, -62.5], [30.0, 31.0, 10.0]], dtype)
    y = np.array([1, 0, 2, 0])
    got = mf.grad(lambda t: nn.CrossEntropyLoss()(t, y))(z)
    for k in range(4):
        alone = mf.grad(lambda t: nn.CrossEntropyLoss()(t, y[k : k + 1]))(z[k : k + 1].astype(np.float64))  # noqa: B023
        np.testing.assert_allclose(got[k : k + 1] * 4, alone, rtol=20 * np.finfo(dtype).eps, atol=1e-30)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("gap", [0.0, 20.0, 40.0])
def test_small_gradients_keep_their_digits_beside_larger_rows(dtype, gap):
    z = np.array([[gap, gap - 1], [0.0, -40.0]], dtype)
    got = mf.grad(lambda t: nn.CrossEntropyLoss()(t, np.array([0, 0])))(z)
    p = np.exp(-40.0) / (1 + np.exp(-40.0))
    np.testing.assert_allclose(got[1], [-p / 2, p / 2], rtol=40 * np.finfo(dtype).eps)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 10, 32, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_perfect_prediction_costs_nothing(n, dtype):
    loss = nn.CrossEntropyLoss()(mf.tensor(np.tile(np.array([[200.0, 0.0]], dtype), (n, 1))), np.zeros(n, int))
    assert 0 <= loss.item() <= 4 * np.finfo(dtype).eps * max(1, np.log(n))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_binary_cross_entropy_of_huge_logits(dtype):
    z = mf.tensor(np.array([1e4, 1e4, -1e4, -1e4], dtype), requires_grad=True)
    loss = nn.BCEWithLogitsLoss(reduction="none")(z, np.array([0, 1, 0, 1]))
    np.testing.assert_array_equal(loss.data, [1e4, 0, 0, 1e4])
    loss.backward(np.ones(4, dtype))
    np.testing.assert_array_equal(z.grad, [1, 0, 0, -1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weighted_binary_cross_entropy_of_huge_logits(dtype):
    z = mf.tensor(np.array([1e4, 1e4, -1e4, -1e4], dtype), requires_grad=True)
    loss = nn.BCEWithLogitsLoss(pos_weight=3.0, reduction="none")(z, np.array([0, 1, 0, 1]))
    np.testing.assert_array_equal(loss.data, [1e4, 0, 0, 3e4])
    loss.backward(np.ones(4, dtype))
    np.testing.assert_array_equal(z.grad, [1, 0, 0, -3])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probabilities_of_zero_and_one(dtype):
    z = mf.tensor(np.array([[-np.inf, 0.0], [-1e4, 0.0], [0.0, -np.inf]], dtype), requires_grad=True)
    target = np.array([[0, 1], [1, 0], [1, 0]])
    for loss_fn, t in ((nn.KLDivLoss(reduction="none"), target), (nn.NLLLoss(reduction="none"), target.argmax(1))):
        z.zero_grad()
        loss = loss_fn(z, t)
        np.testing.assert_array_equal(loss.data, [0, 1e4, 0])
        loss.sum().backward()
        np.testing.assert_array_equal(z.grad, -target)
    with np.errstate(divide="ignore"):
        loss = nn.KLDivLoss(reduction="none", log_target=True)(z, np.log(target.astype(dtype)))
    np.testing.assert_array_equal(loss.data, [0, 1e4, 0])
    t = mf.tensor(np.array([[0.0, 1.0]], dtype), requires_grad=True)
    nn.KLDivLoss()(mf.tensor(np.log(np.array([[0.5, 0.5]], dtype))), t).backward()
    assert np.isfinite(t.grad).all()


@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"ignore_index": 0}], ids=str)
def test_cross_entropy_of_an_impossible_class(options):
    z = mf.tensor([[-np.inf, 0.0], [-np.inf, 1.0]], requires_grad=True)
    loss = nn.CrossEntropyLoss(**options)(z, np.array([1, 1]))
    with np.errstate(all="ignore"):
        loss.backward()
    assert loss.item() == 0
    np.testing.assert_array_equal(z.grad, 0)


def test_poisson_at_the_edges():
    z = mf.tensor([-1e4, 0.0], requires_grad=True)
    nn.PoissonNLLLoss(reduction="sum")(z, [2.0, 0.0]).backward()
    np.testing.assert_array_equal(z.grad, [-2, 1])
    rate = mf.tensor([0.0, 0.0, 3.0], requires_grad=True)
    loss = nn.PoissonNLLLoss(log_input=False, reduction="none")(rate, [0.0, 1.0, 2.0])
    np.testing.assert_allclose(loss.data, [0, -np.log(1e-8), 3 - 2 * np.log(3 + 1e-8)])
    assert mf.gradcheck(lambda r: nn.PoissonNLLLoss(log_input=False)(r, COUNTS), np.abs(T) + 0.1) <= 1e-6


def test_huber_is_continuous_at_delta():
    for x in (1.0 - 1e-9, 1.0 + 1e-9):
        np.testing.assert_allclose(mf.grad(lambda z: nn.HuberLoss()(z, [0.0]))(np.array([x])), [1], atol=1e-8)
    np.testing.assert_allclose(nn.HuberLoss()(mf.tensor([3.0]), [0.0]).item(), 2.5)


# Bad input


WRONG_LABELS = {
    "negative": ([0, 1, -1, 2, 0], "expected labels from 0 to 2, got -1 at row 2; encode them as 0, 1, 2"),
    "very negative": ([0, 1, -9, 2, 0], "expected labels from 0 to 2, got -9 at row 2"),
    "too large": ([0, 1, 2, 3, 0], "expected labels from 0 to 2, got 3 at row 3; encode them as 0, 1, 2"),
    "floats": (
        [0.0, 1.0, 2.0, 0.0, 0.0],
        "expected integer labels of shape (N,), got float64; cast them with .astype(int)",
    ),
    "booleans": ([True, False, True, True, True], "expected integer labels of shape (N,), got bool"),
    "text": (["a", "b", "a", "b", "c"], "expected integer labels of shape (N,), got <U1"),
}


@pytest.mark.parametrize("name", WRONG_LABELS)
@pytest.mark.parametrize("options", [{}, {"reduction": "none"}, {"label_smoothing": 0.1}, {"weight": WEIGHT}], ids=str)
@pytest.mark.parametrize("how", [np.asarray, list])
def test_wrong_labels(name, options, how):
    labels, text = WRONG_LABELS[name]
    with pytest.raises(DataError) as info:
        nn.CrossEntropyLoss(**options)(mf.tensor(Z), how(labels))
    assert str(info.value).startswith(f"CrossEntropyLoss: {text}")


def test_labels_of_any_integer_type():
    expected = nn.CrossEntropyLoss()(mf.tensor(Z), LABELS).data
    for dtype in (np.int8, np.uint8, np.int32, np.uint64):
        np.testing.assert_array_equal(nn.CrossEntropyLoss()(mf.tensor(Z), LABELS.astype(dtype)).data, expected)
    np.testing.assert_array_equal(nn.CrossEntropyLoss()(mf.tensor(Z), LABELS.tolist()).data, expected)
    np.testing.assert_array_equal(nn.CrossEntropyLoss()(mf.tensor(Z), mf.tensor(LABELS)).data, expected)


@pytest.mark.parametrize("options", [{}, {"reduction": "none"}, {"label_smoothing": 0.1}], ids=str)
def test_shapes_of_labels(options):
    loss_fn = nn.CrossEntropyLoss(**options)
    with pytest.raises(ShapeError) as info:
        loss_fn(mf.tensor(Z), LABELS[:, None])
    assert str(info.value) == (
        "CrossEntropyLoss: expected logits (N, C) and integer labels (N,), N at least 1, got (5, 3) and (5, 1); "
        "flatten the labels with y.ravel()"
    )
    for logits, labels in (
        (Z, LABELS[:4]),
        (Z[0], LABELS),
        (Z[None], LABELS),
        (Z, np.array(1)),
        (Z, np.eye(3, dtype=int)[LABELS]),
    ):
        with pytest.raises(ShapeError, match="^CrossEntropyLoss: expected logits"):
            loss_fn(mf.tensor(logits), labels)
    with pytest.raises(ShapeError, match="skip empty batches"):
        loss_fn(mf.tensor(np.zeros((0, 3))), np.zeros(0, int))
    with pytest.raises(DTypeError, match="^CrossEntropyLoss: expected the logits to be a Tensor, got ndarray"):
        loss_fn(Z, LABELS)


@pytest.mark.parametrize("kind", [nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.HingeLoss, nn.BCEWithLogitsLoss])
def test_nothing_is_broadcast(kind):
    name = kind.__name__
    with pytest.raises(ShapeError) as info:
        kind()(mf.tensor(np.ones((4, 1))), np.ones(4))
    assert str(info.value) == (
        f"{name}: expected prediction and target of one shape, got (4, 1) and (4,); reshape the target with y[:, None]"
    )
    for p, t in (((4,), (4, 1)), ((4, 3), (3,)), ((4, 3), ()), ((4, 1), (4, 2))):
        with pytest.raises(ShapeError, match=f"^{name}: expected prediction and target of one shape"):
            kind()(mf.tensor(np.ones(p)), np.ones(t))
    with pytest.raises(
        ShapeError, match=rf"^{name}: expected at least one row, got shape \(0, 2\); skip empty batches"
    ):
        kind()(mf.tensor(np.ones((0, 2))), np.ones((0, 2)))
    with pytest.raises(
        DTypeError, match=f"^{name}: expected the prediction to be a Tensor, got ndarray; pass the model's"
    ):
        kind()(np.ones(3), np.ones(3))


def test_targets_out_of_range():
    with pytest.raises(
        DataError, match=r"^HingeLoss: expected targets of -1 and 1, got 0.0; map labels 0 and 1 by 2 \* y - 1"
    ):
        nn.HingeLoss()(mf.tensor([1.0, 2.0]), [0, 1])
    for bad in ([0.5, 1.5], [-0.1, 1.0], [np.nan, 1.0]):
        with pytest.raises(DataError, match="^BCEWithLogitsLoss: expected targets from 0 to 1, got"):
            nn.BCEWithLogitsLoss()(mf.tensor([1.0, 2.0]), bad)
    with pytest.raises(DataError):
        nn.HingeLoss()(mf.tensor([1.0]), [np.nan])


def test_settings_out_of_range():
    for kind in {row[0] for row in (LOSSES | VECTORS).values()}:
        with pytest.raises(
            ArgumentError, match=f"^{kind.__name__}: expected reduction to be 'mean', 'sum' or 'none', got 'avg'"
        ):
            kind(reduction="avg")
    for delta in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ArgumentError, match="^HuberLoss: expected a positive delta"):
            nn.HuberLoss(delta)
    for smooth in (-0.1, 1.1, float("nan")):
        with pytest.raises(ArgumentError, match="expected label_smoothing from 0 to 1"):
            nn.CrossEntropyLoss(label_smoothing=smooth)
    for weight in ([-1, 1, 1], [0, 0], [[1, 1]], [np.nan, 1]):
        with pytest.raises(ArgumentError, match="expected a weight of at least 0 for each class"):
            nn.CrossEntropyLoss(weight=weight)
    with pytest.raises(ShapeError, match="expected a weight for each of 3 classes, got 2 of them"):
        nn.CrossEntropyLoss(weight=[1, 1])(mf.tensor(Z), LABELS)


def test_other_losses_say_what_is_wrong():
    with pytest.raises(
        DataError, match="^KLDivLoss: expected target probabilities from 0 to 1, got .* pass log_target=True"
    ):
        nn.KLDivLoss()(mf.tensor(Z), T)
    with pytest.raises(ShapeError, match="^KLDivLoss: expected distributions along the last axis, got a single number"):
        nn.KLDivLoss()(mf.tensor(0.0), 1.0)
    with pytest.raises(DataError, match="^PoissonNLLLoss: expected counts of at least 0, got -1.0"):
        nn.PoissonNLLLoss()(mf.tensor([1.0, 2.0]), [-1, 2])
    with pytest.raises(DataError, match="^PoissonNLLLoss: expected rates of at least 0, got -1.0; pass log_input=True"):
        nn.PoissonNLLLoss(log_input=False)(mf.tensor([-1.0, 2.0]), [1, 2])
    with pytest.raises(ArgumentError, match="^PoissonNLLLoss: expected a positive eps, got 0"):
        nn.PoissonNLLLoss(eps=0)
    a = mf.tensor(Z)
    with pytest.raises(DataError, match="^CosineEmbeddingLoss: expected targets of -1 and 1, got 0"):
        nn.CosineEmbeddingLoss()(a, a, np.zeros(5))
    with pytest.raises(ShapeError, match=r"^CosineEmbeddingLoss: expected targets of shape \(5,\), got \(3,\)"):
        nn.CosineEmbeddingLoss()(a, a, np.ones(3))
    for call in (lambda x: nn.CosineEmbeddingLoss()(x, x, 1), lambda x: nn.TripletMarginLoss()(x, x, x)):
        with pytest.raises(ShapeError, match=r"expected vectors of shape \(N, C\), got \(3,\)"):
            call(a[0])
    with pytest.raises(ShapeError, match="^TripletMarginLoss: expected prediction and target of one shape"):
        nn.TripletMarginLoss()(a, a, a[:2])
    with pytest.raises(ArgumentError, match="^CosineEmbeddingLoss: expected margin from -1 to 1, got 2"):
        nn.CosineEmbeddingLoss(margin=2)
    with pytest.raises(ArgumentError, match="^TripletMarginLoss: expected a positive margin, got 0"):
        nn.TripletMarginLoss(margin=0)
    with pytest.raises(ArgumentError, match="^NLLLoss: expected ignore_index to be an integer, got 1.5"):
        nn.NLLLoss(ignore_index=1.5)
    for options in ({"weight": "sum"}, {"pos_weight": -1.0}, {"weight": [1, np.inf]}):
        with pytest.raises(ArgumentError, match="weight of at least 0 for each class, got"):
            nn.BCEWithLogitsLoss(**options)
    with pytest.raises(
        ShapeError, match=r"expected a pos_weight for each entry of the last axis of \(5, 3\), got 2 of them"
    ):
        nn.BCEWithLogitsLoss(pos_weight=[1, 2])(a, SHARES)
    with pytest.raises(ShapeError, match=r"expected a weight for each entry of the last axis of \(\), got 1 of them"):
        nn.BCEWithLogitsLoss(weight=[1])(mf.tensor(0.0), 1.0)
    for bad in (["a"] * 5, np.ones(5, complex), [None, {}, 1, 1, 1], [[1], [1, 2]]):
        with pytest.raises(DTypeError, match="^MSELoss: expected the target to hold numbers, got (list|ndarray)"):
            nn.MSELoss()(mf.tensor(Z), bad)
        with pytest.raises(
            DTypeError, match="^NLLLoss: expected the sample_weight to hold numbers, got (list|ndarray)"
        ):
            nn.NLLLoss()(mf.tensor(Z), LABELS, bad)
    with pytest.raises(ShapeError, match="expected a sample_weight for each of 1 rows"):
        nn.MSELoss()(mf.tensor(0.0), 1.0, sample_weight=[1.0])
