"""Differences between the times of two runs, with intervals, for alternated and for separate runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

DRAWS = 400
"""Bootstrap samples of the epochs, for the variance of times."""

NOISE_FLOOR = 0.03
"""Minimum standard deviation between two runs of the same layer, due to different memory layouts."""

FEW = 4
"""With fewer columns than this the spread is unreliable, and `NOISE_FLOOR` is three times as large."""


@dataclass
class Differences:
    """Times of two runs, by column: typical nanoseconds, change as a fraction of a, and its interval.

    ``drift``: change of the unchanged layers. ``b`` and ``change`` are corrected for it.
    """

    a: Array
    b: Array
    change: Array
    low: Array
    high: Array
    drift: float = 0.0


def typical(times: Array, groups: Array) -> Array:
    """Return the logarithm of the summed lower quartiles. Other programs only add time, to different parts each time.

    Parameters
    ----------
    times : ndarray
        Nanoseconds, epochs x parts.
    groups : ndarray
        Parts x columns: 1 if a part belongs to a column.
    """
    return np.asarray(np.log(np.maximum(np.quantile(times, 0.25, axis=-2) @ groups, 1)))


def paired(a: Array, b: Array, groups: Array, wrong: float, rounds: int) -> Differences:
    """Return the differences of alternated runs: the median of the rounds, with the interval of its order statistics.

    A round is compared with itself, since the machine's speed changes from round to round. The interval assumes no
    distribution: half of all rounds lie above the median.

    Parameters
    ----------
    a, b, groups : ndarray
        As in `typical`.
    wrong : float
        Chance that an interval misses.
    rounds : int
        Number of rounds that the epochs are from, the same number of each. Of the epochs of a run, which share its
        memory layout, each part's shortest time is used.
    """
    from scipy.special import bdtr

    x, y = (np.log(np.maximum(_shortest(times, rounds) @ groups, 1)) for times in (a, b))
    change = np.sort(y - x, axis=0)
    outside = 0  # rounds on each side of the interval
    while 2 * bdtr(outside, rounds, 0.5) <= wrong:
        outside += 1
    if outside:
        low, high = np.expm1(change[outside - 1]), np.expm1(change[rounds - outside])
    else:
        low, high = np.full(x.shape[1], -1.0), np.full(x.shape[1], np.inf)
    typical_a, typical_b = (np.exp(np.median(z, axis=0)) for z in (x, y))
    return Differences(typical_a, typical_b, np.expm1(np.median(change, axis=0)), low, high)


def _shortest(times: Array, rounds: int) -> Array:
    """Return the shortest time of each part in each round. Other programs only add time."""
    epochs = len(times) // rounds
    return np.asarray(times[: rounds * epochs].reshape(rounds, epochs, -1).min(axis=1))


def corrected(a: Array, b: Array, groups: Array, layers: Array, wrong: float) -> Differences:
    """Return the differences of separate runs, corrected for drift, with intervals.

    Most layers are the same in both runs. Their median ratio is the drift of the machine. Their spread around it is the
    noise between the runs, which more epochs do not reduce.

    Parameters
    ----------
    a, b, groups : ndarray
        As in `typical`.
    layers : ndarray
        Columns that show drift and noise.
    wrong : float
        Chance that an interval misses.
    """
    from scipy.special import stdtrit

    rng = np.random.default_rng(0)
    x, y = typical(a, groups), typical(b, groups)
    witnesses = [k for k in layers if x[k] and y[k]]
    ratios, n = (y - x)[witnesses], len(witnesses)
    drift = float(np.median(ratios)) if n else 0.0
    between = max(_deviation(ratios) if n else 0.0, NOISE_FLOOR * (1 if n >= FEW else 3))
    within = sum(
        np.concatenate([typical(t[rng.integers(0, len(t), (DRAWS // 10, len(t)))], groups) for _ in range(10)]).var(
            axis=0
        )
        for t in (a, b)
    )
    width = float(stdtrit(max(n - 1, FEW), 1 - wrong / 2)) * np.sqrt(between**2 * (1 + 1 / max(n, 1)) + within)
    return _differences(x, y - drift, width, float(np.expm1(drift)))


def _differences(x: Array, y: Array, width: Array, drift: float = 0.0) -> Differences:
    change = y - x
    low, high = np.expm1(change - width), np.expm1(change + width)
    return Differences(np.exp(x), np.exp(y), np.expm1(change), low, high, drift)


def _deviation(values: Array) -> float:
    """Return a robust standard deviation: 1.4826 times the median distance from the median."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))
