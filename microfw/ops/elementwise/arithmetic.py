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
from microfw.ops.elementwise.ufuncs import ufuncs
from microfw.ops.mapping import either

_ufunc = ufuncs(__name__)


add = _ufunc(np.add, "Sum, ``a + b``.", vjp=(lambda g: g, lambda g: g), cost=elementwise_cost(1, 0, 0))

subtract = _ufunc(
    np.subtract, "Difference, ``a - b``.", vjp=(lambda g: g, lambda g: -g), cost=elementwise_cost(1, 0, 1)
)

multiply = _ufunc(
    np.multiply,
    "Product, ``a * b``, entry by entry.",
    vjp=(lambda g, b: g * b, lambda g, a: g * a),
    cost=elementwise_cost(1, 1, 1),
)

divide = _ufunc(
    np.divide,
    "Quotient, ``a / b``; IEEE values at 0.",
    vjp=(lambda g, b: g / b, lambda g, y, b: -g * y / b),
    cost=elementwise_cost(1, 1, 3),
)

negative = _ufunc(np.negative, "Negation, ``-x``.", vjp=lambda g: -g, cost=elementwise_cost(1, 1))


@op(vjp=lambda g, y: -g * y * y, cost=elementwise_cost(1, 3), numpy=np.reciprocal)
def reciprocal(x: Array) -> Array:
    """Reciprocal, ``1 / x``."""
    return 1 / x


square = _ufunc(np.square, "``x * x``.", vjp=lambda g, x: g * (2 * x), cost=elementwise_cost(1, 2))


# Powers


def _power_base(g: Any, a: Any, b: Any) -> Any:
    if isinstance(b, int | float):  # as in x ** 2: without an array of exponents
        return g * (b * a ** (b - 1)) if b else g * (a * 0)
    if not isinstance(b, Tensor):
        # where b is 0 the slope is 0; a ** -1 would make it 0 * inf at a == 0
        return g * (b * np.power(a, np.where(b == 0, 1, b) - 1))
    chosen = np.logical_and(a == 0, b == 0)
    return undefined(g * (b * power_log(a, b + chosen - 1, n=0)), b, chosen)


def _power_exponent(g: Any, a: Any, b: Any, y: Any) -> Any:
    if isinstance(a, int | float):
        share = g * (y * (math.log(a) if a > 0 else 0.0 if a == 0 else math.nan))
        return undefined(share, b, y != 0) if a == 0 and isinstance(b, Tensor) else share
    if not isinstance(b, Tensor):
        return g * (y * np.log(np.where(a == 0, 1, a)))  # for b > 0, 0 ** b * log(0) is 0, its limit
    chosen = np.logical_and(a == 0, b == 0)
    share = g * power_log(a + chosen, b)
    return undefined(undefined(share, a, chosen), b, chosen)


def _power_cost(y: Shape, a: Shape, b: Shape) -> Cost:
    n, size_a, size_b = prod(y), prod(a), prod(b)
    by_exponent = 2 * n + 2 * size_a + max(n - size_b, 0)
    return Cost(n, (3 * n + (2 * size_b if b else 0) + max(n - size_a, 0), by_exponent))


power = _ufunc(
    np.power,
    "Power, ``a ** b``; at 0 ** 0 and at 0 ** b both derivatives that do not exist are 0.",
    vjp=(_power_base, _power_exponent),
    cost=_power_cost,
)


def _logged(a: Any, b: Any, n: int) -> Any:
    return either("power_log", a, b, n=n)


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
    if not n:
        return np.power(a, b)
    at = np.equal(a, 0)
    log = np.log(np.where(at, 1, a))
    y = np.power(a, b) * (log if n == 1 else log**n)  # NumPy takes other calls for log**1 in 2.0 than later
    return np.where(at & np.less_equal(b, 0), np.inf * (-1) ** n, y).astype(y.dtype)


def float_power(a: Any, b: Any) -> Any:
    """`power` in float64, as NumPy's ``float_power``: also of integers to negative exponents."""
    return power(*(astype(x, dtype=np.float64) if isinstance(x, Tensor) else np.asarray(x, float) for x in (a, b)))


NUMPY[np.float_power] = float_power


# Remainders

remainder = _ufunc(
    np.remainder,
    "``a - b * floor(a / b)``, with the sign of ``b``; slopes at the jumps are those next to them.",
    vjp=(lambda g: g, lambda g, a, b: -g * np.floor_divide(a, b)),
    cost=elementwise_cost(1, 0, 3),
)

fmod = _ufunc(
    np.fmod,
    "``a - b * trunc(a / b)``, with the sign of ``a``; slopes at the jumps are those next to them.",
    vjp=(lambda g: g, lambda g, a, b: -g * np.trunc(a / b)),
    cost=elementwise_cost(1, 0, 4),
)


# Two coordinates


def _leg(g: Any, a: Any, b: Any, y: Any) -> Any:
    share = g * (a / (y + (y == 0)))  # 0 / 1 at the origin, and not 0 / 0
    return undefined(undefined(share, a, y == 0), b, y == 0) if isinstance(y, Tensor) else share


hypot = _ufunc(
    np.hypot,
    "``sqrt(a**2 + b**2)`` without overflow on the way; slope 0 at (0, 0), as that of `norm`.",
    vjp=(_leg, lambda g, b, a, y: _leg(g, b, a, y)),
    cost=elementwise_cost(1, 4, 4),
)


def _turn(g: Any, a: Any, b: Any) -> Any:
    length = np.hypot(a, b)  # twice divided by it, nothing overflows that need not
    return g * (b / length / length)


arctan2 = _ufunc(
    np.arctan2,
    "Angle of the point with ordinate ``a`` and abscissa ``b``; NaN slopes at (0, 0).",
    vjp=(_turn, lambda g, a, b: -_turn(g, b, a)),
    cost=elementwise_cost(1, 4, 5),
)


def _softer(g: Any, a: Any, b: Any, y: Any) -> Any:
    other: Any = np.where(y == -np.inf, 0, b).astype(g.dtype)  # where both are -inf their difference is no number
    if not isinstance(other, Tensor):
        return g * _sigmoid(a - other)
    return undefined(undefined(g * sigmoid(a - other), a, y == -np.inf), b, y == -np.inf)


logaddexp = _ufunc(
    np.logaddexp,
    "``log(exp(a) + exp(b))`` without overflow; -inf, with slopes 0, where both are -inf.",
    vjp=(_softer, lambda g, b, a, y: _softer(g, b, a, y)),
    cost=elementwise_cost(1, 9, 9),
)
