"""Sums over axes, and what is made of them: means, moments and lengths."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np

from microfw.autograd.op import Applicable, Array, Cost, Shape, op
from microfw.autograd.registry import NUMPY
from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, ShapeError
from microfw.ops.elementwise.choices import undefined
from microfw.ops.mapping import as_floats

Axis = int | tuple[int, ...] | None


def axes_of(axis: Axis, ndim: int) -> Iterable[int]:
    """Return an axis argument as axes."""
    return range(ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)


def spread(g: Any, shape: Shape, axis: Axis) -> Any:
    """Repeat a reduced array along the axes that were summed."""
    if axis is None:
        kept = (1,) * len(shape)
    else:
        axes = {a % len(shape) for a in axes_of(axis, len(shape))}
        kept = tuple(1 if k in axes else n for k, n in enumerate(shape))
    return np.broadcast_to(g.reshape(kept), shape)  # a view: the next rule often multiplies it, which makes the array


SHORT = 1024
"""Most entries of a row that a product adds, with no more rounding error than pairwise summation."""


@lru_cache(maxsize=64)
def _factors(n: int, factor: float, char: str) -> Array:
    factors = np.full(n, factor, char)
    factors.setflags(write=False)
    return factors


def as_rows(x: Any) -> Any:
    """Return an array as a matrix with the last axis as its rows; None for a layout, or a kind, that calls suit better.

    None for Tensors, arrays that count operations, and arrays that are not contiguous or not of floats.
    """
    if type(x) is not np.ndarray and isinstance(x, np.ndarray | np.generic | Tensor):
        return None
    if x.dtype.char not in "fd" or not x.ndim or not 0 < x.shape[-1] <= SHORT or not x.size:
        return None
    if x.strides[-1] != x.dtype.itemsize or x.strides[0] * x.shape[0] != x.nbytes:
        return None
    return x.reshape((-1, x.shape[-1]))


def sum_last(x: Any, mean: bool = False) -> Any:
    """Return the sums, or the means, over the last axis, which is kept with length 1."""
    rows, n = as_rows(x), x.shape[-1]
    if rows is None:
        total = np.sum(x, axis=-1, keepdims=True)
        return total / n if mean else total
    # a product with ones: of (1024, 16) it takes 5 µs, the sum 32; of (256, 128) 4, the sum 16
    return rows.dot(_factors(n, 1 / n if mean else 1.0, x.dtype.char)).reshape((*x.shape[:-1], 1))


MAX_ROWS = 1 << 16
"""Largest number of rows whose mean is a product; longer factors would fill the memory in which they are kept."""


def mean_first(x: Any) -> Any:
    """Return the means over all axes but the last; the others are kept with length 1."""
    rows, shape = as_rows(x), (*(1,) * (x.ndim - 1), x.shape[-1])
    if rows is None or len(rows) > MAX_ROWS:
        return np.sum(x, axis=(*range(x.ndim - 1),), keepdims=True) / math.prod(x.shape[:-1])
    # NumPy's sum over the first axis also adds row by row: the rounding error is the same
    factors = _factors(len(rows), 1 / len(rows), x.dtype.char)
    # of (32, 64), a sum and a division 4.3 µs → a product 1.1; np.dot also takes the arrays on which replay traces
    return (factors.dot(rows) if type(rows) is np.ndarray else np.dot(factors, rows)).reshape(shape)


def _mean_of_places(x: Any, axis: Axis) -> Any:
    """Return the means over all axes behind the second, (N, C), of an array in the order C, …, N in memory; else None.

    Convolutions and poolings make such arrays.
    """
    if x.ndim < 3 or x.strides[0] != x.dtype.itemsize or axis != (*range(2, x.ndim),):
        return None
    last = as_rows(x.transpose((*range(1, x.ndim), 0)))
    places = math.prod(x.shape[2:])
    if last is None or places > SHORT:
        return None
    # of (32, 16, 24), a sum and a division 11 µs → a product 2.5, which adds as many numbers one by one
    factors = _factors(places, 1 / places, x.dtype.char).reshape((1, places))
    return np.matmul(factors, last.reshape((x.shape[1], places, x.shape[0]))).reshape((x.shape[1], x.shape[0])).T


def _count(shape: Shape, axis: Axis) -> int:
    return math.prod(shape[a] for a in axes_of(axis, len(shape)))


def reduction(module: str, name: str, function: Any, doc: str, **declaration: Any) -> Applicable:
    """Declare an op of a module that is a reduction of NumPy over axes; ``name`` is that of the variable for it."""

    def value(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Array:
        return function(x, axis=axis, keepdims=keepdims)

    value.__module__, value.__name__, value.__qualname__, value.__doc__ = module, name, name, doc
    return op(**{"numpy": function, **declaration}, no_alias=True)(value)


def sums(y: Shape, x: Shape, **params: Any) -> Cost:
    """Cost of a sum: one addition less than there are terms; its derivative only copies."""
    return Cost(max(math.prod(x) - math.prod(y), 0), (0,))


sum_ = reduction(
    __name__,
    "sum_",
    np.sum,
    "Sum over axes, all by default.",
    vjp=lambda g, shape, axis: spread(g, shape, axis),
    jvp="linear",
    cost=sums,
)


def _mean_cost(y: Shape, x: Shape, **params: Any) -> Cost:
    return Cost(math.prod(x), (math.prod(y),))


@op(
    vjp=lambda g, shape, axis: spread(g * (1.0 / _count(shape, axis)), shape, axis),
    jvp="linear",
    cost=_mean_cost,
    numpy=np.mean,
    no_alias=True,
)
def mean(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Mean over axes, all by default; of nothing it is an error."""
    if _count(np.shape(x), axis) == 0:  # NumPy returns NaN and only warns
        raise ShapeError(
            f"mean: expected at least one entry, got shape {np.shape(x)}; the mean of nothing is undefined"
        )
    made = _mean_of_places(x, axis)
    if made is None:
        return np.mean(x, axis=axis, keepdims=keepdims)
    return made.reshape((*made.shape, *(1,) * (x.ndim - 2))) if keepdims else made


