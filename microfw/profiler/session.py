"""Data of a profile: plain numbers, by epoch, layer and op.

Times are integer nanoseconds. Counts, and times of layers, ops and phases, are sums over the observed steps of an
epoch: over all steps, unless the profile is sampled.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Protocol

from microfw.errors import suggest_keywords
from microfw.profiler.epoch import VARYING, Epoch as Epoch, merged as merged
from microfw.profiler.row import Layer as Layer, Row as Row
from microfw.profiler.trace_data import Trace as Trace
from microfw.visualization.frame import Frame

VERSION = 5
"""Version of the file format."""

PHASES = ("forward", "backward", "update", "evaluation")


class PagePart(Protocol):
    """Additional data for the HTML page: the result of `microfw.profiler.law`."""

    def page_data(self) -> dict[str, Any]:
        """Return plain lists and numbers."""


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
        One step of each ``every`` was observed, the first of each fit included, also of one that was resumed.
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
        total = merged(self.epochs)
        if any(layer.varies for layer in self.layers):
            total.notes.append(VARYING)
        return total

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
