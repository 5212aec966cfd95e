"""Indexing: entries picked out, and their gradients put back, repeated ones added up."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from microfw.op import Array, Cost, Shape, moves, op
from microfw.tensor import Tensor


def _basic(key: Any) -> bool:
    keys = key if isinstance(key, tuple) else (key,)
    return all(k is None or k is Ellipsis or isinstance(k, int | np.integer | slice) for k in keys)


def _scatter_cost(y: Shape, *inputs: Shape, **params: Any) -> Cost:
    return Cost(0, (prod(y),) + (0,) * (len(inputs) - 1))


@op(vjp=lambda g, shape, key: put(g, shape=shape, key=key), jvp="linear", cost=_scatter_cost)
def getitem(x: Array, *, key: Any) -> Array:
    """``x[key]`` for slices, integers, masks and integer arrays."""
    return np.asarray(x)[key]


@op(vjp=lambda g, key: g[key], jvp="linear", cost=moves, fresh=True, name="put")
def _put(x: Array, *, shape: Shape, key: Any) -> Array:
    """Zeros of a shape with ``x`` added at ``key``: the transpose of indexing."""
    x = np.asarray(x)
    zeros = np.zeros(shape, x.dtype)
    if _basic(key):
        zeros[key] = x
    else:
        np.add.at(zeros, key, x)
    return zeros


def put(x: Any, *, shape: Shape, key: Any) -> Any:
    """`put` on arrays as on Tensors."""
    return _put(x, shape=shape, key=key) if isinstance(x, Tensor) else _put.op.value(x, shape=shape, key=key)


def _along(index: Array, shape: Shape, axis: int) -> tuple[Any, ...]:
    grid = list(np.ogrid[tuple(slice(n) for n in index.shape)])
    grid[axis] = index
    return tuple(grid)


@op(
    vjp=(lambda g, indices, shape, axis: put(g, shape=shape, key=_along(indices, shape, axis)), None),
    jvp=(lambda dx, indices, shape, axis: np.take_along_axis(dx, indices, axis=axis), None),
    cost=_scatter_cost,
    numpy=np.take_along_axis,
    fresh=True,
)
def take_along_axis(x: Array, indices: Array, *, axis: int = -1) -> Array:
    """Entries of ``x`` at an index for each position along an axis."""
    return np.take_along_axis(x, indices, axis)
