"""A plan that reads the clock between nodes, so that an observer sees what each of them took."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.recording import Observer
from microfw.replay.plan import Plan


class Timed:
    """A plan's passes with readings of the clock, and what they say about the sites of an observer.

    Parameters
    ----------
    plan : Plan
        What to time.
    observer : Observer
        Who is told.
    pattern : object
        What the observer made of the same step when it was not replayed; its ``sites`` are one for each node.
    """

    def __init__(self, plan: Plan, observer: Observer, pattern: Any) -> None:
        self.observer = observer
        self.pattern = pattern
        self.marks: list[int] = []
        self.forward, self.backward, before, after = plan.timed(self.marks.extend)
        sites = {id(applied): site for applied, site in zip(plan.captured.nodes, pattern.sites, strict=True)}
        self.parts = [(sites.get(id(node)), k < len(before)) for k, node in enumerate([*before, *after])]
        self.walked = [sites[id(applied)] for applied in plan.captured.walked]

    def forget(self) -> None:
        """Take back what the clock said of a step that was not finished."""
        del self.marks[len(self.marks) // len(self.parts) * len(self.parts) :]

    def flush(self, most: int = 0) -> None:
        """Add what the clock said to the sites, if it is more than so many readings."""
        if len(self.marks) <= most:
            return
        readings = np.array(self.marks).reshape(-1, len(self.parts))
        self.marks.clear()
        for (site, forward), ns in zip(self.parts, np.diff(readings, axis=1).sum(0).tolist(), strict=False):
            if site is None:
                continue
            if forward:
                site.forward_ns += ns
            else:
                site.backward_ns += ns
        for site in self.walked:
            site.rules += len(readings)
