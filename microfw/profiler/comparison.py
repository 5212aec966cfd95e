"""Comparison of two runs: finds real changes and separates them from noise.

Seconds drift between days and machines. Two runs that were alternated round by round (`alternate`) ran under the same
conditions. For other runs, the layers whose counts agree show drift and noise: all times are divided by their median
ratio, and their spread widens all intervals. If these layers take a small share of the time, or differ too much, times
are not corrected, and all intervals allow for a drift. A change is real if its interval excludes zero, at a level
divided by the number of comparisons, and if it is at least ``min_change``. A layer that only one run has is listed as a
change. Counts are exact: any difference is real. Sampled runs may have observed other steps: then times are not judged,
and counts only if they differ by more than other steps explain.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from math import ceil, inf, log2
from typing import TYPE_CHECKING, Any, Never

import numpy as np

from microfw.errors import ArgumentError, refuse_former, suggest_keywords
from microfw.profiler.change import (
    NO_LAYER,
    Change as Change,
    CountChange as CountChange,
    count_changes,
    is_same_work,
    set_apart,
)
from microfw.profiler.compared_runs import number_of_rounds, sessions, used_epochs
from microfw.profiler.noise import corrected, paired
from microfw.profiler.session import Session
from microfw.profiler.step_times import LAYER_PHASES, REST, WHOLE, is_part, large_parts, part_times, share_of
from microfw.serialization.output import path_text, write_bytes
from microfw.visualization.frame import Frame

if TYPE_CHECKING:
    from microfw.profiler.profiler import Profiler

Array = np.ndarray[Any, Any]


@dataclass(repr=False)
class Comparison:
    """Result of `compare`. ``str()`` returns a report.

    Attributes
    ----------
    a, b : str
        Names of the runs.
    alternated : bool
        Whether the runs were alternated.
    min_change, confidence : float
        Smallest change that is real, and confidence of all intervals together.
    rounds, needed : int
        Number of compared rounds, or of epochs if the runs were not alternated, and the number that valid intervals
        need.
    drift : float
        Change of the layers whose counts agree, if ``corrected``.
    corrected : bool
        Whether times of b are corrected for drift. Never if the runs were alternated, and not if the drift cannot be
        told from the changes, or the runs observed different steps.
    unchanged : float
        Share of the layers whose counts agree in the time of all layers.
    kinds : dict
        Type of each layer by its name.
    steps, total_steps, replayed : (int, int)
        Observed steps of each run, all of its steps, and how many of all were replayed.
    every : (int, int)
        Of how many steps each run observed one. If they differ, no time is judged: changes of times are never real.
    changes : list of Change
        Times: the whole step first, then its phases, then layers.
    counts : list of CountChange
        Counts per step that differ.
    only_a, only_b : list of str
        Layers that the other run does not have.
    epochs : list of (epoch, a, b)
        Nanoseconds of ``backward`` in one step for each epoch, or for each round the shortest of its epochs.
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
    total_steps: tuple[int, int] = (0, 0)
    replayed: tuple[int, int] = (0, 0)
    changes: list[Change] = field(default_factory=list)
    counts: list[CountChange] = field(default_factory=list)
    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)
    epochs: list[tuple[int, float, float]] = field(default_factory=list)
    corrected: bool = False
    unchanged: float = 0.0
    kinds: dict[str, str] = field(default_factory=dict)
    every: tuple[int, int] = (1, 1)

    @property
    def sampled_alike(self) -> bool:
        """Whether both runs observed one step of as many."""
        return self.every[0] == self.every[1]

    @property
    def judges_times(self) -> bool:
        """Whether a change of a time can be real: there are enough rounds, and both runs are sampled alike."""
        return self.rounds >= self.needed and self.sampled_alike

    def worse(self, than: float = 0.0) -> list[Change | CountChange]:
        """Return the real changes above a fraction: of the step, of layers and of counts.

        New layers are included if they take more time than the removed ones, by more than the fraction of the step. The
        time of the removed ones may grow by the noise of the step: they may be the same layers under other names.
        Saved bytes are judged for the whole step only, and ops without a declared cost are not.
        Each has the attributes ``layer``, ``what`` (phase or name of the count), ``a``, ``b`` and ``change``.

        Examples
        --------
        >>> from microfw.profiler import Epoch, Row, Session
        >>> def run(ns, nodes):
        ...     rows = [Row("0", "linear", nodes=nodes, forward_ns=ns, backward_ns=ns)]
        ...     return Session(epochs=[Epoch(k, 1, 1, forward_ns=ns, backward_ns=ns, rows=rows) for k in range(9)])
        >>> [(c.layer, c.what, round(c.b / c.a, 3)) for c in compare(run(1000, 1), run(9000, 2)).worse()][-3:]
        [('0', 'backward', 9.0), ('', 'nodes', 2.0), ('0', 'nodes', 2.0)]
        """
        step = next((c for c in self.changes if (c.layer, c.phase) == WHOLE[0]), None)
        new, gone = (sum(getattr(c, run) for c in self.changes if c.one_sided) for run in ("b", "a"))
        if step and gone:
            gone *= (1 + step.high) / (1 + step.change)
        grown = new - gone > than * (step.a if step else 0)
        slower: list[Change | CountChange] = [
            c for c in self.changes if c.real and c.change > than and (grown or not c.one_sided)
        ]
        # an array that several layers save counts for one of them: another, if that one is frozen
        judged = [c for c in self.counts if c.what != "uncounted" and (c.what != "saved_bytes" or not c.layer)]
        return slower + [c for c in judged if c.real and c.change > than]

    def smallest(self, change: Change) -> float:
        """Return the smallest change that could have been detected with this noise, in either direction."""
        widest = max(change.high - change.change, change.change - change.low)
        return max(self.min_change, widest) if self.judges_times else inf

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

    def report(self) -> str:
        """Return the text that ``print`` shows."""
        from microfw.profiler.reports.text import Text

        return Text(self)

    def show(self, *, height: int = 640) -> Frame:
        """Return a page for a notebook, in a sandboxed frame ``height`` pixels high."""
        from microfw.profiler.reports.comparison import page

        return Frame(page(self), height, 'found.save("compared.html")')

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a page (``.html``), Markdown (``.md``) or text (``.txt``): the suffix selects the format."""
        from microfw.profiler.reports.comparison import content

        text = path_text(path, "Comparison.save", "found.save(path)")
        write_bytes(text, content(self, text))

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row for each time, in nanoseconds, and each count that differs.

        Examples
        --------
        >>> from microfw.profiler import Epoch, Row, Session
        >>> def run(nodes):
        ...     return Session(epochs=[Epoch(1, 1, 1, rows=[Row("0", "linear", nodes=nodes)])])
        >>> compare(run(2), run(3)).to_frame()[["layer", "what", "unit", "a", "b", "change"]].tail(1)
          layer   what   unit    a    b  change
        5     0  nodes  count  2.0  3.0     0.5
        """
        from microfw.profiler.reports.comparison import to_frame

        return to_frame(self)

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
    a: Session | Profiler,
    b: Session | Profiler,
    *,
    min_change: float | None = None,
    confidence: float = 0.95,
    **former: Never,
) -> Comparison:
    """Compare two runs layer by layer and epoch by epoch.

    Parameters
    ----------
    a, b : Session or Profiler
        The runs, or their profilers. Changes are of b relative to a.
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
        If a session has no epoch with an observed step, both are the same one, or a setting is out of range.

    Notes
    -----
    Two runs made one after the other compare counts well and seconds badly: the machine's speed drifts between them.
    `alternate` makes runs whose seconds can be compared::

        a, b = mf.profiler.alternate(run_a, run_b)  # each trains a new model and returns profiler.session
        print(mf.profiler.compare(a, b))

    Examples
    --------
    >>> from microfw.profiler import Epoch, Row, Session
    >>> def run(flops):
    ...     return Session(epochs=[Epoch(1, 1, 1, rows=[Row("0", "linear", nodes=1, flops_forward=flops)])])
    >>> [(c.what, c.a, c.b) for c in compare(run(10), run(12)).counts if c.layer]
    [('flops_forward', 10, 12)]
    """
    refuse_former("compare", former, least="min_change")
    a, b = set_apart(*sessions(a, b))
    alternated = bool(a.alternated) and a.alternated == b.alternated
    min_change = (0.05 if alternated else 0.1) if min_change is None else min_change
    if not min_change >= 0:
        raise ArgumentError("compare", "min_change to be 0 or a positive number", min_change)
    if not 0.5 <= confidence < 1:
        raise ArgumentError("compare", "confidence from 0.5 to below 1", confidence)
    for name, session in (("a", a), ("b", b)):
        if not session.epochs:
            raise ArgumentError("compare", f"an epoch in {name}", "a session without one")
    counts = count_changes(a, b)
    pairs = [(x, y) for x, y in zip(a.epochs, b.epochs, strict=False) if x.observed and y.observed]
    used = used_epochs(a, b, pairs if alternated else None)
    names = [dict.fromkeys(row.layer or NO_LAYER for epoch in x.epochs for row in epoch.rows) for x in (a, b)]
    parts = [*REST, *((layer, phase) for layer in dict.fromkeys([*names[0], *names[1]]) for phase in LAYER_PHASES)]
    times = [part_times(epochs, parts) for epochs in used]
    large = large_parts(*times)
    present = np.array([table.any(axis=0) for table in times])
    alone = present[0] != present[1]  # a frozen layer may have no backward
    keys = [key for key, compared in zip(parts, large & ~alone, strict=True) if compared and key[0]]
    labels = [*WHOLE, *keys]
    groups = np.array([[is_part(part, label) for label in labels] for part in parts], float)
    wrong = (1 - confidence) / len(labels)
    unchanged = 0.0
    if alternated:
        rounds = number_of_rounds(a.alternated, len(pairs))
        needed, found_times = ceil(log2(2 / wrong)), paired(times[0], times[1], groups, wrong, rounds)
    else:  # the optimizer's update shows drift, too
        same = [is_same_work(*part, counts) and not one for part, one in zip(parts, alone, strict=True)]
        witnesses = [k for k, label in enumerate(labels) if a.every == b.every and is_same_work(*label, counts)]
        unchanged = min(share_of(table, parts, same) for table in times)
        rounds = min(map(len, used))
        needed, found_times = 1, corrected(times[0], times[1], groups, witnesses, unchanged, wrong)
    sums = a.total(), b.total()
    found = Comparison(
        a.name or a.model or "a", b.name or b.model or "b", alternated, min_change, confidence, rounds, needed,
        found_times.drift, (sums[0].observed, sums[1].observed), (sums[0].steps, sums[1].steps),
        (sums[0].replayed, sums[1].replayed), every=(a.every, b.every),
        counts=counts, corrected=found_times.corrected, unchanged=unchanged,
        kinds={layer.name: layer.kind for x in (a, b) for layer in x.layers if layer.shown_kind},
    )  # fmt: skip
    found.only_a = [layer for layer in names[0] if layer not in names[1]]
    found.only_b = [layer for layer in names[1] if layer not in names[0]]
    columns = (found_times.a, found_times.b, found_times.change, found_times.low, found_times.high)
    for (layer, phase), *row in zip(labels, *columns, strict=True):
        before, after, change, low, high = map(float, row)
        if not found.sampled_alike:
            low, high = -1.0, inf  # steps differ by more than noise: the first ones, for example, are slow
        real = found.judges_times and (low > 0 or high < 0) and abs(change) >= min_change
        found.changes.append(Change(layer, phase, before, after, change, low, high, real))
    for k, (layer, phase) in enumerate(parts):
        if layer and alone[k] and large[k]:
            before, after = (float(np.median(table[:, k])) for table in times)
            after, change = after / (1 + found.drift), inf if present[1][k] else -1.0
            found.changes.append(Change(layer, phase, before, after, change, change, change, found.sampled_alike, True))
    size = len(pairs) // rounds if alternated else 1  # epochs of a round
    backward = [[epoch.taken("backward", True) for epoch in pair] for pair in pairs]
    for k in range(0, len(pairs) - size + 1, size):
        shortest = [min(ns) for ns in zip(*backward[k : k + size], strict=True)]
        found.epochs.append((k // size + 1 if alternated else pairs[k][0].epoch, shortest[0], shortest[1]))
    return found
