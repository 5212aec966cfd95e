"""Extremes over axes, where they are, and questions that look at every entry."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from microfw.autograd.op import Array, Cost, Shape, op
from microfw.autograd.registry import NUMPY
from microfw.autograd.tensor import Tensor
from microfw.ops.elementwise.choices import undefined
from microfw.ops.reduction.sums import Axis, reduction, spread


def _shares(x: Any, y: Any, axis: Axis) -> Any:
    """Return the share of each entry in the gradient: 1 for an extreme, less for several, 0 for the others."""
    # by comparing, and not by argmax: ties share, and the same expression works on Tensors
    hit = (x == spread(y, x.shape, axis)).astype(x.dtype)
    return hit / spread(np.sum(hit, axis=axis), x.shape, axis)


def _winners(g: Any, x: Any, y: Any, axis: Axis, keepdims: bool) -> Any:
    share = spread(g, x.shape, axis) * _shares(x, y, axis)
    return undefined(share, x, spread(np.isnan(y), x.shape, axis), axis=axis) if isinstance(x, Tensor) else share


def _push(dx: Any, x: Any, y: Any, axis: Axis, keepdims: bool) -> Any:
    return np.sum(dx * _shares(x, y, axis), axis=axis, keepdims=keepdims)


def _extreme_cost(y: Shape, x: Shape, **params: Any) -> Cost:
    return Cost(max(math.prod(x) - math.prod(y), 0), (4 * math.prod(x) - math.prod(y),))


_extreme = partial(reduction, __name__, vjp=_winners, jvp=_push, cost=_extreme_cost)

max_ = _extreme("max_", np.max, "Largest entry over axes; ties share the gradient equally.", numpy=(np.max, np.amax))

min_ = _extreme("min_", np.min, "Smallest entry over axes; ties share the gradient equally.", numpy=(np.min, np.amin))


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


any_ = reduction(__name__, "any_", np.any, "Whether some entry is not 0. It has no gradient.", cost=_search_cost)

all_ = reduction(__name__, "all_", np.all, "Whether no entry is 0. It has no gradient.", cost=_search_cost)


def _count_cost(y: Shape, x: Shape, **params: Any) -> Cost:
    return Cost(math.prod(x) + max(math.prod(x) - math.prod(y), 0), ())


count_nonzero = reduction(
    __name__,
    "count_nonzero",
    np.count_nonzero,
    "How many entries are not 0. It has no gradient.",
    cost=_count_cost,
)
