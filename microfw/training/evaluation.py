"""Models and losses called outside of steps: inputs, predictions, mean losses, and checks before training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from microfw.autograd.graph import Leaf
from microfw.autograd.mode import mode
from microfw.autograd.tensor import Tensor
from microfw.data.arrays import as_array
from microfw.data.dataset import Dataset
from microfw.data.nested import Columns, is_batches, is_nested
from microfw.errors import ArgumentError, DataError, DTypeError, MicrofwError, ShapeError
from microfw.nn import CrossEntropyLoss, Embedding, Loss, Module, NLLLoss
from microfw.nn.forward_state import ForwardState, evaluating, module_mode
from microfw.training.broadcasts import check_broadcasts, may_broadcast
from microfw.training.metrics import Validation, check_heads
from microfw.training.outputs import ModelCall, is_branch, join_outputs, output_columns

Array = np.ndarray[Any, Any]

DTYPES: Any = {code: np.dtype(code) for code in "fd?bhilqBHILQ"}
"""The dtypes that a Tensor can have, by type code: the objects that NumPy gives its own arrays."""

USUAL = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
"""NumPy's reactions to floating-point errors, unless the user has set others."""


def quiet() -> np.errstate:
    """Ignore NumPy's floating-point warnings, since training raises one error for them. Other reactions are kept."""
    reactions = np.geterr()
    if reactions == USUAL:  # partial_fit calls this for each small batch
        return np.errstate(all="ignore")
    return np.errstate(**{kind: "ignore" for kind, reaction in reactions.items() if reaction == "warn"})  # type: ignore[arg-type]


def dtype_of(model: Module) -> np.dtype[Any]:
    """Return the dtype of a model's first parameter; float32 if the model has none."""
    return next((p._array.dtype for p in model.parameters() if p._array.dtype.kind == "f"), np.dtype(np.float32))


def takes_indices(model: Any) -> bool:
    """Return True if a model has a layer that takes integers as indices."""
    return isinstance(model, Module) and any(isinstance(m, Embedding) for _, m in model.named_modules())


def as_plain(data: Any, model: Module, loss: Any) -> Dataset | None:
    """Return a Dataset or a pair ``(X, y)`` of arrays as a Dataset in the model's dtype; None for anything else."""
    if isinstance(data, tuple | list) and len(data) == 2 and not is_batches(data):
        nested = any(isinstance(part, tuple | list | dict) and is_nested(part) for part in data)
        if not nested and (np.ndim(data[1]) < 2 or not keeps_integers(data[1], model, loss)):
            return as_dataset(data[0], data[1], model, loss)
    return data.astype(dtype_of(model)) if isinstance(data, Dataset) else None


def as_dataset(X: Any, y: Any, model: Module, loss: Any) -> Dataset:
    """Return a Dataset in the model's dtype. Losses that are not this library's get y in the shape in which it came."""
    made = Dataset(X, y, dtype=dtype_of(model), ignore_index=getattr(loss, "ignore_index", None))
    if made.task == "regression" and np.ndim(y) == 1 and not isinstance(loss, Loss):
        made.y = made.y[:, 0]
    return made


def with_labels(data: Any, model: Module, loss: Any, where: str) -> Dataset | None:
    """Return the result of `as_plain`, after `check_labels`."""
    if (found := as_plain(data, model, loss)) is not None:
        check_labels(found, loss, where)
    return found


def keeps_integers(y: Any, model: Any, loss: Any) -> bool:
    """Return True for integer labels with several axes, as of sequences; other losses get them as floats."""
    if np.asarray(y).dtype.kind not in "iu" or np.ndim(y) < 2:
        return False
    return isinstance(loss, CrossEntropyLoss | NLLLoss) or (not isinstance(loss, Loss) and takes_indices(model))


def as_data(array: Array) -> Tensor:
    """Return a batch as the read-only Tensor that replayed steps pass to the model and to the loss."""
    if type(array) is np.ndarray and array.flags.c_contiguous and DTYPES.get(array.dtype.char) is array.dtype:
        tensor = object.__new__(Tensor)  # Tensor() would copy, which takes 2 us to 20 us
        tensor._array, tensor._leaf, tensor._node = array.view(), Leaf(array.shape, array.dtype), None
    else:
        tensor = Tensor(array)
    tensor._array.flags.writeable = False
    return tensor


