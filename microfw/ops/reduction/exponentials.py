"""Sums of exponentials, shifted so that none overflows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from microfw.autograd.op import Array, Cost, op
from microfw.ops.elementwise.choices import undefined
from microfw.ops.reduction.sums import Axis, spread


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
    top = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    e = np.exp(x - top)
    total = np.sum(e, axis=axis, keepdims=True)
    with np.errstate(divide="ignore"):  # the logarithm of 0 is right
        y = np.log(total) + top
    return y if keepdims else np.squeeze(y, axis), e / (total + (total == 0))


def _rows(y: tuple[int, ...], axis: int) -> int:
    return math.prod(y) // max(y[axis], 1)


def _log_softmax_vjp(g: Any, y: Any, axis: int) -> Any:
    return g - np.exp(y) * np.sum(g, axis=axis, keepdims=True)


@op(
    vjp=_log_softmax_vjp,
    jvp=lambda dx, y, axis: dx - np.sum(np.exp(y) * dx, axis=axis, keepdims=True),
    cost=lambda y, x, axis: Cost(5 * math.prod(y) - _rows(y, axis), (4 * math.prod(y) - _rows(y, axis),)),
    no_alias=True,
)
def log_softmax(x: Array, *, axis: int = -1) -> Array:
    """``x - log(sum(exp(x)))`` along an axis; finite for every finite ``x``."""
    z = x - np.max(x, axis=axis, keepdims=True)
    return z - np.log(np.sum(np.exp(z), axis=axis, keepdims=True))


def _softmax_rule(g: Any, y: Any, axis: int) -> Any:
    return y * (g - np.sum(g * y, axis=axis, keepdims=True))


@op(
    vjp=_softmax_rule,
    cost=lambda y, x, axis: Cost(5 * math.prod(y) - 2 * _rows(y, axis), (4 * math.prod(y) - _rows(y, axis),)),
    no_alias=True,
)
def softmax(x: Array, *, axis: int = -1) -> Array:
    """``exp(x) / sum(exp(x))`` along an axis."""
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)
