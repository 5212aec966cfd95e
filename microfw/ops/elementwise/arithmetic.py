"""Arithmetic on two arrays, entry by entry: the four operations, powers, remainders, lengths and angles."""

from __future__ import annotations

import math
from math import prod
from typing import Any

import numpy as np

from microfw.autograd.op import Array, Cost, Shape, elementwise_cost, op
from microfw.autograd.registry import NUMPY
from microfw.autograd.tensor import Tensor
from microfw.ops.elementwise.activations import _sigmoid, sigmoid
from microfw.ops.elementwise.choices import astype, undefined


@op(vjp=(lambda g: g, lambda g: g), cost=elementwise_cost(1, 0, 0), numpy=np.add)
def add(a: Array, b: Array) -> Array:
    """Sum, ``a + b``."""
    return np.add(a, b)


@op(vjp=(lambda g: g, lambda g: -g), cost=elementwise_cost(1, 0, 1), numpy=np.subtract)
def subtract(a: Array, b: Array) -> Array:
    """Difference, ``a - b``."""
    return np.subtract(a, b)


@op(vjp=(lambda g, b: g * b, lambda g, a: g * a), cost=elementwise_cost(1, 1, 1), numpy=np.multiply)
def multiply(a: Array, b: Array) -> Array:
    """Product, ``a * b``, entry by entry."""
    return np.multiply(a, b)


@op(vjp=(lambda g, b: g / b, lambda g, y, b: -g * y / b), cost=elementwise_cost(1, 1, 3), numpy=np.divide)
def divide(a: Array, b: Array) -> Array:
    """Quotient, ``a / b``; IEEE values at 0."""
    return np.divide(a, b)


@op(vjp=lambda g: -g, cost=elementwise_cost(1, 1), numpy=np.negative)
def negative(x: Array) -> Array:
    """Negation, ``-x``."""
    return np.negative(x)


@op(vjp=lambda g, y: -g * y * y, cost=elementwise_cost(1, 3), numpy=np.reciprocal)
def reciprocal(x: Array) -> Array:
    """Reciprocal, ``1 / x``."""
    return 1 / x


@op(vjp=lambda g, x: g * (2 * x), cost=elementwise_cost(1, 2), numpy=np.square)
def square(x: Array) -> Array:
    """``x * x``."""
    return np.square(x)


# Powers


def _power_base(g: Any, a: Any, b: Any) -> Any:
    if isinstance(b, int | float):
        return g * (b * a ** (b - 1)) if b else g * (a * 0)
    if not isinstance(b, Tensor):
        return g * (b * np.power(a, np.where(b == 0, 1, b) - 1))
    chosen = np.logical_and(a == 0, b == 0)
    return undefined(g * (b * power_log(a, b + chosen - 1, n=0)), b, chosen)


def _power_exponent(g: Any, a: Any, b: Any, y: Any) -> Any:
    if isinstance(a, int | float):
        share = g * (y * (math.log(a) if a > 0 else 0.0 if a == 0 else math.nan))
        return undefined(share, b, y != 0) if a == 0 and isinstance(b, Tensor) else share
    if not isinstance(b, Tensor):
        return g * (y * np.log(np.where(a == 0, 1, a)))
    chosen = np.logical_and(a == 0, b == 0)
    share = g * power_log(a + chosen, b)
    return undefined(undefined(share, a, chosen), b, chosen)


def _power_cost(y: Shape, a: Shape, b: Shape) -> Cost:
    n, size_a, size_b = prod(y), prod(a), prod(b)
    by_exponent = 2 * n + 2 * size_a + max(n - size_b, 0)
    return Cost(n, (3 * n + (2 * size_b if b else 0) + max(n - size_a, 0), by_exponent))


@op(vjp=(_power_base, _power_exponent), cost=_power_cost, numpy=np.power)
def power(a: Array, b: Array) -> Array:
    """Power, ``a ** b``; at 0 ** 0 and at 0 ** b both derivatives that do not exist are 0."""
    return np.power(a, b)


