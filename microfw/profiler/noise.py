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

DRIFT = 1.5
"""Factor by which a step's time may drift between two runs: allowed for where the drift cannot be measured."""

MIN_UNCHANGED = 1 / 3
"""Minimum share of the unchanged layers in the time of all layers, for them to show the drift."""


@dataclass
class Differences:
    """Times of two runs, by column: typical nanoseconds, change as a fraction of a, and its interval.

    ``drift``: change of the unchanged layers. If ``corrected``, ``b`` and ``change`` are corrected for it.
    """

    a: Array
    b: Array
    change: Array
    low: Array
    high: Array
    drift: float = 0.0
    corrected: bool = False


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
    typical_a, typical = np.exp(np.median(x, axis=0)), np.expm1(np.median(change, axis=0))
    return Differences(typical_a, typical_a * (1 + typical), typical, low, high)


def _shortest(times: Array, rounds: int) -> Array:
    """Return the shortest time of each part in each round. Other programs only add time."""
    epochs = len(times) // rounds
    return np.asarray(times[: rounds * epochs].reshape(rounds, epochs, -1).min(axis=1))


def corrected(a: Array, b: Array, groups: Array, layers: list[int], share: float, wrong: float) -> Differences:
    """Return the differences of separate runs, corrected for drift if it is measured well enough, with intervals.

    The median ratio of the unchanged layers is the drift of the machine. Their spread around it is the noise between
    the runs, which more epochs do not reduce. The drift is not measured well enough if these layers take a small share
    of the time, or if the interval of their median is wider than `DRIFT`. Times are not corrected then, and intervals
    allow for a drift by this factor.

    Parameters
    ----------
    a, b, groups : ndarray
        As in `typical`.
    layers : list of int
        Columns of unchanged layers, which show drift and noise.
    share : float
        Their share of the time of all layers.
    wrong : float
        Chance that an interval misses.
    """
    from scipy.special import stdtrit

    rng = np.random.default_rng(0)
    x, y = typical(a, groups), typical(b, groups)
    witnesses = [k for k in layers if x[k] and y[k] and share >= MIN_UNCHANGED]
    ratios, n = (y - x)[witnesses], len(witnesses)
    drift = float(np.median(ratios)) if n else 0.0
    between = max(_deviation(ratios) if n else 0.0, NOISE_FLOOR * (1 if n >= FEW else 3))
    within = sum(
        np.concatenate([typical(t[rng.integers(0, len(t), (DRAWS // 10, len(t)))], groups) for _ in range(10)]).var(
            axis=0
        )
        for t in (a, b)
    )
    degrees = max(n - 1 if n else min(len(a), len(b)) - 1, FEW)
    noise = between**2 + within
    width = float(stdtrit(degrees, 1 - wrong / 2)) * np.sqrt(noise + between**2 / max(n, 1))
    # a median of n numbers varies by 1.2533 of their standard deviation, divided by the root of n
    margin = 1.2533 * stdtrit(degrees, 0.975) * np.sqrt(np.median(noise[witnesses]) / n) if n else np.inf
    if margin > np.log(DRIFT):
        return _differences(x, y, width + np.log(DRIFT))
    return _differences(x, y - drift, width, float(np.expm1(drift)), True)


def _differences(x: Array, y: Array, width: Array, drift: float = 0.0, corrected: bool = False) -> Differences:
    change = y - x
    low, high = np.expm1(change - width), np.expm1(change + width)
    return Differences(np.exp(x), np.exp(y), np.expm1(change), low, high, drift, corrected)


def _deviation(values: Array) -> float:
    """Return a robust standard deviation: 1.4826 times the median distance from the median."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))