def as_features(X: Any, model: Module) -> Any:
    """Return rows to predict as an array in the dtype of the model's parameters, as `Trainer.fit` casts its data.

    Integers are not cast if the model takes them as indices. Values that are not numbers are returned unchanged; the
    model's first layer raises an error for them.
    """
    array = as_array(X, "X")
    if not array.ndim:
        got, fix = f"a single {type(X).__name__}", "pass an array, or a Dataset"
        raise ShapeError("Trainer.predict", "rows of features", got, fix)
    if array.dtype.kind not in "fiubO" or (array.dtype.kind in "iu" and takes_indices(model)):
        return array
    try:
        with np.errstate(over="ignore"):  # infinite features give NaN outputs, not a warning from here
            return array.astype(dtype_of(model), order="C", copy=False)
    except (TypeError, ValueError, OverflowError):
        return array


def predict(model: Module, X: Any, batch_size: int) -> Any:
    """Return the outputs of a model in evaluation mode, for dense or sparse rows in the dtype of the model."""
    starts = range(0, max(X.shape[0], 1), batch_size)  # no rows: one empty batch, for the shape of the outputs
    with evaluating(model):
        parts = [_outputs(model, X[k : k + batch_size]) for k in starts]
    if isinstance(parts[0], Columns):
        return join_outputs(parts, X.shape[0], batch_size, "Trainer.predict")
    return np.concatenate(parts)  # copies a single part, too: its array is read-only


def _outputs(model: Module, X: Any) -> Any:
    X = X if isinstance(X, np.ndarray) else X.toarray()
    made = model(as_data(X) if X.dtype.kind in "fiub" else X)
    if is_branch(made):
        return output_columns(made, "Trainer.predict")
    return made.data if isinstance(made, Tensor) else np.asarray(made)


def denominator_of(loss: Any) -> Callable[[Any, Any], float]:
    """Return ``loss.denominator``; for a loss without one, a function that returns the rows or their weights' sum."""
    found = getattr(loss, "denominator", None)
    return found if callable(found) else _rows


def _rows(targets: Any, sample_weight: Any = None) -> float:
    return float(len(targets) if sample_weight is None else np.sum(sample_weight, dtype=np.float64))


def is_sum(loss: Any) -> bool:
    """Return True if a loss sums over rows instead of averaging."""
    return getattr(loss, "reduction", "mean") == "sum"


def mean_loss(loss: Any, outputs: Array, targets: Array, weight: Array | None = None) -> Any:
    """Return the mean loss of outputs; NaN if no row counts, None for a loss that is a dict."""
    count = denominator_of(loss)(targets, weight)
    if not count:  # losses raise for targets of which none counts
        return math.nan
    made, wanted = as_data(outputs), as_data(targets)
    if may_broadcast(loss, [outputs], [targets]) and weight is None and denominator_of(loss)(targets[:2], None) > 0:
        with mode(observer=None, timer=None), ForwardState.of(loss):
            check_broadcasts(loss, as_data(outputs[:2]), as_data(targets[:2]), "Trainer.evaluate")
    found = loss(made, wanted) if weight is None else loss(made, wanted, weight)
    if isinstance(found, dict):
        return None
    value = float(found.item())
    return value / count if is_sum(loss) else value


def check_denominator(count: float, loss: Any, where: str) -> None:
    """Raise unless a denominator is at least 0 and finite."""
    if not 0 <= count < math.inf:
        got = f"{count} from {type(loss).__name__}.denominator"
        raise ArgumentError(where, "a denominator of at least 0, finite", got)


# Checks. A test that passes for good arguments comes first; what is wrong is only looked for after it has failed.


