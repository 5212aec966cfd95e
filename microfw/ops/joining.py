"""Arrays joined, and cut apart again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from microfw.autograd.apply import starts
from microfw.autograd.op import Array, Shape, op, zero_cost
from microfw.autograd.tensor import Tensor
from microfw.errors import ShapeError
from microfw.ops.indexing import getitem
from microfw.ops.layout import atleast_1d, atleast_2d, atleast_3d, ravel, reshape
from microfw.ops.mapping import implements, operand


def _piece(g: Any, index: int, shapes: Sequence[Shape], axis: int) -> Any:
    start = starts(shapes, axis)[index]
    key = [slice(None)] * len(shapes[index])
    key[axis] = slice(start, start + shapes[index][axis])
    return g[tuple(key)]


def among_zeros(dx: Any, axis: int, before: int, after: int) -> Any:
    """Return a tangent with the given numbers of zeros before and after it along an axis."""
    parts = [dx]  # concatenated and not written into zeros, so that dx may be a Tensor
    for n, at in ((before, 0), (after, 2)):
        if n:
            parts.insert(at, np.zeros((*dx.shape[:axis], n, *dx.shape[axis + 1 :]), dx.dtype))
    return np.concatenate(parts, axis=axis)


def _place(dx: Any, index: int, shapes: Sequence[Shape], axis: int) -> Any:
    at = starts(shapes, axis)
    total = at[-1] + shapes[-1][axis]
    return among_zeros(dx, axis % dx.ndim, at[index], total - at[index] - dx.shape[axis])


@op(vjp=_piece, jvp=_place, cost=zero_cost, no_alias=True)
def concatenate(*xs: Array, axis: int = 0) -> Array:
    """Arrays joined along an axis."""
    return np.concatenate(xs, axis=axis)


@implements(np.concatenate)  # NumPy takes the arrays as one sequence
def _concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Tensor:
    return concatenate(*(map(ravel, arrays) if axis is None else arrays), axis=axis or 0)


def _layers(dx: Any, index: int, shapes: Sequence[Shape], axis: int) -> Any:
    axis %= dx.ndim + 1
    return among_zeros(dx.reshape((*dx.shape[:axis], 1, *dx.shape[axis:])), axis, index, len(shapes) - index - 1)


@op(
    vjp=lambda g, index, shapes, axis: g[(*(slice(None),) * (axis % g.ndim), index, ...)],
    jvp=_layers,
    cost=zero_cost,
    no_alias=True,
)
def stack(*xs: Array, axis: int = 0) -> Array:
    """Arrays of one shape joined along a new axis."""
    return np.stack(xs, axis=axis)


@implements(np.stack)
def _stack(arrays: Sequence[Any], axis: int = 0) -> Tensor:
    return stack(*arrays, axis=axis)


@implements(np.vstack)
def vstack(tup: Sequence[Any]) -> Tensor:
    """Join arrays along their first axis, vectors as rows."""
    return concatenate(*map(atleast_2d, tup), axis=0)


@implements(np.hstack)
def hstack(tup: Sequence[Any]) -> Tensor:
    """Join arrays along their second axis, vectors along their only one."""
    arrays = [*map(atleast_1d, tup)]
    return concatenate(*arrays, axis=0 if arrays[0].ndim == 1 else 1)


@implements(np.dstack)
def dstack(tup: Sequence[Any]) -> Tensor:
    """Join arrays along their third axis."""
    return concatenate(*map(atleast_3d, tup), axis=2)


@implements(np.column_stack)
def column_stack(tup: Sequence[Any]) -> Tensor:
    """Join arrays along their second axis, vectors as columns."""
    arrays = map(operand, tup)
    return concatenate(*(x if x.ndim > 1 else reshape(x, shape=(-1, 1)) for x in arrays), axis=1)


@implements(np.append)
def append(arr: Any, values: Any, axis: int | None = None) -> Tensor:
    """Join two arrays, flat by default."""
    return _concatenate((arr, values), axis)


# Cut apart


def _cut(x: Any, bounds: Sequence[int], axis: int) -> list[Tensor]:
    before = (slice(None),) * axis
    return [getitem(x, key=(*before, slice(a, b))) for a, b in pairwise(bounds)]


@implements(np.array_split)
def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Tensor]:
    """Cut an array into a number of parts of about the same length, or at the given indices."""
    x = operand(ary)
    axis = normalize_axis_index(axis, x.ndim)
    n = x.shape[axis]
    if np.ndim(indices_or_sections):
        places = [int(k) for k in indices_or_sections]
        return _cut(x, [0, *places, n], axis)
    parts = int(indices_or_sections)
    if parts < 1:
        raise ShapeError("array_split", "at least one part", parts)
    length, longer = divmod(n, parts)
    return _cut(x, [k * length + min(k, longer) for k in range(parts + 1)], axis)


@implements(np.split)
def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Tensor]:
    """Cut an array into a number of equal parts, or at the given indices."""
    n = np.shape(ary)[normalize_axis_index(axis, np.ndim(ary))]
    if not np.ndim(indices_or_sections) and n % max(int(indices_or_sections), 1):
        raise ShapeError("split", f"a number of parts that divides {n}", indices_or_sections, "or use np.array_split")
    return array_split(ary, indices_or_sections, axis)


@implements(np.vsplit)
def vsplit(ary: Any, indices_or_sections: Any) -> list[Tensor]:
    """Cut an array of at least two axes along its first."""
    return split(ary, indices_or_sections, _at_least(ary, 2, "vsplit", 0))


@implements(np.hsplit)
def hsplit(ary: Any, indices_or_sections: Any) -> list[Tensor]:
    """Cut an array along its second axis, a vector along its only one."""
    return split(ary, indices_or_sections, _at_least(ary, 1, "hsplit", min(np.ndim(ary) - 1, 1)))


@implements(np.dsplit)
def dsplit(ary: Any, indices_or_sections: Any) -> list[Tensor]:
    """Cut an array along its third axis."""
    return split(ary, indices_or_sections, _at_least(ary, 3, "dsplit", 2))


def _at_least(ary: Any, ndim: int, where: str, axis: int) -> int:
    if np.ndim(ary) < ndim:
        raise ShapeError(where, f"at least {ndim} axes", np.shape(ary))
    return axis


@implements(getattr(np, "unstack", None))
def unstack(x: Any, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """Return the arrays that lie along an axis, without it."""
    x = operand(x)
    before = (slice(None),) * normalize_axis_index(axis, x.ndim)
    return tuple(getitem(x, key=(*before, k)) for k in range(x.shape[axis]))
