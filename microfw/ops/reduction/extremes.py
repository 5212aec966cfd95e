"""Extremes over axes, where they are, and questions that look at every entry."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from microfw.autograd.op import Array, Cost, Shape, op
from microfw.autograd.registry import NUMPY
from microfw.autograd.tensor import Tensor
from microfw.ops.elementwise.choices import undefined
from microfw.ops.reduction.sums import Axis, spread


def _winners(g: Any, x: Any, y: Any, axis: Axis, keepdims: bool) -> Any:
    shape = x.shape
    hit = (x == spread(y, shape, axis)).astype(x.dtype)
    share = spread(g, shape, axis) * (hit / spread(np.sum(hit, axis=axis), shape, axis))
    return undefined(share, x, spread(np.isnan(y), shape, axis), axis=axis) if isinstance(x, Tensor) else share


def _push(dx: Any, x: Any, y: Any, axis: Axis, keepdims: bool) -> Any:
    hit = (x == spread(y, x.shape, axis)).astype(x.dtype)
    return np.sum(dx * (hit / spread(np.sum(hit, axis=axis), x.shape, axis)), axis=axis, keepdims=keepdims)


def _extreme_cost(y: Shape, x: Shape, **params: Any) -> Cost:
    return Cost(max(math.prod(x) - math.prod(y), 0), (4 * math.prod(x) - math.prod(y),))


@op(vjp=_winners, jvp=_push, cost=_extreme_cost, numpy=(np.max, np.amax), no_alias=True)
def max_(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Largest entry over axes; ties share the gradient equally."""
    return np.max(x, axis=axis, keepdims=keepdims)


@op(vjp=_winners, jvp=_push, cost=_extreme_cost, numpy=(np.min, np.amin), no_alias=True)
def min_(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Smallest entry over axes; ties share the gradient equally."""
    return np.min(x, axis=axis, keepdims=keepdims)


def ptp(x: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    """Largest entry less the smallest, over axes."""
    return max_(x, axis=axis, keepdims=keepdims) - min_(x, axis=axis, keepdims=keepdims)


NUMPY[np.ptp] = ptp


# Places and answers: no gradient


def _search_cost(y: Shape, x: Shape, **params: Any) -> Cost:
    return Cost(max(math.prod(x) - math.prod(y), 0), ())


@op(cost=_search_cost, numpy=np.argmax, no_alias=True)
def argmax(x: Array, *, axis: int | None = None, keepdims: bool = False) -> Array:
    """Index of the largest entry, the first of equal ones. It has no gradient."""
    return np.argmax(x, axis=axis, keepdims=keepdims)


@op(cost=_search_cost, numpy=np.argmin, no_alias=True)
def argmin(x: Array, *, axis: int | None = None, keepdims: bool = False) -> Array:
    """Index of the smallest entry, the first of equal ones. It has no gradient."""
    return np.argmin(x, axis=axis, keepdims=keepdims)


@op(cost=_search_cost, numpy=np.any, no_alias=True)
def any_(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Whether some entry is not 0. It has no gradient."""
    return np.any(x, axis=axis, keepdims=keepdims)


@op(cost=_search_cost, numpy=np.all, no_alias=True)
def all_(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Whether no entry is 0. It has no gradient."""
    return np.all(x, axis=axis, keepdims=keepdims)


def _count_cost(y: Shape, x: Shape, **params: Any) -> Cost:
    return Cost(math.prod(x) + max(math.prod(x) - math.prod(y), 0), ())


@op(cost=_count_cost, numpy=np.count_nonzero, no_alias=True)
def count_nonzero(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """How many entries are not 0. It has no gradient."""
    return np.count_nonzero(x, axis=axis, keepdims=keepdims)
