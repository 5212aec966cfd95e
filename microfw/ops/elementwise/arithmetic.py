"""Arithmetic on two arrays, entry by entry: the four operations, powers, remainders, lengths and angles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from microfw.op import Array, each, op
from microfw.ops.elementwise.activations import _sigmoid, sigmoid
from microfw.ops.elementwise.choices import astype
from microfw.registry import NUMPY
from microfw.tensor import Tensor


@op(vjp=(lambda g: g, lambda g: g), cost=each(1, 0, 0), numpy=np.add)
def add(a: Array, b: Array) -> Array:
    """Sum, ``a + b``."""
    return np.add(a, b)


@op(vjp=(lambda g: g, lambda g: -g), cost=each(1, 0, 1), numpy=np.subtract)
def subtract(a: Array, b: Array) -> Array:
    """Difference, ``a - b``."""
    return np.subtract(a, b)


@op(vjp=(lambda g, b: g * b, lambda g, a: g * a), cost=each(1, 1, 1), numpy=np.multiply)
def multiply(a: Array, b: Array) -> Array:
    """Product, ``a * b``, entry by entry."""
    return np.multiply(a, b)


@op(vjp=(lambda g, b: g / b, lambda g, y, b: -g * y / b), cost=each(1, 1, 3), numpy=np.divide)
def divide(a: Array, b: Array) -> Array:
    """Quotient, ``a / b``; IEEE values at 0."""
    return np.divide(a, b)


@op(vjp=lambda g: -g, cost=each(1, 1), numpy=np.negative)
def negative(x: Array) -> Array:
    """Negation, ``-x``."""
    return np.negative(x)


@op(vjp=lambda g, y: -g * y * y, cost=each(1, 3), numpy=np.reciprocal)
def reciprocal(x: Array) -> Array:
    """Reciprocal, ``1 / x``."""
    return 1 / x


@op(vjp=lambda g, x: g * (2 * x), cost=each(1, 2), numpy=np.square)
def square(x: Array) -> Array:
    """``x * x``."""
    return np.square(x)


# Powers


def _power_base(g: Any, a: Any, b: Any) -> Any:
    if isinstance(b, int | float):
        return g * (b * a ** (b - 1)) if b else g * (a * 0)
    return g * (b * np.power(a, np.where(b == 0, 1, b) - 1))


def _power_exponent(g: Any, a: Any, y: Any) -> Any:
    if isinstance(a, int | float):
        return g * (y * (math.log(a) if a > 0 else 0.0 if a == 0 else math.nan))
    return g * (y * np.log(np.where(a == 0, 1, a)))


@op(vjp=(_power_base, _power_exponent), cost=each(1, 3, 3), numpy=np.power)
def power(a: Array, b: Array) -> Array:
    """Power, ``a ** b``; at 0 ** 0 and at 0 ** b both derivatives that do not exist are 0."""
    return np.power(a, b)


def float_power(a: Any, b: Any) -> Any:
    """`power` in float64, as NumPy's ``float_power``: also of integers to negative exponents."""
    return power(*(astype(x, dtype=np.float64) if isinstance(x, Tensor) else np.asarray(x, float) for x in (a, b)))


NUMPY[np.float_power] = float_power


# Remainders


@op(vjp=(lambda g: g, lambda g, a, b: -g * np.floor_divide(a, b)), cost=each(1, 0, 3), numpy=np.remainder)
def remainder(a: Array, b: Array) -> Array:
    """``a - b * floor(a / b)``, with the sign of ``b``; slopes at the jumps are those beside them."""
    return np.remainder(a, b)


@op(vjp=(lambda g: g, lambda g, a, b: -g * np.trunc(a / b)), cost=each(1, 0, 4), numpy=np.fmod)
def fmod(a: Array, b: Array) -> Array:
    """``a - b * trunc(a / b)``, with the sign of ``a``; slopes at the jumps are those beside them."""
    return np.fmod(a, b)


# Two coordinates


def _leg(g: Any, a: Any, y: Any) -> Any:
    return g * (a / (y + (y == 0)))


@op(vjp=(_leg, lambda g, b, y: _leg(g, b, y)), cost=each(1, 4, 4), numpy=np.hypot)
def hypot(a: Array, b: Array) -> Array:
    """``sqrt(a**2 + b**2)`` without overflow on the way; slope 0 at (0, 0), as that of `norm`."""
    return np.hypot(a, b)


def _turn(g: Any, a: Any, b: Any) -> Any:
    length = np.hypot(a, b)  # twice divided by it, nothing overflows that need not
    return g * (b / length / length)


@op(vjp=(_turn, lambda g, a, b: -_turn(g, b, a)), cost=each(1, 4, 5), numpy=np.arctan2)
def arctan2(a: Array, b: Array) -> Array:
    """Angle of the point with ordinate ``a`` and abscissa ``b``; NaN slopes at (0, 0)."""
    return np.arctan2(a, b)


def _softer(g: Any, a: Any, b: Any, y: Any) -> Any:
    other: Any = np.where(y == -np.inf, 0, b).astype(g.dtype)  # where both are -inf their difference is no number
    return g * (sigmoid(a - other) if isinstance(other, Tensor) else _sigmoid(a - other))


@op(vjp=(_softer, lambda g, b, a, y: _softer(g, b, a, y)), cost=each(5, 10, 10), numpy=np.logaddexp)
def logaddexp(a: Array, b: Array) -> Array:
    """``log(exp(a) + exp(b))`` without overflow; -inf, with slopes 0, where both are -inf."""
    return np.logaddexp(a, b)
