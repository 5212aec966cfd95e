"""Functions that are constant but for their jumps: rounding, whose gradient is 0, and comparisons and logic.

Rounding and `sign` pass on a gradient of 0, as in PyTorch, so that a loss made of nothing else can still
be walked backward. What answers yes or no, and whole quotients, record no node at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.autograd.op import Array, Cost, Shape, elementwise_cost, op
from microfw.autograd.registry import NUMPY


def _flat(g: Any) -> Any:
    return g * 0


@op(vjp=_flat, cost=elementwise_cost(1, 1), numpy=np.sign)
def sign(x: Array) -> Array:
    """Sign: -1, 0 or 1; slope 0."""
    return np.sign(x)


@op(vjp=_flat, cost=elementwise_cost(1, 1), numpy=np.floor)
def floor(x: Array) -> Array:
    """Largest whole number not above; slope 0."""
    return np.floor(x)


@op(vjp=_flat, cost=elementwise_cost(1, 1), numpy=np.ceil)
def ceil(x: Array) -> Array:
    """Smallest whole number not below; slope 0."""
    return np.ceil(x)


@op(vjp=_flat, cost=elementwise_cost(1, 1), numpy=np.trunc)
def trunc(x: Array) -> Array:
    """Whole number next towards 0; slope 0."""
    return np.trunc(x)


@op(vjp=_flat, cost=elementwise_cost(1, 1), numpy=np.rint)
def rint(x: Array) -> Array:
    """Nearest whole number, halves to the even one; slope 0."""
    return np.rint(x)


def _round_cost(y: Shape, x: Shape, decimals: int = 0) -> Cost:
    return elementwise_cost(3 if decimals else 1, 1)(y, x)


@op(vjp=_flat, cost=_round_cost, numpy=(np.round, np.around), no_alias=True)
def round_(x: Array, *, decimals: int = 0) -> Array:
    """Nearest number with that many decimals, halves to the even one; slope 0."""
    return np.round(x, decimals)


NUMPY[np.fix] = lambda x: trunc(x)


# Comparisons, logic and whole quotients: no gradient


def _plain(function: Any, name: str) -> Any:
    n = function.nin
    value: Any = (lambda a, b: function(a, b)) if n == 2 else (lambda x: function(x))
    value.__doc__ = f"NumPy's ``{name}``, entry by entry. It has no gradient."
    value.__module__ = __name__
    return op(name=name, cost=elementwise_cost(1), numpy=function, no_alias=True)(value)


less = _plain(np.less, "less")
less_equal = _plain(np.less_equal, "less_equal")
greater = _plain(np.greater, "greater")
greater_equal = _plain(np.greater_equal, "greater_equal")
equal = _plain(np.equal, "equal")
not_equal = _plain(np.not_equal, "not_equal")
logical_and = _plain(np.logical_and, "logical_and")
logical_or = _plain(np.logical_or, "logical_or")
logical_xor = _plain(np.logical_xor, "logical_xor")
logical_not = _plain(np.logical_not, "logical_not")
bitwise_and = _plain(np.bitwise_and, "bitwise_and")
bitwise_or = _plain(np.bitwise_or, "bitwise_or")
bitwise_xor = _plain(np.bitwise_xor, "bitwise_xor")
invert = _plain(np.invert, "invert")
isnan = _plain(np.isnan, "isnan")
isfinite = _plain(np.isfinite, "isfinite")
isinf = _plain(np.isinf, "isinf")
signbit = _plain(np.signbit, "signbit")
floor_divide = _plain(np.floor_divide, "floor_divide")
