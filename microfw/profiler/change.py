"""Changes between two runs: of a time, and of a count."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from microfw.profiler.epoch import MAXIMA, Epoch
from microfw.profiler.row import Row
from microfw.profiler.session import Session

NO_LAYER = "(outside)"
"""Layer name of ops outside of any module."""

COUNTED = ("nodes", "edges", "rules", "accumulated", "flops_forward", "flops_backward", "saved_bytes", "uncounted")

SCALARS = ("scalar_nodes", "scalar_rules", "scalar_accumulated")
"""Counts that are compared if both runs have them for all ops."""

SAME_WORK = 0.05
"""Counts of an unchanged layer differ by at most this: steps of fewer rows make counts differ a little."""


@dataclass
class Change:
    """One time in two runs.

    Attributes
    ----------
    layer, phase : str
        Forward or backward of a layer. If ``layer`` is "": a whole phase, or the whole "step".
    a, b : float
        Nanoseconds of one step. ``a`` is the median of all rounds, or the lower quartile of the epochs if the runs were
        not alternated. ``b`` is ``a * (1 + change)``.
    change, low, high : float
        ``(b - a) / a`` and its interval. Infinite if ``one_sided`` and only in b.
    real : bool
        Whether the interval excludes zero and the change is at least ``min_change``.
    one_sided : bool
        Whether only one of the runs has the layer, or this phase of it: a frozen layer may have no backward.
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

    @property
    def what(self) -> str:
        """The phase, as the name of a count in `CountChange`."""
        return self.phase


@dataclass
class CountChange:
    """A count of one step that differs: layer ("" is the whole step), name of the count, and both numbers.

    As `Change` it has a ``phase``, which is "". It is not ``real`` if both runs, or one of them, are sampled, and other
    observed steps may explain the difference.
    """

    phase: ClassVar[str] = ""

    layer: str
    what: str
    a: float
    b: float
    real: bool = True

    @property
    def change(self) -> float:
        """``(b - a) / a``."""
        return (self.b - self.a) / self.a if self.a else float("inf")


def set_apart(a: Session, b: Session) -> tuple[Session, Session]:
    """Return both sessions, with its type in the name of each layer that is another layer in the other one.

    A layer that is inserted into a sequence takes the number of the next one: "1" is a ReLU in a, and a Dense in b.
    """
    kinds = [{layer.name: layer.kind for layer in session.layers} for session in (a, b)]
    others = {name for name, kind in kinds[0].items() if kind != kinds[1].get(name, kind)}

    def renamed(session: Session, kinds: dict[str, str]) -> Session:
        names = {name: f"{name} {kinds[name]}" for name in others}
        layers = [replace(x, name=names.get(x.name, x.name)) for x in session.layers]
        epochs = [
            replace(epoch, rows=[replace(row, layer=names.get(row.layer, row.layer)) for row in epoch.rows])
            for epoch in session.epochs
        ]
        return replace(session, layers=layers, epochs=epochs)

    return (renamed(a, kinds[0]), renamed(b, kinds[1])) if others else (a, b)


def count_changes(a: Session, b: Session) -> list[CountChange]:
    """Return the counts of one step that differ, those of the whole step first."""
    totals = [session.total() for session in (a, b)]
    found = []
    for what in MAXIMA:
        x, y = (getattr(total, what) for total in totals)
        found.append(CountChange("", what, x, y))
    rows = [{"": total.sum()} | {row.layer or NO_LAYER: row for row in total.layers()} for total in totals]
    sums = [total[""] for total in rows]
    scalars = SCALARS if all(total.scalar_rules and not total.scalar_uncounted for total in sums) else ()
    for layer in [layer for layer in rows[0] if layer in rows[1]]:
        for what in (*COUNTED, *scalars):
            x, y = (_exact(getattr(row[layer], what), total.observed) for row, total in zip(rows, totals, strict=True))
            found.append(CountChange(layer, what, x, y))
    found = [count for count in found if count.a != count.b]
    # an op that declares its cost in one run only does the same work in the other
    undeclared = {count.layer for count in found if count.what == "uncounted"}
    found = [count for count in found if count.layer not in undeclared or not count.what.startswith("flops")]
    return found if same_steps(a, b) else judged(found, a, b)


def same_steps(a: Session, b: Session) -> bool:
    """Return True if both runs observed all their steps, or steps of the same numbers."""
    taken = [[(epoch.steps, epoch.observed) for epoch in session.epochs] for session in (a, b)]
    return a.every == b.every and (a.every == 1 or taken[0] == taken[1])


def judged(found: list[CountChange], a: Session, b: Session) -> list[CountChange]:
    """Mark the counts as not real whose difference other observed steps may explain.

    Such a count differs in no epoch of a from all epochs of b by more than the steps that m observed ones miss: with
    95 % confidence they are at most 3 / m of all. They are assumed to have from zero to twice the count.
    """
    ranges = []
    for session in (a, b):
        epochs = [epoch for epoch in session.epochs if epoch.observed]
        rows = [{"": epoch.sum()} | {row.layer or NO_LAYER: row for row in epoch.layers()} for epoch in epochs]
        ranges.append({(c.layer, c.what): _range(c, epochs, rows) for c in found})
    missed = 3 / min(sum(epoch.observed for epoch in session.epochs) or 1 for session in (a, b) if session.every > 1)
    marked = []
    for c in found:
        (low_a, high_a), (low_b, high_b) = (values[c.layer, c.what] for values in ranges)
        apart = max(low_b - high_a, low_a - high_b)
        marked.append(replace(c, real=apart > missed * max(high_a, high_b)))
    return marked


def _range(count: CountChange, epochs: list[Epoch], rows: list[dict[str, Row]]) -> tuple[float, float]:
    """Return the smallest and the largest value of a count, per step, of all epochs."""
    if count.what in MAXIMA:
        values = [getattr(epoch, count.what) for epoch in epochs]
    else:
        none = Row("")
        values = [
            getattr(row.get(count.layer, none), count.what) / epoch.observed
            for epoch, row in zip(epochs, rows, strict=True)
        ]
    return min(values, default=0), max(values, default=0)


def is_same_work(layer: str | None, phase: str, counts: list[CountChange]) -> bool:
    """Return True if the counts of a layer agree, or those of the parameters for the update."""
    changed = {(c.layer, c.what) for c in counts if c.real and abs(c.change) > SAME_WORK and c.what not in SCALARS}
    if layer:
        return all(name != layer for name, _ in changed)
    return phase == "update" and changed.isdisjoint({("", "parameters"), ("", "parameter_tensors")})


def _exact(sum: int, steps: int) -> float:
    """Return ``sum / steps``, as an int if the division is exact."""
    steps = steps or 1
    return sum // steps if sum % steps == 0 else sum / steps
