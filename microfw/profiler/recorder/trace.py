"""Tracer: a recorder that also keeps each event of the first steps."""

from __future__ import annotations

from itertools import pairwise
from time import perf_counter_ns
from typing import Any

from microfw.autograd.mode import MODE
from microfw.autograd.phases import BACKWARD, FORWARD, OTHER, SET_UP, UPDATE
from microfw.nn.module import Module
from microfw.profiler.recorder.recorder import Recorder
from microfw.profiler.recorder.sampling import Schedule
from microfw.profiler.recorder.stats import OpStats
from microfw.profiler.session import PHASES, Trace

MAX_EVENTS = 200_000
"""Maximum number of events in a trace: about 20 MB in memory, 8 MB in a file."""


class Tracer(Recorder):
    """A recorder that also keeps the events of the first steps.

    Parameters
    ----------
    max_steps : int
        Number of steps to trace.
    """

    def __init__(
        self,
        max_steps: int,
        schedule: Schedule = None,
        takes_losses: bool = True,
        model: Module | None = None,
    ) -> None:
        self.max_steps = max_steps
        self.traced = 0
        self.tracing = True
        self.events: list[tuple[int, OpStats, int, int]] = []
        self.spans: list[tuple[int, int, int]] = []  # phase, start_ns, end_ns
        super().__init__(schedule, takes_losses, model)

    def forward(
        self, op: Any, node: Any, inputs: tuple[Any, ...], params: dict[str, Any], output: Any, start_ns: int
    ) -> None:
        """Add an op's time to its stats, and keep the event."""
        end_ns = perf_counter_ns()
        super().forward(op, node, inputs, params, output, start_ns)
        if self.tracing and node is not None and node.metadata is not None:
            again = self.timestamps[-1] == BACKWARD  # in a checkpoint
            self._keep(int(again), node._metadata.stats, start_ns, end_ns)

    def _add_constant(self, *call: Any, **options: Any) -> None:
        """Count an op without a node, and keep the event."""
        super()._add_constant(*call, **options)
        if self.tracing and self.last_constant is not None and MODE.get().recording:
            *_, start_ns, end_ns = call
            self._keep(int("recomputed" in options), self.last_constant, start_ns, end_ns)

    def on_visits(self, times: list[Any]) -> None:
        """Add the times of rules to the stats of their nodes, and keep the events."""
        super().on_visits(times)
        each = iter(times)
        for node, start_ns, end_ns in zip(each, each, each, strict=True):
            if self.tracing and node.metadata is not None:
                self._keep(1, node._metadata.stats, start_ns, end_ns)

    def on_replayed_ops(self, timed: Any) -> None:
        """Count a replayed step, and keep the event of each node."""
        if self.tracing:
            readings = timed.timestamps[-len(timed.parts) :]
            for (stats, forward), start_ns, end_ns in zip(timed.parts, readings, readings[1:], strict=False):
                if stats is not None:
                    self._keep(0 if forward else 1, stats, start_ns, end_ns)
        super().on_replayed_ops(timed)

    def _keep(self, phase: int, stats: OpStats, start_ns: int, end_ns: int) -> None:
        self.events.append((phase, stats, start_ns, end_ns))
        if len(self.events) >= MAX_EVENTS:
            self._stop()

    def on_replayed_step(
        self, start_ns: int, backward_start_ns: int, end_ns: int, update_start_ns: int, update_end_ns: int
    ) -> None:
        """Record a replayed step with its update."""
        self.replays += 1
        if self.enabled:
            self.timestamps += (start_ns, FORWARD, backward_start_ns, BACKWARD, end_ns, OTHER, update_start_ns, UPDATE)
        self._end_step(update_end_ns)

    def _end_step(self, now: int) -> None:
        if self.tracing and self.enabled:
            self.traced += 1
            if self.traced == self.max_steps:
                now = now or perf_counter_ns()
                self.timestamps += (now, self._between)
                self._stop()
        super()._end_step(now)

    def _flush_to_log(self) -> None:
        if self.tracing:
            self._keep_spans()
        super()._flush_to_log()

    def _keep_spans(self) -> None:
        marks = [(0, OTHER), *zip(self.timestamps[::2], self.timestamps[1::2], strict=True)]
        # A set-up interrupts a phase, which then begins again: in the trace both parts are one span.
        table = [mark for before, mark in pairwise(marks) if SET_UP not in (before[1], mark[1])]
        self.spans += [
            (phase, start_ns, end_ns) for (start_ns, phase), (end_ns, _) in pairwise(table) if phase < len(PHASES)
        ]

    def _stop(self) -> None:
        self._keep_spans()
        self.tracing = False

    def trace(self) -> Trace:
        """Return the events in order of time, with their layers and ops."""
        events: list[tuple[int, OpStats | None, int, int]] = [*self.events]
        events += [(phase, None, start_ns, end_ns) for phase, start_ns, end_ns in self.spans]
        events.sort(key=lambda event: (event[2], -event[3]))
        zero = events[0][2] if events else 0
        sites: dict[tuple[str, str], int] = {}
        numbered = []
        for phase, stats, start_ns, end_ns in events:
            k = -1 if stats is None else sites.setdefault((stats.path, stats.op.name), len(sites))
            numbered.append([phase, k, start_ns - zero, end_ns - zero])
        return Trace(self.traced, self.traced == self.max_steps, [list(site) for site in sites], numbered)
