"""Losses of classification: scores, logits or log-probabilities against classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, DataError, MicrofwError, ShapeError
from microfw.nn.checks import as_number, is_whole, require
from microfw.nn.losses.base import Array, Loss, class_weights
from microfw.ops.effects import pure_callback
from microfw.ops.elementwise import relu, where
from microfw.ops.indexing import take_along_axis
from microfw.ops.loss import bce_with_logits, check_labels, cross_entropy, weighted_bce
from microfw.ops.reduction import log_softmax, sum_


class HingeLoss(Loss):
    """Margin loss, ``max(0, 1 - target * prediction)``, for targets -1 and 1."""

    def forward(self, prediction: Any, target: Any, sample_weight: Any = None) -> Tensor:
        """Compare scores with targets of -1 and 1, of one shape."""
        prediction, target = self._pair(prediction, target)
        self._made(self._check_signs, target)
        return self._reduce(relu(1 - prediction * target), sample_weight)


class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy of logits, ``-t log(p) - (1 - t) log(1 - p)`` with ``p = sigmoid(prediction)``.

    Targets are probabilities, 0 and 1 included. Exact for logits of any size.

    Parameters
    ----------
    weight : array_like, optional
        A factor for each entry of the last axis, where that holds several classes. "mean" divides by the
        number of entries all the same.
    pos_weight : float or array_like, optional
        A factor for the first term, that of the positive examples, or one for each entry of the last axis:
        the number of negative examples for each positive one makes them count alike.
    reduction : {"mean", "sum", "none"}
        Reduction of the losses of the entries.
    """

    weight: Tensor | None  # (C,)
    pos_weight: Tensor | None  # (C,) or (1,)

    def __init__(self, weight: Any = None, pos_weight: Any = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.weight = class_weights("BCEWithLogitsLoss", "weight", weight)
        if pos_weight is not None and not np.ndim(pos_weight):
            pos_weight = [pos_weight]
        self.pos_weight = class_weights("BCEWithLogitsLoss", "pos_weight", pos_weight)

    def forward(self, prediction: Any, target: Any, sample_weight: Any = None) -> Tensor:
        """Compare logits with probabilities of one shape."""
        prediction, target = self._pair(prediction, target)
        self._made(self._check_range, target, 1, "targets from 0 to 1", "encode them as 0 and 1")
        if self.pos_weight is None:
            losses: Tensor = bce_with_logits(prediction, target)
        else:
            pos = self._columns(self.pos_weight, "pos_weight", prediction)
            losses = weighted_bce(prediction, pos * target, 1 - target)
        if self.weight is not None:
            losses = losses * self._columns(self.weight, "weight", prediction)
        return self._reduce(losses, sample_weight)

    def _columns(self, weight: Tensor, name: str, prediction: Tensor) -> Tensor:
        single = name == "pos_weight" and weight.shape == (1,)
        if not single and (not prediction.ndim or weight.shape != prediction.shape[-1:]):
            expected = f"a {name} for each entry of the last axis of {prediction.shape}"
            raise ShapeError(self.where, expected, f"{len(weight)} of them")
        values = weight if weight.dtype == prediction.dtype else weight.astype(prediction.dtype)
        return values.reshape(()) if single else values


class _Labelled(Loss):
    """A loss of rows with integer labels, whose classes may have weights and one of which may not count."""

    weight: Tensor | None  # (C,)

    def __init__(self, weight: Any, ignore_index: int | None, reduction: str) -> None:
        super().__init__(reduction)
        name = type(self).__name__
        self.weight = class_weights(name, "weight", weight)
        require(
            ignore_index is None or is_whole(ignore_index), name, "ignore_index to be an integer", repr(ignore_index)
        )
        self.ignore_index = None if ignore_index is None else int(ignore_index)

    def denominator(self, targets: Any, sample_weight: Any = None) -> float:
        """Return the sum of the weights of the rows whose labels count; see `Loss.denominator`."""
        if self.weight is None and self.ignore_index is None:
            if sample_weight is None and type(targets) is np.ndarray and targets.ndim:
                return float(len(targets))  # written out: one call less in each step
            return Loss.denominator(self, targets, sample_weight)
        return self._weighted_rows(targets, sample_weight)

    def _weighted_rows(self, targets: Any, sample_weight: Any) -> float:
        labels = self._plain(targets, "the labels")
        counts = np.ones(labels.shape) if sample_weight is None else np.asarray(sample_weight, np.float64)
        if self.ignore_index is not None:
            kept = labels != self.ignore_index
            labels, counts = labels[kept], counts[kept]
        if self.weight is not None:
            check_labels(labels, len(self.weight), self.where)
            counts = counts * self.weight._array[labels]
        return float(np.sum(counts, dtype=np.float64))

    def _rows(self, scores: Any, labels: Any, name: str) -> Any:
        """Return the labels as an array or a Tensor, after a look at the shapes."""
        self._tensor(scores, f"the {name}")
        labels = labels if isinstance(labels, Tensor) else self._plain(labels, "the labels")
        if scores.ndim != 2 or labels.shape != scores.shape[:1] or not labels.size:
            fix = "flatten the labels with y.ravel()" if labels.ndim == 2 and 1 in labels.shape else ""
            if scores.ndim > 2:
                both = labels.shape == scores.shape
                fix = f"reshape the {name} to (-1, C), classes last, and the labels to (-1,)"
                fix = "reshape both to (-1, C), classes last" if both else fix
            elif isinstance(self, CrossEntropyLoss) and labels.shape == scores.shape and not fix:
                fix = "cast probabilities with .astype(float)"
            fix = fix if labels.size else "skip empty batches"
            shapes = f"{scores.shape} and {labels.shape}"
            raise ShapeError(self.where, f"{name} (N, C) and integer labels (N,), N at least 1", shapes, fix)
        return labels

    def _known(self, labels: Array, classes: int, dtype: Any) -> tuple[Array, Array, Array]:
        """Return the labels, those that are ignored as 0, the classes' weights and the rows'; all checked."""
        kept = np.ones(labels.shape, bool)
        if self.ignore_index is not None:
            kept = labels != self.ignore_index
            if self.reduction == "mean" and not kept.any():  # a mean of none; sums are 0
                fix = "skip such batches"
                expected = f"a label other than ignore_index {self.ignore_index}"
                raise DataError(self.where, expected, "none in this batch", fix)
            labels = np.where(kept, labels, 0).astype(labels.dtype)
        check_labels(labels, classes, self.where)
        weight: Array = np.ones(classes, dtype) if self.weight is None else self.weight._array.astype(dtype)
        if weight.shape != (classes,):
            raise ShapeError(self.where, f"a weight for each of {classes} classes", f"{len(weight)} of them")
        return labels, weight, kept.astype(dtype)

    def _target(self, labels: Array, weight: Array, kept: Array) -> Array:
        """Return the share of each class in a row's loss, `(N, C)`, or `(N, 1)` for the label's alone."""
        raise NotImplementedError(f"{type(self).__name__}._target: expected shares of the classes, got none")

    def _table(self, labels: Array, classes: int, dtype: Any) -> Array:
        """Return, for rows of labels, the shares, whether a row counts, and the weight of its label, side by side."""
        labels, weight, kept = self._known(labels, classes, dtype)
        weights = weight[labels]
        self._total(weights, kept)
        return np.concatenate([self._target(labels, weight, kept), kept[:, None], weights[:, None]], axis=1)

    def _indices(self, labels: Array, classes: int, dtype: Any) -> Array:
        return self._known(labels, classes, dtype)[0]

    def _parts(self, scores: Tensor, labels: Any) -> tuple[Any, Any, Any, Any]:
        """Return labels, shares, rows that count and weights of the labels, as arrays, or by ops for a Tensor."""
        settings = scores.shape[1], scores.dtype
        if isinstance(labels, Tensor):
            table = pure_callback(labels, by=self._table, args=settings)
            return labels, table[:, :-2], table[:, -2], table[:, -1]
        labels, weight, kept = self._known(labels, *settings)
        return labels, self._target(labels, weight, kept), kept, weight[labels]

    def _total(self, weights: Any, rows: Any) -> Any:
        total = (weights * rows).sum()
        if self.reduction == "mean" and not isinstance(total, Tensor) and not total > 0:
            raise DataError(self.where, "a label with a positive weight", "none in this batch")
        return total if isinstance(total, Tensor) else float(total)

    def _finish(self, losses: Tensor, weights: Any, kept: Any, sample_weight: Any) -> Tensor:
        """Reduce the rows' losses, in which the classes' weights are already; ``weights`` are the labels'."""
        rows = kept if sample_weight is None else kept * self._weights(sample_weight, losses)
        return self._weighted(losses, rows, self._total(weights, rows))


class CrossEntropyLoss(_Labelled):
    """Cross-entropy of logits and integer labels, ``logsumexp(logits) - logits[label]``.

    Labels may also be probabilities, floats (N, C) whose rows add up to 1, as of mixed or distilled labels: the mean
    of the above by these. "mean" then divides by the number of rows, also with weights of classes.

    Parameters
    ----------
    weight : array_like, optional
        A weight for each class; "mean" then divides by the sum of the weights of the rows' labels.
    label_smoothing : float
        Share of the target, from 0 to 1, that is spread over all classes evenly.
    reduction : {"mean", "sum", "none"}
        Reduction of the losses of the rows.
    ignore_index : int, optional
        A label whose rows do not count, as of padding.

    Raises
    ------
    ShapeError
        If the logits are not (N, C), or the labels neither (N,) nor (N, C).
    DataError
        If a label is not an integer from 0 to C - 1; if reduction is "mean", and all labels are ignored; if
        probabilities are not from 0 to 1 with a sum of 1.
    ArgumentError
        If labels are probabilities, and there is an ``ignore_index``.

    Notes
    -----
    Label smoothing as in Szegedy et al., "Rethinking the Inception Architecture", 2016, section 7.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> mf.nn.CrossEntropyLoss()(mf.tensor([[0.0, 0.0]]), np.array([1]))
    tensor(0.69314718)
    >>> mf.nn.CrossEntropyLoss()(mf.tensor([[0.0, 0.0]]), np.array([[0.3, 0.7]]))
    tensor(0.69314718)
    """

    def __init__(
        self,
        weight: Any = None,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(weight, ignore_index, reduction)
        expected = "label_smoothing from 0 to 1"
        self.label_smoothing = as_number(label_smoothing, lambda s: 0 <= s <= 1, "CrossEntropyLoss", expected)

    def forward(self, logits: Any, labels: Any, sample_weight: Any = None) -> Tensor:
        """Compare `(N, C)` logits with `(N,)` labels, or `(N, C)` probabilities."""
        # the fused op checks its inputs itself; its errors do not name the layer, so the checks below run again
        try:
            plain = self.weight is None and not self.label_smoothing and self.reduction == "mean"
            plain = plain and self.ignore_index is None and sample_weight is None and isinstance(logits, Tensor)
            # the op copies labels, and probabilities are as many as logits
            if plain and (type(labels) is not np.ndarray or labels.size < logits._array.size):
                return cross_entropy(logits, labels)
        except (MicrofwError, AttributeError, ValueError):
            pass  # explained below, in the user's terms
        return self._in_parts(logits, labels, sample_weight)

    def _in_parts(self, logits: Any, labels: Any, sample_weight: Any) -> Tensor:
        """Compute the loss by several ops, after checks that name the layer."""
        if _are_probabilities(labels):
            return self._of_probabilities(logits, labels, sample_weight)
        labels, share, kept, weights = self._parts(logits, self._rows(logits, labels, "logits"))
        logp = where(share > 0, log_softmax(logits, axis=1), 0)  # 0 times minus infinity is 0 here
        return self._finish(sum_(logp * -share, axis=1), weights, kept, sample_weight)

    def _target(self, labels: Array, weight: Array, kept: Array) -> Array:
        smooth, classes = self.label_smoothing, len(weight)
        target = np.full((len(labels), classes), smooth / classes, weight.dtype)
        target[np.arange(len(labels)), labels] += 1 - smooth
        share: Array = weight * target * kept[:, None]  # else rows without a label would count, and be NaN or infinite
        return share

    def _weighted_rows(self, targets: Any, sample_weight: Any) -> float:
        if _are_probabilities(targets):  # each row counts, as in PyTorch
            return Loss.denominator(self, targets, sample_weight)
        return super()._weighted_rows(targets, sample_weight)

    def _of_probabilities(self, logits: Any, target: Any, sample_weight: Any) -> Tensor:
        if self.ignore_index is not None:
            raise ArgumentError(self.where, "integer labels, since there is an ignore_index", "probabilities")
        logits, target = self._pair(logits, target)
        classes = logits.shape[1]
        self._made(self._check_distributions, target)
        share = target * (1 - self.label_smoothing) + self.label_smoothing / classes if self.label_smoothing else target
        if self.weight is not None:
            if self.weight.shape != (classes,):
                raise ShapeError(self.where, f"a weight for each of {classes} classes", f"{len(self.weight)} of them")
            share = share * self.weight.astype(logits.dtype)
        losses = sum_(where(share > 0, log_softmax(logits, axis=1), 0) * -share, axis=1)
        return self._reduce(losses, sample_weight)

    def _check_distributions(self, values: Array) -> None:
        fix = "for classes that do not exclude each other use nn.BCEWithLogitsLoss"
        self._check_range(values, 1, "probabilities from 0 to 1", fix)
        sums = values.sum(axis=1, dtype=np.float64)
        wrong = np.flatnonzero(np.abs(sums - 1) > 1e-3)  # float16 has three digits
        if wrong.size:
            expected = "probabilities that add up to 1 in each row"
            raise DataError(self.where, expected, f"{sums[wrong[0]]:.6g} at row {wrong[0]}", fix)


def _are_probabilities(labels: Any) -> bool:
    if not isinstance(labels, np.ndarray | Tensor):
        try:
            labels = np.asarray(labels)
        except (TypeError, ValueError):
            return False
    return bool(labels.ndim == 2 and labels.dtype.kind == "f")


class NLLLoss(_Labelled):
    """Negative log-likelihood, ``-prediction[label]`` of log-probabilities: cross-entropy behind `LogSoftmax`.

    Parameters
    ----------
    weight, reduction, ignore_index
        As for `CrossEntropyLoss`.

    Raises
    ------
    ShapeError
        If the log-probabilities are not (N, C) or the labels not (N,).
    DataError
        If a label is not an integer from 0 to C - 1; if reduction is "mean", and all labels are ignored.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> mf.nn.NLLLoss()(mf.tensor([[-0.5, -1.0]]), np.array([1]))
    tensor(1.)
    """

    def __init__(self, weight: Any = None, reduction: str = "mean", ignore_index: int | None = None) -> None:
        super().__init__(weight, ignore_index, reduction)

    def forward(self, logp: Any, labels: Any, sample_weight: Any = None) -> Tensor:
        """Compare `(N, C)` log-probabilities with `(N,)` labels."""
        labels, share, kept, weights = self._parts(logp, self._rows(logp, labels, "log-probabilities"))
        if isinstance(labels, Tensor):
            labels = pure_callback(labels, by=self._indices, args=(logp.shape[1], logp.dtype))
        share = share.reshape((len(labels),))
        picked = take_along_axis(logp, labels.reshape((len(labels), 1)), axis=1).reshape((len(labels),))
        losses = where(share > 0, picked, 0) * -share
        return self._finish(losses, weights, kept, sample_weight)

    def _target(self, labels: Array, weight: Array, kept: Array) -> Array:
        share: Array = weight[labels] * kept
        return share[:, None]
