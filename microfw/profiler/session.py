"""Data of a profile: plain numbers, by epoch, layer and op.

Times are integer nanoseconds. Counts, and times of layers, ops and phases, are sums over the observed steps of an
epoch: over all steps, unless the profile is sampled.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from microfw.errors import suggest_keywords
from microfw.profiler.node_count import NodeCount
from microfw.profiler.ratio import Ratio, ratio_of
from microfw.profiler.row import Layer as Layer, Row as Row
from microfw.profiler.trace_data import Trace as Trace
from microfw.visualization.frame import Frame

VERSION = 5
"""Version of the file format."""

PHASES = ("forward", "backward", "update", "evaluation")

LARGEST = ("parameters", "parameter_tensors", "saved_peak_bytes")
"""Fields of an epoch that are the maximum over its steps, not the sum."""


class PagePart(Protocol):
    """Additional data for the HTML page: the result of `microfw.profiler.law`."""

    def page_data(self) -> dict[str, Any]:
        """Return plain lists and numbers."""


@dataclass(repr=False)
class Epoch:
    """One epoch.

    Attributes
    ----------
    epoch : int
        Number of the epoch.
    steps, observed : int
        Steps taken, and how many of them were observed.
    loss : float or None
        With a Trainer, its loss: a mean over rows. In your own loop, the mean over steps, if finite.
    metrics : dict
        Metrics of the Trainer.
    rows : list of Row
        One row for each op of each layer, in order of first use.
    parameters, parameter_tensors : int
        P: trainable scalars that the backward passes of a step reach together, and the arrays that contain them.
    saved_peak_bytes : int
        Maximum bytes that ops had saved when a backward pass began, without recomputed ops of checkpoints.
    data_ns : int
        Time before a step: since the last step, the last evaluation, or the start of the epoch.
    forward_ns : int
        Time from the first op or module of a step to its backward pass.
    backward_ns : int
        Time in ``backward``.
    update_ns : int
        Time in ``optimizer.step()``.
    evaluation_ns : int
        Time of forward passes under ``no_grad``; in unobserved steps those of modules.
    other_ns : int
        Time in no other phase: work between ``backward`` and ``step``, loads between accumulated batches, hooks.
    preparation_ns : int
        Part of ``other_ns`` in which replays were prepared.
    check_ns : int
        Time in which replays were compared with eager steps; in no other phase.
    total_ns : int
        Time of the whole epoch: the sum of all phases and of the unobserved steps.
    replayed : int
        Replayed steps, see `mf.compile`.
    """

    epoch: int
    steps: int = 0
    observed: int = 0
    loss: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    parameters: int = 0
    parameter_tensors: int = 0
    forward_ns: int = 0
    backward_ns: int = 0
    update_ns: int = 0
    data_ns: int = 0
    evaluation_ns: int = 0
    total_ns: int = 0
    rows: list[Row] = field(default_factory=list)
    saved_peak_bytes: int = 0
    replayed: int = 0
    check_ns: int = 0
    other_ns: int = 0
    preparation_ns: int = 0

    def __repr__(self) -> str:
        loss = "" if self.loss is None else f", loss {self.loss:.4g}"
        times = f"backward {self.backward_ns / 1e6:.3g} of {self.total_ns / 1e6:.3g} ms"
        return f"Epoch({self.epoch}, {self.steps:,} steps{loss}, {times})"

    def _repr_html_(self) -> str:
        from microfw.profiler.reports.notebook import notebook

        return notebook(Session(epochs=[self]))

    def layers(self) -> list[Row]:
        """Return one row for each layer, summed over ops, in order of first use."""
        found: dict[str, Row] = {}
        for row in self.rows:
            found.setdefault(row.layer, Row(row.layer)).add(row)
        return list(found.values())

    def ops(self) -> list[Row]:
        """Return one row for each op, summed over layers, in order of first use."""
        found: dict[str, Row] = {}
        for row in self.rows:
            found.setdefault(row.op, Row("", row.op)).add(row)
        return list(found.values())

    def sum(self) -> Row:
        """Return one row, summed over layers and ops."""
        total = Row("total")
        for row in self.rows:
            total.add(row)
        return total

    def counts(self) -> list[NodeCount]:
        """Return N, P and steps of one backward pass, in tensors and in scalars: the mean over the observed steps.

        The counts in scalars are left out if an op has none, see `Row.scalar_uncounted`, or if an older version has
        saved the profile.
        """
        total, n = self.sum(), self.observed or 1
        nodes, rules, added, edges = (round(v / n) for v in (total.nodes, total.rules, total.accumulated, total.edges))
        found = [NodeCount("tensors", nodes, self.parameter_tensors, rules, added, edges)]
        if total.scalar_rules and not total.scalar_uncounted:
            scalars = (total.scalar_nodes, total.scalar_rules, total.scalar_accumulated)
            N, rules, added = (round(v / n) for v in scalars)
            operations = round((total.flops_forward + total.flops_backward) / n)
            found.append(NodeCount("scalars", N, self.parameters, rules, added, operations=operations))
        return found

    def taken(self, phase: str, sampled: bool) -> float:
        """Return nanoseconds of a phase: of the epoch, or if the profile is sampled, of one observed step."""
        ns: int = getattr(self, f"{phase}_ns")
        return ns / (self.observed or 1) if sampled else ns

    def ratio(self) -> Ratio:
        """Return backward against forward."""
        return ratio_of(self.rows, self.forward_ns, self.backward_ns)

    @property
    def unobserved_ns(self) -> int:
        """Time of unobserved steps: the part of ``total_ns`` in no phase."""
        step = self.data_ns + self.forward_ns + self.backward_ns + self.update_ns
        return self.total_ns - step - self.evaluation_ns - self.other_ns - self.check_ns

    @property
    def untagged_forward_ns(self) -> int:
        """Forward time outside of ops."""
        return self.forward_ns - sum(row.forward_ns for row in self.rows)

    @property
    def untagged_backward_ns(self) -> int:
        """Backward time outside of derivative rules: the engine itself."""
        return self.backward_ns - sum(row.backward_ns for row in self.rows)


@dataclass(repr=False)
class Session:
    """A profile: epochs, layers, environment.

    Attributes
    ----------
    version : int
        Version of the file format.
    name, model : str
        Title, and type of the model.
    every : int
        Steps 0, ``every``, 2 ``every``, … were observed.
    layers : list of Layer
        Modules of the model, the model itself first.
    epochs : list of Epoch
        Recorded epochs.
    environment : dict
        Versions and machine.
    overhead : dict
        Cost of profiling, measured at the end.
    settings : dict
        Settings of the run, with which ``microfw compare --rerun`` repeats it.
    alternated : str
        Mark that two alternated runs share, and the number of rounds: ``"3f…/20"``. Round k of one belongs to round k
        of the other; a round has the same number of epochs.
    trace : Trace or None
        Events of the first steps, if requested.

    Examples
    --------
    >>> session = Session(model="Sequential", epochs=[Epoch(1, steps=2, rows=[Row("0", "linear", nodes=2)])])
    >>> session.epochs[0].sum().nodes
    2
    """

    version: int = VERSION
    name: str = ""
    model: str = ""
    every: int = 1
    layers: list[Layer] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    overhead: dict[str, float] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    alternated: str = ""
    trace: Trace | None = None

    def __repr__(self) -> str:
        what = " ".join(filter(None, (self.name[:60], self.model))) or "no model"
        return f"Session({what}, {len(self.epochs):,} epochs, {sum(e.steps for e in self.epochs):,} steps)"

    def total(self) -> Epoch:
        """Return all epochs added up, as epoch 0."""
        return merged(self.epochs)

    # Reports: each calls a pure function in `microfw.profiler.reports`
    def report(self, **options: Any) -> str:
        """Return text for a terminal; see `microfw.profiler.report`, which has an example."""
        from microfw.profiler.reports.report import report

        return report(self, **options)

    def html(self, law: PagePart | None = None) -> str:
        """Return one self-contained page, with the result of `microfw.profiler.law` if given."""
        from microfw.profiler.reports.html import html

        return html(self, law)

    def show(self, law: PagePart | None = None, *, height: int = 640) -> Frame:
        """Return the page for a notebook, in a sandboxed frame ``height`` pixels high.

        With more than 600 rows (ops of layers, in all epochs) the page describes all epochs together.

        Examples
        --------
        >>> Session().show()  # doctest: +ELLIPSIS
        <Page for a notebook, ... kB; elsewhere call session.save("run.html") and open the file in a browser>
        """
        from microfw.profiler.reports.html import html

        return Frame(html(self, law, max_rows=600), height, 'session.save("run.html")')

    def csv(self) -> str:
        """Return CSV. A cell that a spreadsheet would run as a formula gets an apostrophe in front."""
        from microfw.profiler.reports.csv import csv

        return csv(self)

    def markdown(self) -> str:
        """Return Markdown for a pull request."""
        from microfw.profiler.reports.markdown import markdown

        return markdown(self)

    def chrome_trace(self) -> str:
        """Return the events of a traced profile in Chrome's trace format, for Perfetto or speedscope."""
        from microfw.profiler.reports.trace import chrome_trace

        return chrome_trace(self)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row for each op of each layer of each epoch.

        It has the loss and the metrics of the epoch, seconds, and numbers by step: see
        `microfw.profiler.reports.frame.to_frame` for the columns.

        Examples
        --------
        >>> rows = [Row("0", "linear", nodes=2, backward_ns=3_000_000)]
        >>> frame = Session(epochs=[Epoch(1, steps=2, observed=2, loss=0.5, rows=rows)]).to_frame()
        >>> frame[["epoch", "loss", "op", "nodes_per_step", "backward_s_per_step"]]
           epoch  loss      op  nodes_per_step  backward_s_per_step
        0      1   0.5  linear             1.0               0.0015
        """
        from microfw.profiler.reports.frame import to_frame

        return to_frame(self)

    @suggest_keywords
    def plot(self, axes: Any = None) -> Any:
        """Draw the time of each epoch, and the layers of one step, with Matplotlib (extra ``plot``).

        ``axes`` is an array of two Axes, by default those of a new figure. The array is returned.

        Examples
        --------
        >>> rows = [Row("0", "linear", nodes=1, forward_ns=2000, backward_ns=3000)]
        >>> left, right = Session(epochs=[Epoch(1, 1, 1, forward_ns=2500, backward_ns=3500, rows=rows)]).plot()
        >>> left.get_title(), right.get_title(), right.get_xlabel()
        ('Time by epoch', 'Layers, in one step', 'time, µs')
        """
        from microfw.profiler.reports.plot import plot

        return plot(self, axes)

    def _repr_html_(self) -> str:
        from microfw.profiler.reports.notebook import notebook

        return notebook(self)

    # Files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the session to a file; the suffix selects the format. See `microfw.profiler.files.save`."""
        from microfw.profiler.files import save

        save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Session:
        """Read a session that `save` wrote as JSON.

        Raises
        ------
        DataError
            If the file is not a profile, is truncated, or has an unknown version.
        FileNotFoundError
            If the file does not exist.
        """
        from microfw.profiler.files import load

        return load(path)


def merged(epochs: Iterable[Epoch]) -> Epoch:
    """Return the sum of epochs."""
    total = Epoch(0)
    rows: dict[tuple[str, str], Row] = {}
    for epoch in epochs:
        for f in fields(Epoch):
            if f.type == "int" and f.name != "epoch":
                add = max if f.name in LARGEST else int.__add__
                setattr(total, f.name, add(getattr(total, f.name), getattr(epoch, f.name)))
        total.loss = epoch.loss
        for row in epoch.rows:
            rows.setdefault((row.layer, row.op), Row(row.layer, row.op)).add(row)
    total.rows = list(rows.values())
    return total
