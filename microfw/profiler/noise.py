"""How far apart the times of two runs are, with intervals: of runs made alternately, and of others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

RESAMPLES = 4000

DRAWS = 200
"""How often epochs are drawn again for the variance of a run's times."""

NOISE_FLOOR = 0.03
"""Least standard deviation between two runs of the same layer, where memory is laid out differently."""

FEW = 4
"""With fewer columns than this their spread says little, and `NOISE_FLOOR` is three times as large."""


@dataclass
class Differences:
    """Times of two runs, by column: typical nanoseconds, the change as a fraction of a, and its interval.

    ``drift`` is the change that untouched layers show, of which ``b`` and ``change`` are free.
    """

    a: Array
    b: Array
    change: Array
    low: Array
    high: Array
    drift: float = 0.0


def paired(a: Array, b: Array, wrong: float) -> Differences:
    """Return the median ratio of rounds, with bootstrap intervals; rounds are drawn together.

    Parameters
    ----------
    a, b : ndarray
        Nanoseconds, rounds x columns.
    wrong : float
        Chance that an interval misses.
    """
    ratios = np.log(np.maximum(b, 1)) - np.log(np.maximum(a, 1))
    draws = np.random.default_rng(0).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = _interval(lambda rows: np.median(ratios[rows], axis=1), draws, wrong, ratios.shape[1])
    change = np.expm1(np.median(ratios, axis=0))
    return Differences(np.median(a, axis=0), np.median(b, axis=0), change, np.expm1(low), np.expm1(high))


def corrected(a: Array, b: Array, groups: Array, layers: Array, wrong: float) -> Differences:
    """Return how runs differ beyond the drift between them, with intervals.

    Most layers are the same in both runs. So their median ratio is the machine's drift, and their spread around it is
    the noise between the runs, which more epochs do not reduce.

    Parameters
    ----------
    a, b : ndarray
        Nanoseconds, epochs x parts.
    groups : ndarray
        Parts x columns: 1 where a part belongs to a column.
    layers : ndarray
        The columns that show drift and noise.
    wrong : float
        Chance that an interval misses.
    """
    from scipy.special import stdtrit

    def typical(times: Array) -> Array:
        # the sum of lower quartiles: other programs only add to times, now to one part and now to another
        return np.asarray(np.log(np.maximum(np.quantile(times, 0.25, axis=-2) @ groups, 1)))

    rng = np.random.default_rng(0)
    x, y = typical(a), typical(b)
    witnesses = [k for k in layers if x[k] and y[k]]
    seen, n = (y - x)[witnesses], len(witnesses)
    drift = float(np.median(seen)) if n else 0.0
    between = max(_deviation(seen) if n else 0.0, NOISE_FLOOR * (1 if n >= FEW else 3))
    within = sum(typical(t[rng.integers(0, len(t), (DRAWS, len(t)))]).var(axis=0) for t in (a, b))
    width = float(stdtrit(max(n - 1, FEW), 1 - wrong / 2)) * np.sqrt(between**2 * (1 + 1 / max(n, 1)) + within)
    change = y - drift - x
    low, high = np.expm1(change - width), np.expm1(change + width)
    return Differences(np.exp(x), np.exp(y - drift), np.expm1(change), low, high, float(np.expm1(drift)))


def _deviation(values: Array) -> float:
    """Return the standard deviation, by the median distance from the median."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _interval(statistic: Callable[[Array], Array], draws: Array, wrong: float, columns: int) -> tuple[Array, Array]:
    """Return the quantiles of a statistic over the draws, some hundred draws at a time."""
    if not columns:
        return np.zeros(0), np.zeros(0)
    size = max(2_000_000 // (draws.shape[1] * columns), 1)
    drawn = np.concatenate([statistic(draws[k : k + size]) for k in range(0, len(draws), size)])
    low, high = np.quantile(drawn, [wrong / 2, 1 - wrong / 2], axis=0)
    return low, high
