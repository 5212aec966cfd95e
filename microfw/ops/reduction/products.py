"""Products, running sums and running products. The derivatives divide by nothing: zeros are entries like others."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from microfw.autograd.op import Array, Cost, Shape, op
from microfw.ops.reduction.sums import Axis, axes_of, reduction, spread


def _rows(x: Any, axis: Axis) -> tuple[Any, Any]:
    """Return a view with the given axes as its last one, and the function that puts them back."""
    axes = [a % x.ndim for a in axes_of(axis, x.ndim)]
    order = (*(k for k in range(x.ndim) if k not in axes), *axes)
    moved = tuple(x.shape[k] for k in order)
    n = math.prod(x.shape[k] for k in axes)  # not -1, which reshape cannot infer if another axis is 0
    back = tuple(order.index(k) for k in range(x.ndim))
    rows = np.transpose(x, order).reshape((*moved[: x.ndim - len(axes)], n))
    return rows, lambda r: np.transpose(r.reshape(moved), back)


def _before(x: Any) -> Any:
    """Return for each entry the product of those before it in its row."""
    return np.concatenate([np.ones_like(x[..., :1]), np.cumprod(x[..., :-1], axis=-1)], axis=-1)


def _others(x: Any, axis: Axis) -> Any:
    """Return for each entry the product of the others."""
    if not x.size:
        return x
    # products of those before and of those after: dividing the whole product by x fails where x is 0
    rows, back = _rows(x, axis)
    return back(_before(rows) * _before(rows[..., ::-1])[..., ::-1])


def _prod_cost(y: Shape, x: Shape, **params: Any) -> Cost:
    n, rows = math.prod(x), math.prod(y)
    return Cost(max(n - rows, 0), (2 * n + 2 * max(n - 2 * rows, 0) if n else 0,))


prod_ = reduction(
    __name__,
    "prod_",
    np.prod,
    "Product over axes, all by default; its slopes are exact where entries are 0.",
    vjp=lambda g, x, axis, keepdims: spread(g, x.shape, axis) * _others(x, axis),
    jvp=lambda dx, x, axis, keepdims: np.sum(dx * _others(x, axis), axis=axis, keepdims=keepdims),
    cost=_prod_cost,
)


# Running sums and products


def _run(x: Any, axis: int | None) -> tuple[Any, Any]:
    """Return `_rows` along one axis, or of the flattened array."""
    return (x.reshape((-1,)), lambda r: r.reshape(x.shape)) if axis is None else _rows(x, axis)


def _lengths(x: Shape, axis: int | None) -> tuple[int, int]:
    n = math.prod(x)
    length = n if axis is None else x[axis]
    return length, n // length if length else 0


def _cumsum_rule(g: Any, shape: Shape, axis: int | None) -> Any:
    rows, back = _rows(g, 0 if axis is None else axis)
    return back(np.cumsum(rows[..., ::-1], axis=-1)[..., ::-1]).reshape(shape)


def _cumsum_cost(y: Shape, x: Shape, axis: int | None = None) -> Cost:
    length, rows = _lengths(x, axis)
    additions = max(length - 1, 0) * rows
    return Cost(additions, (additions,))


@op(vjp=_cumsum_rule, jvp="linear", cost=_cumsum_cost, numpy=np.cumsum, no_alias=True)
def cumsum(x: Array, *, axis: int | None = None) -> Array:
    """Running sum along an axis, or of the flattened array."""
    return np.cumsum(x, axis=axis)


def _recur(a: Any, b: Any) -> Any:
    """Return ``r`` with ``r[j] = b[j] + a[j] * r[j - 1]`` along the last axis."""
    # doubles the reach of each entry in every step: log2(n) NumPy calls in the place of n
    n, d = b.shape[-1], 1
    while d < n:
        b = np.concatenate([b[..., :d], b[..., d:] + a[..., d:] * b[..., :-d]], axis=-1)
        if 2 * d < n:
            a = np.concatenate([a[..., :d], a[..., d:] * a[..., :-d]], axis=-1)
        d *= 2
    return b


def _cumprod_rule(g: Any, x: Any, axis: int | None) -> Any:
    if not x.size:
        return g.reshape(x.shape)
    rows, back = _run(x, axis)
    g = _rows(g, 0 if axis is None else axis)[0]
    after = np.concatenate([np.ones_like(rows[..., :1]), rows[..., :0:-1]], axis=-1)
    return back(_before(rows) * _recur(after, g[..., ::-1])[..., ::-1])


def _cumprod_push(dx: Any, x: Any, axis: int | None) -> Any:
    if not x.size:
        return dx if axis is not None else dx.reshape((-1,))
    rows, back = _run(x, axis)
    r = _recur(rows, _before(rows) * _run(dx, axis)[0])
    return r if axis is None else back(r)


def _cumprod_cost(y: Shape, x: Shape, axis: int | None = None) -> Cost:
    length, rows = _lengths(x, axis)
    derivative, d = max(length - 2, 0) + length, 1
    while d < length:
        derivative += (3 if 2 * d < length else 2) * (length - d)
        d *= 2
    return Cost(max(length - 1, 0) * rows, (derivative * rows,))


@op(vjp=_cumprod_rule, jvp=_cumprod_push, cost=_cumprod_cost, numpy=np.cumprod, no_alias=True)
def cumprod(x: Array, *, axis: int | None = None) -> Array:
    """Running product along an axis, or of the flattened array; its slopes are exact where entries are 0."""
    return np.cumprod(x, axis=axis)
