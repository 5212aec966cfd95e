"""Comparison of two runs: finds real changes and separates them from noise.

Seconds drift between days and machines. Two runs that were alternated round by round (`alternate`) ran under the same
conditions. For other runs, the unchanged layers show drift and noise: all times are divided by their median ratio, and
their spread widens all intervals. A change is real if its interval excludes zero, at a level divided by the number of
comparisons, and if the change is at least ``min_change``. A layer that only one run has is a change too. Counts are
exact: any difference is real.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import ceil, inf, log2
from secrets import token_hex
from typing import Any, Never

import numpy as np

from microfw.errors import ArgumentError, refuse_former, suggest_keywords
from microfw.profiler.change import Change as Change, CountChange as CountChange
from microfw.profiler.noise import corrected, paired
from microfw.profiler.session import Epoch, Session

Array = np.ndarray[Any, Any]

PHASES = ("forward", "backward")

OUTSIDE = "(outside)"
"""Layer name of ops outside of any module."""

Key = tuple[str | None, str]
"""A layer and a phase."""

REST: list[Key] = [(None, "forward"), (None, "backward"), (None, "update")]
"""Parts of a step that belong to no layer."""

WHOLE: list[Key] = [("", "step"), ("", "forward"), ("", "backward"), ("", "update")]
"""Compared times of the whole step: "step" is forward, backward and update together."""

MIN_SHARE = 0.01
"""A layer with a smaller share of the step in both runs is not compared."""

COUNTED = ("nodes", "edges", "rules", "accumulated", "flops_forward", "flops_backward", "saved_bytes")


@dataclass(repr=False)
class Comparison:
    """Result of `compare`. ``str()`` returns a report.

    Attributes
    ----------
    a, b : str
        Names of the runs.
    alternated : bool
        Whether the runs were alternated. If False, times are corrected for drift.
    min_change, confidence : float
        Smallest change that is real, and confidence of all intervals together.
    rounds, needed : int
        Number of compared rounds, or of epochs if the runs were not alternated, and the number that valid intervals
        need.
    drift : float
        Change of the unchanged layers, if the runs were not alternated.
    steps : (int, int)
        Observed steps of each run.
    changes : list of Change
        Times: the whole step first, then its phases, then layers.
    counts : list of CountChange
        Counts per step that differ.
    only_a, only_b : list of str
        Layers that the other run does not have.
    epochs : list of (epoch, a, b)
        Nanoseconds of ``backward`` in one step, for each epoch.
    """

    a: str
    b: str
    alternated: bool
    min_change: float
    confidence: float
    rounds: int
    needed: int
    drift: float = 0.0
    steps: tuple[int, int] = (0, 0)
    changes: list[Change] = field(default_factory=list)
    counts: list[CountChange] = field(default_factory=list)
    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)
    epochs: list[tuple[int, float, float]] = field(default_factory=list)

    def worse(self, than: float = 0.0) -> list[Change | CountChange]:
        """Return the real changes above a fraction: of the step, of layers and of counts.

        New layers are included if they take more time than the removed ones, by more than the fraction of the step.
        """
        sided = [c for c in self.changes if c.one_sided]
        whole = next((c.a for c in self.changes if (c.layer, c.phase) == WHOLE[0]), 0.0)
        grown = sum(c.b - c.a for c in sided) > than * whole
        slower: list[Change | CountChange] = [
            c for c in self.changes if c.real and c.change > than and (grown or not c.one_sided)
        ]
        return slower + [c for c in self.counts if c.change > than]

    def smallest(self, change: Change) -> float:
        """Return the smallest change that could have been detected with this noise."""
        return max(self.min_change, (change.high - change.low) / 2) if self.rounds >= self.needed else inf

    def __getattr__(self, name: str) -> Never:
        new = "; it was renamed to 'min_change'" if name == "least" else ""
        raise AttributeError(f"'Comparison' object has no attribute {name!r}{new}", name=name, obj=self)

    def __repr__(self) -> str:
        real = sum(c.real for c in self.changes)
        return f"Comparison({self.a[:40]!r} and {self.b[:40]!r}, {real} real changes, {len(self.counts)} counts differ)"

    def _repr_html_(self) -> str:
        from microfw.profiler.reports.comparison import notebook

        return notebook(self)

    def __str__(self) -> str:
        from microfw.profiler.reports.comparison import comparison

        return comparison(self)

    @suggest_keywords
    def plot(self, axes: Any = None) -> Any:
        """Draw the changes of the times with their intervals, with Matplotlib (extra ``plot``).

        ``axes`` are matplotlib Axes, by default those of a new figure. They are returned.

        Examples
        --------
        >>> from microfw.profiler import Epoch, Row, Session
        >>> def run(ns):
        ...     rows = [Row("0", "linear", nodes=1, forward_ns=ns, backward_ns=ns)]
        ...     return Session(epochs=[Epoch(k, 1, 1, forward_ns=ns, backward_ns=ns, rows=rows) for k in range(9)])
        >>> axes = compare(run(1000), run(1500)).plot()
        >>> [text.get_text() for text in axes.get_yticklabels()][:2]
        ['whole step', 'forward']
        """
        from microfw.profiler.reports.plot import plot_comparison

        return plot_comparison(self, axes)

    def markdown(self) -> str:
        """Return Markdown for a pull request."""
        from microfw.profiler.reports.comparison import markdown

        return markdown(self)


def compare(
    a: Session, b: Session, *, min_change: float | None = None, confidence: float = 0.95, **former: Never
) -> Comparison:
    """Compare two runs layer by layer and epoch by epoch.

    Parameters
    ----------
    a, b : Session
        The runs. Changes are of b relative to a.
    min_change : float, optional
        Smallest change that is real, as a fraction: by default 0.05 if the runs were alternated, else 0.1.
    confidence : float
        Probability that no reported change is due to chance, over all comparisons.

    Returns
    -------
    Comparison

    Raises
    ------
    ArgumentError
        If a session has no epoch with an observed step, or a setting is out of range.

    Examples
    --------
    >>> from microfw.profiler import Epoch, Row, Session
    >>> def run(flops):
    ...     return Session(epochs=[Epoch(1, 1, 1, rows=[Row("0", "linear", nodes=1, flops_forward=flops)])])
    >>> [(c.what, c.a, c.b) for c in compare(run(10), run(12)).counts if c.layer]
    [('flops_forward', 10, 12)]
    """
    refuse_former("compare", former, least="min_change")
    given: tuple[Any, ...] = a, b
    for x in given:
        if not isinstance(x, Session):
            got = type(x).__name__
            raise ArgumentError("compare", "two sessions", got, "read a file with Session.load")
    alternated = bool(a.alternated) and a.alternated == b.alternated
    min_change = (0.05 if alternated else 0.1) if min_change is None else min_change
    if not min_change >= 0:
        raise ArgumentError("compare", "min_change to be 0 or a positive number", min_change)
    if not 0.5 <= confidence < 1:
        raise ArgumentError("compare", "confidence from 0.5 to below 1", confidence)
    for name, session in (("a", a), ("b", b)):
        if not session.epochs:
            raise ArgumentError("compare", f"an epoch in {name}", "a session without one")
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
        rounds = _rounds(a.alternated, len(pairs))
        needed, found_times = ceil(log2(2 / wrong)), paired(times[0], times[1], groups, wrong, rounds)
    else:  # the optimizer's update shows drift, too
        witnesses = np.arange(len(WHOLE) - 1, len(labels))
        rounds = min(map(len, used))
        needed, found_times = 1, corrected(times[0], times[1], groups, witnesses, wrong)
    found = Comparison(
        a.name or a.model or "a", b.name or b.model or "b", alternated, min_change, confidence, rounds, needed,
        found_times.drift, (a.total().observed, b.total().observed),
    )  # fmt: skip
    found.only_a = [layer for layer in names[0] if layer not in set(names[1])]
    found.only_b = [layer for layer in names[1] if layer not in set(names[0])]
    columns = (found_times.a, found_times.b, found_times.change, found_times.low, found_times.high)
    for (layer, phase), *row in zip(labels, *columns, strict=True):
        before, after, change, low, high = map(float, row)
        real = rounds >= needed and (low > 0 or high < 0) and abs(change) >= min_change
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
    """Return the comparable epochs of each run: rounds of alternated runs, else epochs with an observed step."""
    if rounds is None:
        used = [[e for e in session.epochs if e.observed] for session in (a, b)]
    else:
        used = [[pair[k] for pair in rounds] for k in range(2)]
    for name, epochs in zip("ab", used, strict=True):
        if not epochs:
            wanted = f"an epoch of {name} with an observed step" if rounds is None else "a round observed in both runs"
            raise ArgumentError("compare", wanted, "none", "sample more often: lower every")
    return used


def _rounds(mark: str, epochs: int) -> int:
    """Return the number of rounds of alternated runs; older files do not have it: then each epoch is one."""
    number = mark.partition("/")[2]
    return min(int(number), epochs) if number.isdecimal() and int(number) else epochs


def _large(a: Array, b: Array) -> Array:
    """Return which parts take at least `MIN_SHARE` of the step in one of the runs."""
    typical = np.array([np.median(times, axis=0) for times in (a, b)])
    return np.asarray((typical >= MIN_SHARE * np.maximum(typical.sum(axis=1, keepdims=True), 1)).any(axis=0))


def _is_part(part: Key, label: Key) -> bool:
    """Return True if the time of a part is included in a compared time."""
    return part == label or label == WHOLE[0] or (not label[0] and part[1] == label[1])


def _times(epochs: list[Epoch], parts: list[Key]) -> Array:
    """Return nanoseconds of one step, of shape (epochs, parts). The parts add up to the whole step."""
    columns = {key: k for k, key in enumerate(parts)}
    table = np.zeros((len(epochs), len(parts)))
    for k, epoch in enumerate(epochs):
        rest = {phase: getattr(epoch, f"{phase}_ns") for _, phase in REST}
        for row in epoch.rows:
            for phase in PHASES:
                ns = getattr(row, f"{phase}_ns")
                table[k, columns[row.layer or OUTSIDE, phase]] += ns
                rest[phase] -= ns
        for phase, ns in rest.items():
            table[k, columns[None, phase]] = ns
        table[k] /= epoch.observed
    return table


def _counts(a: Session, b: Session) -> list[CountChange]:
    """Return the counts of one step that differ, those of the whole step first."""
    totals = [session.total() for session in (a, b)]
    found = []
    for what in ("parameters", "parameter_tensors", "saved_peak_bytes"):
        x, y = (getattr(total, what) for total in totals)
        found.append(CountChange("", what, x, y))
    rows = [{"": total.sum()} | {row.layer or OUTSIDE: row for row in total.layers()} for total in totals]
    for layer in [layer for layer in rows[0] if layer in rows[1]]:
        for what in COUNTED:
            x, y = (_exact(getattr(row[layer], what), total.observed) for row, total in zip(rows, totals, strict=True))
            found.append(CountChange(layer, what, x, y))
    return [count for count in found if count.a != count.b]


def _exact(sum: int, steps: int) -> float:
    """Return ``sum / steps``, as an int if the division is exact."""
    steps = steps or 1
    return sum // steps if sum % steps == 0 else sum / steps


def alternate(a: Callable[[], Session], b: Callable[[], Session], rounds: int = 30) -> tuple[Session, Session]:
    """Run two functions alternately, so that their seconds can be compared.

    Parameters
    ----------
    a, b : callable
        Each makes one short run, from scratch, and returns its session.
    rounds : int
        Number of runs of each. One more run of each warms up and is not kept.

    Returns
    -------
    Session, Session
        Sessions with the epochs of all rounds. Epoch k of one belongs to epoch k of the other.
    """
    from microfw.profiler.recorder.overhead import MEASURED

    if rounds < 1:
        raise ArgumentError("alternate", "rounds to be a positive integer", rounds)
    made: dict[int, list[Session]] = {0: [], 1: []}
    for k in range(rounds + 1):
        token = MEASURED.set(k == rounds)
        try:
            for which in (0, 1) if k % 2 else (1, 0):
                made[which].append((a, b)[which]())
        finally:
            MEASURED.reset(token)
    mark = f"{token_hex(8)}/{rounds}"
    sessions = []
    for which in (0, 1):
        last = made[which][-1]
        epochs = [epoch for session in made[which][1:] for epoch in session.epochs]
        for k, epoch in enumerate(epochs):
            epoch.epoch = k + 1
        sessions.append(replace(last, epochs=epochs, alternated=mark, trace=None))
    return sessions[0], sessions[1]
