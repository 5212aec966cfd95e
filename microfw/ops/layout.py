"""Layout: ops that move entries and compute nothing."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from microfw.graph import NUMPY
from microfw.op import Array, Cost, Shape, moves, op


@op(vjp=lambda g, shape: g.reshape(shape), jvp="linear", cost=moves, numpy=np.reshape, name="reshape")
def reshape(x: Array, *, shape: int | Shape) -> Array:
    """The same entries in another shape."""
    return np.reshape(x, shape)


def _untranspose(g: Any, axes: Sequence[int] | None) -> Any:
    return np.transpose(g, None if axes is None else tuple(np.argsort([a % len(axes) for a in axes]).tolist()))


@op(vjp=_untranspose, jvp="linear", cost=moves, numpy=np.transpose)
def transpose(x: Array, *, axes: Sequence[int] | None = None) -> Array:
    """Axes in another order, reversed by default."""
    return np.transpose(x, axes)


def _fold(g: Any, shape: Shape) -> Any:
    extra = g.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(extra + k for k, n in enumerate(shape) if n == 1 and g.shape[extra + k] != 1)
    return np.sum(g, axis=axes).reshape(shape) if axes else g


def _fold_cost(y: Shape, x: Shape, **params: Any) -> Any:
    return Cost(0, (max(prod(y) - prod(x), 0),))


@op(vjp=_fold, jvp="linear", cost=_fold_cost, numpy=np.broadcast_to, name="broadcast_to")
def broadcast_to(x: Array, *, to: Shape) -> Array:
    """The array repeated along new or single axes to a shape."""
    return np.broadcast_to(x, to)


def _piece(g: Any, index: int, shapes: Sequence[Shape], axis: int) -> Any:
    start = sum(s[axis] for s in shapes[:index])
    key = [slice(None)] * len(shapes[index])
    key[axis] = slice(start, start + shapes[index][axis])
    return g[tuple(key)]


def _place(dx: Any, index: int, shapes: Sequence[Shape], axis: int) -> Any:
    def zeros(s: Shape) -> Any:
        return np.zeros(s, dx.dtype)

    return np.concatenate([dx if k == index else zeros(s) for k, s in enumerate(shapes)], axis=axis)


@op(vjp=_piece, jvp=_place, cost=moves, fresh=True)
def concatenate(*xs: Array, axis: int = 0) -> Array:
    """Arrays joined along an axis."""
    return np.concatenate(xs, axis=axis)


def _join(arrays: Sequence[Any], axis: int = 0) -> Any:
    return concatenate(*arrays, axis=axis)


NUMPY[np.concatenate] = _join  # NumPy takes the arrays as one sequence
