"""The log: what a recorder has noted in an epoch, which is made sense of when somebody wants to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from time import perf_counter_ns
from typing import Any

from microfw.profiler.session import PHASES, Epoch, Row
from microfw.profiler.sites import Pattern, Site
from microfw.recording import triples


class Log:
    """What was noted in an epoch, as it was noted; `epoch` makes sense of it, later, off the clock."""

    losses = (0, 0.0)
    """How many, and their sum."""

    marks: Sequence[tuple[Any, list[int]]] = ()
    """Of replayed steps, with the `Timed` plan that reads them."""

    metrics: Mapping[str, Any] = {}
    """What a Trainer says of the epoch."""

    counts: Sequence[tuple[Pattern, int]] = ()
    spent: Sequence[tuple[Site, int, int, int, int]] = ()
    parameters = (0, 0)
    number = steps = observed = replays = saved_bytes = 0
    loose = forward_ns = backward_ns = update_ns = evaluation_ns = check_ns = data_ns = total_ns = 0

    def __init__(self) -> None:
        self.stretches: list[Any] = []  # as a `Watcher` has them
        self.folded: dict[tuple[str, str], Row] = {}
        self.began = self.step_ended = perf_counter_ns()

    def add_stretches(self) -> None:
        """Turn the stretches so far into times. One inside of another is part of it, but for training in a forward."""
        times = dict.fromkeys((*PHASES, "waits", "waited", "check"), 0)
        outermost: list[tuple[str, int, int, int]] = []
        for phase, began, ended in triples(self.stretches):
            own = ended - began
            while outermost and outermost[-1][1] >= began:
                inner, *_, ns = outermost.pop()
                if phase == "forward" and inner in ("backward", "update"):
                    times[inner] += ns
                    own -= ns
            outermost.append((phase, began, ended, own))
        self.stretches.clear()
        for phase, began, ended, own in outermost:
            times[phase] += own
            if phase in ("forward", "check") and 0 < self.step_ended < began:
                self.data_ns += began - self.step_ended
            self.step_ended = ended if phase in ("update", "waited", "check") else 0
        self.forward_ns += times["forward"]
        self.backward_ns += times["backward"]
        self.update_ns += times["update"]
        self.evaluation_ns += times["evaluation"]
        self.check_ns += times["check"]

    def add_pattern(self, pattern: Pattern, count: int) -> None:
        """Add the steps that went through a pattern."""
        if count:
            pattern.fold(self.folded, count)
            self.parameters = max(self.parameters, (pattern.parameters, pattern.parameter_tensors))
            self.saved_bytes = max(self.saved_bytes, pattern.saved_bytes)

    def epoch(self) -> Epoch:
        """Return the epoch's numbers."""
        self.add_stretches()
        for pattern, count in self.counts:
            self.add_pattern(pattern, count)
        metrics = {name: float(v) for name, v in self.metrics.items() if isinstance(v, float) and isfinite(v)}
        epoch = Epoch(
            self.number,
            steps=self.steps,
            observed=self.observed,
            replayed=self.replays,
            loss=metrics.get("loss", self._mean_loss()),
            metrics=metrics,
            parameters=self.parameters[0],
            parameter_tensors=self.parameters[1],
            saved_peak_bytes=self.saved_bytes,
            forward_ns=self.forward_ns + self.loose,
            backward_ns=self.backward_ns,
            update_ns=self.update_ns,
            evaluation_ns=self.evaluation_ns,
            check_ns=self.check_ns,
            data_ns=self.data_ns,
            total_ns=self.total_ns,
        )
        spent = self._all_spent()
        keys = [(site.path, site.op.name) for site, *_ in spent]  # in order of first use
        rows = {key: self.folded.get(key) or Row(*key) for key in keys} | self.folded
        for key, (site, *what) in zip(keys, spent, strict=True):
            site.add_to(rows[key], *what)
        epoch.rows = list(rows.values())
        return epoch

    def _mean_loss(self) -> float | None:
        count, total = self.losses
        return total / count if count and isfinite(total) else None

    def _all_spent(self) -> list[tuple[Site, int, int, int, int]]:
        """Return what was spent at each site, with what the clock said of replayed steps."""
        spent = {id(entry[0]): entry for entry in self.spent}
        for timed, marks in self.marks:
            for site, forward_ns, backward_ns, rules in timed.spent(marks):
                _, f, b, r, again = spent.get(id(site), (site, 0, 0, 0, 0))
                spent[id(site)] = (site, f + forward_ns, b + backward_ns, r + rules, again)
        return list(spent.values())
