"""Fused ops that bring vectors and groups of entries to one size."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from microfw.op import Array, Cost, Shape, op
from microfw.tensor import Tensor

# To mean 0 and variance 1


def _mean(x: Any, axes: tuple[int, ...]) -> Any:
    return x.sum(axis=axes, keepdims=True) / prod(x.shape[a] for a in axes)


def _centred(x: Any, axes: tuple[int, ...]) -> Any:
    return x - _mean(x, axes)


def _rstd(x: Any, axes: tuple[int, ...], eps: float) -> Any:
    return 1 / np.sqrt(_mean(np.square(_centred(x, axes)), axes) + eps)


def _xhat(x: Any, axes: tuple[int, ...], eps: float) -> Any:
    return _centred(x, axes) * _rstd(x, axes, eps)


def _project(g: Any, xhat: Any, axes: tuple[int, ...]) -> Any:
    """Take away what a change of the mean, and of the variance, undoes."""
    return g - _mean(g, axes) - xhat * _mean(g * xhat, axes)


def _normalize_cost(y: Shape, x: Shape, weight: Shape, bias: Shape, *, axes: tuple[int, ...], **params: Any) -> Cost:
    n = prod(y)
    rows = n // max(prod(y[a] for a in axes), 1)
    return Cost(7 * n + 3 * rows, (8 * n + 2 * rows, 2 * n - min(prod(weight), n), n - min(prod(bias), n)))


@op(
    vjp=(
        lambda g, weight, xhat, rstd, axes: rstd * _project(g * weight, xhat, axes),
        lambda g, xhat: g * xhat,
        lambda g: g,
    ),
    jvp=(
        lambda dx, weight, xhat, rstd, axes: weight * (rstd * _project(dx, xhat, axes)),
        lambda dw, xhat: dw * xhat,
        lambda db: db,
    ),
    aux={"xhat": _xhat, "rstd": _rstd},
    cost=_normalize_cost,
    fresh=True,
)
def normalize(
    x: Array, weight: Array, bias: Array, *, axes: tuple[int, ...], eps: float, tell: Callable[..., None] | None = None
) -> Array:
    """``(x - mean) / sqrt(variance + eps) * weight + bias``, with mean and variance over axes.

    The variance is that of the differences from the mean, which keeps the digits that the mean of the
    squares minus the square of the mean would lose. ``tell`` is called with the two, and how many entries they are of.
    """
    mean = _mean(x, axes)
    centred = x - mean
    variance = _mean(np.square(centred), axes)
    rstd = 1 / np.sqrt(variance + eps)
    if tell is not None:
        tell(mean, variance, prod(x.shape[a] for a in axes))
    xhat = centred * rstd
    return xhat * weight + bias, xhat, rstd


# To length 1


def _inverse(x: Any) -> Any:
    """Return the reciprocal length of each vector, 0 for a zero vector."""
    squares = np.square(x).sum(axis=-1, keepdims=True)
    there = squares > 0
    return np.where(there, 1 / np.sqrt(np.where(there, squares, 1)), 0)


def _unit_rule(g: Any, y: Any, r: Any) -> Any:
    return r * (g - y * (g * y).sum(axis=-1, keepdims=True))


def _unit_cost(y: Shape, x: Shape) -> Cost:
    return Cost(6 * prod(y), (5 * prod(y),))


@op(vjp=_unit_rule, aux={"r": _inverse}, cost=_unit_cost, fresh=True)
def unit(x: Array) -> Array:
    """``x / length(x)`` along the last axis; a zero vector stays zero, with gradient 0.

    Vectors are scaled by their largest entry first, so that no square overflows or vanishes.
    """
    largest = np.abs(x).max(axis=-1, keepdims=True, initial=0)
    scale = np.where(largest > 0, largest, 1)
    scaled = x / scale
    size = np.sqrt(np.square(scaled).sum(axis=-1, keepdims=True))
    size = np.where(size > 0, size, 1)
    return scaled / size, np.where(largest > 0, 1 / size / scale, 0)


def _direction(x: Any) -> Any:
    return unit(x) if isinstance(x, Tensor) else unit.op.value(x)[0]


def _length_cost(y: Shape, x: Shape) -> Cost:
    return Cost(5 * prod(x), (7 * prod(x),))


@op(
    vjp=lambda g, x: g.reshape((*g.shape, 1)) * _direction(x),
    jvp=lambda dx, x: (dx * _direction(x)).sum(axis=-1),
    cost=_length_cost,
    fresh=True,
)
def length(x: Array) -> Array:
    """Euclidean length along the last axis; slope 0 at a zero vector."""
    largest = np.abs(x).max(axis=-1, keepdims=True, initial=0)
    scale = np.where(largest > 0, largest, 1)
    return np.sqrt(np.square(x / scale).sum(axis=-1)) * scale[..., 0]


# To sum 1


def _attend_cost(y: Shape, x: Shape, mask: Shape, **params: Any) -> Cost:
    return Cost(7 * prod(y), (5 * prod(y) + max(prod(y) - prod(x), 0), 0))


@op(
    vjp=(lambda g, y, scale: (y * scale) * (g - (g * y).sum(axis=-1, keepdims=True)), None),
    cost=_attend_cost,
    fresh=True,
)
def masked_softmax(x: Array, mask: Array, *, scale: float = 1.0) -> Array:
    """Softmax of ``scale * x`` along the last axis over the entries where ``mask`` is true; 0 elsewhere.

    Where no entry of a row may take part, the whole row is 0.
    """
    z = np.where(mask, x * scale, -np.inf)
    highest = z.max(axis=-1, keepdims=True, initial=-np.inf)
    e = np.exp(z - np.where(highest > -np.inf, highest, 0))
    total = e.sum(axis=-1, keepdims=True)
    return e / np.where(total > 0, total, 1)
