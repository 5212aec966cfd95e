"""The errors for data that a `Dataset` refuses, which name row and column. Only called if there is one to raise."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from microfw.errors import DataError, DTypeError, MicrofwError, ShapeError

Array = np.ndarray[Any, Any]

MAX_CLASSES = 1_000_000
"""Labels must be smaller. Every class up to the largest label gets a name; one million take about 60 MB."""


def check_kind(data: Any, name: str) -> None:
    """Raise if data are sparse, or an array with masked entries."""
    if hasattr(data, "toarray"):
        raise DTypeError("Dataset", f"a dense {name}", type(data).__name__, f"pass {name}.toarray()")
    if np.ma.is_masked(data):
        raise DataError("Dataset", f"{name} without masked entries", "some", f"pass {name}.filled(value)")


def unreadable(tensor: Any, name: str, error: Exception) -> DTypeError:
    """Return the error for another library's tensor that NumPy cannot read."""
    detach = ".detach()" if getattr(tensor, "requires_grad", False) else ""
    cast = ".float()" if "bfloat16" in str(getattr(tensor, "dtype", "")) else ""
    got = f"{getattr(tensor, 'dtype', type(tensor).__name__)} ({str(error).rstrip('.')})"
    return DTypeError("Dataset", f"{name} that NumPy can read", got, f"pass tensor{detach}{cast}.cpu()")


def ragged(data: Any, name: str) -> ShapeError:
    """Return the error for rows of different lengths."""
    got, fix = "rows of different lengths", "give all rows the same length"
    if isinstance(data, list) and all(getattr(part, "ndim", 0) for part in data):
        got, fix = "a list of arrays of different shapes", f"{fix}, or pass several inputs as a tuple"
    return ShapeError("Dataset", f"{name} to be a full table", got, fix)


def wrong_labels(y: Array) -> MicrofwError:
    """Return the error for labels that are not integers from 0, one for each row."""
    if y.ndim != 1:
        fix = "flatten them with y.ravel()" if y.size == len(y) else "pass y.argmax(axis=1) if rows are one-hot"
        return ShapeError("Dataset", "labels of shape (N,)", y.shape, fix)
    number, expected = "np.unique(y, return_inverse=True)", "integer labels"
    found = y.tolist() if y.dtype.kind in "OUST" else []
    text = next((value for value in found if isinstance(value, str | bytes)), None)
    if text is not None:
        return DTypeError("Dataset", expected, f"text such as {text!r}", f"encode it with {number}[1]")
    y = numbers(y, "y", ()) if y.dtype.kind == "O" else y
    wrong = np.flatnonzero(y != np.round(y) if y.dtype.kind == "f" else y < 0 if y.dtype.kind in "iub" else ())
    got = f"{y[wrong[0]]} at row {wrong[0]}" if wrong.size else f"dtype {y.dtype}"
    if y.dtype.kind == "f" and wrong.size:  # NaN too: it differs from itself
        fix = "drop the row" if np.isnan(y[wrong[0]]) else "for real targets pass task='regression'"
        return DataError("Dataset", expected, got, fix)
    if y.dtype.kind not in "iub":
        return DTypeError("Dataset", expected, got, "cast them with y.astype(int)")
    if wrong.size:
        fix = f"encode them with {number}[1], pass task='regression', or leave a label out by ignore_index"
        return DataError("Dataset", "labels 0, 1, 2, …", got, fix)
    return DataError("Dataset", f"labels below {MAX_CLASSES:,}", y.max(), f"number the classes with {number}")


def numbers(array: Array, name: str, labels: Sequence[str]) -> Array:
    """Return an array of Python objects as floats. Raise unless all are real numbers."""
    if array.dtype.kind != "O":
        fix = f"encode text as numbers before you pass {name}" if array.dtype.kind in "US" else "convert it to floats"
        raise DTypeError("Dataset", f"{name} to hold numbers", f"dtype {array.dtype}", fix)
    for at in np.ndindex(array.shape):
        value: Any = array.item(at)
        if isinstance(value, Real | np.bool):
            continue
        if value is None or str(value) in ("<NA>", "NaT"):
            raise _missing(value, name, at, labels)
        got = f"{value!r} at {_place(at, labels)}"
        raise DTypeError("Dataset", f"{name} to hold numbers", got, "encode text as numbers first")
    return array.astype(np.float64)


def not_finite(array: Array, made: Array, name: str, labels: Sequence[str]) -> DataError:
    """Return the error for the first entry that is not finite."""
    at = tuple(np.argwhere(~np.isfinite(made))[0].tolist())
    if not np.isfinite(array[at]):
        return _missing(array[at], name, at, labels)
    fix = f"scale it down: {made.dtype} cannot hold it"
    return DataError("Dataset", f"finite {name}", f"{array[at]} at {_place(at, labels)}", fix)


def _missing(value: Any, name: str, at: tuple[int, ...], labels: Sequence[str]) -> DataError:
    fix = "drop the row, or fill it in with sklearn.impute.SimpleImputer"
    return DataError("Dataset", f"finite {name}", f"{value} at {_place(at, labels)}", fix)


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


def wrong_shapes(X: Array, y: Array) -> MicrofwError:
    """Return the error for features and targets that are not tables of the same rows."""
    if X.ndim < 2:
        fix = "pass X[:, None] for one feature" if X.ndim else "pass a table of rows"
        return ShapeError("Dataset", "X of shape (N, features)", X.shape, fix)
    if y.ndim < 1:
        return ShapeError("Dataset", "y of shape (N,) or (N, k)", y.shape, "pass a target for each row")
    if not len(X):
        fix = "look at the filter that made it"
        return DataError("Dataset", "at least one row", f"X of shape {X.shape}", fix)
    if len(X) != len(y):
        got = f"{len(X)} and {len(y)}"
        return ShapeError("Dataset", "X and y of the same length", got, "pass one target for each row")
    return ShapeError("Dataset", "at least one column in X and y", f"shapes {X.shape} and {y.shape}")
