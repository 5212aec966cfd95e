"""Smooth relatives of ReLU, fused: written out in other ops they lose digits in the tails, or overflow."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.autograd.op import Array, elementwise_cost, op
from microfw.autograd.tensor import Tensor
from microfw.ops.elementwise.activations import _sigmoid, sigmoid, softplus
from microfw.ops.mapping import as_floats


@op(
    # exp of where(x > 0, 0, x): exp of a large x would overflow in the branch that is not taken
    vjp=lambda g, x, alpha: np.where(x > 0, g, g * (alpha * np.exp(np.where(x > 0, 0, x)))),
    cost=elementwise_cost(4, 5),
    no_alias=True,
)
def elu(x: Array, *, alpha: float = 1.0) -> Array:
    """``x`` where positive, ``alpha * (exp(x) - 1)`` elsewhere; slope ``alpha`` at 0."""
    # expm1 keeps the digits of a small x, which exp(x) - 1 loses
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))  # 0.0: int8 would give float16


def _silu_slope(g: Any, x: Any) -> Any:
    s = sigmoid if isinstance(x, Tensor) else _sigmoid
    return g * (s(x) * (1 + x * s(-x)))


@op(vjp=_silu_slope, cost=elementwise_cost(7, 17), no_alias=True)
def silu(x: Array) -> Array:
    """``x * sigmoid(x)``."""
    return x * _sigmoid(x)


def _mish_slope(g: Any, x: Any) -> Any:
    if isinstance(x, Tensor):
        t = np.tanh(softplus(x))
        return g * (t + x * ((1 - t * t) * sigmoid(x)))
    t, e = _tanh_softplus(x)
    ends = np.where(x > 0, 1 + 2 * e + 2 * e * e, e * e + 2 * e + 2)
    sech2 = np.where(x > 0, 4 * e * e, 4) * np.square((1 + e) / ends)  # 1 - t * t, with all its digits
    return g * (t + x * (sech2 * np.where(x > 0, 1, e) / (1 + e)))


def _tanh_softplus(x: Array) -> tuple[Array, Array]:
    """Return ``tanh(log(1 + exp(x)))`` as a fraction of ``e = exp(-abs(x))``, and ``e``."""
    # as a fraction, since exp(x) ** 2 overflows for x above 44 in float32
    e = np.exp(-np.abs(as_floats(x)))
    top = np.where(x > 0, 1 + 2 * e, e * (e + 2))
    return top / (top + np.where(x > 0, 2 * e * e, 2)), e


@op(vjp=_mish_slope, cost=elementwise_cost(14, 37), no_alias=True)
def mish(x: Array) -> Array:
    """``x * tanh(softplus(x))``."""
    return x * _tanh_softplus(x)[0]
