"""NumPy's whole namespace, called on Tensors: each function gives NumPy's values and a gradient, or says that it cannot."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import microfw as mf
from microfw.autograd.registry import NUMPY
from microfw.errors import ArgumentError, ShapeError, SingularError
from microfw.ops import indexing
from tests.cases.indexing import CASES as INDEXING
from tests.cases.linalg import definite, regular
from tests.cases.ops import title
from tests.cases.samples import floats

A = floats((3, 4))
B = floats((2, 3, 4), seed=3)
V = floats((4,), seed=1)
ZERO_D = floats(())
EMPTY = np.zeros((0, 3))
ROWS = np.array([2, 0, 0, -1])
MASK = floats((3, 4)) > 0

# NumPy's functions that are made of ops: how they are called, and on what.
CALLS = [
    # Layout
    (np.transpose, lambda x: np.transpose(x, [1, 0]), A),
    (np.broadcast_to, lambda x: np.broadcast_to(x, shape=(3, 4)), V),
    (np.broadcast_to, lambda x: np.broadcast_to(x, 3), ZERO_D),
    (np.squeeze, np.squeeze, floats((1, 3, 1))),
    (np.squeeze, lambda x: np.squeeze(x, -1), floats((1, 3, 1))),
    (np.squeeze, lambda x: np.squeeze(x, axis=(0, 2)), floats((1, 3, 1))),
    (np.squeeze, np.squeeze, ZERO_D),
    (np.expand_dims, lambda x: np.expand_dims(x, 0), A),
    (np.expand_dims, lambda x: np.expand_dims(x, axis=(0, -1)), A),
    (np.expand_dims, lambda x: np.expand_dims(x, 0), ZERO_D),
    (np.ravel, np.ravel, A),
    (np.ravel, lambda x: np.ravel(x.T), A),
    (np.ravel, np.ravel, ZERO_D),
    (np.ravel, np.ravel, EMPTY),
    *[(f, f, x) for f in (np.atleast_1d, np.atleast_2d, np.atleast_3d) for x in (ZERO_D, V, A, B, EMPTY)],
    (np.atleast_2d, lambda x, y: np.atleast_2d(x, y), V, ZERO_D),
    (np.moveaxis, lambda x: np.moveaxis(x, 0, -1), B),
    (np.moveaxis, lambda x: np.moveaxis(x, (0, 1), (-1, 0)), B),
    (np.swapaxes, lambda x: np.swapaxes(x, 0, -1), B),
    (np.matrix_transpose, np.matrix_transpose, B),
    (np.linalg.matrix_transpose, np.linalg.matrix_transpose, A),
    (np.rollaxis, lambda x: np.rollaxis(x, 2), B),
    (np.rollaxis, lambda x: np.rollaxis(x, 0, 3), B),
    (np.rollaxis, lambda x: np.rollaxis(x, 1, -1), B),
    (np.broadcast_arrays, lambda x, y: np.broadcast_arrays(x, y), A, V),
    (np.meshgrid, lambda x, y: np.meshgrid(x, y), V, floats((3,))),
    (np.meshgrid, lambda x, y: np.meshgrid(x, y, indexing="ij"), V, floats((3,))),
    (np.meshgrid, lambda x, y, z: np.meshgrid(x, y, z, sparse=True), V, floats((3,)), floats((2,))),
    (np.meshgrid, lambda x: np.meshgrid(x), V),
    (np.copy, np.copy, A),
    # Joining and cutting
    (np.concatenate, lambda x, y: np.concatenate((x, y), axis=None), A, V),
    (np.stack, lambda x, y: np.stack([x, y], axis=1), V, V * 2),
    (np.stack, np.stack, A),
    (np.vstack, lambda x, y: np.vstack([x, y]), A, V),
    (np.hstack, lambda x, y: np.hstack([x, y]), V, floats((2,))),
    (np.hstack, lambda x, y: np.hstack((x, y)), A, floats((3, 1))),
    (np.dstack, lambda x, y: np.dstack((x, y)), A, A * 2),
    (np.column_stack, lambda x, y: np.column_stack((x, y)), floats((3,)), A),
    (np.append, lambda x, y: np.append(x, y), A, V),
    (np.append, lambda x, y: np.append(x, y, axis=0), A, floats((1, 4))),
    (np.split, lambda x: np.split(x, 2, axis=1), A),
    (np.split, lambda x: np.split(x, [1, 1, 5]), A),
    (np.split, lambda x: np.split(x, [-1], axis=-1), A),
    (np.array_split, lambda x: np.array_split(x, 3, axis=-1), A),
    (np.array_split, lambda x: np.array_split(x, 5), A),
    (np.vsplit, lambda x: np.vsplit(x, 3), A),
    (np.hsplit, lambda x: np.hsplit(x, 2), A),
    (np.hsplit, lambda x: np.hsplit(x, [1]), V),
    (np.dsplit, lambda x: np.dsplit(x, 2), B),
    # Repeating
    (np.flip, np.flip, A),
    (np.flip, np.flip, ZERO_D),
    (np.flip, lambda x: np.flip(x, -1), B),
    (np.flip, lambda x: np.flip(x.T, axis=(0, 1)), A),
    (np.flipud, np.flipud, A),
    (np.fliplr, np.fliplr, A),
    *[(np.rot90, lambda x, k=k: np.rot90(x, k), A) for k in (-1, 0, 1, 2, 3)],
    (np.rot90, lambda x: np.rot90(x, 1, (2, 0)), B),
    (np.roll, lambda x: np.roll(x, [1, 2], axis=[0, 1]), A),
    (np.roll, lambda x: np.roll(x, 3), A),
    (np.tile, lambda x: np.tile(x, 2), A),
    (np.tile, lambda x: np.tile(x, (2, 1, 3)), A),
    (np.tile, lambda x: np.tile(x, (2,)), ZERO_D),
    (np.tile, lambda x: np.tile(x, (2, 0)), A),
    (np.tile, lambda x: np.tile(x, 2), EMPTY),
    (np.repeat, lambda x: np.repeat(x, 2), A),
    (np.repeat, lambda x: np.repeat(x, 3, axis=0), A),
    (np.repeat, lambda x: np.repeat(x, [2], axis=-1), B),
    (np.repeat, lambda x: np.repeat(x, np.array([0, 2, 1]), axis=0), A),
    (np.repeat, lambda x: np.repeat(x, 2), ZERO_D),
    (np.repeat, lambda x: np.repeat(x, 0), A),
    (np.pad, lambda x: np.pad(x, 1), A),
    (np.pad, lambda x: np.pad(x, (0, 2)), A),
    (np.pad, lambda x: np.pad(x, ((1, 2), (0, 0)), constant_values=7.0), A),
    (np.pad, lambda x: np.pad(x, ((1, 2), (3, 0)), "constant", constant_values=((1, 2), (3, 4))), A),
    *[(np.pad, lambda x, m=m: np.pad(x, ((2, 1), (0, 3)), mode=m), A) for m in ("edge", "reflect", "symmetric", "wrap")],
    (np.pad, lambda x: np.pad(x, 0, "edge"), A),
    (np.pad, lambda x: np.pad(x, 1), ZERO_D),
    (np.pad, lambda x: np.pad(x, 1), EMPTY),
    # Indexing
    (np.take, lambda x: np.take(x, [5, 0, 5]), A),
    (np.take, lambda x: np.take(x, 1, axis=0), A),
    (np.take, lambda x: np.take(x, [], axis=0), A),
    (np.take, lambda x: np.take(x, [[0, 1], [1, -1]], axis=-1), A),
    (np.take, lambda x: np.take(x, [7, -9], axis=1, mode="wrap"), A),
    (np.take, lambda x: np.take(x, [7, -9], axis=1, mode="clip"), A),
    (np.compress, lambda x: np.compress([True, False, True], x, axis=0), A),
    (np.compress, lambda x: np.compress([False, True, True], x), A),
    (np.extract, lambda x: np.extract(MASK, x), A),
    (np.delete, lambda x: np.delete(x, [0, 2], axis=1), A),
    (np.delete, lambda x: np.delete(x, slice(0, 5)), A),
    (np.where, lambda x: np.where(MASK, x, 0.0), A),
    (np.sort, np.sort, A),
    (np.sort, lambda x: np.sort(x, axis=0), A),
    (np.sort, lambda x: np.sort(x, axis=None, kind="stable"), A),
    (np.sort, np.sort, EMPTY),
    # Diagonals and triangles
    *[(np.diagonal, lambda x, k=k: np.diagonal(x, k), A) for k in (-3, -2, 0, 1, 3, 4)],
    (np.diagonal, lambda x: np.diagonal(x, offset=1, axis1=2, axis2=0), B),
    (np.diagonal, np.diagonal, EMPTY),
    (np.linalg.diagonal, lambda x: np.linalg.diagonal(x, offset=-1), B),
    (np.trace, np.trace, A),
    (np.trace, lambda x: np.trace(x, 1, 1, 2), B),
    (np.linalg.trace, lambda x: np.linalg.trace(x, offset=1), B),
    *[(np.diag, lambda x, k=k: np.diag(x, k), V) for k in (-2, 0, 1)],
    (np.diag, np.diag, np.zeros(0)),
    (np.diag, lambda x: np.diag(x, 1), A),
    (np.diagflat, lambda x: np.diagflat(x, -1), A),
    *[(f, lambda x, f=f, k=k: f(x, k), x) for f in (np.tril, np.triu) for x in (A, B, V, EMPTY) for k in (-1, 0, 2)],
    # Products
    (np.dot, np.dot, A, A.T),
    (np.dot, np.dot, V, V * 2),
    (np.dot, np.dot, ZERO_D, A),
    (np.dot, np.dot, B, V),
    (np.dot, np.dot, B, A.T),
    (np.dot, np.dot, V, floats((2, 4, 3))),
    (np.dot, np.dot, A, floats((2, 4, 3))),
    (np.dot, np.dot, B, floats((5, 4, 3))),
    (np.inner, np.inner, A, B),
    (np.inner, np.inner, V, A),
    (np.inner, np.inner, V, V + 1),
    (np.inner, np.inner, ZERO_D, A),
    (np.outer, np.outer, A, V),
    (np.linalg.outer, np.linalg.outer, V, V * 2),
    (np.vdot, np.vdot, A, A[::-1] * 1.0),
    (np.vecdot, np.vecdot, B, A),
    (np.linalg.vecdot, lambda x, y: np.linalg.vecdot(x, y, axis=0), A, A + 1),
    (np.kron, np.kron, A, floats((2, 2))),
    (np.kron, np.kron, V, A),
    (np.cross, np.cross, floats((3,)), floats((2, 3), seed=1)),
    (np.linalg.cross, lambda x, y: np.linalg.cross(x, y, axis=0), floats((3, 2)), floats((3, 2), seed=1)),
    (np.linalg.multi_dot, lambda x, y, z: np.linalg.multi_dot([x, y, z]), A, A.T, V[:3]),
    (np.linalg.multi_dot, lambda x, y: np.linalg.multi_dot([x, y]), A, A.T),
    (np.linalg.multi_dot, lambda x, y, z: np.linalg.multi_dot([x, y, z]), V, A.T, V[:3] * 2),
    (np.linalg.matmul, np.linalg.matmul, A, A.T),
    (np.tensordot, lambda x, y: np.tensordot(x, y, 1), B, A.T),
    (np.tensordot, np.tensordot, B, A),
    (np.tensordot, lambda x, y: np.tensordot(x, y, 0), A, V),
    (np.tensordot, lambda x, y: np.tensordot(x, y, axes=([1, -1], [0, 1])), B, A),
    (np.tensordot, lambda x, y: np.tensordot(x, y, axes=(2, 1)), B, A),
    (np.linalg.tensordot, lambda x, y: np.linalg.tensordot(x, y, axes=2), B, A),
    # Factors
    (np.linalg.slogdet, np.linalg.slogdet, regular(2)),
    (np.linalg.solve, np.linalg.solve, regular(2), floats((3,))),
    (np.linalg.cholesky, lambda x: np.linalg.cholesky(x, upper=True), definite()),
    *[(np.linalg.matrix_power, lambda x, n=n: np.linalg.matrix_power(x, n), regular(2)) for n in (-2, 0, 1, 2, 5, 6)],
]  # fmt: skip
for _name, _call, *_given in (
    ("unstack", lambda x: np.unstack(x, axis=1), A),
    ("matvec", lambda x, y: np.matvec(x, y), B, V),
    ("vecmat", lambda x, y: np.vecmat(x, y), floats((3,)), B),
):
    if hasattr(np, _name):  # newer than NumPy 2.0
        CALLS.append((getattr(np, _name), _call, *_given))

EINSUM = {
    "ij->ji": (A,), "ij": (A,), "ji": (A,), "ij->": (A,), "ij->j": (A,), "ii": (floats((3, 3)),), "ii->i": (floats((3, 3)),),
    "iij->ij": (floats((3, 3, 2)),), "iji->j": (floats((3, 2, 3)),), "iii->i": (floats((2, 2, 2)),), "...->...": (A,),
    "...i->...": (B,), "i...->...": (B,), "ij,jk": (A, A.T), "ij,jk->ki": (A, A.T), "ij,kj->ik": (A, A), "ij,ij->": (A, A + 1),
    "ij,ij->ij": (A, A + 1), "ij,ij->i": (A, A + 1), "ij,j->i": (A, V), "i,j->ij": (V, V), "i,j->ji": (V, floats((3,))),
    "i,i": (V, V + 1), "i,->i": (V, ZERO_D), ",": (ZERO_D, ZERO_D + 1), "bij,bjk->bik": (B, np.swapaxes(B, 1, 2)),
    "bij,bkj->bik": (B, B + 1), "bij,jk->bik": (B, A.T), "bhid,bhjd->bhij": (floats((2, 2, 3, 2)), floats((2, 2, 4, 2))),
    "...ij,...jk->...ik": (B, A.T), "...ij,jk": (B, A.T), "b...,b...->...": (B, B + 1), "ij,...j->i...": (A, B),
    "ijk,jil->kl": (B, floats((3, 2, 2))), "ik,jkl,il->ij": (A, floats((2, 4, 5)), floats((3, 5))),
    "ij,jk,kl,lm->im": (A, A.T, A, A.T), "a,b,c->abc": (V, V[:2], V[:3]), "i,i,i->i": (V, V + 1, V * 2), "ii,jj->ij": (floats((2, 2)), floats((3, 3))),
    "ij,kl->il": (A, A + 1), " i j , j k -> i k ": (A, A.T), "ij,jk->ik": (np.zeros((0, 4)), A.T), "ij,ij->j": (EMPTY, EMPTY),
    "i,ij->j": (floats((1,)), A), "ij,ij->i ": (floats((3, 1)), A), "bi,b->i": (floats((1, 4)), floats((3,))), "...,...": (floats((1, 4)), floats((3, 1))),
}  # fmt: skip
CALLS += [(np.einsum, lambda *xs, s=s: np.einsum(s, *xs), *given) for s, given in EINSUM.items()]
CALLS += [
    (np.einsum, lambda x, y: np.einsum(x, [0, 1], y, [1, 2], [2, 0]), A, A.T),
    (np.einsum, lambda x, y: np.einsum(x, [0, 30], y, [30, 2]), A, A.T),
    (np.einsum, lambda x, y: np.einsum(x, [..., 1], y, [1, 2], [..., 2], optimize=True), A, A.T),
]


def several(y):
    return list(y) if isinstance(y, list | tuple) else [y]


def name(value):
    module = getattr(value, "__module__", "numpy")  # ufuncs have one since NumPy 2.1
    return f"{module.replace('numpy', 'np')}.{value.__name__}" if value in NUMPY else ""


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
    """Whatever is a matrix product runs as one, and is counted."""
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


# Gradients of what is picked by integers

WAYS = {"as few": (indexing.FEW, indexing.MANY), "as more": (0, indexing.MANY), "as many": (0, 0)}


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """Each way to add entries up, whatever their number."""
    few, many = WAYS[request.param]
    monkeypatch.setattr(indexing, "FEW", few)
    monkeypatch.setattr(indexing, "MANY", many)


@pytest.mark.parametrize(
    ("case", "sample"), [(c, s) for c in INDEXING for s in c.samples if c.op.differentiable], ids=title
)
def test_rules_for_many_entries_hold_for_few(case, sample, way):
    function, inputs = case.call(sample)
    assert mf.gradcheck(function, *inputs, projections=1) <= 1e-6
    np.testing.assert_array_equal(function(*inputs).data, case.reference(*sample.arranged(), **sample.params))


@pytest.mark.parametrize("shape", [(7,), (7, 1), (7, 5), (7, 2, 3), (1, 4), (3, 0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_repeated_rows_add_up_bit_for_bit_as_in_a_loop(shape, dtype, way):
    rng = np.random.default_rng(0)
    x = mf.tensor(rng.standard_normal(shape).astype(dtype), requires_grad=True)
    rows = rng.integers(-shape[0], shape[0], 200).reshape(4, 50)
    g = rng.standard_normal((4, 50, *shape[1:])).astype(dtype)
    expected = np.zeros(shape, dtype)
    for k, row in zip(rows.ravel(), g.reshape(200, *shape[1:]), strict=True):
        expected[k] += row
    for pick in (
        lambda: x[rows],
        lambda: np.take(x, rows, axis=0),
        lambda: x.take(rows, 0),
        lambda: x[mf.tensor(rows)],
    ):
        pick().backward(g)
        np.testing.assert_array_equal(x.grad, expected)
        x.zero_grad()


@pytest.mark.parametrize("key", [
    (np.array([0, -1, 0]), np.array([1, 1, -3])), (slice(None), np.array([0, 0, 2])), (..., np.array([0, 0])), (np.array([[0], [1]]), np.array([1, 1, 0])),
    (np.array([0, 0]), slice(1, 3)), (None, np.array([0, 0])), (np.array([True, False, True]), slice(None, None, 2)), (np.array([True, False, True]), np.array([1, 1])),
    (np.array([0, 0]), None, np.array([2, 2])), np.array([[True] * 4, [False] * 4, [True] * 4]), (slice(1), None, np.array([3, 3])), np.array(1), [],
], ids=str)  # fmt: skip
def test_gradients_of_odd_indices_add_up(key, way):
    x = mf.tensor(A, requires_grad=True)
    y = x[key]
    expected = A[key]
    np.testing.assert_array_equal(y.data, expected)
    g = floats(expected.shape, seed=5)
    y.backward(g)
    zeros = np.zeros_like(A)
    np.add.at(zeros, np.array(key, int) if isinstance(key, list) else key, g)
    np.testing.assert_array_equal(x.grad, zeros)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_many_entries_along_an_axis_add_up(axis):
    x = mf.tensor(floats((40, 30, 50)), requires_grad=True)
    rows = np.random.default_rng(0).integers(-30, 30, (4, 20))
    picked = np.take(x, rows, axis=axis)
    g = floats(picked.shape, seed=5)
    assert g.size > indexing.MANY
    picked.backward(g)
    zeros = np.zeros(x.shape)
    np.add.at(zeros, (slice(None),) * (axis % 3) + (rows,), g)
    np.testing.assert_array_equal(x.grad, zeros)


def test_indices_of_few_bits_find_large_arrays(way):
    """Where a row's place in the flat order takes more bits than its number."""
    x = mf.tensor(floats((100, 90)), requires_grad=True)
    for dtype in (np.int8, np.uint8):
        rows = np.resize(np.array([99, 0, 99, 7], dtype), 600)
        for pick in (lambda rows=rows: np.take(x, rows, axis=0), lambda rows=rows: x[rows, rows[::-1] // 2]):
            y = pick()
            y.backward(np.ones(y.shape))
            zeros = np.zeros(x.shape)
            np.add.at(zeros, rows if y.ndim == 2 else (rows, rows[::-1] // 2), 1.0)
            np.testing.assert_array_equal(x.grad, zeros)
            x.zero_grad()


def test_an_index_that_grew_too_large_is_an_error(way):
    for index in (3, -4):
        with pytest.raises(IndexError):
            indexing.scatter(floats((3, 4)), np.array([0, 1, index]), shape=(3, 4), axis=0)
        with pytest.raises(IndexError):
            indexing.put(floats((2,)), shape=(3, 4), key=(np.array([0, index]), np.array([0, 0])))


# Errors


@pytest.mark.parametrize(("call", "text"), [
    (lambda x: np.squeeze(x, 0), r"^squeeze: expected axes of length 1 at \(0,\), got \(3, 4\)"),
    (lambda x: np.split(x, 2), r"^split: expected a number of parts that divides 3, got 2; or use np.array_split"),
    (lambda x: np.array_split(x, 0), r"^array_split: expected at least one part, got 0"),
    (lambda x: np.dsplit(x, 2), r"^dsplit: expected at least 3 axes, got \(3, 4\)"),
    (lambda x: np.moveaxis(x, (0, 1), 0), r"^moveaxis: expected a place for each of the axes \(0, 1\), got \(0,\)"),
    (lambda x: np.matrix_transpose(x[0]), r"^matrix_transpose: expected at least two axes, got \(4,\)"),
    (lambda x: np.rot90(x, 1, (0, 0)), r"^rot90: expected two axes, got \(0, 0\)"),
    (lambda x: np.diagonal(x[0]), r"^diagonal: expected at least two axes, got \(4,\)"),
    (lambda x: np.diagonal(x, 0, 1, 1), r"^diagonal: expected two axes, got \(1, 1\)"),
    (lambda x: np.diag(x[None]), r"^diag: expected a vector or a matrix, got \(1, 3, 4\); use np.diagonal"),
    (lambda x: np.tensordot(x, x, 1), r"^tensordot: expected axes \(1,\) and \(0,\) of the same lengths, got"),
    (lambda x: np.tensordot(x, x, 3), r"^tensordot: expected 3 axes in both, got"),
    (lambda x: np.cross(x, x), r"^cross: expected 3 entries along axis -1, got \(3, 4\)"),
    (lambda x: np.einsum("ij,jk->ik", x, x), r"^einsum ij,jk->ik: expected one length of 'j', got \(4, 3\)"),
    (lambda x: np.einsum("ii->i", x), r"^einsum ii->i: expected one length of 'i', got \(3, 4\)"),
    (lambda x: np.einsum("ijk->i", x), r"^einsum ijk->i: expected an operand with the axes 'ijk', got one with 2"),
    (lambda x: np.einsum("i->i", x), r"^einsum i->i: expected an operand with the axes 'i', got one with 2"),
    (lambda x: np.linalg.inv(x), r"^inv: expected square matrices in the last two axes, got \(3, 4\)"),
    (lambda x: np.linalg.det(x[0]), r"^det: expected square matrices in the last two axes, got \(4,\)"),
    (lambda x: np.linalg.cholesky(x), r"^cholesky: expected square matrices"),
    (lambda x: np.linalg.slogdet(x), r"^slogdet: expected square matrices"),
    (lambda x: np.linalg.matrix_power(x, 2), r"^matrix_power: expected square matrices"),
    (lambda x: np.linalg.solve(x[:, :3], x[:2]), r"^solve: expected right-hand sides of 3 rows, as the matrices have, got \(2, 4\)"),
    (lambda x: np.linalg.solve(x[:, :3], x[0, 0]), r"^solve: expected right-hand sides of 3 rows"),
])  # fmt: skip
def test_wrong_shapes_are_named(call, text):
    with pytest.raises(ShapeError, match=text):
        call(mf.tensor(A, requires_grad=True))


@pytest.mark.parametrize(("call", "text"), [
    (lambda x: np.meshgrid(x[0], x[0], indexing="yx"), r"^meshgrid: expected indexing of 'xy' or 'ij', got 'yx'"),
    (lambda x: np.pad(x, 1, mode="mean"), r"^pad: expected mode to be one of constant, edge, reflect, symmetric, wrap, got 'mean'"),
    (lambda x: np.pad(x, 1, mode="edge", constant_values=1), r"^pad: expected no options but \[\] for mode 'edge', got \['constant_values'\]"),
    (lambda x: np.pad(x, -1), r"^pad: expected widths that are integers, 0 or more, got -1"),
    (lambda x: np.pad(x, 0.5), r"^pad: expected widths that are integers"),
    (lambda x: np.take(x, 0, mode="no"), r"^take: expected mode 'raise', 'wrap' or 'clip', got 'no'"),
    (lambda x: np.einsum("ij,jk->ik", x), r"^einsum: expected names for 1 operands, as 'ij,jk->ik', got"),
    (lambda x: np.einsum("i1->i", x), r"^einsum: expected names for 1 operands"),
    (lambda x: np.einsum("ij->ik", x), r"^einsum: expected each name of the result once, and in an operand, got"),
    (lambda x: np.einsum("ij->ii", x), r"^einsum: expected each name of the result once"),
    (lambda x: np.einsum("...j->j", x), r"^einsum: expected each name of the result once"),
])  # fmt: skip
def test_wrong_arguments_are_named(call, text):
    with pytest.raises(ArgumentError, match=text):
        call(mf.tensor(A, requires_grad=True))


SINGULAR = np.array([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 2.0], [2.0, 4.0]]])


@pytest.mark.parametrize(("call", "text"), [
    (lambda x: np.linalg.inv(x[1]), r"^inv: expected matrices that have an inverse, got a singular one; look for rows that depend on each other, or add"),
    (lambda x: np.linalg.inv(x), r"^inv: expected matrices that have an inverse, got a singular one at \(1,\); look"),
    (lambda x: np.linalg.solve(x, np.ones((2, 1))), r"^solve: expected matrices that have an inverse, got a singular one at \(1,\)"),
    (lambda x: np.linalg.solve(x[1], np.ones(2)), r"^solve: expected matrices that have an inverse, got a singular one; look"),
    (lambda x: np.linalg.matrix_power(x, -2), r"^inv: expected matrices that have an inverse"),
    (lambda x: np.linalg.cholesky(-x), r"^cholesky: expected positive definite matrices, got one that is not at \(0,\); add a small multiple"),
    (lambda x: np.linalg.det(x).sum().backward(), r"^derivative of det: expected matrices that have an inverse, got a singular one at \(1,\)"),
])  # fmt: skip
def test_singular_matrices_are_named(call, text):
    for kind in (SingularError, ArgumentError, np.linalg.LinAlgError):
        with pytest.raises(kind, match=text):
            call(mf.tensor(SINGULAR, requires_grad=True))


def test_determinants_of_singular_matrices_have_a_value():
    x = mf.tensor(SINGULAR, requires_grad=True)
    assert np.linalg.det(x).tolist() == [1, 0]
    sign, log = np.linalg.slogdet(x)
    assert sign.tolist() == [1, 0] and log.tolist() == [0, -np.inf]
    assert not sign.requires_grad
    with pytest.raises(SingularError, match="derivative of slogdet"):
        log[1].backward()


def test_gradient_of_cholesky_goes_to_the_triangle_that_is_read():
    a = definite()
    x = mf.tensor(a, requires_grad=True)
    np.sum(np.linalg.cholesky(x)).backward()
    assert not np.triu(x.grad, 1).any() and (x.grad != 0).sum() == 6


# The whole namespace

DISPATCHED = type(np.sum)
SPACES = {"np": np, "np.linalg": np.linalg, "np.fft": np.fft}


def public(kind):
    seen = {}
    for space, module in SPACES.items():
        for name in dir(module):
            made = getattr(module, name)
            if not name.startswith("_") and isinstance(made, kind) and not isinstance(made, type):
                seen.setdefault(made, f"{space}.{name}")
    return [pytest.param(made, id=name) for made, name in seen.items()]


PLAIN_ANSWERS = [
    np.shape, np.ndim, np.size, np.zeros_like, np.ones_like, np.empty_like, np.full_like, np.result_type, np.array_equal,
    np.array_equiv, np.allclose, np.isclose, np.may_share_memory, np.shares_memory, np.array_repr, np.array_str,
    np.array2string, np.can_cast, np.common_type, np.diag_indices_from, np.einsum_path, np.iscomplexobj, np.isrealobj,
    np.ix_, np.min_scalar_type, np.save, np.savetxt, np.savez, np.savez_compressed, np.tril_indices_from, np.triu_indices_from,
]  # fmt: skip
"""Functions that tell something about an array, and return what NumPy returns."""


@pytest.mark.parametrize("function", public(np.ufunc))
def test_every_ufunc_records_or_is_refused_by_name(function):
    given = [mf.tensor(np.abs(A) * 0.5 + 0.1, requires_grad=True) for _ in range(function.nin)]
    if function in (np.matmul, getattr(np, "matvec", None), getattr(np, "vecmat", None)):
        given = [mf.tensor(a) for a in {np.matmul: (A, A.T)}.get(function, (A[:3, :3], A[:3, :3]))]
    if function not in NUMPY:
        with pytest.raises(TypeError, match=rf"np\.{function.__name__}: expected a function with a derivative rule"):
            function(*given)
        return
    with np.errstate(all="ignore"):
        try:
            made = function(*given)
        except TypeError:  # functions of masks
            made = function(*(x > 0.5 for x in given))
    for y in several(made):
        assert isinstance(y, mf.Tensor)


@pytest.mark.parametrize("function", public(DISPATCHED))
def test_every_function_has_a_rule_or_is_refused_by_name(function):
    if function in PLAIN_ANSWERS or function in NUMPY:
        return
    x = mf.tensor(A, requires_grad=True)
    try:
        parameters = inspect.signature(function).parameters.values()
        needed = [
            p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        count = len(needed) or 1
    except ValueError:  # written in C, and NumPy does not say
        count = 2
    special = {
        np.apply_along_axis: (np.sum, 0, x),
        np.apply_over_axes: (np.sum, x, 0),
        np.putmask: (x, x, x),  # without a signature in NumPy 2.0
    }
    with pytest.raises(
        TypeError, match=rf"\b{function.__name__}: expected a function with a derivative rule, got one without"
    ):
        function(*special.get(function, (x,) * count))


def test_functions_made_of_ops_are_all_in_the_table_above():
    made = {f for f, call in NUMPY.items() if not hasattr(call, "op") and call.__module__ in OURS}
    tested = {row[0] for row in CALLS} | {np.nonzero, np.flatnonzero, np.argsort, *PLAIN_ANSWERS}
    assert {f.__name__ for f in made - tested} == set()


OURS = {
    f"microfw.ops.{name}"
    for name in ("diagonals", "factors", "indexing", "joining", "layout", "mapping", "products", "repeating")
}

NOT_DISPATCHED = {
    "array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray", "asarray_chkfinite", "require", "asmatrix", "bmat",
    "arange", "bartlett", "base_repr", "binary_repr", "blackman", "broadcast_shapes", "datetime_data", "diag_indices", "empty",
    "eye", "format_float_positional", "format_float_scientific", "from_dlpack", "frombuffer", "fromfile", "fromfunction",
    "fromiter", "frompyfunc", "fromregex", "fromstring", "full", "genfromtxt", "get_include", "get_printoptions", "getbufsize",
    "geterr", "geterrcall", "hamming", "hanning", "identity", "indices", "info", "isdtype", "isfortran", "isscalar",
    "issubdtype", "iterable", "kaiser", "load", "loadtxt", "mask_indices", "mintypecode", "nested_iters", "ones",
    "printoptions", "promote_types", "row_stack", "set_printoptions", "setbufsize", "seterr", "seterrcall", "show_config",
    "show_runtime", "test", "tri", "tril_indices", "triu_indices", "typename", "zeros", "fftfreq", "rfftfreq",
    "deprecate", "in1d", "trapz",
}  # fmt: skip
"""Functions that NumPy lets nobody replace. The first eight take a Tensor's values, and say so by their names."""


def test_what_numpy_does_not_dispatch_is_known():
    for space in SPACES.values():
        for name in dir(space):
            made = getattr(space, name)
            if callable(made) and not name.startswith("_") and not isinstance(made, type | DISPATCHED | np.ufunc):
                assert name in NOT_DISPATCHED, f"{space.__name__}.{name}"


@pytest.mark.parametrize(
    "name", ["array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray", "asarray_chkfinite", "require"]
)
def test_conversions_leave_the_graph(name):
    made = getattr(np, name)(mf.tensor(A))
    assert type(made) is np.ndarray
    np.testing.assert_array_equal(made, A)


@pytest.mark.parametrize(("call", "expected"), [
    (lambda x: np.array_equiv(x, A), True), (lambda x: np.array_equal([x, x], [A, A]), True), (np.iscomplexobj, False), (np.isrealobj, True),
    (np.common_type, np.float64), (lambda x: np.can_cast(x.dtype, np.float32), False), (lambda x: np.min_scalar_type(x), np.dtype(float)),
    (lambda x: np.einsum_path("ij,jk", x, x.T)[0], ["einsum_path", (0, 1)]), (lambda x: len(np.tril_indices_from(x)), 2),
    (lambda x: len(np.triu_indices_from(x)), 2), (lambda x: len(np.diag_indices_from(x[:, :3])), 2),
    (lambda x: np.ix_(np.argsort(x[0]), [0])[0].shape, (4, 1)),
])  # fmt: skip
def test_plain_answers(call, expected):
    assert call(mf.tensor(A)) == expected


def test_values_can_be_saved(tmp_path):
    x = mf.tensor(A, requires_grad=True)
    np.save(tmp_path / "a.npy", x)
    np.savez(tmp_path / "b.npz", x, named=x)
    np.savez_compressed(tmp_path / "c.npz", x=x)
    np.savetxt(tmp_path / "d.txt", x)
    for loaded in (np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npz")["named"], np.load(tmp_path / "c.npz")["x"]):
        np.testing.assert_array_equal(loaded, A)
    np.testing.assert_allclose(np.loadtxt(tmp_path / "d.txt"), A)
