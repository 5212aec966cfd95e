"""Choices between values, and casts. What is chosen gets the gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.autograd.op import Array, elementwise_cost, op, zero_cost
from microfw.autograd.registry import NUMPY
from microfw.errors import DTypeError
from microfw.ops.elementwise.ufuncs import ufuncs

_ufunc = ufuncs(__name__)


def _larger(g: Any, a: Any, b: Any) -> Any:
    return g * ((a > b) * 1.0 + (a == b) * 0.5).astype(g.dtype)  # * 1.0 makes float64, also of float32


maximum = _ufunc(
    np.maximum,
    "Larger of two, entry by entry; where they are equal each gets half of the gradient.",
    vjp=(_larger, lambda g, b, a: _larger(g, b, a)),
    cost=elementwise_cost(1, 6, 6),
)

minimum = _ufunc(
    np.minimum,
    "Smaller of two, entry by entry; where they are equal each gets half of the gradient.",
    vjp=(lambda g, a, b: _larger(g, b, a), _larger),
    cost=elementwise_cost(1, 6, 6),
)


def _inside(x: Any, low: float | None, high: float | None) -> Any:
    return np.logical_and(x >= (-np.inf if low is None else low), x <= (np.inf if high is None else high))


@op(
    # where and not a product with the mask: 0 * inf in a gradient would be NaN
    vjp=lambda g, x, low, high: np.where(_inside(x, low, high), g, 0),
    cost=elementwise_cost(2, 4),
    no_alias=True,
)
def clip(x: Array, *, low: float | None = None, high: float | None = None) -> Array:
    """Limit entries to an interval; slope 1 in it, its ends included."""
    return np.clip(x, low, high)


def clipped(x: Any, low: Any = None, high: Any = None) -> Any:
    """`clip`, also with arrays or Tensors for its ends, which then get the gradient where they are the result."""
    # np.float32(0) is a number like 0.0: one op then does it
    low, high = (end.item() if isinstance(end, np.generic) else end for end in (low, high))
    if all(end is None or isinstance(end, int | float) for end in (low, high)):
        return clip(x, low=low, high=high)
    if low is not None:
        x = where(x < low, low, x)
    return x if high is None else where(x > high, high, x)


def _numpys_clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    return clipped(a, min if a_min is None else a_min, max if a_max is None else a_max)


NUMPY[np.clip] = _numpys_clip


@op(
    vjp=(None, lambda g, condition: np.where(condition, g, 0), lambda g, condition: np.where(condition, 0, g)),
    cost=elementwise_cost(0, 0, 0, 0),
    numpy=np.where,
    no_alias=True,
)
def where(condition: Array, a: Array, b: Array) -> Array:
    """Entries of ``a`` where the condition holds, of ``b`` elsewhere.

    The branch not taken gets the gradient 0, which its own rule then multiplies by its slope: where that is
    infinite the product is NaN, by IEEE arithmetic. So keep the argument away from such points:

    >>> import numpy as np, microfw as mf
    >>> x = mf.tensor([0.0, 4.0], requires_grad=True)
    >>> np.where(x > 0, np.sqrt(np.where(x > 0, x, 1.0)), 0.0).sum().backward()
    >>> x.grad
    array([0.  , 0.25])
    """
    return np.where(condition, a, b)


def _nowhere(v: Any, at: Any, axis: Any) -> Any:
    asked = np.any(v != 0, axis=axis, keepdims=True)
    slopes = np.where(at, np.where(asked, np.nan, 0), 0).astype(v.dtype)
    return np.broadcast_to(slopes, np.broadcast_shapes(slopes.shape, v.shape))


@op(vjp=(lambda v: v, _nowhere, None), cost=elementwise_cost(0, 0, 1, 0))
def undefined(slope: Array, x: Array, at: Array, *, axis: int | tuple[int, ...] | None = ()) -> Array:
    """``slope`` as it is, but with a derivative by ``x`` that is NaN where ``at`` holds, and 0 elsewhere.

    With an axis, each entry depends on all of ``x`` along it, so that all get NaN.

    Rules that choose a slope where there is none pass it through this op when they are recorded, so that their own
    derivative is not made of the choice. A gradient of 0 stays 0: nothing is asked there.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> mf.grad(lambda x: undefined(x, x, x == 0.0).sum())(np.array([0.0, 1.0]))
    array([nan,  1.])
    """
    return slope


def _cast_back(g: Any, x: Any, dtype: Any) -> Any:
    # g * 0 and not zeros: of a Tensor it stays in the graph, so that it can be differentiated again
    return (g if np.dtype(dtype).kind == "f" else g * 0).astype(x.dtype)


@op(
    vjp=_cast_back,
    jvp=lambda dx, x, dtype: dx.astype(dtype) if np.dtype(dtype).kind == "f" else dx * 0,
    cost=zero_cost,
    allow_dtype_change=True,
)
def astype(x: Array, *, dtype: Any) -> Array:
    """Cast; the gradient is cast back, and is 0 through a cast to integers or booleans."""
    if np.dtype(dtype).kind not in "fiub" or np.dtype(dtype) == np.float16:
        raise DTypeError(f"astype: expected float32, float64, integers or booleans, got {np.dtype(dtype)}")
    return np.asanyarray(x).astype(np.dtype(dtype).char)  # in the machine's byte order


@op(vjp=lambda g: g, cost=zero_cost)
def identity(x: Array) -> Array:
    """The same values, as a node of their own."""
    return x


NUMPY[np.positive] = lambda x: identity(x)
