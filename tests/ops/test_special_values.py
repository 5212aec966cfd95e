"""Ops at edges: tails, zeros, empty arrays, casts, and indices that repeat."""

from __future__ import annotations

import math

import numpy as np
import pytest

import microfw as mf
from microfw import ops
from microfw.errors import ArgumentError, GraphError, ShapeError
from tests.cases.ops import CASES

pytestmark = pytest.mark.usefixtures("quiet")


# Where several values are possible


def test_cross_entropy_at_the_edge():
    z = mf.tensor([[1e4, -1e4]], requires_grad=True)
    loss = ops.loss.cross_entropy(z, np.array([1]))
    assert loss.item() == 2e4
    loss.backward()
    np.testing.assert_array_equal(z.grad, [[1, -1]])
    z = mf.tensor([[-np.inf, 0.0]], requires_grad=True)
    loss = ops.loss.cross_entropy(z, np.array([1]))
    with np.errstate(all="ignore"):
        loss.backward()
    assert loss.item() == 0
    np.testing.assert_array_equal(z.grad, [[0, 0]])


def test_cross_entropy_keeps_the_digits_of_a_small_gradient():
    z = np.array([[40.0, 0.0, 0.0]])
    slope = mf.grad(lambda t: ops.loss.cross_entropy(t, np.array([0])))(z)
    expected = math.exp(-40) / (1 + 2 * math.exp(-40))
    np.testing.assert_allclose(slope, [[-2 * expected, expected, expected]], rtol=1e-14)


@pytest.mark.parametrize(
    ("function", "exact"),
    [
        (ops.elementwise.sigmoid, lambda x: math.exp(-abs(x)) / (1 + math.exp(-abs(x))) ** 2),
        (np.tanh, lambda x: 4 * math.exp(-2 * abs(x)) / (1 + math.exp(-2 * abs(x))) ** 2),
        (ops.elementwise.softplus, lambda x: math.exp(x) / (1 + math.exp(x)) if x < 0 else 1 / (1 + math.exp(-x))),
    ],
)
def test_slopes_are_exact_in_the_tails(function, exact):
    x = np.linspace(-300, 300, 2001)
    t = mf.tensor(x, requires_grad=True)
    function(t).backward(np.ones_like(x))
    np.testing.assert_allclose(t.grad, [exact(v) for v in x], rtol=2e-15 * 4)


def test_mean_of_nothing_is_an_error():
    with pytest.raises(mf.errors.ShapeError, match=r"^mean: expected at least one entry, got shape \(0, 3\)"):
        np.mean(mf.tensor(np.zeros((0, 3))))


@pytest.mark.parametrize("axis", [None, 0])
def test_logarithm_of_a_sum_of_nothing(axis):
    x = mf.tensor(np.zeros((0, 3)), requires_grad=True)
    y = ops.reduction.logsumexp(x, axis=axis)
    np.testing.assert_array_equal(y.data, np.full(np.sum(x.data, axis=axis).shape, -np.inf))
    y.backward(np.ones(y.shape))
    assert x.grad.shape == (0, 3)


def test_astype_casts_and_casts_back():
    x = mf.tensor(np.array([1.5, 2.5], np.float32), requires_grad=True)
    y = (x.astype(np.float64) * np.array([1.0, 2.0])).sum()
    assert y.dtype == np.float64
    y.backward()
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad, [1, 2])


def test_an_index_changed_later_changes_nothing():
    x = mf.tensor([1.0, 2.0, 3.0], requires_grad=True)
    key = np.array([0, 0])
    y = x[key].sum()
    key[...] = 2
    y.backward()
    np.testing.assert_array_equal(x.grad, [2, 0, 0])


def test_taking_twice_the_same_entry_adds_up():
    x = mf.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (x[[0, 0, 2]] * np.array([1.0, 10.0, 100.0])).sum().backward()
    np.testing.assert_array_equal(x.grad, [11, 0, 100])


def test_parameters_of_an_op_may_have_any_name():
    words = (
        "dtype",
        "mode",
        "observer",
        "recording",
        "shared",
        "saved_versions",
        "edges",
        "node",
        "made",
        "op",
        "began",
    )
    for word in words:
        namespace = {}
        exec(f"def value(x, *, {word}): return x * {word}\ndef rule(g, {word}): return g * {word}", namespace)
        scale = mf.op(
            namespace["value"], vjp=namespace["rule"], jvp="linear", name=f"scale by {word}".replace(" ", "_")
        )
        x = mf.tensor([1.0, 2.0], requires_grad=True)
        y = scale(x, **{word: 3.0})
        np.testing.assert_array_equal(y.data, [3, 6], err_msg=word)
        y.sum().backward()
        np.testing.assert_array_equal(x.grad, [3, 3], err_msg=word)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "softplus", "erf", "identity", "exp", "softmax", "sum", "max"])
def test_numbers_and_lists_will_do(name):
    (case,) = [c for c in CASES if c.name == name]
    if name != "softmax":
        np.testing.assert_allclose(case.op.call(2.0).data, case.reference(2.0), rtol=1e-14)
        np.testing.assert_allclose(case.op.call(np.float64(2.0)).data, case.reference(2.0), rtol=1e-14)
    np.testing.assert_allclose(case.op.call([1.0, 2.0]).data, case.reference(np.array([1.0, 2.0])), rtol=1e-14)


