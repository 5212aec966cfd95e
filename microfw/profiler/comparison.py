"""Two runs compared: what changed, and what only looks like it.

Seconds drift from day to day and from machine to machine. If two runs were made alternately, round by round
(`alternate`), both ran under the same conditions. If not, the layers that did not change show the drift and the noise
between the runs: their median ratio is taken out of all times, and their spread widens all intervals. A difference is
real if its interval leaves zero out, at a level divided by the number of comparisons, and if it reaches a least size. A
layer that only one run has is a difference too. Counts are exact: any difference is real.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import ceil, inf, log2
from secrets import token_hex
from typing import Any

import numpy as np

from microfw.errors import ArgumentError, message
from microfw.profiler.noise import corrected, paired
from microfw.profiler.session import Epoch, Session

Array = np.ndarray[Any, Any]

PHASES = ("forward", "backward")

OUTSIDE = "(outside)"
"""The layer of ops outside of any module."""

Key = tuple[str | None, str]
"""A layer and a phase."""

REST: list[Key] = [(None, "forward"), (None, "backward"), (None, "update")]
"""The parts of a step that belong to no layer."""

WHOLE: list[Key] = [("", "step"), ("", "forward"), ("", "backward"), ("", "update")]
"""What is compared of the whole step, ops or not: "step" is forward, backward and update together."""

LEAST_SHARE = 0.01
"""A layer that takes less of a step than this in both runs is not compared: it cannot matter."""

COUNTED = ("nodes", "edges", "rules", "accumulated", "flops_forward", "flops_backward", "saved_bytes")


@dataclass
class Change:
    """A time in two runs.

    Attributes
    ----------
    layer, phase : str
        The layer's forward or backward. With "" as the layer, all of a phase, or with "step" the whole step.
    a, b : float
        Medians: nanoseconds in one step; of runs that were not alternated b is corrected for drift.
    change, low, high : float
        By how much b is more than a, as a fraction of a, and its interval. Infinite if only b has the layer.
    real : bool
        Whether the interval leaves zero out and the change is large enough.
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
        Whether they were made alternately; else times are corrected for the drift between them.
    least, confidence : float
        The least change that counts, and the confidence in all intervals together.
    rounds, needed : int
        How many epochs there are to compare, and how many it takes before an interval can be trusted.
    drift : float
        By how much the layers that did not change were slower in b, if the runs were not alternated.
    steps : (int, int)
        How many steps were observed in each run.
    changes : list of Change
        Times: the whole step first, then its phases, then layers.
    counts : list of Count
        Counts per step that differ.
    only_a, only_b : list of str
        Layers that the other run does not have.
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
    drift: float = 0.0
    steps: tuple[int, int] = (0, 0)
    changes: list[Change] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)
    epochs: list[tuple[int, float, float]] = field(default_factory=list)

    def worse(self, than: float = 0.0) -> list[Change | Count]:
        """Return what really grew by more than a fraction: the step, layers and counts of work, new layers included.

        New layers are among them if they cost more of the step than those that are gone, by more than the fraction.
        """
        sided = [c for c in self.changes if c.one_sided]
        whole = next((c.a for c in self.changes if (c.layer, c.phase) == WHOLE[0]), 0.0)
        grown = sum(c.b - c.a for c in sided) > than * whole
        slower: list[Change | Count] = [
            c for c in self.changes if c.real and c.change > than and (grown or not c.one_sided)
        ]
        return slower + [c for c in self.counts if c.change > than]

    def smallest(self, change: Change) -> float:
        """Return the smallest growth of a time that would have been found with this noise."""
        return max(self.least, (change.high - change.low) / 2) if self.rounds >= self.needed else inf

    def __str__(self) -> str:
        from microfw.profiler.reports.comparison import comparison

        return comparison(self)

    def markdown(self) -> str:
        """Return Markdown for a pull request."""
        from microfw.profiler.reports.comparison import markdown

        return markdown(self)


