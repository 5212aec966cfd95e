"""Activations: layers without parameters, applied entry by entry or along an axis."""

from __future__ import annotations

import math
from typing import Any

from microfw.errors import ArgumentError, message
from microfw.nn.module import Module
from microfw.ops import elementwise, reduction
from microfw.tensor import Tensor


class ReLU(Module):
    """``max(x, 0)``; slope 0 at 0.

    Examples
    --------
    >>> import microfw as mf
    >>> mf.nn.ReLU()(mf.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """

    forward = staticmethod(elementwise.relu)


class LeakyReLU(Module):
    """``x`` where positive, ``slope * x`` elsewhere; slope ``slope`` at 0.

    Parameters
    ----------
    slope : float
        Slope for negative entries.
    """

    def __init__(self, slope: float = 0.01) -> None:
        if not math.isfinite(slope):
            raise ArgumentError(message("LeakyReLU", "a finite slope", slope))
        self.slope = slope

    def forward(self, x: Any) -> Tensor:
        """Scale negative entries."""
        return elementwise.where(x > 0, x, x * self.slope)

    def extra_repr(self) -> str:
        """Return the slope."""
        return f"{self.slope}"


class Sigmoid(Module):
    """``1 / (1 + exp(-x))``."""

    forward = staticmethod(elementwise.sigmoid)


class Tanh(Module):
    """Hyperbolic tangent."""

    forward = staticmethod(elementwise.tanh)


class Softplus(Module):
    """``log(1 + exp(x))``."""

    forward = staticmethod(elementwise.softplus)


class GELU(Module):
    """``x * Phi(x)`` with the standard normal's distribution function ``Phi``.

    Parameters
    ----------
    approximate : {"none", "tanh"}
        Exact, by the error function (SciPy's), or the published approximation by tanh.

    Notes
    -----
    Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, section 2.
    """

    def __init__(self, approximate: str = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ArgumentError(message("GELU", "approximate to be 'none' or 'tanh'", repr(approximate)))
        self.approximate = approximate

    def forward(self, x: Any) -> Tensor:
        """Weigh entries by their normal percentile."""
        if self.approximate == "tanh":
            return 0.5 * x * (1 + elementwise.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))  # type: ignore[no-any-return]
        return 0.5 * x * (1 + elementwise.erf(x * math.sqrt(0.5)))  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        """Return the approximation."""
        return "" if self.approximate == "none" else self.approximate


class Softmax(Module):
    """``exp(x) / sum(exp(x))`` along an axis.

    Parameters
    ----------
    axis : int
        Which axis sums to 1.
    """

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Any) -> Tensor:
        """Normalise to probabilities."""
        return reduction.softmax(x, axis=self.axis)


class LogSoftmax(Softmax):
    """Logarithm of `Softmax`, finite for all finite ``x``."""

    def forward(self, x: Any) -> Tensor:
        """Normalise to log-probabilities."""
        return reduction.log_softmax(x, axis=self.axis)
