"""Elementwise ops: arithmetic, functions, comparisons, choices and casts.

Where several values are possible for a derivative, the docstring says which one is taken.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from microfw.errors import DTypeError
from microfw.op import Array, each, moves, op
from microfw.tensor import Tensor

# Arithmetic


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


def _power_base(g: Any, a: Any, b: Any) -> Any:
    if isinstance(b, int | float):
        return g * (b * np.power(a, b - 1)) if b else g * (a * 0)
    return g * (b * np.power(a, np.where(b == 0, 1, b) - 1))


def _power_exponent(g: Any, a: Any, y: Any) -> Any:
    if isinstance(a, int | float):
        return g * (y * (math.log(a) if a > 0 else 0.0 if a == 0 else math.nan))
    return g * (y * np.log(np.where(a == 0, 1, a)))


@op(vjp=(_power_base, _power_exponent), cost=each(1, 3, 3), numpy=np.power)
def power(a: Array, b: Array) -> Array:
    """Power, ``a ** b``; at 0 ** 0 and at 0 ** b both derivatives that do not exist are 0."""
    return np.power(a, b)


@op(vjp=lambda g: -g, cost=each(1, 1), numpy=np.negative)
def negative(x: Array) -> Array:
    """Negation, ``-x``."""
    return np.negative(x)


@op(vjp=lambda g, y: -g * y * y, cost=each(1, 3), numpy=np.reciprocal)
def reciprocal(x: Array) -> Array:
    """Reciprocal, ``1 / x``."""
    return 1 / x


# Functions


@op(vjp=lambda g, x: g * np.sign(x), cost=each(1, 2), numpy=np.absolute)
def abs_(x: Array) -> Array:
    """Absolute value; slope 0 at 0."""
    return np.absolute(x)


@op(cost=each(1), numpy=np.sign)
def sign(x: Array) -> Array:
    """Sign: -1, 0 or 1. It has no gradient."""
    return np.sign(x)


@op(vjp=lambda g, y: g * y, cost=each(1, 1), numpy=np.exp)
def exp(x: Array) -> Array:
    """Exponential."""
    return np.exp(x)


@op(vjp=lambda g, x: g * np.exp(x), cost=each(1, 2), numpy=np.expm1)
def expm1(x: Array) -> Array:
    """``exp(x) - 1``, exact near 0."""
    return np.expm1(x)


@op(vjp=lambda g, x: np.where(x < 0, np.nan, g / x), cost=each(1, 2), numpy=np.log)
def log(x: Array) -> Array:
    """Natural logarithm; infinite slope at 0, NaN below."""
    return np.log(x)


@op(vjp=lambda g, x: np.where(x < -1, np.nan, g / (1 + x)), cost=each(1, 3), numpy=np.log1p)
def log1p(x: Array) -> Array:
    """``log(1 + x)``, exact near 0."""
    return np.log1p(x)


@op(vjp=lambda g, y: g / (2 * y), cost=each(1, 2), numpy=np.sqrt)
def sqrt(x: Array) -> Array:
    """Square root; infinite slope at 0."""
    return np.sqrt(x)


@op(vjp=lambda g, x: g * (2 * x), cost=each(1, 2), numpy=np.square)
def square(x: Array) -> Array:
    """``x * x``."""
    return np.square(x)


@op(vjp=lambda g, x: g * np.cos(x), cost=each(1, 2), numpy=np.sin)
def sin(x: Array) -> Array:
    """Sine."""
    return np.sin(x)


@op(vjp=lambda g, x: -g * np.sin(x), cost=each(1, 3), numpy=np.cos)
def cos(x: Array) -> Array:
    """Cosine."""
    return np.cos(x)


def _sech2(g: Any, x: Any) -> Any:
    if isinstance(x, Tensor):  # abs has no second derivative at 0, tanh has
        return g * (4 * sigmoid(2 * x) * sigmoid(-2 * x))
    e = np.exp(-np.abs(x))  # exact in the tails, where 1 - tanh(x)**2 has lost every digit
    return g * np.square(2 * e / (1 + e * e))


@op(vjp=_sech2, cost=each(1, 8), numpy=np.tanh)
def tanh(x: Array) -> Array:
    """Hyperbolic tangent."""
    return np.tanh(x)


def _sigmoid(x: Any) -> Any:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def _sigmoid_slope(g: Any, x: Any) -> Any:
    if isinstance(x, Tensor):
        return g * (sigmoid(x) * sigmoid(-x))
    e = np.exp(-np.abs(x))
    return g * (e / np.square(1 + e))


@op(vjp=_sigmoid_slope, cost=each(5, 6), fresh=True)
def sigmoid(x: Array) -> Array:
    """Logistic function, ``1 / (1 + exp(-x))``."""
    return _sigmoid(x)


@op(vjp=lambda g, x: g * sigmoid(x) if isinstance(x, Tensor) else g * _sigmoid(x), cost=each(5, 6), fresh=True)
def softplus(x: Array) -> Array:
    """``log(1 + exp(x))``, a smooth ReLU."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _erf(x: Array) -> Array:
    from scipy.special import erf as scipy_erf  # comes with scikit-learn

    return scipy_erf(x)


