"""A plan that reads the clock between nodes, so that an observer sees what each of them took."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from microfw.autograd.observer import Observer
from microfw.replay.plan import Plan
from microfw.replay.write import write_passes


class Timed:
    """A plan's passes with readings of the clock, and what they say about the sites of an observer.

    Parameters
    ----------
    plan : Plan
        What to time.
    observer : Observer
        Who is told.
    sequence : object
        What the observer has recorded of the same step when it was not replayed: its ``op_stats``, one for each node,
        after those of forwards that no backward has followed, and its ``graph``.
    """

    def __init__(self, plan: Plan, observer: Observer, sequence: Any) -> None:
        self.plan = plan
        self.sequence = sequence
        self.observer = observer
        self.graph = sequence.graph
        self.marks: list[int] = []
        self.example: Any = None  # the `Replay` and arguments of a step, to run it again
        self.written = write_passes(plan, self.marks.extend)
        before, after = self.written[0].nodes, self.written[1].nodes
        nodes = plan.captured.nodes
        found = sequence.op_stats[len(sequence.op_stats) - len(nodes) :]
        sites = {id(applied): site for applied, site in zip(nodes, found, strict=True)}
        constants = plan.captured.constants
        self.constants = [observer.constant(a.op, a.inputs, a.params, a.output, a.scope) for a in constants]
        sites |= {id(applied): site for applied, site in zip(constants, self.constants, strict=True)}
        self.parts = [(sites.get(id(node)), k < len(before)) for k, node in enumerate([*before, *after])]
        self.walked = [sites[id(applied)] for applied in plan.captured.walked]

    def forget(self) -> None:
        """Take back what the clock said of a step that was not finished."""
        del self.marks[len(self.marks) // len(self.parts) * len(self.parts) :]

    def flush(self) -> None:
        """Add what the clock said to the sites."""
        for site, forward_ns, backward_ns, rules in self.spent(self.take()):
            site.forward_ns += forward_ns
            site.backward_ns += backward_ns
            site.vjp_calls += rules

    def take(self) -> list[int]:
        """Return what the clock said, and forget it."""
        marks = self.marks[:]
        self.marks.clear()
        return marks

    def spent(self, marks: list[int]) -> Iterator[tuple[Any, int, int, int]]:
        """Yield sites with the time of forward and of backward, and how often a derivative ran."""
        readings = np.array(marks).reshape(-1, len(self.parts))
        for (site, forward), ns in zip(self.parts, np.diff(readings, axis=1).sum(0).tolist(), strict=False):
            if site is not None:
                yield (site, ns, 0, 0) if forward else (site, 0, ns, 0)
        for site in self.walked:
            yield site, 0, 0, len(readings)
        for site in self.constants:
            if site is not None:
                yield site, 0, 0, len(readings)