@pytest.mark.parametrize(
    ("function", "third"),
    [
        (ops.elementwise.sigmoid, -0.125),
        (np.tanh, -2.0),
        (ops.elementwise.softplus, 0.0),
        (ops.elementwise.erf, -4 / math.sqrt(math.pi)),
    ],
)
@pytest.mark.parametrize("x", [0.0, -0.0])
def test_third_derivatives_at_zero(function, third, x):
    """Where a rule written with abs would be wrong."""
    np.testing.assert_allclose(mf.grad(mf.grad(mf.grad(function)))(x), third, atol=1e-15)
    np.testing.assert_allclose(mf.jvp(mf.grad(mf.grad(function)), (x,), (1.0,))[1], third, atol=1e-15)
    fourth = {ops.elementwise.softplus: -0.125}.get(function, 0.0)
    np.testing.assert_allclose(mf.grad(mf.grad(mf.grad(mf.grad(function))))(x), fourth, atol=1e-15)


def test_no_gradient_goes_through_a_cast_to_integers():
    x = mf.tensor([1.5, 2.5], requires_grad=True)
    (x * x.astype(int).astype(np.float64)).sum().backward()
    np.testing.assert_array_equal(x.grad, [1, 2])
    assert mf.jvp(lambda t: t.astype(int).astype(np.float64), (np.array([1.5]),), (np.array([1.0]),))[1] == 0


def test_an_op_says_what_is_wrong_with_its_declaration_or_rule():
    with pytest.raises(ArgumentError, match=r"op scaled: .* got one for k; put a \* before k if it is a setting"):
        mf.op(lambda x, k=2: x * k, name="scaled")
    doubled = mf.op(lambda x: 2 * x, vjp=lambda g, x: 2.0, name="doubled_by_a_number")
    x = mf.tensor([1.0, 2.0], requires_grad=True)
    text = "doubled_by_a_number: expected the derivative rule to return an array, got float"
    with pytest.raises(GraphError, match=text):
        doubled(x).sum().backward()
    with pytest.raises(GraphError, match=text):
        mf.grad(lambda x: doubled(x).sum())(np.ones(2))
    for k, rule in enumerate((lambda g, x: g.shapes, lambda g, x: list(x).shape)):  # a fault of the rule's own
        broken = mf.op(lambda x: 2 * x, vjp=rule, name=f"broken_in_the_rule_{k}")
        with pytest.raises(AttributeError, match="shape"):
            broken(x).sum().backward()


def test_squared_error_compares_shapes_first():
    with pytest.raises(ShapeError, match=r"squared_error: .* got \(3,\) and \(2,\)"):
        ops.squared_error(np.ones(3), np.ones(2))
    with pytest.raises(ShapeError, match=r"got \(3, 1\) and \(3,\)"):
        ops.squared_error(np.ones((3, 1)), np.ones(3))
    assert mf.hessian(lambda t: ops.squared_error(2.0, t))(np.array(1.0)) == 2.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_relu_of_a_large_array(dtype):
    x = np.linspace(-1, 1, (1 << 18) + 3, dtype=dtype)
    t = mf.tensor(x, requires_grad=True)
    ops.elementwise.relu(t).backward(np.full(x.shape, 2, dtype))
    np.testing.assert_array_equal(t.grad, np.where(x > 0, 2, 0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_binary_loss_of_a_number_for_many_targets(dtype):
    """It takes the precision of the targets, as any op with a number does."""
    t = np.array([0.0, 1.0, 0.5], dtype)
    for given in (t, mf.tensor(t)):
        y = ops.loss.bce_with_logits(2.0, given)
        assert y.dtype == dtype
        np.testing.assert_allclose(y.data, ops.loss.bce_with_logits(np.full(3, 2, dtype), t).data, rtol=1e-6)
    assert ops.loss.bce_with_logits(2, mf.tensor([True, False])).dtype == np.float64


@pytest.mark.parametrize("shape", [(2, 5, 0), (0,), (4, 0), (2, 0, 3)])
def test_linear_of_nothing(shape):
    x, w, b = (mf.tensor(np.ones(s), requires_grad=True) for s in (shape, (shape[-1], 2), (2,)))
    y = ops.linalg.linear(x, w, b)
    np.testing.assert_array_equal(y.data, np.ones((*shape[:-1], 2)))
    y.backward(np.ones(y.shape))
    assert x.grad.shape == shape and w.grad.shape == w.shape
    np.testing.assert_array_equal(w.grad, 0)
    np.testing.assert_array_equal(b.grad, y.size / 2)


# Integers


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_integers_have_the_values_of_floats(dtype):
    largest = 1 if dtype == "?" else np.iinfo(dtype).max
    smallest = np.iinfo(dtype).min if dtype[0] == "i" else 0
    x = np.array([[1, 0, 3], [2, largest, smallest]]).astype(dtype) if dtype != "u8" else np.array([[1, largest]], "u8")
    named = ["softmax", "log_softmax", "logsumexp", "sigmoid", "softplus", "silu", "mish", "elu"]
    for function in [getattr(ops, name) for name in named]:
        got, expected = function(mf.tensor(x)), function(mf.tensor(x.astype(float)))
        assert got.dtype == np.float64
        np.testing.assert_array_equal(got.numpy(), expected.numpy())
    for ord in (None, 1, 2, np.inf, -np.inf):
        got = np.linalg.norm(mf.tensor(x), ord, axis=1)
        assert got.dtype == np.float64
        np.testing.assert_array_equal(got.numpy(), np.linalg.norm(x, ord, axis=1))
