"""Diagonals and triangles."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from microfw.autograd.tensor import Tensor
from microfw.errors import ShapeError
from microfw.ops.elementwise import where
from microfw.ops.indexing import getitem, put
from microfw.ops.layout import moveaxis, ravel, reshape
from microfw.ops.mapping import implements, operand


def _line(rows: int, columns: int, offset: int) -> slice:
    """Return where a matrix's diagonal is in its flat order."""
    start = offset if offset >= 0 else -offset * columns
    count = min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns)
    return slice(start, start + (count - 1) * (columns + 1) + 1, columns + 1) if count > 0 else slice(0, 0)


@implements(np.diagonal)
def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """Return the entries at equal places along two axes, as a new last axis."""
    x = operand(a)
    if x.ndim < 2:
        raise ShapeError("diagonal", "at least two axes", x.shape)
    i, j = normalize_axis_index(axis1, x.ndim), normalize_axis_index(axis2, x.ndim)
    if i == j:
        raise ShapeError("diagonal", "two axes", (axis1, axis2))
    if (i, j) != (x.ndim - 2, x.ndim - 1):
        x = moveaxis(x, (i, j), (-2, -1))
    *batch, rows, columns = x.shape
    flat = reshape(x, shape=(*batch, rows * columns))
    return getitem(flat, key=(..., _line(rows, columns, offset)))


@implements(np.linalg.diagonal)
def _diagonal(x: Any, /, *, offset: int = 0) -> Tensor:
    return diagonal(x, offset, -2, -1)


@implements(np.trace)
def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """Sum the diagonal."""
    return diagonal(a, offset, axis1, axis2).sum(-1)


@implements(np.linalg.trace)
def _trace(x: Any, /, *, offset: int = 0) -> Tensor:
    return trace(x, offset, -2, -1)


@implements(np.diag)
def diag(v: Any, k: int = 0) -> Tensor:
    """Make a matrix with a vector as its diagonal, or return the diagonal of a matrix."""
    x = operand(v)
    if x.ndim == 2:
        return diagonal(x, k)
    if x.ndim != 1:
        raise ShapeError("diag", "a vector or a matrix", x.shape, "use np.diagonal")
    n = x.shape[0] + abs(k)
    flat = put(x, shape=(n * n,), key=_line(n, n, k))
    return reshape(flat, shape=(n, n))


@implements(np.diagflat)
def diagflat(v: Any, k: int = 0) -> Tensor:
    """Make a matrix with all entries as its diagonal."""
    return diag(ravel(v), k)


def _triangle(x: Any, k: int) -> Any:
    rows, columns = (*x.shape[-1:], *x.shape)[-2:]  # as NumPy does, a vector is the row of a square
    return np.tri(rows, columns, k, dtype=bool)


@implements(np.tril)
def tril(m: Any, k: int = 0) -> Tensor:
    """Keep what is on and below a diagonal; 0 elsewhere."""
    x = operand(m)
    return where(_triangle(x, k), x, 0)


@implements(np.triu)
def triu(m: Any, k: int = 0) -> Tensor:
    """Keep what is on and above a diagonal; 0 elsewhere."""
    x = operand(m)
    return where(_triangle(x, k - 1), 0, x)
