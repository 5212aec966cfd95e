"""Extrapolation from a stratified sample of parameters to all parameters, with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

MAX_STRATA = 15
"""Maximum number of strata. Two parameters of each are 30, enough for an interval."""


def strata_of(sizes: Sequence[int]) -> Array:
    """Return the stratum of each scalar parameter: its array, or one of `MAX_STRATA` groups of neighbouring arrays.

    Examples
    --------
    >>> strata_of([3, 1])
    array([0, 0, 0, 1])
    """
    groups = min(len(sizes), MAX_STRATA)
    return np.repeat(np.arange(len(sizes)) * groups // max(len(sizes), 1), sizes)


def sampling_order(strata: Array, rng: np.random.Generator) -> tuple[list[int], int]:
    """Return the parameters in random order, two of each stratum first, and the number of those first ones.

    Examples
    --------
    >>> order, first = sampling_order(strata_of([3, 1]), np.random.default_rng(0))
    >>> sorted(order), first
    ([0, 1, 2, 3], 3)
    """
    shuffled = rng.permutation(len(strata))
    first = np.concatenate([shuffled[strata[shuffled] == h][:2] for h in np.unique(strata)] or [shuffled[:0]])
    rest = shuffled[~np.isin(shuffled, first)]
    return [*rng.permutation(first).tolist(), *rest.tolist()], len(first)


@dataclass
class Total:
    """A sum over all parameters, and its 95 % interval if it is extrapolated."""

    value: float
    low: float
    high: float


def total(values: Array, done: Array, strata: Array) -> Total:
    """Extrapolate a sum over the parameters that are done to all parameters.

    Each stratum is extrapolated by its mean. The interval is Student's t, with the degrees of freedom of
    Satterthwaite (1946).

    Examples
    --------
    >>> total(np.array([5.0, 5.0, 0.0, 9.0]), np.array([True, True, False, True]), strata_of([3, 1]))
    Total(value=24.0, low=24.0, high=24.0)
    """
    from scipy.special import stdtrit

    value = variance = freedom = 0.0
    for h in np.unique(strata):
        own = strata == h
        seen, size = values[own & done], int(own.sum())
        value += size * float(seen.mean())
        if 1 < len(seen) < size:
            part = size**2 * (1 - len(seen) / size) * float(seen.var(ddof=1)) / len(seen)
            variance += part
            freedom += part**2 / (len(seen) - 1)
    half = float(stdtrit(variance**2 / freedom, 0.975)) * sqrt(variance) if freedom else 0.0
    return Total(value, max(value - half, float(values[done].sum())), value + half)
