"""A plan that reads the clock between nodes, so that a profiler gets the time of each op."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from microfw.autograd.observer import Observer
from microfw.replay.plan import Plan
from microfw.replay.write import write_passes


class InstrumentedPlan:
    """A plan's passes with readings of the clock, added up in the op stats of an observer.

    Parameters
    ----------
    plan : Plan
        The plan to time.
    observer : Observer
        Is notified of each replayed step.
    sequence : object
        The observer's record of the same step run eagerly. ``op_stats``: one for each node; those of earlier forward
        passes without a backward come first. ``graph``: counts the steps.

    Attributes
    ----------
    timestamps : list of int
        Nanoseconds of ``perf_counter_ns``, ``len(parts)`` for each step.
    parts : list of (op stats, bool)
        The op stats that start at each reading, or None, and whether it is of the forward pass.
    visited : list
        Op stats of the nodes that the backward pass visits.
    constants : list
        Op stats of ops without a node.
    example : tuple
        The `Replay` and the arguments of a step, with which the profiler measures its own cost.
    """

    def __init__(self, plan: Plan, observer: Observer, sequence: Any) -> None:
        self.sequence = sequence
        self.observer = observer
        self.graph = sequence.graph
        self.timestamps: list[int] = []
        self.example: Any = None
        self.passes_code = write_passes(plan, self.timestamps.extend)
        before, after = self.passes_code[0].nodes, self.passes_code[1].nodes
        nodes = plan.step.nodes
        found = sequence.op_stats[len(sequence.op_stats) - len(nodes) :]
        stats = {id(record): op_stats for record, op_stats in zip(nodes, found, strict=True)}
        constants = plan.step.constants
        self.constants = [observer.constant(a.op, a.inputs, a.params, a.output, a.scope) for a in constants]
        stats |= {id(record): op_stats for record, op_stats in zip(constants, self.constants, strict=True)}
        self.parts = [(stats.get(id(node)), k < len(before)) for k, node in enumerate([*before, *after])]
        self.visited = [stats[id(record)] for record in plan.step.visited]

    def discard_unfinished(self) -> None:
        """Drop the readings of a step that was not finished."""
        del self.timestamps[len(self.timestamps) // len(self.parts) * len(self.parts) :]

    def flush(self) -> None:
        """Add the times to the op stats."""
        for op_stats, forward_ns, backward_ns, rules in self.elapsed(self.pop_timestamps()):
            op_stats.forward_ns += forward_ns
            op_stats.backward_ns += backward_ns
            op_stats.vjp_calls += rules

    def pop_timestamps(self) -> list[int]:
        """Return the readings, and clear them."""
        timestamps = self.timestamps[:]
        self.timestamps.clear()
        return timestamps

    def elapsed(self, timestamps: list[int]) -> Iterator[tuple[Any, int, int, int]]:
        """Yield (op stats, forward ns, backward ns, number of derivative rules run), several times for an op."""
        readings = np.array(timestamps).reshape(-1, len(self.parts))
        for (op_stats, forward), ns in zip(self.parts, np.diff(readings, axis=1).sum(0).tolist(), strict=False):
            if op_stats is not None:
                yield (op_stats, ns, 0, 0) if forward else (op_stats, 0, ns, 0)
        for op_stats in self.visited:
            yield op_stats, 0, 0, len(readings)
        for op_stats in self.constants:
            if op_stats is not None:
                yield op_stats, 0, 0, len(readings)
