"""NumPy's functions that are made of ops: a row for each call."""

from __future__ import annotations

import numpy as np

from microfw.autograd.registry import NUMPY
from tests.cases.linalg import definite, regular
from tests.cases.samples import floats

A = floats((3, 4))
B = floats((2, 3, 4), seed=3)
V = floats((4,), seed=1)
ZERO_D = floats(())
EMPTY = np.zeros((0, 3))
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
    (np.cross, lambda x, y: np.cross(x, y, axis=0), floats((3,)), A),
    (np.cross, lambda x, y: np.cross(x, y, axis=1), floats((3, 3)), floats((2, 3, 1), seed=1)),
    (np.linalg.vecdot, lambda x, y: np.linalg.vecdot(x, y, axis=0), floats((3,)), A),
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
