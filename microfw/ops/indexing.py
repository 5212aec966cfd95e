"""Indexing: entries picked out, and their gradients put back, repeated ones added up."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from microfw.autograd.op import Array, Cost, Shape, op
from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError
from microfw.ops.elementwise import where
from microfw.ops.layout import ravel
from microfw.ops.mapping import either, implements, operand, zeros


def _basic(key: Any) -> bool:
    keys = key if isinstance(key, tuple) else (key,)
    return all(k is None or k is Ellipsis or isinstance(k, int | np.integer | slice) for k in keys)


def _mask(key: Any) -> bool:
    """Tell if a key picks no entry twice, because its only array is one of booleans."""
    arrays = [k for k in (key if isinstance(key, tuple) else (key,)) if not _basic(k)]
    return len(arrays) == 1 and np.asarray(arrays[0]).dtype.kind == "b"


def _scatter_cost(y: Shape, *inputs: Shape, **params: Any) -> Cost:
    return Cost(0, (prod(y),) + (0,) * (len(inputs) - 1))


def _getitem_cost(y: Shape, x: Shape, *, key: Any) -> Cost:
    return Cost(0, (0 if _basic(key) or _mask(key) else prod(y),))


def _put_cost(y: Shape, x: Shape, *, shape: Shape, key: Any) -> Cost:
    return Cost(0 if _basic(key) or _mask(key) else prod(x), (0,))


@op(vjp=lambda g, shape, key: either("put", g, shape=shape, key=key), jvp="linear", cost=_getitem_cost)
def getitem(x: Array, *, key: Any) -> Array:
    """``x[key]`` for slices, integers, masks and integer arrays."""
    return x[key]


@op(vjp=lambda g, key: g[key], jvp="linear", cost=_put_cost, no_alias=True)
def put(x: Array, *, shape: Shape, key: Any) -> Array:
    """Zeros of a shape with ``x`` added at ``key``: the transpose of indexing."""
    if not _basic(key) and not _mask(key):
        return add_at(key, x, shape, lambda: _positions(key, shape))
    if isinstance(x, np.ndarray) or not hasattr(x, "dtype"):  # of arrays that count entries, the numbers are put
        x = np.asarray(x)
    y = zeros(shape, x)
    y[key] = x  # no entry comes twice: assigning is much faster than add.at
    return y


def _positions(key: Any, shape: Shape) -> Array:
    """Return where, in an array's flat order, a key's entries are."""
    keys = key if isinstance(key, tuple) else (key,)
    if len(keys) != len(shape) or any(np.asarray(k).dtype.kind not in "iu" for k in keys):
        return np.arange(prod(shape)).reshape(shape)[key]
    flat: Any = 0
    for k, n in zip(keys, shape, strict=True):
        flat = flat * n + _from_start(k, n)
    return np.asarray(flat)


def _from_start(indices: Any, n: int) -> Array:
    """Return indices of any width, some of them counted from the end, as plain ones in range."""
    if not isinstance(indices, np.ndarray) and hasattr(indices, "dtype"):  # captured: `take` has checked them
        return (indices if indices.dtype == np.intp else indices.astype(np.intp)) % n
    found = np.asarray(indices, np.intp)  # indices of int8 or uint8 would overflow when n is added
    if not found.size or _in_range(found, n):
        return found
    if not -n <= found.min() <= found.max() < n:
        raise IndexError(f"expected indices from {-n} to {n - 1}, got {found.min()} to {found.max()}")
    return np.where(found < 0, found + n, found)


def _in_range(indices: Any, n: int) -> bool:
    """Return True if indices are from 0 to n - 1."""
    # argmin and item take a third of the time of min for a batch of indices
    return bool(indices.item(indices.argmin()) >= 0 and indices.item(indices.argmax()) < n)


FEW = 512
"""Most entries for which NumPy's ``add.at`` is faster than computing their positions in the flat order."""


def add_at(key: Any, x: Any, shape: Shape, positions: Callable[[], Array]) -> Array:
    """Return zeros of a shape with entries added at a key, in order. Arrays only."""
    x = x if hasattr(x, "dtype") else np.asarray(x)
    y = zeros(shape, x)
    if x.size <= FEW and isinstance(y, np.ndarray):
        np.add.at(y, key, x)
    else:  # add.at over one axis is up to five times as fast as over more
        np.add.at(y.reshape(-1), positions().ravel(), x.ravel())
    return y


