"""Two runs compared: what changed, and what only looks like it.

Seconds drift from day to day and from machine to machine. So those of two runs are compared only if the runs were made
alternately, round by round (`alternate`); then each round's ratio counts. Of other runs the layers' shares of a step
are compared, which a slower day leaves alone (a share is of the medians' sum: one disturbed moment must not shrink
all other layers' shares). Either way the interval of the median is found by bootstrap, at a level divided by the
number of comparisons, and a difference must also reach a least size. Counts are exact: any difference is real.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import ceil, log2
from secrets import token_hex
from typing import Any

import numpy as np

from microfw.errors import ArgumentError, message
from microfw.profiler.session import Epoch, Session

Array = np.ndarray[Any, Any]

PHASES = ("forward", "backward")

LEAST_SHARE = 0.01
"""A layer that takes less of a step than this in both runs is not compared: it cannot matter."""

RESAMPLES = 4000

COUNTED = ("nodes", "edges", "rules", "accumulated", "flops_forward", "flops_backward", "saved_bytes")


@dataclass
class Change:
    """A layer's time, forward or backward, in two runs.

    Attributes
    ----------
    layer, phase : str
        Whose; "" and a phase is all of that phase, ops or not.
    a, b : float
        Medians: nanoseconds in one step, or the share of a step.
    change, low, high : float
        By how much b is more than a, as a fraction of a, and its interval.
    real : bool
        Whether the interval leaves zero out and the change is large enough.
    """

    layer: str
    phase: str
    a: float
    b: float
    change: float
    low: float
    high: float
    real: bool


@dataclass
class Count:
    """A count in one step that differs: whose (layer "" is the whole step), what, and both numbers."""

    layer: str
    what: str
    a: float
    b: float

    @property
    def change(self) -> float:
        """By how much b is more than a, as a fraction of a."""
        return (self.b - self.a) / self.a if self.a else float("inf")


@dataclass
class Comparison:
    """What `compare` found. ``str()`` of it is a report.

    Attributes
    ----------
    a, b : str
        What the runs are called.
    alternated : bool
        Whether they were made alternately, so that seconds are compared; else it is shares.
    least, confidence : float
        The least change that counts, and the confidence in all intervals together.
    rounds, needed : int
        How many epochs there are to compare, and how many it takes before anything can be called real.
    changes : list of Change
        Times.
    counts : list of Count
        Counts that differ.
    only_a, only_b : list of str
        Layers that the other run does not have. There is nothing to compare them with; the whole step's counts
        hold them.
    epochs : list of (epoch, a, b)
        Nanoseconds of ``backward`` in a step, epoch by epoch.
    """

    a: str
    b: str
    alternated: bool
    least: float
    confidence: float
    rounds: int
    needed: int
    changes: list[Change] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)
    epochs: list[tuple[int, float, float]] = field(default_factory=list)

    def worse(self, than: float = 0.0) -> list[Change | Count]:
        """Return what really grew by more than a fraction: times, and counts of work."""
        slower: list[Change | Count] = [c for c in self.changes if c.real and c.change > than]
        return slower + [c for c in self.counts if c.change > than]

    def __str__(self) -> str:
        from microfw.profiler.render.comparison import comparison

        return comparison(self)

    def markdown(self) -> str:
        """Return Markdown for a pull request."""
        from microfw.profiler.render.comparison import markdown

        return markdown(self)


def compare(a: Session, b: Session, *, least: float | None = None, confidence: float = 0.95) -> Comparison:
    """Compare two runs layer by layer and epoch by epoch.

    Parameters
    ----------
    a, b : Session
        The runs; b is judged against a.
    least : float, optional
        The least change that counts: by default 0.05 of the seconds of alternated runs, 0.1 of shares.
    confidence : float
        That none of the differences is chance, all comparisons together.

    Returns
    -------
    Comparison

    Raises
    ------
    ArgumentError
        If a session has no epoch, or none in which a step was observed, or a setting cannot work.

    Examples
    --------
    >>> from microfw.profiler import Epoch, Row, Session
    >>> def run(flops):
    ...     return Session(epochs=[Epoch(1, 1, 1, rows=[Row("0", "linear", nodes=1, flops_forward=flops)])])
    >>> [(c.what, c.a, c.b) for c in compare(run(10), run(12)).counts if c.layer]
    [('flops_forward', 10, 12)]
    """
    alternated = bool(a.alternated) and a.alternated == b.alternated
    least = (0.05 if alternated else 0.1) if least is None else least
    if not least >= 0:
        raise ArgumentError(message("compare", "least to be 0 or a positive number", least))
    if not 0.5 <= confidence < 1:
        raise ArgumentError(message("compare", "confidence from 0.5 to below 1", confidence))
    for name, session in (("a", a), ("b", b)):
        if not session.epochs:
            raise ArgumentError(message("compare", f"an epoch in {name}", "a session without one"))
    pairs = [(x, y) for x, y in zip(a.epochs, b.epochs, strict=False) if x.observed and y.observed]
    used = _used(a, b, pairs if alternated else None)
    rounds = min(map(len, used))
    keys = _large(*used)
    times = [_times(epochs, keys) for epochs in used]
    if not alternated:
        times = [table[:, : len(keys)] for table in times]
        labels = keys
    else:
        labels = [*keys, *(("", phase) for phase in (*PHASES, "update"))]
    wrong = (1 - confidence) / max(len(labels), 1)
    needed = ceil(log2(2 / wrong)) if labels else 1
    medians, low, high = (_paired if alternated else _shared)(times[0], times[1], wrong)
    found = Comparison(
        a.name or a.model or "a", b.name or b.model or "b", alternated, least, confidence, rounds, needed
    )
    names = [list(dict.fromkeys(row.layer for epoch in x.epochs for row in epoch.rows)) for x in (a, b)]
    found.only_a = [layer for layer in names[0] if layer not in set(names[1])]
    found.only_b = [layer for layer in names[1] if layer not in set(names[0])]
    alone = {*found.only_a, *found.only_b}
    for k, (layer, phase) in enumerate(labels):
        if layer in alone:
            continue
        x, y, change = (float(values[k]) for values in medians)
        real = rounds >= needed and (low[k] > 0 or high[k] < 0) and abs(change) >= least
        found.changes.append(Change(layer, phase, x, y, change, float(low[k]), float(high[k]), bool(real)))
    found.counts = _counts(a, b)
    for left, right in pairs:
        found.epochs.append((left.epoch, left.taken("backward", True), right.taken("backward", True)))
    return found


def _used(a: Session, b: Session, rounds: list[tuple[Epoch, Epoch]] | None) -> list[list[Epoch]]:
    """Return the epochs that can be compared: those in which a step was observed, or of alternated runs the rounds."""
    if rounds is None:
        used = [[e for e in session.epochs if e.observed] for session in (a, b)]
    else:
        used = [[pair[k] for pair in rounds] for k in range(2)]
    for name, epochs in zip("ab", used, strict=True):
        if not epochs:
            wanted = f"an epoch of {name} with an observed step" if rounds is None else "a round observed in both runs"
            raise ArgumentError(message("compare", wanted, "none", "sample more often: lower every"))
    return used


def _large(a: list[Epoch], b: list[Epoch]) -> list[tuple[str, str]]:
    """Return which layers' forward or backward takes enough of a step, in one run or the other, typically."""
    layers = list(dict.fromkeys(row.layer for epoch in (*a, *b) for row in epoch.rows))
    keys = [(layer, phase) for layer in layers for phase in PHASES]
    if not keys:
        return []
    large = np.zeros(len(keys), bool)
    for epochs in (a, b):
        typical = np.median(_times(epochs, keys)[:, : len(keys)], axis=0)
        large |= typical >= LEAST_SHARE * max(typical.sum(), 1)
    return [key for key, is_large in zip(keys, large, strict=True) if is_large]


