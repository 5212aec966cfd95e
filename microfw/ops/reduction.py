"""Reductions: sums, extremes and what is made of them."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from microfw.errors import ShapeError
from microfw.op import Array, Cost, Shape, each, op

Axis = int | tuple[int, ...] | None


def spread(g: Any, shape: Shape, axis: Axis) -> Any:
    """Repeat a reduced array along the axes that were summed."""
    if axis is not None:
        axes = {a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,))}
        g = g.reshape(tuple(1 if k in axes else n for k, n in enumerate(shape)))
    return np.broadcast_to(g if axis is not None else g.reshape((1,) * len(shape)), shape)


def _count(shape: Shape, axis: Axis) -> int:
    axes = range(len(shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return prod(shape[a] for a in axes)


def sums(y: Shape, x: Shape, **params: Any) -> Cost:
    """Cost of a sum: one addition less than there are terms; its derivative only copies."""
    return Cost(max(prod(x) - prod(y), 0), (0,))


@op(
    vjp=lambda g, shape, axis: spread(g, shape, axis),
    jvp="linear",
    cost=sums,
    numpy=np.sum,
    fresh=True,
)
def sum_(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Sum over axes, all by default."""
    return np.sum(x, axis=axis, keepdims=keepdims)


def _mean_cost(y: Shape, x: Shape, **params: Any) -> Cost:
    return Cost(prod(x), (prod(y),))


@op(
    vjp=lambda g, shape, axis: spread(g * (1.0 / _count(shape, axis)), shape, axis),
    jvp="linear",
    cost=_mean_cost,
    numpy=np.mean,
    fresh=True,
)
def mean(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Mean over axes, all by default; of nothing it is an error."""
    if _count(np.shape(x), axis) == 0:
        raise ShapeError(
            f"mean: expected at least one entry, got shape {np.shape(x)}; the mean of nothing is undefined"
        )
    return np.mean(x, axis=axis, keepdims=keepdims)


def _winners(g: Any, x: Any, y: Any, axis: Axis, keepdims: bool) -> Any:
    shape = x.shape
    hit = (x == spread(y, shape, axis)).astype(x.dtype)
    return spread(g, shape, axis) * (hit / spread(np.sum(hit, axis=axis), shape, axis))


def _push(dx: Any, x: Any, y: Any, axis: Axis, keepdims: bool) -> Any:
    hit = (x == spread(y, x.shape, axis)).astype(x.dtype)
    return np.sum(dx * (hit / spread(np.sum(hit, axis=axis), x.shape, axis)), axis=axis, keepdims=keepdims)


def _extreme_cost(y: Shape, x: Shape, **params: Any) -> Cost:
    return Cost(max(prod(x) - prod(y), 0), (4 * prod(x) - prod(y),))


@op(vjp=_winners, jvp=_push, cost=_extreme_cost, numpy=(np.max, np.amax), fresh=True)
def max_(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Largest entry over axes; ties share the gradient equally."""
    return np.max(x, axis=axis, keepdims=keepdims)


@op(vjp=_winners, jvp=_push, cost=_extreme_cost, numpy=(np.min, np.amin), fresh=True)
def min_(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Smallest entry over axes; ties share the gradient equally."""
    return np.min(x, axis=axis, keepdims=keepdims)


@op(cost=lambda y, x, **params: Cost(prod(x), ()), numpy=np.argmax, fresh=True)
def argmax(x: Array, *, axis: int | None = None) -> Array:
    """Index of the largest entry. It has no gradient."""
    return np.argmax(x, axis=axis)


@op(cost=lambda y, x, **params: Cost(prod(x), ()), numpy=np.argmin, fresh=True)
def argmin(x: Array, *, axis: int | None = None) -> Array:
    """Index of the smallest entry. It has no gradient."""
    return np.argmin(x, axis=axis)


def _log_softmax_vjp(g: Any, y: Any, axis: int) -> Any:
    return g - np.exp(y) * np.sum(g, axis=axis, keepdims=True)


@op(
    vjp=_log_softmax_vjp,
    jvp=lambda dx, y, axis: dx - np.sum(np.exp(y) * dx, axis=axis, keepdims=True),
    cost=each(5, 4),
    fresh=True,
)
def log_softmax(x: Array, *, axis: int = -1) -> Array:
    """``x - log(sum(exp(x)))`` along an axis; finite for every finite ``x``."""
    z = x - np.max(x, axis=axis, keepdims=True)
    return z - np.log(np.sum(np.exp(z), axis=axis, keepdims=True))


def _softmax_rule(g: Any, y: Any, axis: int) -> Any:
    return y * (g - np.sum(g * y, axis=axis, keepdims=True))


@op(vjp=_softmax_rule, cost=each(5, 4), fresh=True)
def softmax(x: Array, *, axis: int = -1) -> Array:
    """``exp(x) / sum(exp(x))`` along an axis."""
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)
