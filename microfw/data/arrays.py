"""Conversion of what users pass, such as lists, frames and tensors, to checked arrays."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from microfw.data import faults
from microfw.data.faults import Array


def as_array(data: Any, name: str) -> Array:
    """Return lists, frames, series, tensors and arrays as an array, without a cast."""
    data = plain_array(data, name)
    try:
        return np.asarray(data)
    except ValueError:
        raise faults.ragged(data, name) from None


def plain_array(data: Any, name: str) -> Any:
    """Return the values of another library's tensor as an array, and anything else unchanged.

    Raises
    ------
    DTypeError
        If the data are sparse, or a tensor that NumPy cannot read.
    DataError
        If entries are masked.
    """
    # The module is in sys.modules if the array is a masked one; importing numpy.ma takes 10 ms.
    if hasattr(data, "toarray") or ("numpy.ma" in sys.modules and isinstance(data, np.ma.MaskedArray)):
        faults.check_kind(data, name)
    if isinstance(data, np.ndarray) or not hasattr(data, "numpy"):
        return data
    try:
        return data.numpy()
    except (TypeError, RuntimeError) as error:  # of PyTorch: it needs a gradient, is bfloat16, or on another device
        raise faults.unreadable(data, name, error) from None


def finite(array: Array, name: str, labels: Sequence[str], dtype: Any) -> Array:
    """Return a read-only, C-contiguous copy of a dtype. Raise unless all entries are finite numbers.

    Raises
    ------
    DTypeError
        If an entry is not a number.
    DataError
        If an entry is missing, NaN, infinite, or too large for the dtype.
    """
    if array.dtype.kind not in "fiub":
        array = faults.numbers(array, name, labels)
    # A float64 beyond the range of float32 becomes infinite without a warning; the next test finds it.
    with np.errstate(over="ignore"):
        made = np.array(array, dtype, order="C")
    if not np.isfinite(made).all():
        raise faults.not_finite(array, made, name, labels)
    made.setflags(write=False)
    return made
