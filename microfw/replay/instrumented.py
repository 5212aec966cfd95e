"""A plan that reads the clock between nodes, so that a profiler gets the time of each op."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from microfw.autograd.observer import Observer
from microfw.replay.plan import Plan
from microfw.replay.write import write_passes


class InstrumentedPlan:
    """A plan's passes with readings of the clock, added up in the sites of an observer.

    Parameters
    ----------
    plan : Plan
        The plan to time.
    observer : Observer
        Is notified of each replayed step.
    sequence : object
        The observer's record of the same step run eagerly. ``sites``: one for each node; those of earlier forward
        passes without a backward come first. ``pattern``: counts the steps.

    Attributes
    ----------
    timestamps : list of int
        Nanoseconds of ``perf_counter_ns``, ``len(parts)`` for each step.
    parts : list of (site, bool)
        The site that starts at each reading, or None, and whether it is of the forward pass.
    visited : list
        Sites of the nodes that the backward pass visits.
    constants : list
        Sites of ops without a node.
    example : tuple
        The `Replay` and the arguments of a step, with which the profiler measures its own cost.
    """

    def __init__(self, plan: Plan, observer: Observer, sequence: Any) -> None:
        self.sequence = sequence
        self.observer = observer
        self.pattern = sequence.pattern
        self.timestamps: list[int] = []
        self.example: Any = None
        self.passes_code = write_passes(plan, self.timestamps.extend)
        before, after = self.passes_code[0].nodes, self.passes_code[1].nodes
        nodes = plan.step.nodes
        found = sequence.sites[len(sequence.sites) - len(nodes) :]
        sites = {id(record): site for record, site in zip(nodes, found, strict=True)}
        constants = plan.step.constants
        self.constants = [observer.constant(a.op, a.inputs, a.params, a.output, a.scope) for a in constants]
        sites |= {id(record): site for record, site in zip(constants, self.constants, strict=True)}
        self.parts = [(sites.get(id(node)), k < len(before)) for k, node in enumerate([*before, *after])]
        self.visited = [sites[id(record)] for record in plan.step.visited]

    def discard_unfinished(self) -> None:
        """Drop the readings of a step that was not finished."""
        del self.timestamps[len(self.timestamps) // len(self.parts) * len(self.parts) :]

    def flush(self) -> None:
        """Add the times to the sites."""
        for site, forward_ns, backward_ns, rules in self.elapsed(self.pop_timestamps()):
            site.forward_ns += forward_ns
            site.backward_ns += backward_ns
            site.rules += rules

    def pop_timestamps(self) -> list[int]:
        """Return the readings, and clear them."""
        timestamps = self.timestamps[:]
        self.timestamps.clear()
        return timestamps

    def elapsed(self, timestamps: list[int]) -> Iterator[tuple[Any, int, int, int]]:
        """Yield (site, forward ns, backward ns, number of derivative rules run), several times for a site."""
        readings = np.array(timestamps).reshape(-1, len(self.parts))
        for (site, forward), ns in zip(self.parts, np.diff(readings, axis=1).sum(0).tolist(), strict=False):
            if site is not None:
                yield (site, ns, 0, 0) if forward else (site, 0, ns, 0)
        for site in self.visited:
            yield site, 0, 0, len(readings)
        for site in self.constants:
            if site is not None:
                yield site, 0, 0, len(readings)