def check_fit(model: Module, loss: Any, data: Dataset, where: str, must_count: bool = False, metrics: Any = ()) -> bool:
    """Raise unless the model's outputs for two rows and all targets suit the loss, and, if asked, some row counts.

    Return False if the outputs are nested, or the loss is a dict: then other checks follow.
    """
    rows = counting_rows(loss, data.y, where)
    # No observer, no timer, and the state is restored: the check changes neither profiles nor the run's random numbers.
    with evaluating(model, observer=None, timer=None), ForwardState.of(model, loss):
        outputs = model(as_data(data.X[:2]))
        if not isinstance(outputs, Tensor) or outputs._array.shape[:1] != data.y[:2].shape[:1]:
            return _are_nested(outputs, len(data.y[:2]), where)
        if metrics:
            check_heads(metrics, [""], [""])
        _check_targets(outputs._array.shape, data, loss, where)
        if rows is not None:
            outputs = outputs if rows.start == 0 else model(as_data(data.X[rows]))
            targets = as_data(data.y[rows])
            own = isinstance(loss, Loss)  # checks shapes itself
            made = loss(outputs, targets) if own else check_broadcasts(loss, outputs, targets, where)
            return _check_loss(made, where)
        return not must_count or _no_row_counts(len(data), where)


def counting_rows(loss: Any, targets: Any, where: str) -> slice | None:
    """Return a slice of two rows, or the only one, of which one counts in the loss; None if no row does."""
    count = denominator_of(loss)
    return slice(0, 2) if count(targets[:2], None) > 0 else _first_counting_row(count, targets, loss, where)


def _first_counting_row(count: Any, targets: Array, loss: Any, where: str) -> slice | None:
    # The first row that counts is in low:high. Halving takes 20 calls for a million rows.
    low, high, total = 0, len(targets), count(targets, None)
    check_denominator(total, loss, where)
    if not total:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if count(targets[low:middle], None) > 0 else (middle, high)
    return slice(low, low + 1) if low + 2 > len(targets) else slice(low, low + 2)


def _are_nested(outputs: Any, rows: int, where: str) -> bool:
    """Return False for nested outputs; raise for others."""
    if is_branch(outputs):
        return False
    if not isinstance(outputs, Tensor):
        raise DTypeError(where, "the model to return a Tensor", type(outputs).__name__)
    raise ShapeError(where, "an output for each row", f"shape {outputs.shape} for {rows} rows")


def _no_row_counts(rows: int, where: str) -> NoReturn:
    got = f"none of {rows}: all labels are ignored, or of weight 0"
    raise DataError(where, "rows that count in the loss", got)


def _check_loss(value: Any, where: str) -> bool:
    """Return True for a loss of one number, False for a dict of losses; raise for anything else."""
    if isinstance(value, Tensor):
        if value._array.size != 1:
            raise ArgumentError(where, "a loss of one number", f"shape {value.shape}", "use reduction='mean'")
        return True
    if not isinstance(value, dict):
        raise ArgumentError(where, "a loss of one number", type(value).__name__, "return a Tensor, or a dict of them")
    return False


def _check_targets(shape: tuple[int, ...], data: Dataset, loss: Any, where: str) -> None:
    """Raise unless outputs of a shape and all targets suit one of this library's losses."""
    if isinstance(loss, CrossEntropyLoss) and data.task == "regression" and shape[1:] == data.y.shape[1:] != (1,):
        return  # probabilities, which the loss checks
    if isinstance(loss, CrossEntropyLoss | NLLLoss):
        if data.task != "classification" or data.y.max() >= shape[-1] or data.y.min() < 0:
            _check_labels(shape, data, loss, where)
    elif isinstance(loss, Loss) and (data.task == "classification" or shape[1:] != data.y.shape[1:]):
        raise _wrong_targets(shape, data, type(loss).__name__, where)


def check_labels(data: Dataset, loss: Any, where: str) -> None:
    """Raise if a loss of labels gets real targets of shape (N, 1). Those of shape (N, C) may be probabilities."""
    if isinstance(loss, CrossEntropyLoss | NLLLoss) and data.task != "classification" and data.y.shape[1:] == (1,):
        raise _no_labels(data, loss, where)


def _no_labels(data: Dataset, loss: Loss, where: str) -> DataError:
    expected, fix = f"integer labels for {type(loss).__name__}", "pass integer labels, or use nn.MSELoss for regression"
    return DataError(where, expected, f"targets of shape {data.y.shape}", fix)