def _logged(a: Any, b: Any, n: int) -> Any:
    return power_log(a, b, n=n) if isinstance(a, Tensor) or isinstance(b, Tensor) else power_log.op.value(a, b, n=n)


def _logged_base(g: Any, a: Any, b: Any, n: int) -> Any:
    return g * (b * _logged(a, b - 1, n) + n * _logged(a, b - 1, n - 1)) if n else _power_base(g, a, b)


@op(
    vjp=(
        _logged_base,
        lambda g, a, b, n: g * _logged(a, b, n + 1),
    ),
    cost=elementwise_cost(7, 19, 8),
    no_alias=True,
)
def power_log(a: Array, b: Array, *, n: int = 1) -> Array:
    """``a ** b * log(a) ** n``, the n-th derivative of a power by its exponent; at 0 the limit for this exponent."""
    at = np.equal(a, 0)
    y = np.power(a, b) * np.log(np.where(at, 1, a)) ** n
    return np.where(at & np.less_equal(b, 0), np.inf * (-1) ** n, y).astype(y.dtype) if n else np.power(a, b)


def float_power(a: Any, b: Any) -> Any:
    """`power` in float64, as NumPy's ``float_power``: also of integers to negative exponents."""
    return power(*(astype(x, dtype=np.float64) if isinstance(x, Tensor) else np.asarray(x, float) for x in (a, b)))


NUMPY[np.float_power] = float_power


# Remainders


@op(vjp=(lambda g: g, lambda g, a, b: -g * np.floor_divide(a, b)), cost=elementwise_cost(1, 0, 3), numpy=np.remainder)
def remainder(a: Array, b: Array) -> Array:
    """``a - b * floor(a / b)``, with the sign of ``b``; slopes at the jumps are those next to them."""
    return np.remainder(a, b)


@op(vjp=(lambda g: g, lambda g, a, b: -g * np.trunc(a / b)), cost=elementwise_cost(1, 0, 4), numpy=np.fmod)
def fmod(a: Array, b: Array) -> Array:
    """``a - b * trunc(a / b)``, with the sign of ``a``; slopes at the jumps are those next to them."""
    return np.fmod(a, b)


# Two coordinates


def _leg(g: Any, a: Any, b: Any, y: Any) -> Any:
    share = g * (a / (y + (y == 0)))
    return undefined(undefined(share, a, y == 0), b, y == 0) if isinstance(y, Tensor) else share


@op(vjp=(_leg, lambda g, b, a, y: _leg(g, b, a, y)), cost=elementwise_cost(1, 4, 4), numpy=np.hypot)
def hypot(a: Array, b: Array) -> Array:
    """``sqrt(a**2 + b**2)`` without overflow on the way; slope 0 at (0, 0), as that of `norm`."""
    return np.hypot(a, b)


def _turn(g: Any, a: Any, b: Any) -> Any:
    length = np.hypot(a, b)  # twice divided by it, nothing overflows that need not
    return g * (b / length / length)


@op(vjp=(_turn, lambda g, a, b: -_turn(g, b, a)), cost=elementwise_cost(1, 4, 5), numpy=np.arctan2)
def arctan2(a: Array, b: Array) -> Array:
    """Angle of the point with ordinate ``a`` and abscissa ``b``; NaN slopes at (0, 0)."""
    return np.arctan2(a, b)


def _softer(g: Any, a: Any, b: Any, y: Any) -> Any:
    other: Any = np.where(y == -np.inf, 0, b).astype(g.dtype)  # where both are -inf their difference is no number
    if not isinstance(other, Tensor):
        return g * _sigmoid(a - other)
    return undefined(undefined(g * sigmoid(a - other), a, y == -np.inf), b, y == -np.inf)


@op(vjp=(_softer, lambda g, b, a, y: _softer(g, b, a, y)), cost=elementwise_cost(1, 9, 9), numpy=np.logaddexp)
def logaddexp(a: Array, b: Array) -> Array:
    """``log(exp(a) + exp(b))`` without overflow; -inf, with slopes 0, where both are -inf."""
    return np.logaddexp(a, b)
