"""Dataset: checked, read-only features and targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from microfw.data import checks
from microfw.errors import ArgumentError, DataError, DTypeError, ShapeError, message

Array = np.ndarray[Any, Any]


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
        features, targets = checks.array_of(X, "X"), checks.array_of(y, "y")
        _shapes(features, targets)
        self.feature_names = _names("feature", feature_names, features.shape[1], "x", X)
        self.task = task or _task(targets)
        self.target_scaler = target_scaler
        self.X = checks.finite(features, "X", self.feature_names, np.dtype(dtype))
        self.n_classes: int | None = None
        if self.task == "classification":
            self.y = checks.classes(targets)
            found = int(self.y.max()) + 1
            self.n_classes = max(found, len(target_names)) if target_names is not None else found
            self.target_names = _names("target", target_names, self.n_classes)
        elif self.task == "regression":
            targets = targets[:, None] if targets.ndim == 1 else targets
            self.target_names = _names("target", target_names, targets.shape[1], "y", y)
            self.y = checks.finite(targets, "y", self.target_names, np.dtype(dtype))
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


def _shapes(X: Array, y: Array) -> None:
    if X.ndim < 2:
        fix = "pass X[:, None] for one feature" if X.ndim else "pass a table of rows"
        raise ShapeError(message("Dataset", "X of shape (N, features)", X.shape, fix))
    if y.ndim < 1:
        raise ShapeError(message("Dataset", "y of shape (N,) or (N, k)", y.shape, "pass a target for each row"))
    if not len(X):
        raise DataError(
            message("Dataset", "at least one row", f"X of shape {X.shape}", "look at the filter that made it")
        )
    if len(X) != len(y):
        raise ShapeError(
            message("Dataset", "X and y of the same length", f"{len(X)} and {len(y)}", "pass one target for each row")
        )
    if not X.size or not y.size:
        raise ShapeError(message("Dataset", "at least one column in X and y", f"shapes {X.shape} and {y.shape}"))


def _task(y: Array) -> str:
    text = y.dtype.kind in "OUST" and any(isinstance(v, str | bytes) for v in y.ravel().tolist())
    return "classification" if text or (y.ndim == 1 and y.dtype.kind in "iub") else "regression"


def _names(kind: str, given: Sequence[str] | None, count: int, prefix: str = "", frame: Any = None) -> list[str]:
    """Return the given names, else those of a frame, else a prefix with numbers."""
    if given is None:
        given = checks.columns(frame) or [f"{prefix}{k}" for k in range(count)]
    names = [str(name) for name in given]
    if len(names) != count:
        raise ArgumentError(message("Dataset", f"{count} {kind} names", len(names)))
    return names
