"""Losses between distributions: Kullback and Leibler's divergence, and numbers that follow Poisson's or Gauss's law."""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.errors import DataError, DTypeError, ShapeError
from microfw.nn.checks import as_flag, as_number
from microfw.nn.losses.base import Array, Loss
from microfw.ops.elementwise import exp, log, where
from microfw.ops.reduction import sum_


class KLDivLoss(Loss):
    """Divergence of log-probabilities from target probabilities, ``sum(t * (log(t) - prediction))``.

    The sum is over the last axis: a distribution has one loss. A class of probability 0 adds 0 for any
    log-probability.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        Reduction of the losses of the distributions; "mean" divides by their number.
    log_target : bool
        Whether targets are log-probabilities too.

    Raises
    ------
    ShapeError
        If the two have different shapes, or no axis.
    DataError
        If a target is no probability.

    Notes
    -----
    Source: Kullback and Leibler, "On Information and Sufficiency", 1951, equation 2.4.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> mf.nn.KLDivLoss()(np.log(mf.tensor([[0.5, 0.5]])), [[1.0, 0.0]])
    tensor(0.69314718)
    """

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = as_flag(log_target, "KLDivLoss", "log_target", "log_target=True")

    def forward(self, prediction: Any, target: Any, sample_weight: Any = None) -> Tensor:
        """Compare log-probabilities with a target of one shape."""
        prediction, target = self._pair(prediction, target)
        if not prediction.ndim:
            raise ShapeError(self.where, "distributions along the last axis", "a single number")
        if self.log_target:
            self._made(self._check_logarithms, target)
            there = target > -np.inf
            logt = where(there, target, 0)
            target = where(there, exp(target), 0)
        else:
            there = target > 0
            fix = "pass log_target=True if they are logarithms"
            self._made(self._check_range, target, 1, "target probabilities from 0 to 1", fix)
            logt = log(where(there, target, 1))  # 0 * log(0) is NaN; here it is 0 * log(1)
        losses = sum_(target * (logt - where(there, prediction, 0)), axis=-1)
        return self._reduce(losses, sample_weight)

    def _check_logarithms(self, values: Array) -> None:
        if not values.max() < np.inf:  # NaN, as of a teacher that has diverged
            raise DataError(self.where, "logarithms of target probabilities", values.max())


class PoissonNLLLoss(Loss):
    """Negative log-likelihood of counts under Poisson's law, ``rate - t * log(rate)``.

    Parameters
    ----------
    log_input : bool
        Whether predictions are the logarithms of rates, so that any number will do; else they are rates,
        of at least 0, and the logarithm is that of ``rate + eps``.
    full : bool
        Whether to add Stirling's approximation of ``log(t!)``, ``t log(t) - t + log(2 pi t) / 2``, for targets
        above 1. It does not depend on the prediction.
    eps : float
        Keeps the logarithm of a rate of 0 finite.
    reduction : {"mean", "sum", "none"}
        Reduction of the losses of the entries.

    Raises
    ------
    ArgumentError
        If ``eps`` is not positive.
    DataError
        If a target is negative, or a rate is.

    Notes
    -----
    The rate ``exp(prediction)`` overflows to infinity above 709, in float32 above 88, and then so does the loss.

    Examples
    --------
    >>> import microfw as mf
    >>> mf.nn.PoissonNLLLoss()(mf.tensor([0.0, 1.0]), [1.0, 0.0])
    tensor(1.85914091)
    """

    def __init__(self, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.log_input = as_flag(log_input, "PoissonNLLLoss", "log_input", "log_input=False")
        self.full = as_flag(full, "PoissonNLLLoss", "full", "reduction='sum'")
        self.eps = as_number(eps, lambda eps: 0 < eps < np.inf, "PoissonNLLLoss", "a positive eps")

    def forward(self, prediction: Any, target: Any, sample_weight: Any = None) -> Tensor:
        """Compare rates, or their logarithms, with counts of one shape."""
        prediction, target = self._pair(prediction, target)
        self._made(self._check_range, target, np.inf, "counts of at least 0")
        if self.log_input:
            losses = exp(prediction) - target * prediction
        else:
            fix = "pass log_input=True if they are logarithms"
            self._made(self._check_range, prediction, np.inf, "rates of at least 0", fix)
            losses = prediction - target * log(prediction + self.eps)
        if self.full:
            losses = losses + self._made(_stirling, target)
        return self._reduce(losses, sample_weight)


class GaussianNLLLoss(Loss):
    """Negative log-likelihood of numbers under Gauss's law, ``(log(var) + (mean - t)**2 / var) / 2``.

    The prediction is a tuple ``(mean, var)``, as of a model with two heads: ``loss((mean, var), target)``.

    Parameters
    ----------
    full : bool
        Whether to add ``log(2 pi) / 2``, which does not depend on the prediction.
    eps : float
        Smallest variance: one below counts as ``eps``, and has the slope there, so that it can grow again.
    reduction : {"mean", "sum", "none"}
        Reduction of the losses of the entries.

    Raises
    ------
    ArgumentError
        If ``eps`` is not positive.
    DTypeError
        When called, if the prediction is no tuple of two Tensors.
    ShapeError
        When called, if mean, variance and target have different shapes.
    DataError
        When called, if a variance is negative.

    Notes
    -----
    Source: Nix and Weigend, "Estimating the mean and variance of the target probability distribution", 1994.

    Examples
    --------
    >>> import microfw as mf
    >>> mf.nn.GaussianNLLLoss()((mf.tensor([1.0]), mf.tensor([0.5])), [2.0])
    tensor(0.65342641)
    """

    def __init__(self, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.full = as_flag(full, "GaussianNLLLoss", "full", "reduction='sum'")
        self.eps = as_number(eps, lambda eps: 0 < eps < np.inf, "GaussianNLLLoss", "a positive eps")

    def forward(self, prediction: Any, target: Any, sample_weight: Any = None) -> Tensor:
        """Compare means and variances with numbers of one shape."""
        if not isinstance(prediction, tuple | list) or len(prediction) != 2:
            fix = "call loss((mean, var), target)"
            raise DTypeError(self.where, "the prediction to be a tuple (mean, var)", type(prediction).__name__, fix)
        mean, target = self._pair(prediction[0], target)
        var = self._tensor(prediction[1], "the variance")
        if (var.shape, var.dtype) != (mean.shape, mean.dtype):
            got = f"{var.shape} of {var.dtype}"
            raise ShapeError(self.where, f"variances of shape {mean.shape} of {mean.dtype}", got)
        self._made(self._check_range, var, np.inf, "variances of at least 0", "pass np.exp of an output")
        var = var + self._made(_below, var, self.eps)
        losses = 0.5 * (log(var) + np.square(mean - target) / var)
        return self._reduce(losses + 0.5 * np.log(2 * pi) if self.full else losses, sample_weight)


def _below(values: Array, least: float) -> Array:
    return np.maximum(least - values, 0).astype(values.dtype)


def _stirling(counts: Array) -> Array:
    t = np.where(counts > 1, counts, 1)  # log(0) in the branch that is not taken would warn
    stirling: Array = t * np.log(t) - t + 0.5 * np.log(2 * pi * t)
    return np.where(counts > 1, stirling, 0).astype(counts.dtype)
