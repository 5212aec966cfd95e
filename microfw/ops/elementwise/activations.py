"""Activations with rules of their own: composed of other ops they would lose digits or time."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.autograd.op import Array, elementwise_cost, op
from microfw.autograd.tensor import Tensor
from microfw.ops.elementwise.ufuncs import ufuncs
from microfw.ops.mapping import as_floats

_ufunc = ufuncs(__name__)


def _sigmoid(x: Any) -> Any:
    # exp of a number that is not positive never overflows, on either side of 0; sizes of integers may
    e = np.exp(-np.abs(as_floats(x)))
    return np.where(x >= 0, 1, e) / (1 + e)


def _sigmoid_slope(g: Any, x: Any) -> Any:
    if isinstance(x, Tensor):  # abs has no second derivative at 0, sigmoid has
        return g * (sigmoid(x) * sigmoid(-x))
    # s * (1 - s) would be 0 where s rounds to 1; this keeps its digits in both tails
    e = np.exp(-np.abs(x))
    return g * (e / np.square(1 + e))


@op(vjp=_sigmoid_slope, cost=elementwise_cost(6, 7), no_alias=True)
def sigmoid(x: Array) -> Array:
    """Logistic function, ``1 / (1 + exp(-x))``."""
    return _sigmoid(x)


def _sech2(g: Any, x: Any) -> Any:
    if isinstance(x, Tensor):  # abs has no second derivative at 0, tanh has
        return g * (4 * sigmoid(2 * x) * sigmoid(-2 * x))
    e = np.exp(-2 * np.abs(x))  # exact in the tails, where 1 - tanh(x)**2 has lost every digit
    return g * (4 * e / np.square(1 + e))


tanh = _ufunc(np.tanh, "Hyperbolic tangent, its slope exact in the tails.", vjp=_sech2, cost=elementwise_cost(1, 8))


@op(
    vjp=lambda g, x: g * sigmoid(x) if isinstance(x, Tensor) else g * _sigmoid(x),
    cost=elementwise_cost(6, 7),
    no_alias=True,
)
def softplus(x: Array) -> Array:
    """``log(1 + exp(x))``, a smooth ReLU."""
    # exp of a positive x would overflow, and log(1 + ...) of a small number would lose its digits
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(as_floats(x))))


_ZEROS: dict[Any, Array] = {}


def _zeros(x: Array) -> Any:
    """Return zeros to compare with, in the memory order of an array; the number 0 for a large one."""
    # NumPy's loop over two arrays is up to four times faster than over one and a number; memory order matters as much
    key = x.shape if x.ndim < 3 else (x.shape, x.strides)
    zeros = _ZEROS.get(key)
    if zeros is None or zeros.dtype is not x.dtype:
        if x.size > 1 << 18:  # reading zeros from memory costs more than the loop saves
            return 0
        zeros = np.zeros_like(x.view(np.ndarray))
        zeros.setflags(write=False)
        if x.dtype.kind == "f" and type(zeros) is np.ndarray:  # a subclass stands for other numbers
            if len(_ZEROS) > 64:
                _ZEROS.clear()
            _ZEROS[key] = zeros
    return zeros


def _relu_vjp(g: Any, y: Any) -> Any:
    if isinstance(g, Tensor):
        return g * (y > 0)
    if y.size < 1 << 13:
        zeros = _ZEROS.get(y.shape)
        mask = np.greater(y, zeros if zeros is not None and zeros.dtype is y.dtype else _zeros(y)).astype(g.dtype)
    else:
        mask = (y > 0).astype(g.dtype)  # if large, a number is faster
    mask *= g  # in place: of large arrays faster than np.where(y > 0, g, 0)
    return mask


@op(vjp=_relu_vjp, cost=elementwise_cost(1, 2), no_alias=True)
def relu(x: Array) -> Array:
    """Rectified linear unit, ``max(x, 0)``; slope 0 at 0 and at NaN."""
    zeros = _ZEROS.get(x.shape)  # tested here: in most steps this saves a call
    return np.maximum(x, zeros if zeros is not None and zeros.dtype is x.dtype else _zeros(x))