@op(
    vjp=(lambda g, indices, shape: either("put", g, shape=shape, key=tuple(indices)), None),
    jvp=(lambda dx, indices, shape: dx[tuple(indices)], None),
    cost=_scatter_cost,
    no_alias=True,
)
def gather(x: Array, indices: Array) -> Array:
    """Entries of ``x`` at integers for each of its first axes, stacked: the picked scores of ``x[rows, labels]``.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> x = mf.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> gather(x, np.array([[0, 1], [1, 0]]))
    tensor([2., 3.])
    """
    return x[tuple(indices)]


# Along an axis


def _rows(indices: Any, shape: Shape, axis: int) -> Array:
    """Return which rows ``take`` takes of a matrix that has all axes up to ``axis`` as its rows."""
    rows = _from_start(indices, shape[axis]).reshape(-1)
    before = prod(shape[:axis])
    return rows if before == 1 else (np.arange(before)[:, None] * shape[axis] + rows).reshape(-1)


@op(
    vjp=(lambda g, indices, shape, axis: either("scatter", g, indices, to=shape, axis=axis), None),
    jvp=(lambda dx, indices, shape, axis: np.take(dx, indices, axis=axis), None),
    cost=_scatter_cost,
    no_alias=True,
)
def take(x: Array, indices: Array, *, axis: int = 0, signed: bool = True) -> Array:
    """Slices of ``x`` at integers along an axis, each as often as it is named: the rows of an embedding.

    Negative indices count from the end, unless ``signed`` is false; they are then an IndexError.

    Examples
    --------
    >>> import microfw as mf
    >>> table = mf.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> rows = take(table, [1, 1, 0])
    >>> rows.sum().backward()
    >>> table.grad
    array([[1., 1.],
           [2., 2.]])
    """
    if signed:
        return np.take(x, indices, axis=axis)
    if indices.size and not _in_range(indices, x.shape[axis]):
        raise IndexError(f"take: expected indices from 0 to {x.shape[axis] - 1}")
    return np.take(x, indices, axis=axis, mode="clip")  # NumPy need not look for wrong ones again


@op(
    vjp=(lambda g, indices, to, axis: np.take(g, indices, axis=axis), None),
    jvp=(lambda dx, indices, to, axis: either("scatter", dx, indices, to=to, axis=axis), None),
    cost=lambda y, x, indices, **params: Cost(prod(x), (0, 0)),
    no_alias=True,
)
def scatter(x: Array, indices: Array, *, to: Shape, axis: int = 0) -> Array:
    """Zeros of a shape with slices of ``x`` added at integers along an axis: the transpose of ``take``."""
    x, axis = x if hasattr(x, "dtype") else np.asanyarray(x), axis % len(to)
    if x.size > MANY and x.dtype.char in "fd":
        return _summed(x, _rows(indices, to, axis), to, axis)
    width = prod(to[axis + 1 :])
    key = (*(slice(None),) * axis, indices)
    return add_at(key, x, to, lambda: _rows(indices, to, axis)[:, None] * width + np.arange(width))


MANY = 1 << 15
"""Fewest entries for which a sparse product is several times as fast as NumPy's ``add.at``, with the same sums."""


def _summed(x: Array, rows: Array, to: Shape, axis: int) -> Array:
    """Add rows up by a product with the matrix that has a one where a row goes. Arrays only."""
    from scipy.sparse import csc_array  # here, since few models need it

    n, height = len(rows), prod(to[: axis + 1])
    ones = csc_array((np.ones(n, x.dtype), rows, np.arange(n + 1)), shape=(height, n))
    return np.asarray(ones @ x.reshape(n, prod(to[axis + 1 :]))).reshape(to)


@implements(np.take)
def _take(a: Any, indices: Any, axis: int | None = None, mode: str = "raise") -> Tensor:
    x = operand(a)
    if axis is None:
        x, axis = ravel(x), 0
    axis = normalize_axis_index(axis, x.ndim)
    n = x.shape[axis]
    if not isinstance(indices, Tensor):
        indices = np.asarray(indices)
        indices = indices if indices.size else indices.astype(np.intp)
    if mode == "wrap":
        indices = np.asarray(indices) % n
    elif mode == "clip":
        indices = np.clip(np.asarray(indices), 0, n - 1)
    elif mode != "raise":
        raise ArgumentError("take", "mode 'raise', 'wrap' or 'clip'", repr(mode))
    return take(x, indices, axis=axis)


