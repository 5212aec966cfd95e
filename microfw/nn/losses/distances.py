"""Losses of embeddings: vectors that are to be near to each other, or far apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.errors import ShapeError
from microfw.nn.checks import as_flag, as_number
from microfw.nn.losses.base import Loss
from microfw.ops.elementwise import relu, where
from microfw.ops.normalization import length, unit


def _vectors(loss: Loss, first: Any, second: Any) -> tuple[Any, Any]:
    first, second = loss._pair(first, second)
    if first.ndim < 2:
        raise ShapeError(loss.where, "vectors of shape (N, C)", first.shape)
    return first, second


class CosineEmbeddingLoss(Loss):
    """``1 - cos`` for pairs that belong together, ``max(0, cos - margin)`` for those that do not.

    Parameters
    ----------
    margin : float
        From -1 to 1: below this cosine a pair that does not belong together costs nothing.
    reduction : {"mean", "sum", "none"}
        Reduction of the losses of the pairs.

    Raises
    ------
    ArgumentError
        If the margin is no cosine.
    ShapeError
        If the vectors have different shapes, or the targets are not one for each pair.
    DataError
        If a target is not -1 or 1.

    Notes
    -----
    The cosine with a zero vector is 0, and so is its gradient.

    Examples
    --------
    >>> import microfw as mf
    >>> mf.nn.CosineEmbeddingLoss()(mf.tensor([[1.0, 0.0]]), mf.tensor([[1.0, 1.0]]), [1])
    tensor(0.29289322)
    """

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = as_number(margin, lambda m: -1 <= m <= 1, "CosineEmbeddingLoss", "margin from -1 to 1")

    def forward(self, first: Any, second: Any, target: Any, sample_weight: Any = None) -> Tensor:
        """Compare vectors `(N, C)` with vectors `(N, C)`; targets `(N,)` are 1 if they belong together, else -1."""
        first, second = _vectors(self, first, second)
        target = target if isinstance(target, Tensor) else self._array(target, "the targets")
        if target.shape != first.shape[:-1]:
            raise ShapeError(self.where, f"targets of shape {first.shape[:-1]}", target.shape)
        self._made(self._check_signs, target)
        # of unit vectors: dividing the product by both lengths overflows for long vectors
        cosine = (unit(first) * unit(second)).sum(axis=-1)
        return self._reduce(where(target == 1, 1 - cosine, relu(cosine - self.margin)), sample_weight)


class TripletMarginLoss(Loss):
    """``max(0, d(anchor, positive) - d(anchor, negative) + margin)`` with Euclidean distances.

    Parameters
    ----------
    margin : float
        How much nearer the positive is to be.
    swap : bool
        Whether to take the distance from negative to positive where that is the smaller one.
    reduction : {"mean", "sum", "none"}
        Reduction of the losses of the triplets.

    Raises
    ------
    ArgumentError
        If the margin is not positive.
    ShapeError
        If the three have different shapes.

    Notes
    -----
    The slope of a distance of 0 is 0. Sources: Schroff et al., "FaceNet", 2015, section 3.1; the swap:
    Balntas et al., "Learning local feature descriptors with triplets", 2016, section 3.3.

    Examples
    --------
    >>> import microfw as mf
    >>> a, p, n = mf.tensor([[0.0, 0.0]]), mf.tensor([[3.0, 4.0]]), mf.tensor([[0.0, 5.5]])
    >>> mf.nn.TripletMarginLoss()(a, p, n)
    tensor(0.5)
    """

    def __init__(self, margin: float = 1.0, swap: bool = False, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = as_number(margin, lambda m: 0 < m < np.inf, "TripletMarginLoss", "a positive margin")
        # in PyTorch the second argument is p
        self.swap = as_flag(swap, "TripletMarginLoss", "swap", "swap=True")

    def forward(self, anchor: Any, positive: Any, negative: Any, sample_weight: Any = None) -> Tensor:
        """Compare vectors of one shape `(N, C)`."""
        anchor, positive = _vectors(self, anchor, positive)
        anchor, negative = _vectors(self, anchor, negative)
        far: Any = length(anchor - negative)
        if self.swap:
            far = np.minimum(far, length(positive - negative))
        return self._reduce(relu(length(anchor - positive) - far + self.margin), sample_weight)