# Moments


def _centred(x: Any, axis: Axis) -> Any:
    """Return the differences from the mean."""
    # Subtract the mean twice: rounding in the first leaves a rest, and equal entries must give zeros.
    d = x - np.mean(x, axis=axis, keepdims=True)
    return d - np.mean(d, axis=axis, keepdims=True)


def _freedom(name: str, shape: Shape, axis: Axis, ddof: float) -> float:
    n = _count(shape, axis)
    if n <= ddof:
        raise ShapeError(f"{name}: expected more than ddof={ddof} entries, got {n} of shape {shape}; lower ddof")
    return n - ddof


@op(
    vjp=lambda g, d, shape, axis, ddof, keepdims: spread(g * (2 / (_count(shape, axis) - ddof)), shape, axis) * d,
    jvp=lambda dx, d, shape, axis, ddof, keepdims: (
        np.sum(dx * d, axis=axis, keepdims=keepdims) * (2 / (_count(shape, axis) - ddof))
    ),
    aux={"d": _centred},
    cost=lambda y, x, **params: Cost(6 * math.prod(x), (math.prod(x) + math.prod(y),)),
    numpy=np.var,
    no_alias=True,
)
def var(x: Array, *, axis: Axis = None, ddof: float = 0, keepdims: bool = False) -> Array:
    """Variance over axes, ``sum((x - mean)**2) / (n - ddof)``; exactly 0 of equal entries."""
    n = _freedom("var", np.shape(x), axis, ddof)
    d = _centred(x, axis)
    return np.sum(d * d, axis=axis, keepdims=keepdims) / n, d


def _std_rule(g: Any, y: Any, d: Any, shape: Shape, axis: Axis, ddof: float, keepdims: bool) -> Any:
    share = _along(spread(g / (_count(shape, axis) - ddof), shape, axis), d, y, axis)
    # centred as it is, but a change of all entries alike then asks for no second derivative where there is none
    return _centred(share, axis) if isinstance(share, Tensor) else share


def _std_push(dx: Any, y: Any, d: Any, shape: Shape, axis: Axis, ddof: float, keepdims: bool) -> Any:
    moved = _centred(dx, axis) if isinstance(d, Tensor) else dx
    return np.sum(_along(moved, d, y, axis, True), axis=axis, keepdims=keepdims) / (_count(shape, axis) - ddof)


@op(
    vjp=_std_rule,
    jvp=_std_push,
    aux={"d": _centred},
    cost=lambda y, x, **params: Cost(6 * math.prod(x) + 3 * math.prod(y), (2 * math.prod(x) + 3 * math.prod(y),)),
    numpy=np.std,
    no_alias=True,
)
def std(x: Array, *, axis: Axis = None, ddof: float = 0, keepdims: bool = False) -> Array:
    """Standard deviation over axes, the root of `var`; slope 0 where all entries are equal."""
    n = _freedom("std", np.shape(x), axis, ddof)
    d = _centred(x, axis)
    return _length(d, axis, keepdims, n), d


# Lengths