def _times(epochs: list[Epoch], keys: list[tuple[str, str]]) -> Array:
    """Return nanoseconds in one step, epochs x (keys, then the whole phases)."""
    places = {key: k for k, key in enumerate(keys)}
    table = np.zeros((len(epochs), len(keys) + 3))
    for k, epoch in enumerate(epochs):
        for row in epoch.rows:
            for phase in PHASES:
                place = places.get((row.layer, phase))
                if place is not None:
                    table[k, place] += getattr(row, f"{phase}_ns")
        table[k, -3:] = epoch.forward_ns, epoch.backward_ns, epoch.update_ns
        table[k] /= epoch.observed
    return table


def _paired(a: Array, b: Array, wrong: float) -> tuple[tuple[Array, Array, Array], Array, Array]:
    """Return medians and the interval of the median ratio, rounds being drawn again together."""
    ratios = np.log(np.maximum(b, 1)) - np.log(np.maximum(a, 1))
    draws = np.random.default_rng(0).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = _interval(lambda rows: np.median(ratios[rows], axis=1), draws, wrong, ratios.shape[1])
    change = np.expm1(np.median(ratios, axis=0))
    return (np.median(a, axis=0), np.median(b, axis=0), change), np.expm1(low), np.expm1(high)


def _shared(a: Array, b: Array, wrong: float) -> tuple[tuple[Array, Array, Array], Array, Array]:
    """Return medians as shares of their sum, and the interval of the ratio, each run's epochs being drawn again."""

    def shares(times: Array) -> Array:
        typical = np.maximum(np.median(times, axis=-2), 1)
        return np.asarray(typical / typical.sum(axis=-1, keepdims=True))

    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(times), (RESAMPLES, len(times))) for times in (a, b)]
    both = np.concatenate(draws, axis=1)
    n = len(a)
    low, high = _interval(lambda rows: np.log(shares(b[rows[:, n:]]) / shares(a[rows[:, :n]])), both, wrong, a.shape[1])
    x, y = shares(a), shares(b)
    return (x, y, y / x - 1), np.expm1(low), np.expm1(high)


