"""Backward passes of one step, together: the parameters that they reach, and the bytes in memory at the same time."""

from __future__ import annotations

from math import prod
from typing import Any

from microfw.profiler.recorder.memory import AddressRanges
from microfw.profiler.recorder.stats import GraphStats

MAX_JOINED = 1 << 12
"""Maximum number of cached unions of graphs."""

Graphs = tuple[GraphStats, ...]


class Passes:
    """Graphs that backward passes have visited in the current step.

    Attributes
    ----------
    graphs : tuple of GraphStats
        Graphs of the step, each with parameters that the ones before it do not reach.
    open : list of [int, int]
        Of each pass since the step's ops began: number of ops before it, and bytes that they had saved. Empty once the
        passes have visited all nodes.
    ranges : AddressRanges or None
        Addresses of these bytes, if the graphs are new.
    counted : list of (GraphStats, InstrumentedPlan or None)
        In a Trainer, the graph of each backward pass of the step, and the plan if it was replayed.
    """

    graphs: Graphs = ()

    def __init__(self) -> None:
        self.counted: list[tuple[GraphStats, Any]] = []
        self.open: list[list[int]] = []
        self.ranges: AddressRanges | None = None
        self.joined: dict[tuple[Graphs, GraphStats], tuple[Graphs, tuple[int, int]]] = {}

    def join(self, graph: GraphStats, log: Any) -> None:
        """Add a graph to those of the step, and log the number of parameters that they reach together."""
        key = self.graphs, graph
        found = self.joined.get(key)
        if found is None:
            if len(self.joined) >= MAX_JOINED:
                self.joined.clear()
            before = set().union(*(each.leaves() for each in self.graphs))
            leaves = before | graph.leaves()
            graphs = (*self.graphs, graph) if len(leaves) > len(before) or not before else self.graphs
            found = self.joined[key] = graphs, (sum(prod(leaf.shape) for leaf in leaves), len(leaves))
        self.graphs, parameters = found
        log.parameters = max(log.parameters, parameters)

    def take_back(self) -> None:
        """Take back the counts of the step's passes. Times stay: they are part of the measured phases."""
        for graph, replayed in self.counted:
            graph.count -= 1
            if replayed is not None:
                del replayed.timestamps[-len(replayed.parts) :]
            for position in graph.positions if replayed is None else ():
                position.stats.vjp_calls -= 1
        self.counted.clear()
        self.graphs = ()

    def add_open(self, graph: GraphStats, ops: int, first: bool, log: Any) -> None:
        """Add a pass that leaves nodes to a later pass, or visits nodes that an earlier one has left.

        ``ops``: number of ops recorded before the pass. ``first``: whether no earlier pass has left nodes.
        """
        if first:
            self.open.clear()
        for earlier in self.open:  # ops that ran before that pass, and that it did not visit, had saved bytes then
            earlier[1] += graph.kept(earlier[0])
            log.saved_bytes = max(log.saved_bytes, earlier[1])
        self.open.append([ops, graph.saved_bytes])