@op(vjp=lambda g, x: g * (2 / math.sqrt(math.pi) * np.exp(-x * x)), cost=each(1, 5), fresh=True)
def erf(x: Array) -> Array:
    """Error function."""
    return _erf(x)


# Choices


def _larger(g: Any, a: Any, b: Any) -> Any:
    return g * ((a > b) * 1.0 + (a == b) * 0.5).astype(g.dtype)


@op(vjp=(_larger, lambda g, b, a: _larger(g, b, a)), cost=each(1, 4, 4), numpy=np.maximum)
def maximum(a: Array, b: Array) -> Array:
    """Larger of two, entry by entry; where they are equal each gets half of the gradient."""
    return np.maximum(a, b)


@op(vjp=(lambda g, a, b: _larger(g, b, a), _larger), cost=each(1, 4, 4), numpy=np.minimum)
def minimum(a: Array, b: Array) -> Array:
    """Smaller of two, entry by entry; where they are equal each gets half of the gradient."""
    return np.minimum(a, b)


@op(
    vjp=lambda g, x, low, high: np.where(_inside(x, low, high), g, 0),
    cost=each(2, 3),
    numpy=np.clip,
    fresh=True,
)
def clip(x: Array, *, low: float | None = None, high: float | None = None) -> Array:
    """Limit entries to an interval; slope 1 in it, its ends included."""
    return np.clip(x, low, high)


def _inside(x: Any, low: float | None, high: float | None) -> Any:
    inside = x == x
    if low is not None:
        inside = np.logical_and(inside, x >= low)
    return inside if high is None else np.logical_and(inside, x <= high)


@op(
    vjp=(None, lambda g, condition: np.where(condition, g, 0), lambda g, condition: np.where(condition, 0, g)),
    cost=each(1, 0, 1, 1),
    numpy=np.where,
    fresh=True,
)
def where(condition: Array, a: Array, b: Array) -> Array:
    """Entries of ``a`` where the condition holds, of ``b`` elsewhere."""
    return np.where(condition, a, b)


def _cast_back(g: Any, x: Any, dtype: Any) -> Any:
    return (g if np.dtype(dtype).kind == "f" else g * 0).astype(x.dtype)


def _cast_along(dx: Any, x: Any, dtype: Any) -> Any:
    return dx.astype(dtype) if np.dtype(dtype).kind == "f" else dx * 0


@op(vjp=_cast_back, jvp=_cast_along, cost=moves, casts=True)
def astype(x: Array, *, dtype: Any) -> Array:
    """Cast; the gradient is cast back, and is 0 through a cast to integers or booleans."""
    if np.dtype(dtype).kind not in "fiub" or np.dtype(dtype) == np.float16:
        raise DTypeError(f"astype: expected float32, float64, integers or booleans, got {np.dtype(dtype)}")
    return np.asarray(x).astype(dtype)


@op(vjp=lambda g: g, cost=moves)
def identity(x: Array) -> Array:
    """The same values, as a node of their own."""
    return x


# Comparisons and logic: no gradient


def _plain(function: Any, name: str) -> Any:
    n = function.nin
    value: Any = (lambda a, b: function(a, b)) if n == 2 else (lambda x: function(x))
    value.__doc__ = f"NumPy's ``{name}``, entry by entry. It has no gradient."
    value.__module__ = __name__
    return op(name=name, cost=each(1), numpy=function, fresh=True)(value)


less = _plain(np.less, "less")
less_equal = _plain(np.less_equal, "less_equal")
greater = _plain(np.greater, "greater")
greater_equal = _plain(np.greater_equal, "greater_equal")
equal = _plain(np.equal, "equal")
not_equal = _plain(np.not_equal, "not_equal")
logical_and = _plain(np.logical_and, "logical_and")
logical_or = _plain(np.logical_or, "logical_or")
logical_not = _plain(np.logical_not, "logical_not")
isnan = _plain(np.isnan, "isnan")
isfinite = _plain(np.isfinite, "isfinite")
isinf = _plain(np.isinf, "isinf")

# The activations with a rule of their own


_ZEROS: dict[tuple[int, ...], Array] = {}


def _zero(x: Array) -> Any:
    """Return zeros to compare with: over two arrays NumPy is up to four times faster than over one and a number."""
    if x.size > 1 << 18:
        return 0
    if len(_ZEROS) > 64:
        _ZEROS.clear()
    zeros = np.zeros(x.shape, x.dtype)
    zeros.setflags(write=False)
    return _ZEROS.setdefault(x.shape, zeros) if x.dtype == np.float32 else zeros


def _relu_vjp(g: Any, y: Any) -> Any:
    if isinstance(g, np.ndarray):
        zeros = _ZEROS.get(y.shape) if y.size < 1 << 13 else None  # in a large array the number is faster
        mask = (y > 0 if zeros is None else np.greater(y, zeros)).astype(g.dtype)
        mask *= g
        return mask
    return g * (y > 0)


@op(vjp=_relu_vjp, cost=each(1, 2), fresh=True)
def relu(x: Array) -> Array:
    """Rectified linear unit, ``max(x, 0)``; slope 0 at 0 and at NaN."""
    zeros = _ZEROS.get(x.shape)
    if zeros is None or zeros.dtype is not x.dtype:
        zeros = _zero(x)
    return np.maximum(x, zeros)
