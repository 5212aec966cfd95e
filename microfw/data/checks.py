"""Checks of features and targets when a Dataset is made. Errors name row and column."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from microfw.errors import DataError, DTypeError, ShapeError, message

Array = np.ndarray[Any, Any]

MAX_CLASSES = 1_000_000
"""Labels must be smaller. Every class up to the largest label gets a name; one million take about 60 MB."""


def columns(data: Any) -> list[str] | None:
    """Return the column names of a frame, or the name of a series; None for anything else."""
    if hasattr(data, "columns"):
        return [str(name) for name in data.columns]
    name = getattr(data, "name", None) if hasattr(data, "iloc") else None
    return None if name is None else [str(name)]


def array_of(data: Any, name: str) -> Array:
    """Return lists, frames, series, Tensors and arrays as an array, without a cast."""
    if hasattr(data, "toarray"):
        raise DTypeError(message("Dataset", f"a dense {name}", type(data).__name__, f"pass {name}.toarray()"))
    if isinstance(data, np.ma.MaskedArray) and np.ma.is_masked(data):
        raise DataError(message("Dataset", f"{name} without masked entries", "some", f"pass {name}.filled(value)"))
    try:
        return np.asarray(data)
    except ValueError:
        raise ShapeError(
            message(
                "Dataset", f"{name} to be a full table", "rows of different lengths", "give all rows the same length"
            )
        ) from None


def finite(array: Array, name: str, labels: Sequence[str], dtype: np.dtype[Any]) -> Array:
    """Return a read-only, C-contiguous copy of a dtype. Raise unless all entries are finite numbers.

    Raises
    ------
    DTypeError
        If an entry is not a number.
    DataError
        If an entry is missing, NaN, infinite, or too large for the dtype.
    """
    if array.dtype.kind == "O":
        array = _numbers(array, name, labels)
    if array.dtype.kind not in "fiub":
        fix = f"encode text as numbers before you pass {name}" if array.dtype.kind in "US" else "convert it to floats"
        raise DTypeError(message("Dataset", f"{name} to hold numbers", f"dtype {array.dtype}", fix))
    with np.errstate(over="ignore"):
        made = np.array(array, dtype, order="C")
    good = np.isfinite(made)
    if not good.all():
        at = tuple(int(i) for i in np.argwhere(~good)[0])
        value = array[at]
        fix = "drop the row, or fill it in with sklearn.impute.SimpleImputer"
        if np.isfinite(value):
            fix = f"scale it down: {dtype} cannot hold it"
        raise DataError(message("Dataset", f"finite {name}", f"{value} at {place(at, labels)}", fix))
    made.setflags(write=False)
    return made


def classes(array: Array) -> Array:
    """Return a read-only copy of class labels as integers.

    Raises
    ------
    ShapeError
        If there is not one label for each row.
    DTypeError
        If labels are text, or of a dtype that is not real.
    DataError
        If a label is missing, not an integer, or negative.
    """
    if array.ndim != 1:
        fix = "flatten them with y.ravel()" if array.size == len(array) else "pass y.argmax(axis=1) if rows are one-hot"
        raise ShapeError(message("Dataset", "labels of shape (N,)", array.shape, fix))
    if array.dtype.kind == "O" and not any(isinstance(v, str | bytes) for v in array):
        array = _numbers(array, "y", ())
    if array.dtype.kind in "OUST":
        value = next(v for v in array.tolist() if isinstance(v, str | bytes))
        raise DTypeError(
            message(
                "Dataset",
                "integer labels",
                f"text such as {value!r}",
                "encode it with np.unique(y, return_inverse=True)[1]",
            )
        )
    if array.dtype.kind == "f":
        wrong = np.flatnonzero(array != np.round(array))  # NaN too
        if wrong.size:
            fix = "drop the row" if np.isnan(array[wrong[0]]) else "for real targets pass task='regression'"
            raise DataError(message("Dataset", "integer labels", f"{array[wrong[0]]} at row {wrong[0]}", fix))
    if array.dtype.kind not in "iub":
        raise DTypeError(message("Dataset", "integer labels", f"dtype {array.dtype}", "cast them with y.astype(int)"))
    wrong = np.flatnonzero(array < 0)
    if wrong.size:
        raise DataError(
            message(
                "Dataset",
                "labels 0, 1, 2, …",
                f"{array[wrong[0]]} at row {wrong[0]}",
                "encode them with np.unique(y, return_inverse=True)[1], or pass task='regression'",
            )
        )
    if array.size and array.max() >= MAX_CLASSES:  # before a cast, in which larger ones wrap around
        fix = "number the classes with np.unique(y, return_inverse=True)"
        raise DataError(message("Dataset", f"labels below {MAX_CLASSES:,}", int(array.max()), fix))
    made = np.array(array, np.intp)
    made.setflags(write=False)
    return made


def place(at: tuple[int, ...], labels: Sequence[str]) -> str:
    """Return where an entry is, in words: its row, and its column if there are several.

    Examples
    --------
    >>> place((3, 1), ["height", "age"])
    "row 3, column 1 ('age')"
    """
    if len(at) < 2:
        return f"row {at[0]}"
    if len(at) > 2:
        return f"row {at[0]}, entry {at[1:]}"
    named = at[1] < len(labels) and labels[at[1]] != f"x{at[1]}"
    return f"row {at[0]}, column {at[1]}" + (f" ({labels[at[1]]!r})" if named else "")


def _numbers(array: Array, name: str, labels: Sequence[str]) -> Array:
    """Return an array of Python objects as floats. Raise unless all are real numbers."""
    for at in np.ndindex(array.shape):
        value: Any = array.item(at)
        if isinstance(value, numbers.Real | np.bool):
            continue
        if value is None or str(value) in ("<NA>", "NaT"):
            fix = "drop the row, or fill it in with sklearn.impute.SimpleImputer"
            raise DataError(message("Dataset", f"finite {name}", f"{value} at {place(at, labels)}", fix))
        raise DTypeError(
            message(
                "Dataset",
                f"{name} to hold numbers",
                f"{value!r} at {place(at, labels)}",
                "encode text as numbers first",
            )
        )
    return array.astype(np.float64)
