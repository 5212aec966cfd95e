"""Changes between two runs: of a time, and of a count."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Change:
    """One time in two runs.

    Attributes
    ----------
    layer, phase : str
        Forward or backward of a layer. If ``layer`` is "": a whole phase, or the whole "step".
    a, b : float
        Median nanoseconds of one step. If the runs were not alternated, ``b`` is corrected for drift.
    change, low, high : float
        ``(b - a) / a`` and its interval. Infinite if only b has the layer.
    real : bool
        Whether the interval excludes zero and the change is at least ``min_change``.
    one_sided : bool
        Whether only one of the runs has the layer.
    """

    layer: str
    phase: str
    a: float
    b: float
    change: float
    low: float
    high: float
    real: bool
    one_sided: bool = False


@dataclass
class CountChange:
    """A count of one step that differs: layer ("" is the whole step), name of the count, and both numbers."""

    layer: str
    what: str
    a: float
    b: float

    @property
    def change(self) -> float:
        """``(b - a) / a``."""
        return (self.b - self.a) / self.a if self.a else float("inf")
