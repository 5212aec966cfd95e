"""Sums over axes, and what is made of them: means, moments and lengths."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from microfw.errors import ArgumentError, ShapeError
from microfw.op import Array, Cost, Shape, op
from microfw.registry import NUMPY

Axis = int | tuple[int, ...] | None


def spread(g: Any, shape: Shape, axis: Axis) -> Any:
    """Repeat a reduced array along the axes that were summed."""
    if axis is not None:
        axes = {a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,))}
        g = g.reshape(tuple(1 if k in axes else n for k, n in enumerate(shape)))
    return np.broadcast_to(g if axis is not None else g.reshape((1,) * len(shape)), shape)


def _count(shape: Shape, axis: Axis) -> int:
    axes = range(len(shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return math.prod(shape[a] for a in axes)


def sums(y: Shape, x: Shape, **params: Any) -> Cost:
    """Cost of a sum: one addition less than there are terms; its derivative only copies."""
    return Cost(max(math.prod(x) - math.prod(y), 0), (0,))


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
    return Cost(math.prod(x), (math.prod(y),))


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


# Moments


def _centred(x: Any, axis: Axis) -> Any:
    """Subtract the mean twice: rounding in the first leaves a rest, and equal entries must give zeros."""
    d = x - np.mean(x, axis=axis, keepdims=True)
    return d - np.mean(d, axis=axis, keepdims=True)


def _freedom(name: str, shape: Shape, axis: Axis, ddof: float) -> float:
    n = _count(shape, axis)
    if n <= ddof:
        raise ShapeError(f"{name}: expected more than ddof={ddof} entries, got {n} of shape {shape}; lower ddof")
    return n - ddof


def _var_rule(g: Any, d: Any, shape: Shape, axis: Axis, ddof: float, keepdims: bool) -> Any:
    return spread(g * (2 / (_count(shape, axis) - ddof)), shape, axis) * d


def _var_push(dx: Any, d: Any, shape: Shape, axis: Axis, ddof: float, keepdims: bool) -> Any:
    return np.sum(dx * d, axis=axis, keepdims=keepdims) * (2 / (_count(shape, axis) - ddof))


@op(
    vjp=_var_rule,
    jvp=_var_push,
    aux={"d": _centred},
    cost=lambda y, x, **params: Cost(6 * math.prod(x), (math.prod(x) + math.prod(y),)),
    numpy=np.var,
    fresh=True,
)
def var(x: Array, *, axis: Axis = None, ddof: float = 0, keepdims: bool = False) -> Array:
    """Variance over axes, ``sum((x - mean)**2) / (n - ddof)``; exactly 0 of equal entries."""
    n = _freedom("var", np.shape(x), axis, ddof)
    d = _centred(x, axis)
    return np.sum(d * d, axis=axis, keepdims=keepdims) / n, d


def _std_rule(g: Any, y: Any, d: Any, shape: Shape, axis: Axis, ddof: float, keepdims: bool) -> Any:
    return spread(g / ((y + (y == 0)) * (_count(shape, axis) - ddof)), shape, axis) * d


def _std_push(dx: Any, y: Any, d: Any, shape: Shape, axis: Axis, ddof: float, keepdims: bool) -> Any:
    return np.sum(dx * d, axis=axis, keepdims=keepdims) / ((y + (y == 0)) * (_count(shape, axis) - ddof))


@op(
    vjp=_std_rule,
    jvp=_std_push,
    aux={"d": _centred},
    cost=lambda y, x, **params: Cost(6 * math.prod(x) + math.prod(y), (math.prod(x) + 4 * math.prod(y),)),
    numpy=np.std,
    fresh=True,
)
def std(x: Array, *, axis: Axis = None, ddof: float = 0, keepdims: bool = False) -> Array:
    """Standard deviation over axes, the root of `var`; slope 0 where all entries are equal."""
    n = _freedom("std", np.shape(x), axis, ddof)
    d = _centred(x, axis)
    return np.sqrt(np.sum(d * d, axis=axis, keepdims=keepdims) / n), d


# Lengths


def _norm_rule(g: Any, x: Any, y: Any, axis: Axis, keepdims: bool) -> Any:
    return spread(g / (y + (y == 0)), x.shape, axis) * x


def _norm_push(dx: Any, x: Any, y: Any, axis: Axis, keepdims: bool) -> Any:
    return np.sum(dx * x, axis=axis, keepdims=keepdims) / (y + (y == 0))


@op(
    vjp=_norm_rule,
    jvp=_norm_push,
    cost=lambda y, x, **params: Cost(2 * math.prod(x), (math.prod(x) + 3 * math.prod(y),)),
    fresh=True,
    name="norm",
)
def _norm(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Root of the sum of squares over axes, all by default; slope 0 where all entries are 0."""
    return np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims))


def vector_norm(x: Any, *, axis: Axis = None, keepdims: bool = False, ord: Any = 2) -> Any:
    """Norm of the entries over axes, all by default: `ord` 2, 1 (sum of sizes), inf or -inf (an extreme size)."""
    if ord == 2:
        return _norm(x, axis=axis, keepdims=keepdims)
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
