"""What a profile holds: plain numbers, by epoch, layer and op. It saves itself as JSON.

Times are integer nanoseconds. Times of layers, ops and phases, and counts, are sums over the steps of an epoch that
were observed: all of them, unless the profile is sampled.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from microfw.profiler.ratio import Ratio, ratio_of
from microfw.profiler.trace_data import Trace as Trace

VERSION = 5
"""Of the format."""

PHASES = ("forward", "backward", "update", "evaluation")

COUNTS = (
    "nodes", "edges", "rules", "accumulated", "flops_forward", "flops_backward", "products_forward",
    "products_backward", "products_first", "products_weights", "saved_bytes", "forward_ns", "backward_ns",
)  # fmt: skip

LARGEST = ("parameters", "parameter_tensors", "saved_peak_bytes")
"""What of an epoch is not a sum over its steps, but the largest of them."""


class PagePart(Protocol):
    """What the page can show next to a session: what `microfw.profiler.law` found."""

    def page_data(self) -> dict[str, Any]:
        """Return plain lists and numbers."""


@dataclass
class Row:
    """What one op of one layer did in an epoch.

    Attributes
    ----------
    layer, op : str
        The layer's path, or "" outside of any; the op's name, or "" in a sum over ops.
    nodes : int
        Op nodes recorded: none where nothing is trained. Operations and forward time are counted there too.
    edges : int
        Inputs that needed a gradient.
    rules : int
        Derivative rules called, one a node.
    accumulated : int
        Gradients added into parameters.
    flops_forward, flops_backward : int
        Scalar operations, a multiply-add counted as 2.
    products_forward, products_backward : int
        Those of them in matrix products and convolutions.
    saved_bytes : int
        Bytes kept for backward, each array once, parameters not among them.
    forward_ns, backward_ns : int
        Time in the op itself, and in the node's derivative rule.
    uncounted : int
        How many ops that ran declare no cost.
    products_first : int
        F1: ``products_forward`` of the nodes with a factor that needs no gradient, as the data of a first layer; twice
        of those where neither factor needs one.
    products_weights : int
        ``products_forward`` of the nodes that have a trained weight of the layer as a factor.
    """

    layer: str
    op: str = ""
    nodes: int = 0
    edges: int = 0
    rules: int = 0
    accumulated: int = 0
    flops_forward: int = 0
    flops_backward: int = 0
    products_forward: int = 0
    products_backward: int = 0
    saved_bytes: int = 0
    forward_ns: int = 0
    backward_ns: int = 0
    uncounted: int = 0
    products_first: int = 0
    products_weights: int = 0

    def add(self, other: Row) -> None:
        """Add another row's counts and times."""
        for name in (*COUNTS, "uncounted"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class Epoch:
    """One epoch.

    Attributes
    ----------
    loss : float or None
        The Trainer's, a mean over rows; in a loop of one's own the mean over steps, if that is finite.
    metrics : dict
        The Trainer's other numbers.
    rows : list of Row
        One for each op of each layer, in order of first use.
    epoch, steps, observed : int
        Number, steps taken, and how many of them were observed, op by op.
    parameters, parameter_tensors : int
        P: trainable scalars that got a gradient in a step, and the arrays that they are in.
    saved_peak_bytes : int
        The most that ops had kept when a backward pass began. What checkpoints keep, and build again, is not in it.
    data_ns, forward_ns, backward_ns, update_ns : int
        Time before a step: since the last step, evaluation, or start of the epoch; from the first op or module of the
        step to its backward pass; in ``backward``; in the optimizer's step.
    evaluation_ns : int
        Time in forwards under ``no_grad``: all of them, also where a profile is sampled.
    other_ns, preparation_ns : int
        Time in none of these, such as gradient work between ``backward`` and ``step``, loads between accumulated
        batches, and hooks; the part of it in which replays were prepared.
    check_ns, total_ns : int
        Time in which replays were compared with eager steps, in no other time; of the whole epoch: the sum of all
        these, and of the steps that were not observed.
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

    def layers(self) -> list[Row]:
        """Return one row a layer, in order of first use, ops added up."""
        found: dict[str, Row] = {}
        for row in self.rows:
            found.setdefault(row.layer, Row(row.layer)).add(row)
        return list(found.values())

    def ops(self) -> list[Row]:
        """Return one row an op, in order of first use, layers added up."""
        found: dict[str, Row] = {}
        for row in self.rows:
            found.setdefault(row.op, Row("", row.op)).add(row)
        return list(found.values())

    def sum(self) -> Row:
        """Return one row for all layers."""
        total = Row("total")
        for row in self.rows:
            total.add(row)
        return total

    def taken(self, phase: str, sampled: bool) -> float:
        """Return the nanoseconds of a phase: in the epoch, or if the profile is sampled, in one observed step."""
        ns: int = getattr(self, f"{phase}_ns")
        return ns / (self.observed or 1) if sampled else ns

    def ratio(self) -> Ratio:
        """Return backward against forward."""
        return ratio_of(self.rows, self.forward_ns, self.backward_ns)

    @property
    def unobserved_ns(self) -> int:
        """Time of the steps that were not observed: what no phase accounts for."""
        step = self.data_ns + self.forward_ns + self.backward_ns + self.update_ns
        return self.total_ns - step - self.evaluation_ns - self.other_ns - self.check_ns

    @property
    def untagged_forward_ns(self) -> int:
        """Forward time that no op accounts for."""
        return self.forward_ns - sum(row.forward_ns for row in self.rows)

    @property
    def untagged_backward_ns(self) -> int:
        """Backward time that no node accounts for: the walk itself."""
        return self.backward_ns - sum(row.backward_ns for row in self.rows)


@dataclass
class Layer:
    """A layer of the model.

    Attributes
    ----------
    name, kind : str
        Its path and its type.
    parameters, trainable : int
        How many parameters are its own, and how many of them are trained.
    weights : int
        How many of those stand in arrays of two or more axes, as the factors of products do.
    """

    name: str
    kind: str
    parameters: int = 0
    trainable: int = 0
    weights: int = 0


@dataclass
class Session:
    """A whole profile.

    Attributes
    ----------
    version : int
        Of the format.
    name, model : str
        The title, and the model's type.
    every : int
        Every so many-th step was observed.
    layers : list of Layer
        The model's modules, the model itself first.
    epochs : list of Epoch
        What was recorded.
    environment : dict
        Versions and machine.
    overhead, settings : dict
        What observing cost, measured at the end; how the run was made, for ``microfw compare --rerun`` to repeat it.
    alternated : str
        Two runs that were made alternately carry the same mark here: round k of one belongs to round k of the other.
    trace : Trace or None
        The events of the first steps, of a profiler that was asked for them.

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

    def total(self) -> Epoch:
        """Return all epochs added up, as epoch 0."""
        return merged(self.epochs)

    # Reading it: each of these is a pure function in `microfw.profiler.reports`
    def report(self, **options: Any) -> str:
        """Return text for a terminal; see `microfw.profiler.report`."""
        from microfw.profiler.reports.text import report

        return report(self, **options)

    def html(self, law: PagePart | None = None) -> str:
        """Return one self-contained page; with what `microfw.profiler.law` found, if that is given."""
        from microfw.profiler.reports.html import html

        return html(self, law)

    def csv(self) -> str:
        """Return a table for a spreadsheet; a cell that it would run as a formula begins with an apostrophe."""
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
        """Return a pandas frame: one row for each op of each layer of each epoch."""
        from microfw.profiler.reports.frame import to_frame

        return to_frame(self)

    def plot(self) -> Any:
        """Return a matplotlib figure: the epochs, and the layers of one step."""
        from microfw.profiler.reports.plot import plot

        return plot(self)

    def _repr_html_(self) -> str:
        from microfw.profiler.reports.notebook import notebook

        return notebook(self)

    # Files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, in the format that the name's end asks for; see `microfw.profiler.files.save`."""
        from microfw.profiler.files import save

        save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Session:
        """Read what `save` wrote as JSON.

        Raises
        ------
        DataError
            If the file is no profile, is truncated, or is of another version.
        FileNotFoundError
            If there is no such file.
        """
        from microfw.profiler.files import load

        return load(path)


def merged(epochs: Iterable[Epoch]) -> Epoch:
    """Add epochs up; every sum is conserved."""
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
