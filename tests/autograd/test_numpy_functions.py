"""NumPy's functions on Tensors: values, gradients and nodes of each row of the table."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import microfw as mf
from tests.cases.numpy_functions import CALLS, A, B, V, name, several
from tests.cases.samples import floats

ROWS = np.array([2, 0, 0, -1])

calls = pytest.mark.parametrize("row", CALLS, ids=lambda row: name(row[0]))


@calls
def test_values_are_numpys(row):
    _, call, *given = row
    got = call(*(mf.tensor(x, requires_grad=True) for x in given))
    expected = call(*given)
    if not isinstance(got, mf.Tensor):
        assert isinstance(got, list | tuple) and isinstance(expected, list) == isinstance(got, list)
    for y, z in zip(several(got), several(expected), strict=True):
        assert isinstance(y, mf.Tensor)
        np.testing.assert_allclose(y.data, z, rtol=1e-13, atol=1e-14)
        assert y.dtype == np.asarray(z).dtype and not y.data.flags.writeable


@calls
def test_gradients_agree_with_differences_twice(row):
    _, call, *given = row

    def joined(*xs):
        return sum(np.sum(np.square(y) * (k + 0.5)) for k, y in enumerate(several(call(*xs))))

    assert mf.gradcheck(lambda *xs: tuple(several(call(*xs))), *given, projections=1) <= 1e-6
    assert mf.gradcheck(mf.grad(joined, range(len(given))), *given, projections=1) <= 1e-6


@calls
def test_float32_stays_and_arrays_may_be_mixed_in(row):
    _, call, *given = row
    xs = [mf.tensor(x.astype(np.float32), requires_grad=True) for x in given]
    ys = several(call(*xs))
    assert all(y.dtype == np.float32 for y in ys)
    if any(y.requires_grad for y in ys):
        sum(np.sum(y) for y in ys).backward()
        assert all(x.grad.dtype == np.float32 for x in xs)
    if len(xs) > 1:
        mixed = several(call(xs[0], *(x.data for x in xs[1:])))
        for y, z in zip(mixed, ys, strict=True):
            np.testing.assert_allclose(y.data, z.data, rtol=1e-6)


def test_a_few_nodes_do():
    """What users call often is one node, or few."""

    def nodes(y):
        found, stack = set(), [y._node]
        while stack:
            node = stack.pop()
            if node not in found and hasattr(node, "edges"):
                found.add(node)
                stack += [parent for parent, _, _ in node.edges]
        return len(found)

    x = mf.tensor(A, requires_grad=True)
    for most, call in (
        (1, lambda: np.flip(x)), (1, lambda: np.roll(x, 1)), (1, lambda: np.moveaxis(x, 0, 1)), (1, lambda: np.pad(x, 1)),
        (1, lambda: np.stack([x, x, x])), (1, lambda: np.concatenate([x, x])), (1, lambda: np.split(x, 2, 1)[0]),
        (1, lambda: np.expand_dims(x, 0)), (1, lambda: np.sort(x)), (1, lambda: np.take(x, ROWS, axis=0)), (1, lambda: x[ROWS]),
        (1, lambda: np.tril(x)), (2, lambda: np.diagonal(x)), (3, lambda: np.trace(x)), (2, lambda: np.pad(x, 1, constant_values=1)),
        (3, lambda: np.tile(x, (2, 2))), (3, lambda: np.repeat(x, 2, axis=0)), (1, lambda: np.dot(x, V)), (1, lambda: np.dot(x, A.T)),
        (2, lambda: np.einsum("ij,kj->ik", x, A)), (1, lambda: np.einsum("ij,jk->ik", x, A.T)), (1, lambda: np.tensordot(x, A.T, 1)),
    ):  # fmt: skip
        assert nodes(call()) <= most, inspect.getsource(call)


def test_products_are_products(watcher):
    """Each function that is a matrix product runs as one, and is counted."""
    x, w = mf.tensor(B, requires_grad=True), mf.tensor(A.T.copy(), requires_grad=True)
    product = 2 * 2 * 3 * 4 * 3
    for call in (
        lambda: np.einsum("bij,jk->bik", x, w), lambda: np.tensordot(x, w, 1), lambda: np.dot(x, w), lambda: np.matmul(x, w),
        lambda: np.inner(x, w.T),
    ):  # fmt: skip
        watcher.ran.clear()
        with watcher.on():
            y = call()
        y.backward(np.ones(y.shape))
        assert watcher.costs() == (product, 2 * product)


def test_gradient_of_a_weight_shared_by_a_batch_is_one_product():
    x, w = mf.tensor(floats((5, 2, 3, 4)), requires_grad=True), mf.tensor(A.T.copy(), requires_grad=True)
    np.matmul(x, w).backward(np.ones((5, 2, 3, 3)))
    np.testing.assert_allclose(w.grad, x.data.reshape(-1, 4).T @ np.ones((30, 3)), rtol=1e-13)


# No gradient


@pytest.mark.parametrize("call", [np.nonzero, np.where, lambda x: x.nonzero()])
def test_where_with_one_argument(call):
    x = mf.tensor(A, requires_grad=True)
    found = call(x > 0)
    assert isinstance(found, tuple) and all(isinstance(k, mf.Tensor) and not k.requires_grad for k in found)
    for got, expected in zip(found, np.nonzero(A > 0), strict=True):
        np.testing.assert_array_equal(got.data, expected)
    np.testing.assert_array_equal(x[found].data, A[A > 0])
    np.testing.assert_array_equal(np.flatnonzero(x > 0).data, np.flatnonzero(A > 0))
    np.testing.assert_array_equal(np.argwhere(x).data, np.argwhere(A))


def test_sorting():
    x = mf.tensor([3.0, 1.0, 2.0, 1.0], requires_grad=True)
    assert np.argsort(x).tolist() == [1, 3, 2, 0] and not np.argsort(x).requires_grad
    np.testing.assert_array_equal(np.argsort(mf.tensor(A), axis=None).data, np.argsort(A, axis=None))
    (np.sort(x) * np.array([1.0, 10.0, 100.0, 1000.0])).sum().backward()
    assert x.grad.tolist() == [1000, 1, 100, 10]
