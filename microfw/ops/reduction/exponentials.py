"""Sums of exponentials, shifted so that none overflows; of integers as floats, since their differences overflow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from microfw.autograd.op import Array, Cost, op
from microfw.ops.elementwise.choices import undefined
from microfw.ops.mapping import as_floats
from microfw.ops.reduction.sums import Axis, as_rows, spread, sum_last


def _shares(x: Any, axis: Axis) -> Any:
    y = logsumexp(x, axis=axis, keepdims=True)
    shares = np.exp(x - np.where(y == -np.inf, 0, y))
    return undefined(shares, x, spread(y == -np.inf, x.shape, axis), axis=axis)  # for Tensors alone


@op(
    vjp=lambda g, p, axis, keepdims: spread(g, p.shape, axis) * p,
    jvp=lambda dx, p, axis, keepdims: np.sum(dx * p, axis=axis, keepdims=keepdims),
    aux={"p": _shares},
    cost=lambda y, x, **params: Cost(5 * math.prod(x) + 3 * math.prod(y), (math.prod(x),)),
    no_alias=True,
)
def logsumexp(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """``log(sum(exp(x)))`` over axes, all by default; -inf, with slopes 0, where no entry is above it.

    >>> import numpy as np, microfw as mf
    >>> mf.grad(logsumexp)([1000.0, 1000.0])
    array([0.5, 0.5])
    """
    top = np.max(as_floats(x), axis=axis, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)  # inf - inf would be NaN
    e = np.exp(x - top)
    total = np.sum(e, axis=axis, keepdims=True)
    with np.errstate(divide="ignore"):  # the logarithm of 0 is right
        y = np.log(total) + top
    return y if keepdims else np.squeeze(y, axis), e / (total + (total == 0))


def _rows(y: tuple[int, ...], axis: int) -> int:
    return math.prod(y) // max(y[axis], 1)


@op(
    vjp=lambda g, y, axis: g - np.exp(y) * np.sum(g, axis=axis, keepdims=True),
    jvp=lambda dx, y, axis: dx - np.sum(np.exp(y) * dx, axis=axis, keepdims=True),
    cost=lambda y, x, axis: Cost(5 * math.prod(y) - _rows(y, axis), (4 * math.prod(y) - _rows(y, axis),)),
    no_alias=True,
)
def log_softmax(x: Array, *, axis: int = -1) -> Array:
    """``x - log(sum(exp(x)))`` along an axis; finite for every finite ``x``."""
    # the sum is at least 1, so that its logarithm is finite; log(softmax(x)) is -inf where softmax underflows
    z = as_floats(x) - np.max(x, axis=axis, keepdims=True)
    return z - np.log(np.sum(np.exp(z), axis=axis, keepdims=True))


def _softmax_rule(g: Any, y: Any, axis: int) -> Any:
    product = g * y
    last = axis in (-1, y.ndim - 1)
    return y * (g - (sum_last(product) if last else np.sum(product, axis=axis, keepdims=True)))


LARGE = 40
"""Between this and its negative, exp neither overflows nor underflows, also in float32."""


@op(
    vjp=_softmax_rule,
    cost=lambda y, x, axis: Cost(5 * math.prod(y) - 2 * _rows(y, axis), (4 * math.prod(y) - _rows(y, axis),)),
    no_alias=True,
)
def softmax(x: Array, *, axis: int = -1) -> Array:
    """``exp(x) / sum(exp(x))`` along an axis."""
    rows = as_rows(x) if axis in (-1, x.ndim - 1) else None
    if rows is not None:
        flat = x.ravel()
        if flat.item(flat.argmax()) < LARGE and flat.item(flat.argmin()) > -LARGE:
            # no maximum is subtracted: of (1024, 16) the maximum of each row takes 60 µs, these two tests 4
            e = np.exp(x)
            return e / sum_last(e)
    z = as_floats(x) - np.max(x, axis=axis, keepdims=True)
    e = np.exp(z)  # the largest is exp(0): nothing overflows
    return e / np.sum(e, axis=axis, keepdims=True)
