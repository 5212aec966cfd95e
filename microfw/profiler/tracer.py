"""The tracer: a recorder that also keeps the first steps event by event."""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

from microfw.nn.module import Module
from microfw.profiler.recorder import Recorder
from microfw.profiler.session import PHASES, Trace
from microfw.profiler.sites import Site
from microfw.recording import triples

MOST_EVENTS = 200_000
"""Where a trace ends however many steps were asked for: some 20 MB in memory, 8 MB in a file."""


class Tracer(Recorder):
    """Adds up like any recorder; keeps each event besides, for so many steps.

    Parameters
    ----------
    wanted : int
        For how many steps.
    """

    def __init__(self, wanted: int, every: int = 1, takes_losses: bool = True, model: Module | None = None) -> None:
        self.wanted = wanted
        self.traced = 0
        self.tracing = True
        self.events: list[tuple[int, Site, int, int]] = []
        self.spans: list[Any] = []  # stretches
        super().__init__(every, takes_losses, model)

    def forward(
        self, op: Any, node: Any, inputs: tuple[Any, ...], params: dict[str, Any], output: Any, began: int
    ) -> None:
        """Add an op's time to its site, and keep it."""
        ended = perf_counter_ns()
        super().forward(op, node, inputs, params, output, began)
        if self.tracing and node is not None:
            self.events.append((0, node._note, began, ended))
            if len(self.events) >= MOST_EVENTS:
                self._stop()

    def backward(self, node: Any, gradient: Any, shares: Any, began: int) -> None:
        """Add a rule's time to its node's site, and keep it."""
        ended = perf_counter_ns()
        super().backward(node, gradient, shares, began)
        if self.tracing and node.note is not None:
            self.events.append((1, node._note, began, ended))
            if len(self.events) >= MOST_EVENTS:
                self._stop()

    def follow(self, timed: Any) -> None:
        """Count a replayed step, and keep what its clock said of each node."""
        if self.tracing:
            marks = timed.marks[-len(timed.parts) :]
            for (site, forward), began, ended in zip(timed.parts, marks, marks[1:], strict=False):
                if site is not None:
                    self.events.append((0 if forward else 1, site, began, ended))
            if len(self.events) >= MOST_EVENTS:
                self._stop()
        super().follow(timed)

    def replayed(self, began: int, middle: int, ended: int) -> None:
        """Add up a step's passes, and keep them."""
        super().replayed(began, middle, ended)
        if self.tracing and not self.stretches:
            self.spans += ("forward", began, middle, "backward", middle, ended)

    def updated(self, began: int, ended: int, optimizer: Any = None) -> None:
        """Note an update, and stop after the last step that was asked for."""
        count = self.count
        if self.tracing and not self.stretches:
            self.spans += ("update", began, ended)
        super().updated(began, ended, optimizer)
        if self.tracing and self.count > count:
            self.traced += 1
            if self.traced == self.wanted:
                self._stop()

    def stepped(self, began: int, middle: int, ended: int, moved: int, done: int) -> None:
        """Do all that."""
        self.repeated()
        self.replayed(began, middle, ended)
        self.updated(moved, done, self.optimizer)

    def _hand_over(self) -> None:
        if self.tracing:
            self.spans += self.stretches
        super()._hand_over()

    def _stop(self) -> None:
        self.spans += self.stretches
        self.tracing = False

    def trace(self) -> Trace:
        """Return the events in order of time, with what they are of."""
        events: list[tuple[int, Site | None, int, int]] = [*self.events]
        events += [
            (PHASES.index(phase), None, began, ended) for phase, began, ended in triples(self.spans) if phase in PHASES
        ]
        events.sort(key=lambda event: (event[2], -event[3]))
        zero = events[0][2] if events else 0
        found: dict[tuple[str, str], int] = {}
        numbered = []
        for phase, site, began, ended in events:
            k = -1 if site is None else found.setdefault((site.path, site.op.name), len(found))
            numbered.append([phase, k, began - zero, ended - zero])
        return Trace(self.traced, self.traced == self.wanted, [list(site) for site in found], numbered)
