"""What counts as a number in a setting: Python's and NumPy's numbers, finite, and never True or False."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def is_real(value: Any) -> bool:
    """Return True if a value is a finite real number.

    Examples
    --------
    >>> is_real(0.5), is_real(np.float32(2)), is_real(True), is_real(float("nan")), is_real("1")
    (True, True, False, False, False)
    """
    numeric = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return numeric and math.isfinite(value)


def is_integer(value: Any, least: int) -> bool:
    """Return True if a value is an integer of at least ``least``.

    Examples
    --------
    >>> is_integer(3, 1), is_integer(np.int64(0), 1), is_integer(3.0, 1), is_integer(True, 1)
    (True, False, False, False)
    """
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= least)
