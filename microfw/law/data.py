"""Results of the law on a model, as plain numbers."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from os import PathLike
from typing import Any

from microfw.errors import ArgumentError, GraphError, printable, suggest_keywords
from microfw.law.measure import StrategyResult
from microfw.law.walk import Walk
from microfw.profiler.files import PICTURES
from microfw.profiler.node_count import NodeCount
from microfw.profiler.ratio import Ratio
from microfw.serialization.output import encode, path_text, write_bytes
from microfw.visualization.frame import Frame
from microfw.visualization.plots import picture


@dataclass
class LayerCost:
    """Scalar operations of a layer, and the number of uses of its parameters.

    ``parameters``: its own P. ``used``: P with those that it shares with an earlier layer.
    """

    layer: str
    kind: str = ""
    parameters: int = 0
    forward: int = 0
    backward: int = 0
    uses: int | None = None
    used: int = 0


@dataclass(repr=False)
class Law:
    """Cost of the five strategies on a model. ``str()`` returns a table, `to_dict` is for JSON, `save` writes a file.

    ``N``, ``P``, ``steps`` and ``bound`` are numbers in scalars, on the rows of the strategies. `count` returns all
    numbers in tensors or in scalars.

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
        In tensors and, unless an op has no scalar nodes, in scalars. Each has the nodes ``N``, the parameters ``P``,
        the edges ``E``, the ``steps`` of backprop, of these ``rules`` called and gradients ``accumulated``, and
        ``operations``; see `NodeCount`.
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

    Examples
    --------
    >>> import microfw as mf
    >>> model = mf.nn.Sequential(mf.nn.Dense(3, 2, rng=0))
    >>> found = mf.profiler.law(model, mf.nn.CrossEntropyLoss(), [[1, 2, 3]], [0], budget=0.01)
    >>> found.N, found.P, found.steps, found.bound
    (21, 8, 29, 168)
    >>> found.count("tensors").N, found.count("tensors").P
    (2, 2)
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
        """Return the result of a strategy. Backprop has two: give the graph, "tensors" or "scalars"."""
        found = [w for w in self.ways if w.name == name and graph in ("", w.graph)]
        if len(found) != 1:
            known = ", ".join(f"law.way({w.name!r}, {w.graph!r})" for w in found or self.ways)
            raise ArgumentError("Law.way", f"one of {known}", repr(name) + (f", {graph!r}" if graph else ""))
        return found[0]

    def count(self, kind: str, batch: bool = False) -> NodeCount | None:
        """Return the counts in "tensors" or in "scalars", of the rows that the strategies use or of a batch.

        None if there are none in scalars: an op has no scalar nodes, or a batch has too many.
        """
        if kind not in ("tensors", "scalars"):
            raise ArgumentError("Law.count", "'tensors' or 'scalars'", repr(kind))
        return next((c for c in (self.batch_counts if batch else self.counts) if c.kind == kind), None)

    @property
    def N(self) -> int:
        """Nodes of the graph, in scalars, on `rows` rows. Predicted if the scalar graph is left out.

        A `GraphError` if the nodes of an op cannot be counted.
        """
        return self._scalars.N

    @property
    def P(self) -> int:
        """Trainable numbers that the loss depends on."""
        return self._scalars.P

    @property
    def steps(self) -> int:
        """Steps of backprop, in scalars, on `rows` rows: rules called plus gradients added into parameters."""
        return self._scalars.steps

    @property
    def bound(self) -> int:
        """N x P: the most visits if the chain rule starts over for each parameter (predicted)."""
        return self.N * self.P

    @property
    def _scalars(self) -> NodeCount:
        found = self.count("scalars")
        if found is None:
            raise GraphError("Law", "counts in scalars", f"none: {self.note}", 'for tensors take law.count("tensors")')
        return found

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

    def save(self, path: str | PathLike[str]) -> None:
        """Write a file; the suffix selects the format.

        Parameters
        ----------
        path : str or path-like
            Name that ends in ``.html`` (page), ``.json`` (all numbers, see `to_dict`), or ``.png``, ``.svg`` or
            ``.pdf`` (figure by Matplotlib).

        Raises
        ------
        ArgumentError
            If the suffix is another one, or Matplotlib is not installed for a figure.
        FileError
            If the file cannot be written. An existing file is then unchanged.
        """
        name = path_text(path, "Law.save", "law.save(path)")
        if name.lower().endswith(PICTURES):
            content = picture(self.plot, name)
        elif name.lower().endswith(".json"):
            content = encode(json.dumps(self.to_dict(), indent=1))
        elif name.lower().endswith((".html", ".htm")):
            content = encode(self.html())
        else:
            ends = f"a name that ends in .html, .json, {', '.join(PICTURES[:-1])} or {PICTURES[-1]}"
            raise ArgumentError("Law.save", ends, repr(name))
        write_bytes(name, content)

    def html(self) -> str:
        """Return one self-contained page: the gradient to walk through, the counts and the strategies."""
        from microfw.law.page import page

        return page(self)

    def show(self, *, height: int = 640) -> Frame:
        """Return the page for a notebook, in a sandboxed frame ``height`` pixels high."""
        return Frame(self.html(), height, 'law.save("law.html")')

    def __repr__(self) -> str:
        c = self.count("scalars") or self.count("tensors")
        counts = "" if c is None else f", N {c.N:,}, P {c.P:,}, {c.steps:,} steps in {c.kind}"
        return printable(f"Law({self.name[:40] or self.model[:60]}{counts})")

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
