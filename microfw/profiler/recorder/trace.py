"""The tracer: a recorder that also keeps the first steps event by event."""

from __future__ import annotations

from itertools import pairwise
from time import perf_counter_ns
from typing import Any

from microfw.autograd.phases import BACKWARD, FORWARD, OTHER, UPDATE
from microfw.nn.module import Module
from microfw.profiler.recorder.recorder import Recorder
from microfw.profiler.recorder.sampling import Schedule
from microfw.profiler.recorder.stats import Site
from microfw.profiler.session import PHASES, Trace

MOST_EVENTS = 200_000
"""Where a trace ends even if more steps were asked for: some 20 MB in memory, 8 MB in a file."""


class Tracer(Recorder):
    """A recorder that also keeps the events of the first steps.

    Parameters
    ----------
    wanted : int
        For how many steps.
    """

    def __init__(
        self,
        wanted: int,
        schedule: Schedule | None = None,
        takes_losses: bool = True,
        model: Module | None = None,
    ) -> None:
        self.wanted = wanted
        self.traced = 0
        self.tracing = True
        self.events: list[tuple[int, Site, int, int]] = []
        self.spans: list[tuple[int, int, int]] = []  # phase, began, ended
        super().__init__(schedule, takes_losses, model)

    def forward(
        self, op: Any, node: Any, inputs: tuple[Any, ...], params: dict[str, Any], output: Any, began: int
    ) -> None:
        """Add an op's time to its site, and keep it."""
        ended = perf_counter_ns()
        super().forward(op, node, inputs, params, output, began)
        if self.tracing and node is not None and node.metadata is not None:
            self._keep(0, node._metadata.site, began, ended)

    def walked(self, times: list[Any]) -> None:
        """Add the times of rules to the sites of their nodes, and keep them."""
        super().walked(times)
        each = iter(times)
        for node, began, ended in zip(each, each, each, strict=True):
            if self.tracing and node.metadata is not None:
                self._keep(1, node._metadata.site, began, ended)

    def on_replayed_ops(self, timed: Any) -> None:
        """Count a replayed step, and keep what its clock said of each node."""
        if self.tracing:
            marks = timed.timestamps[-len(timed.parts) :]
            for (site, forward), began, ended in zip(timed.parts, marks, marks[1:], strict=False):
                if site is not None:
                    self._keep(0 if forward else 1, site, began, ended)
        super().on_replayed_ops(timed)

    def _keep(self, phase: int, site: Site, began: int, ended: int) -> None:
        self.events.append((phase, site, began, ended))
        if len(self.events) >= MOST_EVENTS:
            self._stop()

    def on_replayed_step(self, began: int, middle: int, ended: int, updating: int, updated: int) -> None:
        """Note a replayed step with its update."""
        self.replays += 1
        if self.enabled:
            self.marks += (began, FORWARD, middle, BACKWARD, ended, OTHER, updating, UPDATE)
        self._end_step(updated)

    def _end_step(self, now: int) -> None:
        if self.tracing and self.enabled:
            self.traced += 1
            if self.traced == self.wanted:
                now = now or perf_counter_ns()
                self.marks += (now, self._between)
                self._stop()
        super()._end_step(now)

    def _hand_over(self) -> None:
        if self.tracing:
            self._keep_spans()
        super()._hand_over()

    def _keep_spans(self) -> None:
        table = list(zip(self.marks[::2], self.marks[1::2], strict=True))
        self.spans += [(phase, began, ended) for (began, phase), (ended, _) in pairwise(table) if phase < len(PHASES)]

    def _stop(self) -> None:
        self._keep_spans()
        self.tracing = False

    def trace(self) -> Trace:
        """Return the events in order of time, with what they are of."""
        events: list[tuple[int, Site | None, int, int]] = [*self.events]
        events += [(phase, None, began, ended) for phase, began, ended in self.spans]
        events.sort(key=lambda event: (event[2], -event[3]))
        zero = events[0][2] if events else 0
        found: dict[tuple[str, str], int] = {}
        numbered = []
        for phase, site, began, ended in events:
            k = -1 if site is None else found.setdefault((site.path, site.op.name), len(found))
            numbered.append([phase, k, began - zero, ended - zero])
        return Trace(self.traced, self.traced == self.wanted, [list(site) for site in found], numbered)
