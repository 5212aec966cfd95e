"""Training data in memory: `Dataset`, checked and read-only, and `Rows`, from which batches are taken."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microfw.data import faults
from microfw.data.arrays import as_array, finite
from microfw.data.batch_source import BatchSource
from microfw.data.faults import Array
from microfw.errors import ArgumentError, DTypeError
from microfw.optim.checks import is_integer

Batch = tuple[Array, Array, Array | None]


GATHER = 1 << 22
"""Bytes of shuffled features gathered at once; batches are slices of them."""


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
    ignore_index : int, optional
        A label that is no class, such as -100: that of the loss, which leaves out its rows.

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
    ignore_index: int | None = None  # pickles of older versions have none

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
        ignore_index: int | None = None,
    ) -> None:
        check_dtype("Dataset", dtype)
        if ignore_index is not None and not is_integer(ignore_index, -math.inf):
            raise ArgumentError("Dataset", "ignore_index to be an integer or None", repr(ignore_index))
        if target_scaler is not None and not hasattr(target_scaler, "inverse_transform"):
            raise ArgumentError("Dataset", "a target_scaler with inverse_transform", repr(target_scaler))
        features, targets = as_array(X, "X"), as_array(y, "y")
        if not (features.ndim > 1 and targets.ndim and len(features) == len(targets) and features.size * targets.size):
            raise faults.wrong_shapes(features, targets)
        self.feature_names = _names("feature", feature_names, features.shape[1], "x", X)
        self.task = task or _task(targets)
        self.target_scaler = target_scaler
        self.n_classes: int | None = None
        self.X = finite(features, "X", self.feature_names, dtype)
        if self.task == "classification":
            self.ignore_index = ignore_index
            self.y, largest = _labels(targets, ignore_index)
            self.n_classes = max(largest + 1, 0 if target_names is None else len(target_names))
            self.target_names = _names("target", target_names, self.n_classes)
        elif self.task == "regression":
            targets = targets[:, None] if targets.ndim == 1 else targets
            self.target_names = _names("target", target_names, targets.shape[1], "y", y)
            self.y = finite(targets, "y", self.target_names, dtype)
        else:
            raise ArgumentError("Dataset", "task to be 'classification' or 'regression'", repr(task))

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
        names: dict[str, Any] = {"feature_names": self.feature_names, "target_names": self.target_names}
        names |= {"task": self.task, "target_scaler": self.target_scaler, "ignore_index": self.ignore_index}
        return Dataset(self.X, self.y, dtype=dtype, **names)

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
        self.X.setflags(write=False)  # pickles do not keep the flag
        self.y.setflags(write=False)


@dataclass(eq=False, repr=False)
class Rows(BatchSource):
    """Features, targets and, optionally, weights of the same rows.

    Parameters
    ----------
    X : ndarray or sparse matrix
        Features; batches are dense.
    y : ndarray
        Targets.
    weight : ndarray, optional
        A weight for each row.
    """

    X: Any
    y: Array
    weight: Array | None = None

    def fingerprints(self) -> list[Array]:
        """Return arrays whose bytes identify the data."""
        return [self.X, self.y]

    def __len__(self) -> int:
        return int(self.X.shape[0])

    def head(self, rows: int) -> tuple[Array, Array]:
        """Return the first rows, dense."""
        X = self.X[:rows]
        return X if isinstance(X, np.ndarray) else X.toarray(), self.y[:rows]

    def take(self, rows: Any) -> Rows:
        """Return some rows: a slice of them, or the numbers of rows."""
        weight = self.weight
        if isinstance(rows, slice) or not isinstance(self.X, np.ndarray):
            return Rows(self.X[rows], self.y[rows], None if weight is None else weight[rows])
        # take: 0.8 us for 32 rows of 64 columns, 2.2 us with X[rows]; half the time for 1,000 rows
        return Rows(self.X.take(rows, 0), self.y.take(rows, 0), None if weight is None else weight.take(rows))

    def batches(
        self,
        size: int,
        rng: np.random.Generator | None = None,
        *,
        min_rows: int = 1,
        drop_last: bool = False,
        skip: int = 0,
    ) -> Iterable[Batch]:
        """Return batches of dense features, targets and weights.

        Parameters
        ----------
        size : int
            Rows in a batch.
        rng : Generator, optional
            Draws a new order. Without it, batches of dense rows are views.
        min_rows : int
            A last batch with fewer rows joins the batch before it.
        drop_last : bool
            Leave out a last batch with fewer than ``size`` rows.
        skip : int
            Batches to leave out at the start.
        """
        n = len(self)
        order = None if rng is None else rng.permutation(n)
        # One batch in order: the arrays themselves, without a copy.
        if order is None and n <= size and not (skip or drop_last) and isinstance(self.X, np.ndarray):
            return ((self.X, self.y, self.weight),)
        return self._gathered(size, order, min_rows, *epoch_range(n, size, min_rows, drop_last, skip))

    def _gathered(self, size: int, order: Array | None, min_rows: int, first: int, stop: int) -> Iterator[Batch]:
        # Gathering many rows at once and slicing takes half the time of gathering each batch.
        sparse = not isinstance(self.X, np.ndarray)
        row = self.X.shape[1] * self.X.dtype.itemsize if sparse else self.X.nbytes // len(self)
        chunk = max(GATHER // (row + self.y.nbytes // len(self) + 1) // size, 1) * size
        for piece in pieces(stop, chunk, min_rows, first):
            some = self.take(piece if order is None else order[piece])
            X = some.X.toarray() if sparse else some.X
            for part in pieces(len(some), size, min_rows):
                yield X[part], some.y[part], None if some.weight is None else some.weight[part]


def epoch_range(rows: int, size: int, min_rows: int, drop_last: bool, skip: int) -> tuple[int, int]:
    """Return the first row after ``skip`` batches of an epoch, and the end of its last batch.

    Examples
    --------
    >>> epoch_range(9, 4, 2, False, 1), epoch_range(9, 4, 2, False, 2), epoch_range(9, 4, 1, True, 1)
    ((4, 9), (9, 9), (4, 8))
    """
    stop, first = rows // size * size if drop_last else rows, skip * size
    return (stop if skip and stop - first < min_rows else first), stop  # the rest has joined the batch before


def pieces(stop: int, size: int, min_rows: int = 1, start: int = 0) -> Iterator[slice]:
    """Yield slices of ``size`` rows from ``start`` to ``stop``; a last one below ``min_rows`` joins the one before.

    Examples
    --------
    >>> [(piece.start, piece.stop) for piece in pieces(9, 4, 2)]
    [(0, 4), (4, 9)]
    """
    while start < stop:
        end = stop if stop - start - size < min_rows else start + size
        yield slice(start, end)
        start = end


def check_dtype(where: str, dtype: Any) -> None:
    """Raise unless a dtype, or its name, is float32 or float64."""
    try:
        made: Any = np.dtype(dtype)
    except TypeError:
        made = repr(dtype)
    if made not in (np.float32, np.float64):
        raise DTypeError(where, "dtype to be float32 or float64", made)


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
        raise ArgumentError("Dataset", f"{count} {kind} names", len(names))
    return names


def _labels(array: Array, ignored: int | None) -> tuple[Array, int]:
    """Return a read-only copy of class labels as integers, and the largest label that is not ignored.

    Raises
    ------
    ShapeError
        If there is not one label for each row.
    DTypeError
        If labels are text, or of a dtype that is not real.
    DataError
        If a label is missing, not an integer, negative, or too large.
    """
    plain = array.ndim == 1 and array.dtype.kind in "iub"
    classes = array if ignored is None or not plain else np.where(array == ignored, 0, array)
    if not plain or not 0 <= classes.min() <= classes.max() < faults.MAX_CLASSES:
        raise faults.wrong_labels(classes)
    made = np.array(array, np.intp)  # the type of an index: losses take labels as such without a cast
    made.setflags(write=False)
    return made, int(classes.max())
