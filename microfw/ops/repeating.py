"""Entries turned round, repeated and surrounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from microfw.autograd.op import Array, op, zero_cost
from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, ShapeError
from microfw.ops.elementwise import identity, where
from microfw.ops.indexing import getitem, put, take
from microfw.ops.layout import broadcast_to, ravel, reshape, swapaxes
from microfw.ops.mapping import hashable, implements, operand

Axes = int | tuple[int, ...] | None

# Turned round


@implements(np.flip)
def flip(m: Any, axis: Axes = None) -> Tensor:
    """Reverse the order of the entries along axes, all by default."""
    x = operand(m)
    axes = range(x.ndim) if axis is None else normalize_axis_tuple(axis, x.ndim)
    return getitem(x, key=tuple(slice(None, None, -1 if k in axes else None) for k in range(x.ndim)))


@implements(np.flipud)
def flipud(m: Any) -> Tensor:
    """Reverse the order along the first axis."""
    return flip(m, 0)


@implements(np.fliplr)
def fliplr(m: Any) -> Tensor:
    """Reverse the order along the second axis."""
    return flip(m, 1)


@implements(np.rot90)
def rot90(m: Any, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Tensor:
    """Turn by a number of quarters from the first of two axes towards the second."""
    i, j = (normalize_axis_index(a, np.ndim(m)) for a in axes)
    if i == j:
        raise ShapeError("rot90", "two axes", axes)
    turns = k % 4
    if turns == 0:
        return getitem(m, key=...)
    if turns == 2:
        return flip(m, (i, j))
    return swapaxes(flip(m, j), i, j) if turns == 1 else flip(swapaxes(m, i, j), j)


def _backward(shift: int | tuple[int, ...]) -> int | tuple[int, ...]:
    return tuple(-s for s in shift) if isinstance(shift, tuple) else -shift


@op(vjp=lambda g, shift, axis: np.roll(g, _backward(shift), axis), jvp="linear", cost=zero_cost, no_alias=True)
def roll(x: Array, *, shift: int | tuple[int, ...], axis: Axes = None) -> Array:
    """Entries moved along axes, those that leave at one end coming in at the other."""
    return np.roll(x, shift, axis)


@implements(np.roll)
def _roll(a: Any, shift: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Tensor:
    return roll(a, shift=hashable(np.asarray(shift)), axis=axis if axis is None else hashable(np.asarray(axis)))


# Repeated


@implements(np.tile)
def tile(A: Any, reps: int | Sequence[int]) -> Tensor:
    """Lay copies of an array side by side, a number of them along each axis."""
    x = operand(A)
    times = [int(n) for n in np.atleast_1d(reps)]
    times = [1] * (x.ndim - len(times)) + times
    shape = (1,) * (len(times) - x.ndim) + x.shape
    apart = tuple(n for s in shape for n in (1, s))
    to = tuple(n for r, s in zip(times, shape, strict=True) for n in (r, s))
    copies = broadcast_to(reshape(x, shape=apart), to=to)
    return reshape(copies, shape=tuple(r * s for r, s in zip(times, shape, strict=True)))


@implements(np.repeat)
def repeat(a: Any, repeats: Any, axis: int | None = None) -> Tensor:
    """Repeat each entry, all equally often or each its own number of times."""
    x = operand(a)
    if axis is None:
        x, axis = ravel(x), 0
    axis = normalize_axis_index(axis, x.ndim)
    n = x.shape[axis]
    times = np.asarray(repeats)
    if times.size != 1:
        return take(x, np.repeat(np.arange(n), times), axis=axis)
    r = int(times.reshape(()))
    copies = reshape(x, shape=(*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]))
    copies = broadcast_to(copies, to=(*x.shape[: axis + 1], r, *x.shape[axis + 1 :]))
    return reshape(copies, shape=(*x.shape[:axis], n * r, *x.shape[axis + 1 :]))


# Surrounded

BY_INDEX = ("edge", "reflect", "symmetric", "wrap")


@implements(np.pad)
def pad(array: Any, pad_width: Any, mode: str = "constant", **options: Any) -> Tensor:
    """Surround an array: with a constant, or with its own entries.

    Parameters
    ----------
    array : Tensor or array
        The array to pad.
    pad_width : int, pair, sequence of pairs, or dict of axis to pair
        How many entries come before and after, for each axis.
    mode : {"constant", "edge", "reflect", "symmetric", "wrap"}
        The values of the new entries.
    **options
        ``constant_values``, as ``pad_width``; 0 by default.

    Raises
    ------
    ArgumentError
        For another mode or option, or a negative width.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> np.pad(mf.tensor([1.0, 2.0]), 1)
    tensor([0., 1., 2., 0.])
    >>> np.pad(mf.tensor([1.0, 2.0]), (0, 2), mode="edge")
    tensor([1., 2., 2., 2.])
    """
    x = operand(array)
    widths = _widths(pad_width, x.ndim)
    allowed = {"constant_values"} if mode == "constant" else set()
    if mode != "constant" and mode not in BY_INDEX:
        raise ArgumentError("pad", f"mode to be one of {', '.join(('constant', *BY_INDEX))}", repr(mode))
    if set(options) - allowed:
        raise ArgumentError("pad", f"no options but {sorted(allowed)} for mode {mode!r}", sorted(options))
    if mode == "constant":
        inner = tuple(slice(before, before + n) for (before, _), n in zip(widths, x.shape, strict=True))
        made: Tensor = put(x, shape=tuple(n + a + b for n, (a, b) in zip(x.shape, widths, strict=True)), key=inner)
        values = options.get("constant_values", 0)
        if not np.any(values):
            return made
        outside = np.pad(np.zeros(x.shape, bool), widths, constant_values=True)
        return where(outside, np.pad(np.zeros(x.shape, x.dtype), widths, constant_values=values), made)
    for axis, (before, after) in enumerate(widths):
        if before or after:
            around: Any = {"pad_width": (before, after), "mode": mode}
            x = take(x, np.pad(np.arange(x.shape[axis]), **around), axis=axis)
    padded: Tensor = x if isinstance(x, Tensor) else identity(x)
    return padded


def _widths(pad_width: Any, ndim: int) -> list[tuple[int, int]]:
    if isinstance(pad_width, dict):
        pairs = np.zeros((ndim, 2), int)
        for axis, width in pad_width.items():
            pairs[axis] = width
    else:
        pairs = np.broadcast_to(np.asarray(pad_width), (ndim, 2))
    if pairs.dtype.kind not in "iu" or np.any(pairs < 0):
        raise ArgumentError("pad", "widths that are integers, 0 or more", pad_width)
    return [(int(a), int(b)) for a, b in pairs]
