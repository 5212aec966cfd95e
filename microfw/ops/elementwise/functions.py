"""Functions of one array: exponentials and logarithms, roots, circular and hyperbolic functions.

Where a function is not defined its slope is NaN, as its value; where its graph is vertical it is infinite.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from microfw.autograd.op import Array, elementwise_cost, op
from microfw.autograd.tensor import Tensor
from microfw.ops.elementwise.choices import undefined


@op(vjp=lambda g, x: g * np.sign(x), cost=elementwise_cost(1, 2), numpy=(np.absolute, np.fabs))
def abs_(x: Array) -> Array:
    """Absolute value; slope 0 at 0."""
    return np.absolute(x)


# Exponentials and logarithms


def _within(slope: Any, x: Any, outside: Any) -> Any:
    """Return a slope, but NaN outside of where the function is defined; so are the slope's own derivatives."""
    slope = np.where(outside, np.nan, slope)
    return undefined(slope, x, outside) if isinstance(slope, Tensor) else slope


LN2, LN10 = math.log(2), math.log(10)


@op(vjp=lambda g, y: g * y, cost=elementwise_cost(1, 1), numpy=np.exp)
def exp(x: Array) -> Array:
    """Exponential."""
    return np.exp(x)


@op(vjp=lambda g, y: g * (y * LN2), cost=elementwise_cost(1, 2), numpy=np.exp2)
def exp2(x: Array) -> Array:
    """``2 ** x``."""
    return np.exp2(x)


@op(vjp=lambda g, x: g * np.exp(x), cost=elementwise_cost(1, 2), numpy=np.expm1)
def expm1(x: Array) -> Array:
    """``exp(x) - 1``, exact near 0."""
    return np.expm1(x)


@op(vjp=lambda g, x: _within(g / x, x, x < 0), cost=elementwise_cost(1, 2), numpy=np.log)
def log(x: Array) -> Array:
    """Natural logarithm; infinite slope at 0, NaN below."""
    return np.log(x)


@op(vjp=lambda g, x: _within(g / (x * LN2), x, x < 0), cost=elementwise_cost(1, 3), numpy=np.log2)
def log2(x: Array) -> Array:
    """Logarithm to base 2; infinite slope at 0, NaN below."""
    return np.log2(x)


@op(vjp=lambda g, x: _within(g / (x * LN10), x, x < 0), cost=elementwise_cost(1, 3), numpy=np.log10)
def log10(x: Array) -> Array:
    """Logarithm to base 10; infinite slope at 0, NaN below."""
    return np.log10(x)


@op(vjp=lambda g, x: _within(g / (1 + x), x, x < -1), cost=elementwise_cost(1, 3), numpy=np.log1p)
def log1p(x: Array) -> Array:
    """``log(1 + x)``, exact near 0; infinite slope at -1, NaN below."""
    return np.log1p(x)


# Roots


@op(vjp=lambda g, y: g / (2 * y), cost=elementwise_cost(1, 2), numpy=np.sqrt)
def sqrt(x: Array) -> Array:
    """Square root; infinite slope at 0."""
    return np.sqrt(x)


@op(vjp=lambda g, y: g / (3 * y * y), cost=elementwise_cost(1, 3), numpy=np.cbrt)
def cbrt(x: Array) -> Array:
    """Cube root, also of negative numbers; infinite slope at 0."""
    return np.cbrt(x)


# Circular functions


@op(vjp=lambda g, x: g * np.cos(x), cost=elementwise_cost(1, 2), numpy=np.sin)
def sin(x: Array) -> Array:
    """Sine."""
    return np.sin(x)


@op(vjp=lambda g, x: -g * np.sin(x), cost=elementwise_cost(1, 3), numpy=np.cos)
def cos(x: Array) -> Array:
    """Cosine."""
    return np.cos(x)


@op(vjp=lambda g, y: g * (1 + y * y), cost=elementwise_cost(1, 3), numpy=np.tan)
def tan(x: Array) -> Array:
    """Tangent."""
    return np.tan(x)


@op(vjp=lambda g, x: g / np.sqrt((1 - x) * (1 + x)), cost=elementwise_cost(1, 5), numpy=np.arcsin)
def arcsin(x: Array) -> Array:
    """Inverse of the sine; infinite slope at -1 and 1, NaN beyond."""
    return np.arcsin(x)


@op(vjp=lambda g, x: -g / np.sqrt((1 - x) * (1 + x)), cost=elementwise_cost(1, 6), numpy=np.arccos)
def arccos(x: Array) -> Array:
    """Inverse of the cosine; infinite slope at -1 and 1, NaN beyond."""
    return np.arccos(x)


@op(vjp=lambda g, x: g / (1 + x * x), cost=elementwise_cost(1, 3), numpy=np.arctan)
def arctan(x: Array) -> Array:
    """Inverse of the tangent."""
    return np.arctan(x)


# Hyperbolic functions; tanh is among the activations


@op(vjp=lambda g, x: g * np.cosh(x), cost=elementwise_cost(1, 2), numpy=np.sinh)
def sinh(x: Array) -> Array:
    """Hyperbolic sine."""
    return np.sinh(x)


@op(vjp=lambda g, x: g * np.sinh(x), cost=elementwise_cost(1, 2), numpy=np.cosh)
def cosh(x: Array) -> Array:
    """Hyperbolic cosine."""
    return np.cosh(x)


@op(vjp=lambda g, x: g / np.hypot(x, 1), cost=elementwise_cost(1, 2), numpy=np.arcsinh)
def arcsinh(x: Array) -> Array:
    """Inverse of the hyperbolic sine."""
    return np.arcsinh(x)


@op(vjp=lambda g, x: g / (np.sqrt(x - 1) * np.sqrt(x + 1)), cost=elementwise_cost(1, 6), numpy=np.arccosh)
def arccosh(x: Array) -> Array:
    """Inverse of the hyperbolic cosine; infinite slope at 1, NaN below."""
    return np.arccosh(x)


def _artanh_slope(g: Any, x: Any) -> Any:
    rest = (1 - x) * (1 + x)
    return _within(g / rest, x, rest < 0)


@op(vjp=_artanh_slope, cost=elementwise_cost(1, 5), numpy=np.arctanh)
def arctanh(x: Array) -> Array:
    """Inverse of the hyperbolic tangent; infinite slope at -1 and 1, NaN beyond."""
    return np.arctanh(x)


# The error function


def _erf(x: Array) -> Array:
    from scipy.special import erf as scipy_erf

    return scipy_erf(x)


@op(vjp=lambda g, x: g * (2 / math.sqrt(math.pi) * np.exp(-x * x)), cost=elementwise_cost(1, 5), no_alias=True)
def erf(x: Array) -> Array:
    """Error function."""
    return _erf(x)