def _interval(statistic: Callable[[Array], Array], draws: Array, wrong: float, columns: int) -> tuple[Array, Array]:
    """Return the quantiles of a statistic over the draws, some hundred draws at a time."""
    if not columns:
        return np.zeros(0), np.zeros(0)
    size = max(2_000_000 // (draws.shape[1] * columns), 1)
    drawn = np.concatenate([statistic(draws[k : k + size]) for k in range(0, len(draws), size)])
    low, high = np.quantile(drawn, [wrong / 2, 1 - wrong / 2], axis=0)
    return low, high


def _counts(a: Session, b: Session) -> list[Count]:
    """Return the counts of one step that differ, the whole step's first."""
    totals = [session.total() for session in (a, b)]
    found = []
    for what in ("parameters", "parameter_tensors"):
        x, y = (getattr(total, what) for total in totals)
        found.append(Count("", what, x, y))
    rows = [{"": total.sum()} | {row.layer or "(outside)": row for row in total.layers()} for total in totals]
    for layer in [layer for layer in rows[0] if layer in rows[1]]:
        for what in COUNTED:
            x, y = (_exact(getattr(row[layer], what), total.observed) for row, total in zip(rows, totals, strict=True))
            found.append(Count(layer, what, x, y))
    return [count for count in found if count.a != count.b]


def _exact(sum: int, steps: int) -> float:
    """Return a sum's part for one step, an integer if it is one."""
    steps = steps or 1
    return sum // steps if sum % steps == 0 else sum / steps


def alternate(a: Callable[[], Session], b: Callable[[], Session], rounds: int = 20) -> tuple[Session, Session]:
    """Make two runs alternately, so that their seconds can be compared.

    Parameters
    ----------
    a, b : callable
        Make one short run each, from scratch, and return its session.
    rounds : int
        How many runs of each. One more goes before, to warm up, and is not kept.

    Returns
    -------
    Session, Session
        With the epochs of all rounds, so that the k-th of one is to be held against the k-th of the other.
    """
    if rounds < 1:
        raise ArgumentError(message("alternate", "rounds to be a positive integer", rounds))
    made: dict[int, list[Session]] = {0: [], 1: []}
    for k in range(rounds + 1):
        for which in (0, 1) if k % 2 else (1, 0):
            made[which].append((a, b)[which]())
    mark = token_hex(8)
    sessions = []
    for which in (0, 1):
        last = made[which][-1]
        epochs = [epoch for session in made[which][1:] for epoch in session.epochs]
        for k, epoch in enumerate(epochs):
            epoch.epoch = k + 1
        sessions.append(replace(last, epochs=epochs, alternated=mark, trace=None))
    return sessions[0], sessions[1]
