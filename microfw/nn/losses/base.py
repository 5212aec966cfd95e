"""Loss: checks of inputs, and the reduction of the losses of the rows."""

from __future__ import annotations

import contextlib
from inspect import signature
from typing import Any

import numpy as np

from microfw.autograd._tensor_base import refuse_masked
from microfw.autograd.tensor import Tensor
from microfw.errors import DataError, DTypeError, ShapeError
from microfw.nn.checks import require
from microfw.nn.module import Module
from microfw.ops.effects import pure_callback

Array = np.ndarray[Any, Any]


class Loss(Module):
    """Base of losses: ``loss(prediction, target, sample_weight=None)``.

    ``sample_weight`` is a weight of at least 0 for each row. It multiplies the row's losses; "mean" then
    divides by the sum of the weights, so that a weight of 2 is the same as the row twice.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        Reduction of the losses of the entries.

    Raises
    ------
    ArgumentError
        If the reduction is unknown.
    ShapeError
        When called, if shapes differ, nothing being broadcast, or there are no rows.
    DTypeError
        When called, if the prediction is no Tensor.
    DataError
        When called, if a target or a weight is out of range.
    """

    def __init__(self, reduction: str = "mean") -> None:
        known = reduction in ("mean", "sum", "none")
        require(known, type(self).__name__, "reduction to be 'mean', 'sum' or 'none'", repr(reduction))
        self.reduction = reduction

    def extra_repr(self) -> str:
        """Return the settings that are not the defaults, as ``reduction='sum'``."""
        settings = ((p, vars(self).get(p.name, p.default)) for p in signature(type(self)).parameters.values())
        changed = ((p.name, value) for p, value in settings if repr(value) != repr(p.default))
        return ", ".join(f"{name}={_text(value)}" for name, value in changed if not isinstance(value, Module))

    def denominator(self, targets: Any, sample_weight: Any = None) -> float:
        """Return what a mean over these targets is divided by, counted in rows.

        The mean over two batches joined is the mean of their losses, each times its share of the denominators.
        `Trainer` and the estimators weigh batches by it: in accumulated steps, in the loss of an epoch, in
        `Trainer.evaluate`, and in data-parallel steps.

        Parameters
        ----------
        targets : array_like
            The targets of a batch.
        sample_weight : array_like of shape (N,), optional
            The weights that the loss is called with.

        Returns
        -------
        float
            The number of rows, or the sum of their weights. A loss with weights for classes, or with labels that it
            ignores, counts each row with the weight of its label, or not at all. The same for every reduction, and for
            losses that average over the entries of a row.

        Examples
        --------
        >>> import microfw as mf
        >>> mf.nn.MSELoss().denominator([[1.0, 2.0], [3.0, 4.0]])
        2.0
        >>> mf.nn.MSELoss().denominator([[1.0, 2.0], [3.0, 4.0]], sample_weight=[1.0, 0.5])
        1.5
        >>> mf.nn.CrossEntropyLoss(weight=[1.0, 10.0], ignore_index=2).denominator([0, 1, 2])
        11.0
        """
        if sample_weight is not None:
            return float(np.sum(np.asarray(sample_weight), dtype=np.float64))
        try:
            return float(len(targets))
        except TypeError:  # a single number
            return 1.0

    def _tensor(self, prediction: Any, name: str = "the prediction") -> Tensor:
        if not isinstance(prediction, Tensor):
            fix = "pass the model's output"
            raise DTypeError(self.where, f"{name} to be a Tensor", type(prediction).__name__, fix)
        return prediction

    def _array(self, values: Any, name: str, dtype: Any = None) -> Array:
        """Return values as an array of numbers, of a dtype if one is given."""
        array = self._plain(values, name)
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            if array.dtype.kind == "O":
                array = array.astype(np.float64)
            if array.dtype.kind in "fiub":
                return array if dtype is None else array.astype(dtype, copy=False)
        raise DTypeError(self.where, f"{name} to hold numbers", type(values).__name__)

    def _plain(self, values: Any, name: str) -> Array:
        """Return values as an array of any dtype."""
        refuse_masked(values, self.where)
        try:
            return np.asarray(values)
        except (TypeError, ValueError):
            raise DTypeError(self.where, f"{name} to hold numbers", type(values).__name__) from None

    def _pair(self, prediction: Any, target: Any) -> tuple[Tensor, Any]:
        """Return both with their shapes and dtypes compared: nothing is broadcast."""
        prediction = self._tensor(prediction)
        array = prediction._array
        # the usual target passes with one test, without the calls below
        if type(target) is np.ndarray and target.dtype is array.dtype and target.shape == array.shape and target.size:
            return prediction, target
        if not isinstance(target, Tensor):
            target = self._array(target, "the target")
        if prediction.shape != target.shape:
            fix = "reshape one of them"
            if prediction.shape == (*target.shape, 1):
                fix = "reshape the target with y[:, None]"
            raise ShapeError(
                self.where, "prediction and target of one shape", f"{prediction.shape} and {target.shape}", fix
            )
        if not prediction.size:
            raise ShapeError(self.where, "at least one row", f"shape {prediction.shape}", "skip empty batches")
        if not isinstance(target, Tensor):
            target = self._array(target, "the target", prediction.dtype)  # not before: a cast takes memory
        elif target.dtype.kind != "f":
            target = target.astype(prediction.dtype)
        return prediction, target

    def _check_signs(self, values: Array) -> None:
        if not np.all(np.abs(values) == 1):
            wrong = values[np.abs(values) != 1].flat[0]
            raise DataError(self.where, "targets of -1 and 1", wrong, "map labels 0 and 1 by 2 * y - 1")

    def _check_range(self, values: Array, high: float, expected: str, fix: str = "") -> None:
        """Raise unless all values are from 0 to ``high``; NaN is not."""
        if not (values.min() >= 0 and (high == np.inf or values.max() <= high)):
            got = values.min() if high == np.inf else f"{values.min()} to {values.max()}"
            raise DataError(self.where, expected, got, fix)

    def _made(self, by: Any, values: Any, *args: Any) -> Any:
        """Return what a function makes of values, or have it check them."""
        # by an op if they are a Tensor: a replay then repeats it with the values of each step
        return pure_callback(values, by=by, args=args) if isinstance(values, Tensor) else by(values, *args)

    def _reduce(self, losses: Tensor, sample_weight: Any = None) -> Tensor:
        if sample_weight is not None:
            return self._weighted(losses, self._weights(sample_weight, losses))
        if self.reduction == "none":
            return losses
        return losses.mean() if self.reduction == "mean" else losses.sum()

    def _weights(self, sample_weight: Any, losses: Tensor) -> Any:
        """Return the weights of the rows, checked; of a Tensor by an op, which a replay repeats at each step."""
        if isinstance(sample_weight, Tensor):
            return pure_callback(sample_weight, by=self._checked_weights, args=(losses.shape, losses.dtype))
        return self._checked_weights(sample_weight, losses.shape, losses.dtype)

    def _checked_weights(self, sample_weight: Any, shape: tuple[int, ...], dtype: Any) -> Array:
        weight = self._array(sample_weight, "the sample_weight")
        if weight.shape != shape[:1] or not shape:
            rows = shape[0] if shape else 1
            expected = f"a sample_weight for each of {rows} rows"
            raise ShapeError(self.where, expected, f"shape {weight.shape}")
        weight = self._array(weight, "the sample_weight", dtype)
        if not (np.all(weight >= 0) and np.all(np.isfinite(weight))):
            wrong = weight[~((weight >= 0) & np.isfinite(weight))][0]
            raise DataError(self.where, "a sample_weight of at least 0 for each row", wrong)
        if self.reduction == "mean" and not weight.any():
            raise DataError(self.where, "a row with a positive weight", "none in this batch")
        return weight

    def _weighted(self, losses: Tensor, weight: Any, total: Any = None) -> Tensor:
        """Multiply each row's losses by its weight; a mean is divided by the total of the weights."""
        weighted: Tensor = losses * weight.reshape(weight.shape + (1,) * (losses.ndim - 1))
        if self.reduction != "mean":
            return self._reduce(weighted)
        total = weight.sum() if total is None else total  # of the weights, so that a weight of 2 is a row twice
        total = total if isinstance(total, Tensor) else float(total)
        mean: Tensor = weighted.sum() / (total * (losses.size // len(losses)))
        return mean


def _text(value: Any) -> str:
    """Return a setting as text in one line, the values of a Tensor without its dtype."""
    text = np.array2string(value.data, separator=", ", threshold=6) if isinstance(value, Tensor) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:59]}…"


def class_weights(loss: str, name: str, weight: Any) -> Tensor | None:
    """Return a weight for each class as a buffer, checked; None for None."""
    if weight is None:
        return None
    array: Array = np.zeros(())
    with contextlib.suppress(TypeError, ValueError):
        array = np.asarray(weight, np.float64)  # all digits, for a loss of float64; cast when it is used
    fits = array.ndim == 1 and np.all(array >= 0) and np.any(array > 0) and np.all(array <= np.finfo(np.float32).max)
    require(fits, loss, f"a {name} of at least 0 for each class", repr(weight))
    return Tensor(array)
