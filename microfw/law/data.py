"""What the law found on a model: plain numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from microfw.errors import ArgumentError, message
from microfw.law.measure import Way
from microfw.profiler.ratio import Ratio


@dataclass
class Count:
    """What one backward pass goes through, counted in one kind of node.

    Attributes
    ----------
    kind : {"tensors", "scalars"}
        What a node and a parameter are: tensor ops and arrays, or scalar operations and numbers.
    N : int
        Nodes that the loss depends on, leaves counted apart.
    E : int
        Edges: inputs of those nodes that need a gradient.
    P : int
        Parameters.
    rules : int
        Derivative rules that backprop called.
    accumulated : int
        Gradients that it added into parameters.
    """

    kind: str
    N: int
    E: int
    P: int
    rules: int
    accumulated: int

    @property
    def steps(self) -> int:
        """Derivative rules called plus gradients added into parameters."""
        return self.rules + self.accumulated


@dataclass
class LayerCost:
    """What a layer's parameters cost: scalar operations, and how often one row uses each of them."""

    layer: str
    kind: str = ""
    parameters: int = 0
    forward: int = 0
    backward: int = 0
    uses: int | None = None


@dataclass
class Law:
    """What the five strategies took on a model. ``str()`` of it is a table, `to_dict` is for JSON.

    Attributes
    ----------
    name, model : str
        What it was run on.
    rows : int
        Rows of data.
    loss : float
        The loss, in float64.
    budget : float
        Seconds that a strategy had.
    counts : list of Count
        In tensors and, unless the scalar graph would be too large, in scalars.
    ways : list of Way
        A row for each strategy.
    paths : int or None
        Paths from the loss to the parameters in the scalar graph.
    layers : list of LayerCost
        By layer, in the order in which they ran.
    ratio : Ratio
        Backward against forward.
    note : str
        What was left out, and why.
    """

    name: str
    model: str
    rows: int
    loss: float
    budget: float
    counts: list[Count] = field(default_factory=list)
    ways: list[Way] = field(default_factory=list)
    paths: int | None = None
    layers: list[LayerCost] = field(default_factory=list)
    ratio: Ratio = field(default_factory=Ratio)
    note: str = ""

    def way(self, name: str, graph: str = "") -> Way:
        """Return the row of a strategy; of backprop there are two, so name the graph."""
        found = [w for w in self.ways if w.name == name and graph in ("", w.graph)]
        if not found:
            raise ArgumentError(message("Law.way", f"one of {[w.name for w in self.ways]}", repr(name)))
        return found[0]

    def count(self, kind: str) -> Count | None:
        """Return the counts in "tensors" or in "scalars"."""
        return next((c for c in self.counts if c.kind == kind), None)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers in dicts and lists, for JSON; paths beyond 10^15 as text."""
        return asdict(self) | {"paths": self.paths if self.paths is None or self.paths < 10**15 else huge(self.paths)}

    def page_data(self) -> dict[str, Any]:
        """Return what the page shows: plain lists and numbers."""
        from microfw.law.view import page_data

        return page_data(self)

    def html(self) -> str:
        """Return one self-contained page."""
        from microfw.profiler.reports.html import html
        from microfw.profiler.session import Session

        return html(Session(name=f"the law on {self.name or self.model}"), self)

    def __str__(self) -> str:
        from microfw.law.report import law_report

        return law_report(self)


def huge(count: int) -> str:
    """Write a count that may have thousands of digits.

    Examples
    --------
    >>> huge(84_500), huge(2**500)
    ('84,500', 'about 10^150')
    """
    return f"{count:,}" if count < 10**15 else f"about 10^{math.floor(math.log10(count))}"
