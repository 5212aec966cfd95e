"""Activations: layers without parameters, applied entry by entry or along an axis."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.nn.checks import as_float_input, as_layer_input, as_number, is_whole, positive, require, wrong_shape
from microfw.nn.initializers import constant
from microfw.nn.module import Module
from microfw.nn.parameter import Parameter
from microfw.ops import elementwise, reduction
from microfw.ops.elementwise import relu


class ReLU(Module):
    """``max(x, 0)``; slope 0 at 0.

    Examples
    --------
    >>> import microfw as mf
    >>> mf.nn.ReLU()(mf.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """

    def forward(self, x: Any) -> Tensor:
        """Cut negative entries."""
        # the test saves a call for the usual input; the op itself refuses other dtypes
        return relu(x if type(x) is Tensor else as_float_input(x, self))


class LeakyReLU(Module):
    """``x`` where positive, ``slope * x`` elsewhere; slope ``slope`` at 0.

    Parameters
    ----------
    slope : float
        Slope for negative entries.
    """

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = as_number(slope, math.isfinite, "LeakyReLU", "a finite slope")

    def forward(self, x: Any) -> Tensor:
        """Scale negative entries."""
        x = as_float_input(x, self)
        # where and not maximum(x, slope * x), which is wrong for slopes above 1
        return elementwise.where(x > 0, x, x * self.slope)

    def extra_repr(self) -> str:
        """Return the slope."""
        return f"{self.slope}"


class PReLU(Module):
    """``x`` where positive, ``weight * x`` elsewhere, with a learned slope.

    Parameters
    ----------
    features : int
        1 for one slope, or the length of the second axis for a slope for each channel.
    init : float
        Where the slopes start.

    Notes
    -----
    Source: He et al., "Delving Deep into Rectifiers", 2015, equation 1.
    """

    weight: Parameter  # (features,)

    def __init__(self, features: int = 1, init: float = 0.25) -> None:
        positive("PReLU", features=features)
        init = as_number(init, math.isfinite, "PReLU", "a finite init")
        self.features = int(features)
        self.weight = Parameter(constant((self.features,), init))

    def forward(self, x: Any) -> Tensor:
        """Scale negative entries."""
        x = as_layer_input(x, self.weight.dtype, self, self._check_shape)
        weight: Tensor = self.weight
        if self.features > 1:
            weight = weight.reshape((self.features,) + (1,) * (x.ndim - 2))
        elif not x.ndim:
            weight = weight.reshape(())
        return elementwise.where(x > 0, x, x * weight)

    def _check_shape(self, x: Any) -> None:
        if self.features > 1 and (x.ndim < 2 or x.shape[1] != self.features):
            raise wrong_shape(self, f"(N, {self.features}, ...)", x, "pass that many channels on the second axis")

    def extra_repr(self) -> str:
        """Return the number of slopes."""
        return f"{self.features}"


class ELU(Module):
    """``x`` where positive, ``alpha * (exp(x) - 1)`` elsewhere; slope ``alpha`` at 0.

    Parameters
    ----------
    alpha : float
        Minus the value that is approached far to the left.

    Notes
    -----
    Source: Clevert et al., "Fast and Accurate Deep Network Learning by Exponential Linear Units", 2015,
    equation 15.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = as_number(alpha, math.isfinite, "ELU", "a finite alpha")

    def forward(self, x: Any) -> Tensor:
        """Bend negative entries."""
        return elementwise.elu(as_float_input(x, self), alpha=self.alpha)

    def extra_repr(self) -> str:
        """Return alpha."""
        return f"{self.alpha}"


class SiLU(Module):
    """``x * sigmoid(x)``, also called swish.

    Notes
    -----
    Source: Elfwing et al., "Sigmoid-Weighted Linear Units", 2017, equation 1.
    """

    def forward(self, x: Any) -> Tensor:
        """Weigh entries by their sigmoid."""
        return elementwise.silu(as_float_input(x, self))


class Mish(Module):
    """``x * tanh(softplus(x))``.

    Notes
    -----
    Source: Misra, "Mish: A Self Regularized Non-Monotonic Activation Function", 2019, equation 1.
    """

    def forward(self, x: Any) -> Tensor:
        """Weigh entries by the tanh of their softplus."""
        return elementwise.mish(as_float_input(x, self))


class Softsign(Module):
    """``x / (1 + abs(x))``."""

    def forward(self, x: Any) -> Tensor:
        """Squash entries."""
        x = as_float_input(x, self)
        return elementwise.divide(x, 1 + np.abs(x))


class Sigmoid(Module):
    """``1 / (1 + exp(-x))``."""

    def forward(self, x: Any) -> Tensor:
        """Squash entries."""
        return elementwise.sigmoid(x if type(x) is Tensor else as_float_input(x, self))


class Tanh(Module):
    """Hyperbolic tangent."""

    def forward(self, x: Any) -> Tensor:
        """Squash entries."""
        return elementwise.tanh(x if type(x) is Tensor else as_float_input(x, self))


class Softplus(Module):
    """``log(1 + exp(x))``."""

    def forward(self, x: Any) -> Tensor:
        """Bend negative entries."""
        return elementwise.softplus(x if type(x) is Tensor else as_float_input(x, self))


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
        known = approximate in ("none", "tanh")
        require(known, "GELU", "approximate to be 'none' or 'tanh'", repr(approximate))
        self.approximate = approximate

    def forward(self, x: Any) -> Tensor:
        """Weigh entries by their normal percentile."""
        x = as_float_input(x, self)
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
        require(is_whole(axis), type(self).__name__, "axis to be an integer", repr(axis))
        self.axis = int(axis)

    def forward(self, x: Any) -> Tensor:
        """Normalise to probabilities."""
        return reduction.softmax(as_float_input(x, self, self._check_shape), axis=self.axis)

    def _check_shape(self, x: Any) -> None:
        if not -x.ndim <= self.axis < x.ndim or not x.shape[self.axis]:
            raise wrong_shape(self, f"with entries along axis {self.axis}", x)


class LogSoftmax(Softmax):
    """Logarithm of `Softmax`, finite for all finite ``x``."""

    def forward(self, x: Any) -> Tensor:
        """Normalise to log-probabilities."""
        return reduction.log_softmax(as_float_input(x, self, self._check_shape), axis=self.axis)