@implements(np.compress)
def compress(condition: Any, a: Any, axis: int | None = None) -> Tensor:
    """Take the slices along an axis at which a condition holds."""
    return _take(a, np.flatnonzero(np.asarray(condition)), axis)


@implements(np.extract)
def extract(condition: Any, arr: Any) -> Tensor:
    """Take the entries at which a condition holds, along one axis."""
    return _take(arr, np.flatnonzero(np.asarray(condition)))


@implements(np.delete)
def delete(arr: Any, obj: Any, axis: int | None = None) -> Tensor:
    """Leave out the slices at these places along an axis."""
    x = operand(arr)
    n = x.size if axis is None else x.shape[normalize_axis_index(axis, x.ndim)]
    places = np.asarray(obj) if isinstance(obj, Tensor) else obj  # NumPy would call this function again
    return _take(x, np.delete(np.arange(n), places), axis)


def _along(index: Array, shape: Shape, axis: int) -> tuple[Any, ...]:
    grid = list(np.ogrid[tuple(slice(n) for n in shape)])
    grid[axis] = index
    return tuple(grid)


def _untake(g: Any, indices: Array, shape: Shape, axis: int | None) -> Any:
    if axis is None:
        return either("put", g, shape=(prod(shape),), key=(indices,)).reshape(shape)
    return either("put", g, shape=shape, key=_along(indices, shape, axis))


@op(
    vjp=(_untake, None),
    jvp=(lambda dx, indices, shape, axis: np.take_along_axis(dx, indices, axis=axis), None),
    cost=_scatter_cost,
    numpy=np.take_along_axis,
    no_alias=True,
)
def take_along_axis(x: Array, indices: Array, *, axis: int | None = -1) -> Array:
    """Entries of ``x`` at an index for each position along an axis."""
    return np.take_along_axis(x, indices, axis)


# Where entries are, and their order


def _no_cost(y: Shape, *inputs: Shape, **params: Any) -> Cost:
    return Cost(prod(inputs[0]), ())


@op(cost=_no_cost, numpy=np.argwhere, no_alias=True)
def argwhere(x: Array) -> Array:
    """Indices of the entries that are not zero, one row for each. It has no gradient."""
    return np.argwhere(x)


@implements(np.nonzero)
def nonzero(a: Any) -> tuple[Tensor, ...]:
    """Return the indices of the entries that are not zero, an array for each axis. No gradient flows."""
    found = argwhere(a)
    return tuple(getitem(found, key=(slice(None), k)) for k in range(np.ndim(a)))


@implements(np.flatnonzero)
def flatnonzero(a: Any) -> Tensor:
    """Return where in the flat order the entries are that are not zero. No gradient flows."""
    return nonzero(ravel(a))[0]


@implements(np.where)
def _where(condition: Any, *values: Any) -> Any:
    return where(condition, *values) if values else nonzero(condition)


def _sort_cost(y: Shape, x: Shape, *, axis: int = -1, **params: Any) -> Cost:
    return Cost(prod(x) * max(x[axis] - 1, 0).bit_length(), ())


@op(cost=_sort_cost, no_alias=True)
def argsort(x: Array, *, axis: int = -1) -> Array:
    """Indices that put the entries along an axis in ascending order, equal ones as they come. It has no gradient."""
    return np.argsort(x, axis=axis, kind="stable")  # NumPy's default order of equal entries varies with the CPU


@implements(np.argsort)
def _argsort(a: Any, axis: int | None = -1, kind: str | None = None, *, stable: bool | None = None) -> Tensor:
    return argsort(ravel(a), axis=0) if axis is None else argsort(a, axis=axis)


@implements(np.sort)
def sort(a: Any, axis: int | None = -1, kind: str | None = None, *, stable: bool | None = None) -> Tensor:
    """Put the entries along an axis in ascending order; of equal ones each keeps the gradient of its own place."""
    x, axis = (ravel(a), 0) if axis is None else (operand(a), axis)
    return take_along_axis(x, argsort(x, axis=axis), axis=axis)
