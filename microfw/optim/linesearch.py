"""A line search for the strong Wolfe conditions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

DECREASE, CURVATURE = 1e-4, 0.9
MAX_POINTS = 25
"""Points that a search evaluates at most."""


class Point(NamedTuple):
    """A point on the line: length along the direction; value, gradient and slope at it."""

    t: float
    f: float
    g: Any
    slope: float


def search(evaluate: Callable[[float], tuple[float, Any]], d: Any, start: Point, t: float) -> Point | None:
    """Return a point along ``d`` that meets the strong Wolfe conditions, or the best point found.

    For value ``f`` and slope ``f'`` at length ``t``::

        f(t) <= f(0) + 1e-4 * t * f'(0)    and    |f'(t)| <= 0.9 * |f'(0)|

    Parameters
    ----------
    evaluate : callable
        ``evaluate(t)`` returns value and gradient. A value that is not finite means that ``t`` is too large.
    d : ndarray
        Descent direction, shape (P,).
    start : Point
        The point at length 0.
    t : float
        First length to try.

    Returns
    -------
    Point or None
        None if no point has a lower value than the start.

    Notes
    -----
    Source: Nocedal and Wright, "Numerical optimization", 2006, algorithms 3.5 and 3.6, with the cubic
    interpolation of equation 3.59.
    """

    def at(t: float) -> Point:
        f, g = evaluate(t)
        slope = float(np.dot(g, d)) if math.isfinite(f) else math.nan
        return Point(t, f, g, slope)

    before = start
    for k in range(MAX_POINTS):
        point = at(t)
        # `not <=`, since a value of NaN must count as too large.
        if not (point.f <= start.f + DECREASE * t * start.slope) or (k and point.f >= before.f):
            return _zoom(at, start, before, point, MAX_POINTS - k)
        if abs(point.slope) <= -CURVATURE * start.slope:
            return point
        if point.slope >= 0:
            return _zoom(at, start, point, before, MAX_POINTS - k)
        before, t = point, _within(before, point, 1.1 * t, 10 * t)  # extrapolate, but no more than tenfold
    return before


def _zoom(at: Callable[[float], Point], start: Point, low: Point, high: Point, tries: int) -> Point | None:
    """Search between two points; ``low`` has the lower value, and its slope points into the interval."""
    for _ in range(tries):
        left, right = sorted((low.t, high.t))
        margin = 0.1 * (right - left)  # keeps the interval shrinking if the cubic's minimum is at its end
        point = at(_within(low, high, left + margin, right - margin))
        if not (point.f <= start.f + DECREASE * point.t * start.slope) or point.f >= low.f:
            high = point
        else:
            if abs(point.slope) <= -CURVATURE * start.slope:
                return point
            if point.slope * (high.t - low.t) >= 0:
                high = low
            low = point
        if abs(high.t - low.t) <= 1e-15 * max(abs(low.t), 1e-300):
            break
    return low if low.f < start.f else None


def _within(a: Point, b: Point, least: float, most: float) -> float:
    """Return the minimum between ``least`` and ``most`` of the cubic through two points."""
    if not math.isfinite(b.f) or not math.isfinite(b.slope):
        return (least + most) / 2
    first = a.slope + b.slope - 3 * (a.f - b.f) / (a.t - b.t)
    root = first * first - a.slope * b.slope
    if root < 0:
        return (least + most) / 2
    second = math.copysign(math.sqrt(root), b.t - a.t)
    bottom = b.slope - a.slope + 2 * second
    if not bottom:
        return (least + most) / 2
    return min(max(b.t - (b.t - a.t) * (b.slope + second - first) / bottom, least), most)