def compare(a: Session, b: Session, *, least: float | None = None, confidence: float = 0.95) -> Comparison:
    """Compare two runs layer by layer and epoch by epoch.

    Parameters
    ----------
    a, b : Session
        The runs; b is judged against a.
    least : float, optional
        The least change that counts: by default 0.05 if the runs were alternated, else 0.1.
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
    names = [list(dict.fromkeys(row.layer or OUTSIDE for epoch in x.epochs for row in epoch.rows)) for x in (a, b)]
    alone = set(names[0]) ^ set(names[1])
    parts = [*REST, *((layer, phase) for layer in dict.fromkeys([*names[0], *names[1]]) for phase in PHASES)]
    times = [_times(epochs, parts) for epochs in used]
    large = _large(*times)
    keys = [key for key, is_large in zip(parts, large, strict=True) if is_large and key[0] and key[0] not in alone]
    labels = [*WHOLE, *keys]
    groups = np.array([[_is_part(part, label) for label in labels] for part in parts], float)
    wrong = (1 - confidence) / len(labels)
    if alternated:
        needed, found_times = ceil(log2(2 / wrong)), paired(times[0], times[1], groups, wrong)
    else:  # the optimizer's update shows the drift as layers do
        witnesses = np.arange(len(WHOLE) - 1, len(labels))
        needed, found_times = 1, corrected(times[0], times[1], groups, witnesses, wrong)
    rounds = min(map(len, used))
    found = Comparison(
        a.name or a.model or "a", b.name or b.model or "b", alternated, least, confidence, rounds, needed,
        found_times.drift, (a.total().observed, b.total().observed),
    )  # fmt: skip
    found.only_a = [layer for layer in names[0] if layer not in set(names[1])]
    found.only_b = [layer for layer in names[1] if layer not in set(names[0])]
    columns = (found_times.a, found_times.b, found_times.change, found_times.low, found_times.high)
    for (layer, phase), *row in zip(labels, *columns, strict=True):
        before, after, change, low, high = map(float, row)
        real = rounds >= needed and (low > 0 or high < 0) and abs(change) >= least
        found.changes.append(Change(layer, phase, before, after, change, low, high, real))
    for k, (layer, phase) in enumerate(parts):
        if layer in alone and large[k]:
            before, after = (float(np.median(table[:, k])) for table in times)
            change = inf if layer in found.only_b else -1.0
            after /= 1 + found.drift
            found.changes.append(Change(layer, phase, before, after, change, change, change, True, True))
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


def _large(a: Array, b: Array) -> Array:
    """Return which parts take enough of a step, in one run or the other, typically."""
    typical = np.array([np.median(times, axis=0) for times in (a, b)])
    return np.asarray((typical >= LEAST_SHARE * np.maximum(typical.sum(axis=1, keepdims=True), 1)).any(axis=0))


def _is_part(part: Key, label: Key) -> bool:
    """Return True if the time of a part belongs to what is compared."""
    return part == label or label == WHOLE[0] or (not label[0] and part[1] == label[1])


def _times(epochs: list[Epoch], parts: list[Key]) -> Array:
    """Return nanoseconds in one step, epochs x parts; together the parts are the whole step."""
    places = {key: k for k, key in enumerate(parts)}
    table = np.zeros((len(epochs), len(parts)))
    for k, epoch in enumerate(epochs):
        rest = {phase: getattr(epoch, f"{phase}_ns") for _, phase in REST}
        for row in epoch.rows:
            for phase in PHASES:
                ns = getattr(row, f"{phase}_ns")
                table[k, places[row.layer or OUTSIDE, phase]] += ns
                rest[phase] -= ns
        for phase, ns in rest.items():
            table[k, places[None, phase]] = ns
        table[k] /= epoch.observed
    return table


def _counts(a: Session, b: Session) -> list[Count]:
    """Return the counts of one step that differ, the whole step's first."""
    totals = [session.total() for session in (a, b)]
    found = []
    for what in ("parameters", "parameter_tensors"):
        x, y = (getattr(total, what) for total in totals)
        found.append(Count("", what, x, y))
    rows = [{"": total.sum()} | {row.layer or OUTSIDE: row for row in total.layers()} for total in totals]
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
