"""Functions that are constant but for their jumps: rounding, whose gradient is 0, and comparisons and logic.

Rounding and `sign` pass on a gradient of 0. Comparisons, logic and whole quotients record no node.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.autograd.op import Array, Cost, Shape, elementwise_cost, op
from microfw.autograd.registry import NUMPY
from microfw.ops.elementwise.ufuncs import ufuncs

_ufunc = ufuncs(__name__)


def _flat(g: Any) -> Any:
    # zeros, and not None as for comparisons: a loss made of rounding alone can still be walked backward, as in PyTorch
    return g * 0


sign = _ufunc(np.sign, "Sign: -1, 0 or 1; slope 0.", vjp=_flat, cost=elementwise_cost(1, 1))

floor = _ufunc(np.floor, "Largest whole number not above; slope 0.", vjp=_flat, cost=elementwise_cost(1, 1))

ceil = _ufunc(np.ceil, "Smallest whole number not below; slope 0.", vjp=_flat, cost=elementwise_cost(1, 1))

trunc = _ufunc(np.trunc, "Whole number next towards 0; slope 0.", vjp=_flat, cost=elementwise_cost(1, 1))

rint = _ufunc(np.rint, "Nearest whole number, halves to the even one; slope 0.", vjp=_flat, cost=elementwise_cost(1, 1))


def _round_cost(y: Shape, x: Shape, decimals: int = 0) -> Cost:
    return elementwise_cost(3 if decimals else 1, 1)(y, x)


@op(vjp=_flat, cost=_round_cost, numpy=(np.round, np.around), no_alias=True)
def round_(x: Array, *, decimals: int = 0) -> Array:
    """Nearest number with that many decimals, halves to the even one; slope 0."""
    return np.round(x, decimals)


NUMPY[np.fix] = lambda x: trunc(x)


# Comparisons, logic and whole quotients: no gradient


for _function in (
    np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal, np.isnan, np.isfinite, np.isinf,
    np.logical_and, np.logical_or, np.logical_xor, np.logical_not, np.signbit, np.floor_divide,
    np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.invert,
):  # fmt: skip
    _name = _function.__name__
    globals()[_name] = _ufunc(
        _function, f"NumPy's ``{_name}``, entry by entry. It has no gradient.", cost=elementwise_cost(1)
    )