def _along(g: Any, x: Any, y: Any, axis: Axis, tangent: bool = False) -> Any:
    """Return ``g * x / y``, where ``y`` is a length of ``x``: 0 if that is 0, and then with no derivative by ``x``.

    A ``tangent`` of 0 has one, which is 0.
    """
    zero = y == 0
    share = g * (x / spread(y + zero, x.shape, axis))
    if not isinstance(x, Tensor):
        return share
    zero = spread(zero, x.shape, axis)
    at = np.logical_and(zero, np.any(g != 0, axis=axis, keepdims=True)) if tangent else zero
    return undefined(share, x, at, axis=axis)


SAFE = {char: (float(np.finfo(char).tiny / np.finfo(char).eps), float(np.finfo(char).max)) for char in "fd"}
"""By dtype, between which sums of squares no square has overflowed, or underflowed so much that it is missed."""


def _length(x: Any, axis: Axis, keepdims: bool, n: float | None = None) -> Any:
    """Return the root of the sum of squares, over ``n`` if given."""
    # Entries are scaled first where their squares are out of range. Scaling all would change bits elsewhere.
    if x.dtype.char not in SAFE or not x.size:
        if x.dtype.kind in "iub":
            return _length(as_floats(x), axis, keepdims, n)
        squares = np.sum(np.square(x), axis=axis, keepdims=keepdims)
        return np.sqrt(squares if n is None else squares / n)
    low, high = SAFE[x.dtype.char]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares = np.sum(np.square(x), axis=axis, keepdims=keepdims)
        y = np.sqrt(squares if n is None else squares / n)
        if low <= squares.min() and squares.max() <= high:
            return y
        scale = np.max(np.abs(x), axis=axis, keepdims=True)
        scale = np.where((scale > 0) & (scale <= high), scale, 1).astype(x.dtype)
        scaled = np.sqrt(np.sum(np.square(x / scale), axis=axis, keepdims=True) / (n or 1)) * scale
    return np.where((squares >= low) & (squares <= high), y, scaled if keepdims else np.squeeze(scaled, axis))


@op(
    vjp=lambda g, x, y, axis, keepdims: _along(spread(g, x.shape, axis), x, y, axis),
    jvp=lambda dx, x, y, axis, keepdims: np.sum(_along(dx, x, y, axis, True), axis=axis, keepdims=keepdims),
    cost=lambda y, x, **params: Cost(2 * math.prod(x) + 2 * math.prod(y), (2 * math.prod(x) + 2 * math.prod(y),)),
    no_alias=True,
    name="norm",
)
def _norm(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Root of the sum of squares over axes, all by default; slope 0 where all entries are 0.

    It neither overflows nor underflows where the squares do.
    """
    return _length(x, axis, keepdims)


def vector_norm(x: Any, *, axis: Axis = None, keepdims: bool = False, ord: Any = 2) -> Any:
    """Norm of the entries over axes, all by default: `ord` 2, 1 (sum of sizes), inf or -inf (an extreme size)."""
    if ord == 2:
        return _norm(x, axis=axis, keepdims=keepdims)
    x = as_floats(x) if isinstance(x, Tensor) else x
    if ord == 1:
        return np.sum(np.abs(x), axis=axis, keepdims=keepdims)
    if ord in (np.inf, -np.inf):
        return (np.max if ord > 0 else np.min)(np.abs(x), axis=axis, keepdims=keepdims)
    raise ArgumentError(f"norm: expected ord to be 1, 2, inf or -inf, got {ord!r}; write out the sum of powers")


def norm(x: Any, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Any:
    """Norm as ``np.linalg.norm``: of vectors with `ord` 1, 2, inf or -inf, of matrices the Frobenius norm.

    Slope 0 at 0; where entries tie for the extreme they share the gradient equally.

    >>> import numpy as np, microfw as mf
    >>> mf.grad(np.linalg.norm)(np.array([3.0, 4.0]))
    array([0.6, 0.8])
    """
    axes = np.ndim(x) if axis is None else len(axis) if isinstance(axis, tuple) else 1
    if axis is not None and not (axes and np.ndim(x)):
        raise ArgumentError("norm", "one or two axes of the array", f"axis={axis} of shape {np.shape(x)}")
    if ord is None or (ord == "fro" and axes == 2):
        return _norm(x, axis=axis, keepdims=keepdims)
    if axes != 1:
        raise ArgumentError(
            f"norm: expected ord=None or ord='fro' for {axes} axes, got {ord!r}; "
            "other norms of matrices have no rule: for norms of vectors give one axis"
        )
    return vector_norm(x, axis=axis, keepdims=keepdims, ord=ord)


NUMPY[np.linalg.norm] = norm
NUMPY[np.linalg.vector_norm] = vector_norm
