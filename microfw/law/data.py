"""Results of the law on a model, as plain numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from microfw.errors import ArgumentError, suggest_keywords
from microfw.law.measure import StrategyResult
from microfw.law.walk import Walk
from microfw.profiler.node_count import NodeCount
from microfw.profiler.ratio import Ratio
from microfw.visualization.frame import Frame


@dataclass
class LayerCost:
    """Scalar operations of a layer, and the number of uses of its parameters."""

    layer: str
    kind: str = ""
    parameters: int = 0
    forward: int = 0
    backward: int = 0
    uses: int | None = None


@dataclass(repr=False)
class Law:
    """Cost of the five strategies on a model. ``str()`` returns a table, `to_dict` is for JSON.

    Attributes
    ----------
    name, model : str
        Name of the data, and description of the model.
    rows : int
        Rows of data.
    loss : float
        The loss, in float64.
    budget : float
        Seconds that a strategy may take.
    counts : list of NodeCount
        In tensors and, unless an op has no scalar nodes, in scalars.
    batch : int
        Rows of a batch.
    batch_counts : list of NodeCount
        Counts for a batch.
    ways : list of StrategyResult
        One result for each strategy and graph.
    paths : int or None
        Paths from the loss to the parameters in the scalar graph.
    layers : list of LayerCost
        One row for each layer, in order of first use.
    ratio : Ratio
        Backward against forward.
    note : str
        What was left out, and why.
    walk : Walk or None
        Visits of one gradient, for the page. Not in `to_dict`.
    """

    name: str
    model: str
    rows: int
    loss: float
    budget: float
    counts: list[NodeCount] = field(default_factory=list)
    batch: int = 1
    batch_counts: list[NodeCount] = field(default_factory=list)
    ways: list[StrategyResult] = field(default_factory=list)
    paths: int | None = None
    layers: list[LayerCost] = field(default_factory=list)
    ratio: Ratio = field(default_factory=Ratio)
    note: str = ""
    walk: Walk | None = None

    def way(self, name: str, graph: str = "") -> StrategyResult:
        """Return the result of a strategy. Backprop has two: give the graph."""
        found = [w for w in self.ways if w.name == name and graph in ("", w.graph)]
        if not found:
            raise ArgumentError("Law.way", f"one of {[w.name for w in self.ways]}", repr(name))
        return found[0]

    def count(self, kind: str, batch: bool = False) -> NodeCount | None:
        """Return the counts in "tensors" or in "scalars", of the rows that the strategies use or of a batch."""
        return next((c for c in (self.batch_counts if batch else self.counts) if c.kind == kind), None)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers in dicts and lists, for JSON. 10^15 paths or more are written as text."""
        paths = self.paths if self.paths is None or self.paths < 10**15 else huge(self.paths)
        return {name: value for name, value in asdict(self).items() if name != "walk"} | {"paths": paths}

    def page_data(self) -> dict[str, Any]:
        """Return the data of the page: plain lists and numbers."""
        from microfw.law.view import page_data

        return page_data(self)

    @suggest_keywords
    def plot(self, axes: Any = None) -> Any:
        """Draw the counts of each strategy on the left, their seconds on the right, with Matplotlib (extra ``plot``).

        Parameters
        ----------
        axes : array of two matplotlib Axes, optional
            Axes to draw into; those of a new figure by default.

        Returns
        -------
        array of two matplotlib Axes

        Raises
        ------
        ArgumentError
            If ``axes`` do not fit, or Matplotlib is not installed.

        Examples
        --------
        >>> import microfw as mf
        >>> model = mf.nn.Sequential(mf.nn.Dense(3, 2, rng=0))
        >>> found = mf.profiler.law(model, mf.nn.CrossEntropyLoss(), [[1, 2, 3]], [0], budget=0.01)
        >>> [panel.get_xlabel() for panel in found.plot()]
        ['count', 'time, s']
        """
        from microfw.law.plots import plot_law

        return plot_law(self, axes)

    def html(self) -> str:
        """Return one self-contained page: the gradient to walk through, the counts and the strategies."""
        from microfw.law.page import page

        return page(self)

    def show(self, *, height: int = 640) -> Frame:
        """Return the page for a notebook, in a sandboxed frame ``height`` pixels high."""
        return Frame(self.html(), height, 'pathlib.Path("law.html").write_text(law.html(), encoding="utf-8")')

    def __repr__(self) -> str:
        c = self.count("scalars") or self.count("tensors")
        counts = "" if c is None else f", N {c.N:,}, P {c.P:,}, {c.steps:,} steps in {c.kind}"
        return f"Law({self.name[:40] or self.model[:60]}{counts})"

    def _repr_html_(self) -> str:
        from microfw.law.page import notebook

        return notebook(self)

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
