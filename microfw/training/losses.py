"""The denominator of a loss's mean, and the mean over more rows than one batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from microfw.errors import ArgumentError, message
from microfw.training.inputs import as_data

Array = np.ndarray[Any, Any]


def denominator_of(loss: Any) -> Callable[[Any, Any], float]:
    """Return ``loss.denominator``; for a loss without one, a function that returns the rows or their weights' sum."""
    found = getattr(loss, "denominator", None)
    return found if callable(found) else _rows


def _rows(targets: Any, sample_weight: Any = None) -> float:
    return float(len(targets) if sample_weight is None else np.sum(sample_weight, dtype=np.float64))


def is_sum(loss: Any) -> bool:
    """Return True if a loss sums over rows instead of averaging."""
    return getattr(loss, "reduction", "mean") == "sum"


def mean_loss(loss: Any, outputs: Array, targets: Array, weight: Array | None = None) -> float:
    """Return the mean loss of outputs; NaN if no row counts."""
    count = denominator_of(loss)(targets, weight)
    if not count:
        return math.nan
    made, wanted = as_data(outputs), as_data(targets)
    value = float((loss(made, wanted) if weight is None else loss(made, wanted, weight)).item())
    return value / count if is_sum(loss) else value


def check_count(count: float, loss: Any, where: str) -> None:
    """Raise unless a denominator is at least 0 and finite."""
    if not 0 <= count < math.inf:
        got = f"{count} from {type(loss).__name__}.denominator"
        raise ArgumentError(message(where, "a denominator of at least 0, finite", got))


def counting_rows(loss: Any, targets: Array, rows: int, where: str) -> slice:
    """Return a slice of at most ``rows`` rows with one that counts in the loss; an empty slice if none does."""
    count = denominator_of(loss)
    if count(targets[:rows], None) > 0:
        return slice(0, rows)
    low, high, total = 0, len(targets), count(targets, None)  # the first row that counts is in low:high
    check_count(total, loss, where)
    if not total:
        return slice(0, 0)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if count(targets[low:middle], None) > 0 else (middle, high)
    return slice(low, low + 1) if low + rows > len(targets) else slice(low, low + rows)
