"""Losses: how far a prediction is from a target, as one number to descend."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from microfw.errors import ArgumentError, DataError, DTypeError, MicrofwError, ShapeError, message
from microfw.nn.module import Module
from microfw.ops.elementwise import relu, where
from microfw.ops.loss import bce_with_logits, check_labels, cross_entropy
from microfw.ops.reduction import log_softmax, sum_
from microfw.tensor import Tensor


class Loss(Module):
    """Base of losses.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        What becomes of the losses of the entries.
    """

    def __init__(self, reduction: str = "mean") -> None:
        if reduction not in ("mean", "sum", "none"):
            raise ArgumentError(
                message(type(self).__name__, "reduction to be 'mean', 'sum' or 'none'", repr(reduction))
            )
        self.reduction = reduction

    def _pair(self, prediction: Any, target: Any) -> tuple[Tensor, Any]:
        """Return both with their shapes and dtypes compared: nothing is broadcast."""
        if not isinstance(prediction, Tensor):
            raise DTypeError(
                message(
                    self.where, "the prediction to be a Tensor", type(prediction).__name__, "pass the model's output"
                )
            )
        if not isinstance(target, Tensor):
            target = np.asarray(target, prediction.dtype)
        if prediction.shape != target.shape:
            fix = "reshape one of them"
            if prediction.shape == (*target.shape, 1):
                fix = "reshape the target with y[:, None]"
            raise ShapeError(
                message(self.where, "prediction and target of one shape", f"{prediction.shape} and {target.shape}", fix)
            )
        if not prediction.size:
            raise ShapeError(message(self.where, "at least one row", f"shape {prediction.shape}", "skip empty batches"))
        return prediction, target

    def _reduce(self, losses: Tensor) -> Tensor:
        if self.reduction == "none":
            return losses
        return losses.mean() if self.reduction == "mean" else losses.sum()


class MSELoss(Loss):
    """Squared error, ``(prediction - target) ** 2``.

    Examples
    --------
    >>> import microfw as mf
    >>> mf.nn.MSELoss()(mf.tensor([[1.0], [2.0]]), [[0.0], [0.0]])
    tensor(2.5)
    """

    def forward(self, prediction: Any, target: Any) -> Tensor:
        """Compare two arrays of one shape."""
        prediction, target = self._pair(prediction, target)
        return self._reduce(np.square(prediction - target))


class L1Loss(Loss):
    """Absolute error, ``abs(prediction - target)``; slope 0 where they are equal."""

    def forward(self, prediction: Any, target: Any) -> Tensor:
        """Compare two arrays of one shape."""
        prediction, target = self._pair(prediction, target)
        return self._reduce(abs(prediction - target))


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
        if not delta > 0 or not math.isfinite(delta):
            raise ArgumentError(message("HuberLoss", "a positive delta", delta))
        self.delta = delta

    def forward(self, prediction: Any, target: Any) -> Tensor:
        """Compare two arrays of one shape."""
        prediction, target = self._pair(prediction, target)
        r = abs(prediction - target)
        near = np.clip(r, 0, self.delta)
        return self._reduce(near * (r - 0.5 * near))


class HingeLoss(Loss):
    """Margin loss, ``max(0, 1 - target * prediction)``, for targets -1 and 1."""

    def forward(self, prediction: Any, target: Any) -> Tensor:
        """Compare scores with targets of -1 and 1, of one shape."""
        prediction, target = self._pair(prediction, target)
        values = np.asarray(target)
        if not np.all(np.abs(values) == 1):
            wrong = values[np.abs(values) != 1].flat[0]
            raise DataError(message(self.where, "targets of -1 and 1", wrong, "map labels 0 and 1 by 2 * y - 1"))
        return self._reduce(relu(1 - prediction * target))


class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy of logits, ``-t log(p) - (1 - t) log(1 - p)`` with ``p = sigmoid(prediction)``.

    Targets are probabilities, 0 and 1 included. Exact for logits of any size.
    """

    def forward(self, prediction: Any, target: Any) -> Tensor:
        """Compare logits with probabilities of one shape."""
        prediction, target = self._pair(prediction, target)
        values = np.asarray(target)
        if not (values.min() >= 0 and values.max() <= 1):
            raise DataError(
                message(
                    self.where, "targets from 0 to 1", f"{values.min()} to {values.max()}", "encode them as 0 and 1"
                )
            )
        return self._reduce(bce_with_logits(prediction, target))


