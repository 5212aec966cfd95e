"""Losses of regression: differences between a prediction and a target, entry by entry."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.nn.checks import as_number
from microfw.nn.losses.base import Loss
from microfw.ops.loss import squared_error


class MSELoss(Loss):
    """Squared error, ``(prediction - target) ** 2``.

    Examples
    --------
    >>> import microfw as mf
    >>> mf.nn.MSELoss()(mf.tensor([[1.0], [2.0]]), [[0.0], [0.0]])
    tensor(2.5)
    """

    def forward(self, prediction: Any, target: Any, sample_weight: Any = None) -> Tensor:
        """Compare two arrays of one shape."""
        prediction, target = self._pair(prediction, target)
        if sample_weight is None and self.reduction == "mean":
            return squared_error(prediction, target)
        return self._reduce(np.square(prediction - target), sample_weight)


class L1Loss(Loss):
    """Absolute error, ``abs(prediction - target)``; slope 0 where they are equal."""

    def forward(self, prediction: Any, target: Any, sample_weight: Any = None) -> Tensor:
        """Compare two arrays of one shape."""
        prediction, target = self._pair(prediction, target)
        return self._reduce(abs(prediction - target), sample_weight)


class HuberLoss(Loss):
    """Squared error near the target, absolute error away from it.

    ``r**2 / 2`` for ``r = abs(prediction - target)`` up to ``delta``, ``delta * (r - delta / 2)`` beyond.

    Parameters
    ----------
    delta : float
        Where the one becomes the other.

    Notes
    -----
    Source: Huber, "Robust Estimation of a Location Parameter", 1964.
    """

    def __init__(self, delta: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.delta = as_number(delta, lambda delta: 0 < delta < math.inf, "HuberLoss", "a positive delta")

    def forward(self, prediction: Any, target: Any, sample_weight: Any = None) -> Tensor:
        """Compare two arrays of one shape."""
        prediction, target = self._pair(prediction, target)
        r = abs(prediction - target)
        near = np.clip(r, 0, self.delta)  # both branches in one formula, without a mask
        return self._reduce(near * (r - 0.5 * near), sample_weight)
