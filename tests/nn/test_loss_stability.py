"""Losses of huge logits, impossible classes and tiny gradients keep their digits."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from tests.cases.losses import COUNTS, T


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
    """One row of huge logits, and one whose digits must survive next to it."""
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


@pytest.mark.parametrize(("n", "margin"), [(512, 14), (4096, 12), (4096, 14), (100_000, 8), (100_000, 14)])
def test_cross_entropy_of_float32_keeps_the_digits_of_a_small_loss(n, margin):
    rng = np.random.default_rng(0)
    z, y = rng.normal(0, 0.3, (n, 4)).astype(np.float32), rng.integers(0, 4, n)
    z[np.arange(n), y] += margin
    right, got = (nn.CrossEntropyLoss()(mf.tensor(logits), y).item() for logits in (z.astype(np.float64), z))
    assert abs(got - right) <= 2 * np.finfo(np.float32).eps / np.sqrt(n) + 1e-6 * right


def test_a_loss_that_rounds_to_zero_has_no_sign():
    for n in range(1, 100):
        loss = nn.CrossEntropyLoss()(mf.tensor(np.tile(np.array([[20.0, 0.0]], np.float32), (n, 1))), np.zeros(n, int))
        assert loss.item() >= 0 and not np.signbit(loss.item())


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


@pytest.mark.parametrize("pos_weight", [None, 1.0, [1.0, 3.0]])
def test_binary_cross_entropy_of_infinite_logits_is_the_limit_of_huge_ones(pos_weight):
    targets = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]], np.float32)
    signs = np.array([[-1.0, -1.0], [1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]], np.float32)
    loss_fn, found = nn.BCEWithLogitsLoss(pos_weight=pos_weight, reduction="none"), []
    for size in (1e38, np.inf):
        z = mf.tensor(size * signs, requires_grad=True)
        with np.errstate(invalid="raise", over="raise"):
            loss = loss_fn(z, targets)
        loss.backward(np.ones_like(targets))
        found.append((loss.data, z.grad))
    np.testing.assert_array_equal(found[1][0], np.where(found[0][0] == 0, 0, np.inf))
    np.testing.assert_array_equal(found[1][1], found[0][1])


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
