"""Dataset: checked, read-only features and targets. Errors name row and column."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from microfw.errors import ArgumentError, DataError, DTypeError, MicrofwError, ShapeError, message

Array = np.ndarray[Any, Any]

MAX_CLASSES = 1_000_000
"""Labels must be smaller. Every class up to the largest label gets a name; one million take about 60 MB."""


class Dataset:
    """Checked, read-only copies of features and targets.

    Parameters
    ----------
    X : array_like
        Features, shape (N, …), one row for each example: an array, nested lists or a pandas frame. Images have shape
        (N, C, H, W).
    y : array_like
        Labels 0, 1, 2, … of shape (N,) for classification; numbers of shape (N,) or (N, k) for regression.
    feature_names : sequence of str, optional
        A name for each column of X; a frame's columns by default.
    target_names : sequence of str, optional
        A name for each class, or for each column of y.
    task : {"classification", "regression"}, optional
        By default classification if y has shape (N,) and holds integers or booleans, or if y holds text.
    target_scaler : object, optional
        Scaler that was applied to y; its ``inverse_transform`` returns the original units.
    dtype : dtype
        float32 or float64, for X and for the targets of a regression.

    Attributes
    ----------
    X : ndarray
        Features, read-only.
    y : ndarray
        Labels of shape (N,) and an integer dtype, or targets of shape (N, k); read-only.
    feature_names : list of str
        Names of the columns of X.
    target_names : list of str
        Names of the classes, or of the columns of y.
    task : str
        "classification" or "regression".
    n_classes : int or None
        Number of classes; None for regression.

    Raises
    ------
    DataError
        If there are no rows, an entry is missing or not finite, or a label is not an integer of at least 0.
    ShapeError
        If X and y differ in length, or X has no columns.
    DTypeError
        If entries are not numbers.
    ArgumentError
        If the number of names is wrong, or the task is unknown.

    Examples
    --------
    >>> data = Dataset([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], [0, 1, 1])
    >>> data
    Dataset(3 rows, 2 features, classification into 2 classes)
    >>> data.X.dtype, data.y.shape
    (dtype('float32'), (3,))
    >>> Dataset([[0.0], [1.0]], [0.5, 1.5]).y.shape
    (2, 1)
    """

    X: Array  # (N, features)
    y: Array  # (N,) or (N, k)

    def __init__(
        self,
        X: Any,
        y: Any,
        *,
        feature_names: Sequence[str] | None = None,
        target_names: Sequence[str] | None = None,
        task: str | None = None,
        target_scaler: Any = None,
        dtype: Any = np.float32,
    ) -> None:
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise DTypeError(message("Dataset", "dtype to be float32 or float64", np.dtype(dtype)))
        features, targets = _array(X, "X"), _array(y, "y")
        if not (features.ndim > 1 and targets.ndim and len(features) == len(targets) and features.size * targets.size):
            raise _wrong_shapes(features, targets)
        self.feature_names = _names("feature", feature_names, features.shape[1], "x", X)
        self.task = task or _task(targets)
        self.target_scaler = target_scaler
        self.n_classes: int | None = None
        self.X = _finite(features, "X", self.feature_names, dtype)
        if self.task == "classification":
            self.y = _labels(targets)
            self.n_classes = max(int(self.y.max()) + 1, 0 if target_names is None else len(target_names))
            self.target_names = _names("target", target_names, self.n_classes)
        elif self.task == "regression":
            targets = targets[:, None] if targets.ndim == 1 else targets
            self.target_names = _names("target", target_names, targets.shape[1], "y", y)
            self.y = _finite(targets, "y", self.target_names, dtype)
        else:
            raise ArgumentError(message("Dataset", "task to be 'classification' or 'regression'", repr(task)))

    def to_original(self, targets: Any) -> Array:
        """Return targets or predictions in their original units.

        Parameters
        ----------
        targets : array_like
            Scaled values, shape (N, k).

        Returns
        -------
        ndarray
            Shape (N, k); a copy if there is no scaler.
        """
        values = np.array(targets)
        return values if self.target_scaler is None else np.asarray(self.target_scaler.inverse_transform(values))

    def astype(self, dtype: Any) -> Dataset:
        """Return the dataset with features, and targets of a regression, in another dtype; itself if unchanged.

        Examples
        --------
        >>> Dataset([[0.5], [1.5]], [0, 1]).astype("float64").X.dtype
        dtype('float64')
        """
        if self.X.dtype == dtype:
            return self
        names = {"feature_names": self.feature_names, "target_names": self.target_names}
        return Dataset(self.X, self.y, task=self.task, target_scaler=self.target_scaler, dtype=dtype, **names)

    def __len__(self) -> int:
        return len(self.X)

    def __repr__(self) -> str:
        axes = self.X.shape[1:]
        features = f"{axes[0]} features" if len(axes) == 1 else f"features of shape {axes}"
        if self.task == "classification":
            task = f"classification into {self.n_classes} classes"
        else:
            task = f"regression of {', '.join(self.target_names)}"
        return f"Dataset({len(self)} rows, {features}, {task})"

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.X.setflags(write=False)
        self.y.setflags(write=False)


def as_dataset(data: Any, where: str, dtype: Any = np.float32) -> Dataset:
    """Return a Dataset or a pair ``(X, y)`` as a Dataset of a dtype."""
    if isinstance(data, Dataset):
        return data.astype(dtype)
    if isinstance(data, tuple | list) and len(data) == 2:
        return Dataset(*data, dtype=dtype)
    raise ArgumentError(message(where, "a Dataset or a pair (X, y)", type(data).__name__, "wrap it in mf.data.Dataset"))


def _task(y: Array) -> str:
    text = y.dtype.kind in "OUST" and any(isinstance(v, str | bytes) for v in y.ravel().tolist())
    return "classification" if text or (y.ndim == 1 and y.dtype.kind in "iub") else "regression"


def _names(kind: str, given: Sequence[str] | None, count: int, prefix: str = "", frame: Any = None) -> list[str]:
    """Return the given names, else those of a frame or a series, else a prefix with numbers."""
    if given is None and hasattr(frame, "columns"):
        given = frame.columns
    elif given is None and hasattr(frame, "iloc"):
        given = None if getattr(frame, "name", None) is None else [frame.name]
    names = [f"{prefix}{k}" for k in range(count)] if given is None else [str(name) for name in given]
    if len(names) != count:
        raise ArgumentError(message("Dataset", f"{count} {kind} names", len(names)))
    return names


# Arrays. Good data pass one test; what is wrong is only looked for after that test has failed.


def _array(data: Any, name: str) -> Array:
    """Return lists, frames, series, Tensors and arrays as an array, without a cast."""
    if hasattr(data, "toarray"):
        raise DTypeError(message("Dataset", f"a dense {name}", type(data).__name__, f"pass {name}.toarray()"))
    if isinstance(data, np.ma.MaskedArray) and np.ma.is_masked(data):
        raise DataError(message("Dataset", f"{name} without masked entries", "some", f"pass {name}.filled(value)"))
    try:
        return np.asarray(data)
    except ValueError:
        got, fix = "rows of different lengths", "give all rows the same length"
        raise ShapeError(message("Dataset", f"{name} to be a full table", got, fix)) from None


def _finite(array: Array, name: str, labels: Sequence[str], dtype: Any) -> Array:
    """Return a read-only, C-contiguous copy of a dtype. Raise unless all entries are finite numbers.

    Raises
    ------
    DTypeError
        If an entry is not a number.
    DataError
        If an entry is missing, NaN, infinite, or too large for the dtype.
    """
    if array.dtype.kind not in "fiub":
        array = _numbers(array, name, labels)
    with np.errstate(over="ignore"):
        made = np.array(array, dtype, order="C")
    if not np.isfinite(made).all():
        raise _not_finite(array, made, name, labels)
    made.setflags(write=False)
    return made


def _labels(array: Array) -> Array:
    """Return a read-only copy of class labels as integers.

    Raises
    ------
    ShapeError
        If there is not one label for each row.
    DTypeError
        If labels are text, or of a dtype that is not real.
    DataError
        If a label is missing, not an integer, negative, or too large.
    """
    if array.ndim != 1 or array.dtype.kind not in "iub" or not 0 <= array.min() <= array.max() < MAX_CLASSES:
        raise _wrong_labels(array)
    made = np.array(array, np.intp)
    made.setflags(write=False)
    return made


def _wrong_labels(y: Array) -> MicrofwError:
    if y.ndim != 1:
        fix = "flatten them with y.ravel()" if y.size == len(y) else "pass y.argmax(axis=1) if rows are one-hot"
        return ShapeError(message("Dataset", "labels of shape (N,)", y.shape, fix))
    number, expected = "np.unique(y, return_inverse=True)", "integer labels"
    found = y.tolist() if y.dtype.kind in "OUST" else []
    text = next((value for value in found if isinstance(value, str | bytes)), None)
    if text is not None:
        return DTypeError(message("Dataset", expected, f"text such as {text!r}", f"encode it with {number}[1]"))
    y = _numbers(y, "y", ()) if y.dtype.kind == "O" else y
    wrong = np.flatnonzero(y != np.round(y) if y.dtype.kind == "f" else y < 0 if y.dtype.kind in "iub" else ())
    got = f"{y[wrong[0]]} at row {wrong[0]}" if wrong.size else f"dtype {y.dtype}"
    if y.dtype.kind == "f" and wrong.size:  # NaN too: it differs from itself
        fix = "drop the row" if np.isnan(y[wrong[0]]) else "for real targets pass task='regression'"
        return DataError(message("Dataset", expected, got, fix))
    if y.dtype.kind not in "iub":
        return DTypeError(message("Dataset", expected, got, "cast them with y.astype(int)"))
    if wrong.size:
        fix = f"encode them with {number}[1], or pass task='regression'"
        return DataError(message("Dataset", "labels 0, 1, 2, …", got, fix))
    return DataError(message("Dataset", f"labels below {MAX_CLASSES:,}", y.max(), f"number the classes with {number}"))


def _numbers(array: Array, name: str, labels: Sequence[str]) -> Array:
    """Return an array of Python objects as floats. Raise unless all are real numbers."""
    if array.dtype.kind != "O":
        fix = f"encode text as numbers before you pass {name}" if array.dtype.kind in "US" else "convert it to floats"
        raise DTypeError(message("Dataset", f"{name} to hold numbers", f"dtype {array.dtype}", fix))
    for at in np.ndindex(array.shape):
        value: Any = array.item(at)
        if isinstance(value, numbers.Real | np.bool):
            continue
        if value is None or str(value) in ("<NA>", "NaT"):
            raise _missing(value, name, at, labels)
        got = f"{value!r} at {_place(at, labels)}"
        raise DTypeError(message("Dataset", f"{name} to hold numbers", got, "encode text as numbers first"))
    return array.astype(np.float64)


def _not_finite(array: Array, made: Array, name: str, labels: Sequence[str]) -> DataError:
    at = tuple(np.argwhere(~np.isfinite(made))[0].tolist())
    if not np.isfinite(array[at]):
        return _missing(array[at], name, at, labels)
    fix = f"scale it down: {made.dtype} cannot hold it"
    return DataError(message("Dataset", f"finite {name}", f"{array[at]} at {_place(at, labels)}", fix))


def _missing(value: Any, name: str, at: tuple[int, ...], labels: Sequence[str]) -> DataError:
    fix = "drop the row, or fill it in with sklearn.impute.SimpleImputer"
    return DataError(message("Dataset", f"finite {name}", f"{value} at {_place(at, labels)}", fix))


def _place(at: tuple[int, ...], labels: Sequence[str]) -> str:
    """Return where an entry is, in words: its row, and its column if there are several.

    Examples
    --------
    >>> _place((3, 1), ["height", "age"])
    "row 3, column 1 ('age')"
    """
    if len(at) < 2:
        return f"row {at[0]}"
    if len(at) > 2:
        return f"row {at[0]}, entry {at[1:]}"
    named = at[1] < len(labels) and labels[at[1]] != f"x{at[1]}"
    return f"row {at[0]}, column {at[1]}" + (f" ({labels[at[1]]!r})" if named else "")


def _wrong_shapes(X: Array, y: Array) -> MicrofwError:
    if X.ndim < 2:
        fix = "pass X[:, None] for one feature" if X.ndim else "pass a table of rows"
        return ShapeError(message("Dataset", "X of shape (N, features)", X.shape, fix))
    if y.ndim < 1:
        return ShapeError(message("Dataset", "y of shape (N,) or (N, k)", y.shape, "pass a target for each row"))
    if not len(X):
        fix = "look at the filter that made it"
        return DataError(message("Dataset", "at least one row", f"X of shape {X.shape}", fix))
    if len(X) != len(y):
        got = f"{len(X)} and {len(y)}"
        return ShapeError(message("Dataset", "X and y of the same length", got, "pass one target for each row"))
    return ShapeError(message("Dataset", "at least one column in X and y", f"shapes {X.shape} and {y.shape}"))