class CrossEntropyLoss(Loss):
    """Cross-entropy of logits and integer labels, ``logsumexp(logits) - logits[label]``.

    Parameters
    ----------
    weight : array_like, optional
        A weight for each class; "mean" then divides by the sum of the weights of the rows' labels.
    label_smoothing : float
        Share of the target, from 0 to 1, that is spread over all classes evenly.
    reduction : {"mean", "sum", "none"}
        What becomes of the losses of the rows.

    Raises
    ------
    ShapeError
        If the logits are not (N, C) or the labels not (N,).
    DataError
        If a label is not an integer from 0 to C - 1.

    Notes
    -----
    Label smoothing as in Szegedy et al., "Rethinking the Inception Architecture", 2016, section 7.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> mf.nn.CrossEntropyLoss()(mf.tensor([[0.0, 0.0]]), np.array([1]))
    tensor(0.69314718)
    """

    weight: Tensor | None  # (C,)

    def __init__(self, weight: Any = None, label_smoothing: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        if not 0 <= label_smoothing <= 1:
            raise ArgumentError(message("CrossEntropyLoss", "label_smoothing from 0 to 1", label_smoothing))
        self.label_smoothing = label_smoothing
        self.weight = None
        if weight is not None:
            array = np.asarray(weight, np.float32)
            if array.ndim != 1 or not np.all(array >= 0) or not np.any(array > 0):
                raise ArgumentError(message("CrossEntropyLoss", "a weight of at least 0 for each class", weight))
            self.weight = Tensor(array)

    def forward(self, logits: Any, labels: Any) -> Tensor:
        """Compare `(N, C)` logits with `(N,)` labels."""
        try:
            plain = self.weight is None and not self.label_smoothing and self.reduction == "mean"
            if plain and isinstance(logits, Tensor):
                return cross_entropy(logits, labels)
        except (MicrofwError, AttributeError, ValueError):
            pass  # explained below, in the user's terms
        labels = np.asarray(labels)
        self._check(logits, labels)
        return self._general(logits, labels)

    def _general(self, logits: Tensor, labels: np.ndarray[Any, Any]) -> Tensor:
        smooth, classes = self.label_smoothing, logits.shape[1]
        weight = np.ones(classes, logits.dtype) if self.weight is None else self.weight.data.astype(logits.dtype)
        if weight.shape != (classes,):
            raise ShapeError(message(self.where, f"a weight for each of {classes} classes", f"{len(weight)} of them"))
        target = np.full(logits.shape, smooth / classes, logits.dtype)
        target[np.arange(len(labels)), labels] += 1 - smooth
        logp = log_softmax(logits, axis=1)
        losses: Tensor = sum_(where(target > 0, logp * (-weight * target), 0), axis=1)
        if self.reduction != "mean":
            return self._reduce(losses)
        total = float(weight[labels].sum())
        if not total > 0:
            raise DataError(message(self.where, "a label with a positive weight", "none in this batch"))
        return losses.sum() / total

    def _check(self, logits: Any, labels: np.ndarray[Any, Any]) -> None:
        if not isinstance(logits, Tensor):
            raise DTypeError(message(self.where, "the logits to be a Tensor", type(logits).__name__))
        if logits.ndim != 2 or labels.shape != logits.shape[:1] or not labels.size:
            fix = "flatten the labels with y.ravel()" if labels.ndim == 2 and 1 in labels.shape else ""
            fix = fix if labels.size else "skip empty batches"
            shapes = f"{logits.shape} and {labels.shape}"
            raise ShapeError(message(self.where, "logits (N, C) and integer labels (N,), N at least 1", shapes, fix))
        check_labels(labels, logits.shape[1], self.where)