def _check_labels(shape: tuple[int, ...], data: Dataset, loss: Loss, where: str) -> None:
    labels, ignored = data.y, getattr(loss, "ignore_index", None)
    if data.task != "classification":
        raise _no_labels(data, loss, where)
    wrong = (labels < 0) | (labels >= shape[-1])
    wrong &= True if ignored is None else labels != ignored
    if len(shape) == 2 and wrong.any():
        row, expected = int(wrong.argmax()), f"labels from 0 to {shape[-1] - 1}, as the model's outputs"
        fix = f"give the model's last layer {int(labels[wrong].max()) + 1} outputs"
        fix = fix if labels[row] >= 0 else f"pass ignore_index={labels[row]} to the loss"
        raise DataError(where, expected, f"{labels[row]} at row {row}", fix)


def _wrong_targets(shape: tuple[int, ...], data: Dataset, loss: str, where: str) -> DataError | ShapeError:
    if data.task == "classification":
        fix = "use nn.CrossEntropyLoss, or mf.data.Dataset(X, y, task='regression')"
        return DataError(where, f"real targets of shape (N, k) for {loss}", "integer labels", fix)
    wanted, got = (str(("N", *axes[1:])).replace("'", "") for axes in (data.y.shape, shape))
    count = data.y.shape[-1]
    fix = f"give the model's last layer {count} output{'s' * (count > 1)}" if len(shape) > 1 else "keep the last axis"
    return ShapeError(where, f"outputs of shape {wanted}, as the targets", got, fix)


def smallest_batch(
    model: Module, data: Any, batch_size: int, where: str, drop_last: bool = False, step_rows: int = 0
) -> int:
    """Return the smallest batch that the model takes in training, 1 or 2 rows; batch norm, for example, needs 2.

    The model runs on one row, and only if a batch of one row would occur.

    Raises
    ------
    ArgumentError, DataError
        If all batches, or the data, have too few rows: for a layer, whose message is contained, or for a step of
        ``step_rows`` rows with ``drop_last``.
    """
    if data.counted and min(len(data), batch_size) > 1 and (drop_last or len(data) % batch_size != 1):
        smallest = 1  # no batch has one row
    else:
        smallest = _try_one_row(model, data, batch_size, where)
    if drop_last and len(data) < step_rows:
        raise _too_few_rows(len(data), step_rows, where)
    return smallest


def _too_few_rows(rows: int, step_rows: int, where: str) -> DataError:
    got = f"{rows} rows with drop_last=True"
    return DataError(where, f"the {step_rows} rows of a step", got, "use a smaller batch_size")


def _try_one_row(model: Module, data: Any, batch_size: int, where: str) -> int:
    why = _failure(model, data, 1)
    if why is None or (len(data) > 1 and _failure(model, data, 2)):  # another error, which the first step raises
        return 1
    fix = f"a layer needs more than one row: {why}"
    if len(data) == 1:
        raise DataError(where, "at least 2 rows", "1", fix)
    if batch_size == 1:
        raise ArgumentError(where, "a batch_size of at least 2", "1", fix)
    return 2


def _failure(model: Module, data: Any, rows: int) -> Exception | None:
    """Return the error that a model raises in training for a batch of ``rows`` rows, or None."""
    X = data.head(rows)[0]
    with module_mode(model, True, observer=None, timer=None, recording=False), ForwardState.of(model), quiet():
        try:
            if isinstance(X, Columns):
                ModelCall(model, X.template).call([as_data(leaf) for leaf in X.leaves])
            else:
                model(as_data(X))
        except Exception as error:
            return error
    return None


def validator(trainer: Any, validation: Any) -> Validation:
    """Check the validation data of a fit, and return what evaluates them."""
    where = "Trainer.fit, validation"
    try:
        found = as_plain(validation, trainer.model, trainer.loss)
        if found is None or not check_fit(trainer.model, trainer.loss, found, where):
            from microfw.training import nested_fit

            found = nested_fit.as_rows(validation, trainer, where)
            nested_fit.prepare(trainer, found, where, trainer.metrics)
    except MicrofwError as error:  # such as that of a layer, which does not name the data
        if str(error).startswith(where):
            raise
        raise type(error)(f"{where}: {error}") from None
    return Validation(trainer, found)
