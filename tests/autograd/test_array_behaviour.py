"""A Tensor behaves as a NumPy user expects of an array."""

from __future__ import annotations

import operator
import pickle

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.autograd.registry import OPS
from microfw.errors import DTypeError, GraphError, ShapeError
from tests.cases.samples import floats

A = floats((3, 4))
SQUARE = floats((3, 3), seed=2)

METHODS = [
    ("ravel", (), A), ("flatten", (), A), ("squeeze", (), floats((1, 3, 1))), ("squeeze", (0,), floats((1, 3, 1))), ("swapaxes", (0, 1), A),
    ("repeat", (2,), A), ("repeat", (2, 0), A), ("repeat", ([1, 0, 2], 0), A), ("copy", (), A), ("take", ([0, 5],), A), ("take", ([0, -1], 1), A),
    ("compress", ([True, False, True], 0), A), ("argsort", (), A), ("argsort", (0,), A), ("argsort", (None,), A),
    ("dot", (A.T,), A), ("dot", (floats((2, 4, 2)),), A), ("diagonal", (), A), ("diagonal", (1, 1, 0), A), ("trace", (), SQUARE), ("trace", (-1,), SQUARE),
    ("transpose", ([1, 0],), A), ("transpose", (1, 0), A), ("transpose", (0,), A[0]), ("transpose", (None,), A),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args", "x"), METHODS)
def test_methods_are_numpys(name, args, x):
    t = mf.tensor(x, requires_grad=True)
    y = getattr(t, name)(*args)
    expected = getattr(x, name)(*args)
    assert isinstance(y, mf.Tensor) and y.dtype == expected.dtype and y.requires_grad == (name != "argsort")
    np.testing.assert_allclose(y.data, expected, rtol=1e-14)


def test_taking_out_of_bounds():
    x = mf.tensor(A)
    with pytest.raises(IndexError):
        x.take([9], 1)
    with pytest.raises(IndexError):
        x[[9]]
    np.testing.assert_array_equal(x.take([9], 1, mode="clip").data, A.take([9], 1, mode="clip"))


def test_transposing_properties():
    x = mf.tensor(floats((2, 3, 4)), requires_grad=True)
    np.testing.assert_array_equal(x.T.data, x.data.T)
    np.testing.assert_array_equal(x.mT.data, np.swapaxes(x.data, -1, -2))


def test_a_copy_is_a_node_of_its_own():
    x = mf.tensor([1.0, 2.0], requires_grad=True)
    y = x.copy()
    assert y.requires_grad and not np.shares_memory(y.data, x.data)
    y.sum().backward()
    assert x.grad.tolist() == [1, 1]


# In place


IN_PLACE = {
    operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul, operator.itruediv: operator.truediv,
    operator.ipow: operator.pow, operator.imatmul: operator.matmul,
}  # fmt: skip
if "floor_divide" in OPS:
    IN_PLACE[operator.ifloordiv] = operator.floordiv
if "remainder" in OPS:
    IN_PLACE[operator.imod] = operator.mod


@pytest.mark.parametrize(("in_place", "plain"), IN_PLACE.items(), ids=lambda f: f.__name__)
def test_operators_in_place_make_a_new_tensor_and_write_nothing(in_place, plain):
    x = mf.tensor(SQUARE + 3, requires_grad=True)
    for start in (x * 1.0, mf.tensor(SQUARE + 3)):
        before = start.data.copy()
        made = in_place(start, SQUARE + 4)
        assert made is not start
        np.testing.assert_array_equal(start.data, before)
        np.testing.assert_array_equal(made.data, plain(before, SQUARE + 4))


LEAVES = [lambda: mf.tensor(SQUARE + 3, requires_grad=True), lambda: nn.Parameter(SQUARE + 3)]


@pytest.mark.parametrize("in_place", [*IN_PLACE, operator.ifloordiv, operator.imod])
@pytest.mark.parametrize("make", LEAVES)
def test_no_operator_in_place_on_what_is_trained_while_ops_are_recorded(in_place, make):
    x = make()
    with pytest.raises(
        GraphError,
        match=r"^Tensor: expected no \S+= on a leaf that requires a gradient, got one; .* under no_grad to change the leaf",
    ):
        in_place(x, 2.0)
    np.testing.assert_array_equal(x.data, (SQUARE + 3).astype(x.dtype))


@pytest.mark.parametrize(("in_place", "plain"), IN_PLACE.items(), ids=lambda f: f.__name__)
@pytest.mark.parametrize("make", LEAVES)
def test_operators_in_place_change_a_leaf_under_no_grad(in_place, plain, make):
    x = y = make()
    other = (SQUARE + 4).astype(x.dtype)
    expected = plain(x.data.copy(), other)
    with mf.no_grad():
        x = in_place(x, other)
    assert x is y and x.requires_grad
    np.testing.assert_array_equal(x.data, expected)


@pytest.mark.parametrize(("in_place", "plain"), IN_PLACE.items(), ids=lambda f: f.__name__)
def test_operators_in_place_change_the_data_of_a_leaf(in_place, plain):
    x = nn.Parameter(SQUARE + 3)
    other = (SQUARE + 4).astype(np.float32)
    expected = plain(x.data.copy(), other)
    x.data = in_place(x.data, other)  # what Python does for x.data += other
    np.testing.assert_array_equal(x.data, expected)


@pytest.mark.parametrize("update", ["data", "leaf"])
def test_a_leaf_changed_in_place_is_noticed_by_backward(update):
    p = nn.Parameter([1.0, 2.0])
    loss = (p * p).sum()
    if update == "data":
        p.data -= 0.5
    else:
        with mf.no_grad():
            p -= 0.5
    with pytest.raises(GraphError, match="was written to after this step's forward pass used it"):
        loss.backward()


def test_values_of_a_frozen_leaf_and_of_a_buffer_change_in_place():
    layer, norm = nn.Dense(2, 2, rng=0), nn.BatchNorm1D(2)
    expected = layer.weight.data * np.float32(0.5)
    layer.weight.requires_grad = False
    layer.weight.data *= 0.5
    norm.running_var.data *= 3
    assert layer.weight.data.tolist() == expected.tolist() and norm.running_var.data.tolist() == [3, 3]


def test_a_leaf_keeps_its_shape_and_dtype_in_place():
    p = nn.Parameter([1.0, 2.0])
    with (
        mf.no_grad(),
        pytest.raises(ShapeError, match=r"^Tensor.data: expected an array of shape \(2,\), got \(3, 2\)"),
    ):
        p -= np.ones((3, 2), np.float32)
    with mf.no_grad(), pytest.raises(DTypeError, match=r"^subtract: expected all operands to be float32"):
        p -= np.ones(2)
    assert p.tolist() == [1.0, 2.0]


def test_the_data_of_a_leaf_are_a_read_only_array_of_which_results_are_plain():
    values = nn.Parameter(SQUARE).data
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        values[0] -= 1.0
    results = (values * 2, values.copy(), values.sum(axis=0), np.exp(values), pickle.loads(pickle.dumps(values)))
    assert {type(made) for made in results} == {np.ndarray}
    assert isinstance(values.sum(), np.float32) and repr(values) == repr(np.array(values))
    mine = values.copy()
    mine -= 1.0
    np.testing.assert_array_equal(mine, SQUARE.astype(np.float32) - np.float32(1))


def test_updating_by_data_is_seen():
    p = nn.Parameter([1.0, 2.0])
    p.data = p.data - 0.5
    assert p.tolist() == [0.5, 1.5]


def test_a_sum_grows_in_place():
    x = mf.tensor([1.0, 2.0], requires_grad=True)
    total = 0
    for entry in x:
        total += entry * entry
    total.backward()
    assert x.grad.tolist() == [2, 4]


def test_an_array_is_not_silently_filled():
    a = np.ones(2)
    with pytest.raises(TypeError, match="out="):
        a += mf.tensor([1.0, 2.0])
    assert a.tolist() == [1, 1]


# Truth and numbers


@pytest.mark.parametrize("shape", [(2,), (2, 1), (0,)])
def test_the_truth_of_several_is_an_error(shape):
    with pytest.raises(
        ShapeError,
        match=r"^Tensor: expected one entry to test for truth, got shape|ambiguous: reduce them with np.any or np.all",
    ):
        bool(mf.tensor(np.zeros(shape)))
    with pytest.raises(ValueError):
        assert mf.tensor(np.zeros(shape)) == 1


def test_the_truth_of_one():
    assert mf.tensor(2.0) and not mf.tensor(0.0) and mf.tensor([[3.0]]) and not mf.tensor([False])


def test_divmod():
    x = np.array([5.5, -5.5])
    for got, expected in zip(
        (*divmod(mf.tensor(x), 2.0), *divmod(7.0, mf.tensor(x))), (*divmod(x, 2.0), *divmod(7.0, x)), strict=True
    ):
        np.testing.assert_array_equal(got.data, expected)


def test_round():
    assert round(mf.tensor([1.26, -1.5])).tolist() == [1, -2]
    assert round(mf.tensor(1.26), 1).item() == 1.3


# np.testing


def test_numpys_own_assertions_take_tensors():
    x = mf.tensor(A)
    np.testing.assert_array_equal(x, A)
    np.testing.assert_array_equal(x, x)
    np.testing.assert_allclose(x, A + 1e-12)
    np.testing.assert_allclose(A, x)
    np.testing.assert_equal(x, A)
    np.testing.assert_almost_equal(x, A + 1e-9)
    np.testing.assert_array_almost_equal(x, x + 1e-9)
    np.testing.assert_array_less(x, x + 1.0)
    for check in (np.testing.assert_array_equal, np.testing.assert_allclose, np.testing.assert_equal):
        with pytest.raises(AssertionError):
            check(x, A + 1)
    with pytest.raises(AssertionError):
        np.testing.assert_array_less(x, x)
    with pytest.raises(AssertionError, match="shapes"):
        np.testing.assert_array_equal(x, A[:2])
