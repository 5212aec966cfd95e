"""Layout: ops that move entries and compute nothing, and NumPy's functions that are one of them in disguise."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from microfw.autograd.op import Array, Cost, Shape, op, zero_cost
from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, ShapeError
from microfw.ops.elementwise import identity
from microfw.ops.mapping import implements, operand


@op(vjp=lambda g, shape: g.reshape(shape), jvp="linear", cost=zero_cost, numpy=np.reshape)
def reshape(x: Array, *, shape: int | Shape) -> Array:
    """The same entries in another shape."""
    return np.reshape(x, shape)


@op(
    vjp=lambda g, axes: np.transpose(
        g, None if axes is None else tuple(np.argsort([a % len(axes) for a in axes]).tolist())
    ),
    jvp="linear",
    cost=zero_cost,
)
def transpose(x: Array, *, axes: Sequence[int] | None = None) -> Array:
    """Axes in another order, reversed by default."""
    return np.transpose(x, axes)


@implements(np.transpose)
def _transpose(a: Any, axes: Sequence[int] | None = None) -> Tensor:
    return transpose(a, axes=None if axes is None else tuple(axes))


def _fold_cost(y: Shape, x: Shape, **params: Any) -> Any:
    return Cost(0, (max(prod(y) - prod(x), 0),))


@op(vjp=lambda g: g, jvp="linear", cost=_fold_cost)  # the engine sums what was repeated
def broadcast_to(x: Array, *, to: Shape) -> Array:
    """The array repeated along new or single axes to a shape."""
    return np.broadcast_to(x, to)


@implements(np.broadcast_to)
def _broadcast_to(array: Any, shape: int | Shape) -> Tensor:
    return broadcast_to(array, to=shape)


@implements(np.copy)
def copy(a: Any) -> Tensor:
    """Return the same values as a node of their own."""
    return identity(a)


# Another shape


@implements(np.squeeze)
def squeeze(a: Any, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Leave out axes of length 1, all of them by default."""
    x = operand(a)
    if axis is None:
        return reshape(x, shape=tuple(n for n in x.shape if n != 1))
    axes = normalize_axis_tuple(axis, x.ndim)
    if any(x.shape[k] != 1 for k in axes):
        raise ShapeError("squeeze", f"axes of length 1 at {axes}", x.shape)
    return reshape(x, shape=tuple(n for k, n in enumerate(x.shape) if k not in axes))


@implements(np.expand_dims)
def expand_dims(a: Any, axis: int | tuple[int, ...]) -> Tensor:
    """Add axes of length 1, at these places in the result."""
    x = operand(a)
    places = axis if isinstance(axis, tuple | list) else (axis,)
    axes = normalize_axis_tuple(places, x.ndim + len(places))
    lengths = iter(x.shape)
    return reshape(x, shape=tuple(1 if k in axes else next(lengths) for k in range(x.ndim + len(axes))))


@implements(np.ravel)
def ravel(a: Any) -> Tensor:
    """Return the entries along one axis."""
    return reshape(a, shape=(-1,))


def _all(function: Any) -> Any:
    """Apply a function to one array, or to each of several, as NumPy's ``atleast_1d`` does."""

    def call(*arrays: Any) -> Any:
        made = tuple(function(operand(a)) for a in arrays)
        return made[0] if len(made) == 1 else made

    return call


@implements(np.atleast_1d)
@_all
def atleast_1d(x: Any) -> Any:
    """See arrays as having at least one axis."""
    return reshape(x, shape=x.shape or (1,))


@implements(np.atleast_2d)
@_all
def atleast_2d(x: Any) -> Any:
    """See arrays as having at least two axes, new ones first."""
    return reshape(x, shape=(1,) * (2 - x.ndim) + x.shape)


@implements(np.atleast_3d)
@_all
def atleast_3d(x: Any) -> Any:
    """See arrays as having at least three axes, a vector in the middle one, a matrix in the first two."""
    before = (1,) * (2 - x.ndim)
    return reshape(x, shape=before + x.shape + (1,) * (3 - len(before) - x.ndim))


# Another order


@implements(np.moveaxis)
def moveaxis(a: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Move axes to other places; the others stay in order."""
    x = operand(a)
    sources = normalize_axis_tuple(source, x.ndim, "source")
    places = normalize_axis_tuple(destination, x.ndim, "destination")
    if len(sources) != len(places):
        raise ShapeError("moveaxis", f"a place for each of the axes {sources}", places)
    order = [k for k in range(x.ndim) if k not in sources]
    for place, axis in sorted(zip(places, sources, strict=True)):
        order.insert(place, axis)
    return transpose(x, axes=tuple(order))


@implements(np.swapaxes)
def swapaxes(a: Any, axis1: int, axis2: int) -> Tensor:
    """Exchange two axes."""
    x = operand(a)
    order = list(range(x.ndim))
    i, j = normalize_axis_index(axis1, x.ndim), normalize_axis_index(axis2, x.ndim)
    order[i], order[j] = j, i
    return transpose(x, axes=tuple(order))


@implements(np.matrix_transpose, np.linalg.matrix_transpose)
def matrix_transpose(x: Any, /) -> Tensor:
    """Exchange the last two axes."""
    if np.ndim(x) < 2:
        raise ShapeError("matrix_transpose", "at least two axes", np.shape(x))
    return swapaxes(x, -1, -2)


@implements(np.rollaxis)
def rollaxis(a: Any, axis: int, start: int = 0) -> Tensor:
    """Move an axis to before another one."""
    ndim = np.ndim(a)
    axis, start = normalize_axis_index(axis, ndim), start + ndim if start < 0 else start
    return moveaxis(a, axis, start - 1 if start > axis else start)


# To one shape


@implements(np.broadcast_arrays)
def broadcast_arrays(*args: Any) -> tuple[Tensor, ...]:
    """Repeat arrays along new or single axes, so that all have one shape."""
    to = np.broadcast_shapes(*(np.shape(a) for a in args))
    return tuple(broadcast_to(a, to=to) for a in args)


@implements(np.meshgrid)
def meshgrid(*xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> tuple[Tensor, ...]:
    """Return the coordinates of a grid's points: one array for each axis."""
    if indexing not in ("xy", "ij"):
        raise ArgumentError("meshgrid", "indexing of 'xy' or 'ij'", repr(indexing))
    places = [1, 0, *range(2, len(xi))] if indexing == "xy" and len(xi) > 1 else list(range(len(xi)))
    made = tuple(
        reshape(x, shape=tuple(-1 if k == place else 1 for k in range(len(xi))))
        for x, place in zip(xi, places, strict=True)
    )
    return made if sparse else broadcast_arrays(*made)
