"""The log: what a recorder has noted in an epoch, which is made sense of when somebody wants to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np

from microfw.autograd.phases import (
    BACKWARD,
    CHECK,
    DATA,
    EVALUATION,
    FORWARD,
    IDLE,
    NAMES,
    OTHER,
    PREPARATION,
    UPDATE,
)
from microfw.profiler.recorder.stats import Pattern, Site
from microfw.profiler.session import Epoch, Row

STEPS = (FORWARD, BACKWARD, UPDATE, CHECK, PREPARATION)
"""Phases of a step: the time before them, since the last step, evaluation or the start of the epoch, is data."""

AFTER_IDLE = np.array([DATA if phase in STEPS else OTHER for phase in range(IDLE + 1)])
"""What idle time is, by the phase that comes after it."""


class Log:
    """What was noted in an epoch, as it was noted; `epoch` makes sense of it, later, off the clock."""

    losses = (0, 0.0)
    """How many, and their sum."""

    marks: Sequence[tuple[Any, list[int]]] = ()
    """Of replayed steps, with the `InstrumentedPlan` that reads them."""

    metrics: Mapping[str, Any] = {}
    """What a Trainer says of the epoch."""

    counts: Sequence[tuple[Pattern, int]] = ()
    spent: Sequence[tuple[Site, int, int, int, int]] = ()
    parameters = (0, 0)
    number = steps = observed = replays = saved_bytes = 0

    def __init__(self) -> None:
        self.phases: Any = 0  # nanoseconds by number of the phase, once there are any: an array takes 1 us to make
        self.pending: list[list[int]] = []  # lists for `add_marks`
        self.folded: dict[tuple[str, str], Row] = {}

    def add_pending(self) -> None:
        """Add up the phases that were noted."""
        while self.pending:
            self.add_marks(self.pending[0])
            del self.pending[0]

    def add_marks(self, marks: list[int]) -> None:
        """Add up phases: when each began and which it is, one after the other. The last one has not ended."""
        table = np.array(marks, np.int64).reshape(-1, 2)
        before, after = table[:-1, 1], table[1:, 1]
        phases = np.where(before == IDLE, AFTER_IDLE[after], before)
        self.phases = self.phases + np.bincount(phases, np.diff(table[:, 0]), len(NAMES)).astype(np.int64)

    def add_pattern(self, pattern: Pattern, count: int) -> None:
        """Add the steps that went through a pattern."""
        if count:
            pattern.fold(self.folded, count)
            self.parameters = max(self.parameters, (pattern.parameters, pattern.parameter_tensors))
            self.saved_bytes = max(self.saved_bytes, pattern.saved_bytes)

    def epoch(self) -> Epoch:
        """Return the epoch's numbers."""
        for pattern, count in self.counts:
            self.add_pattern(pattern, count)
        metrics = {name: float(v) for name, v in self.metrics.items() if isinstance(v, float) and isfinite(v)}
        self.add_pending()
        ns: list[int] = np.broadcast_to(self.phases, len(NAMES)).tolist()
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
            forward_ns=ns[FORWARD],
            backward_ns=ns[BACKWARD],
            update_ns=ns[UPDATE],
            evaluation_ns=ns[EVALUATION],
            check_ns=ns[CHECK],
            data_ns=ns[DATA],
            other_ns=ns[OTHER] + ns[PREPARATION],
            preparation_ns=ns[PREPARATION],
            total_ns=sum(ns),
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
            for site, forward_ns, backward_ns, rules in timed.elapsed(marks):
                _, f, b, r, again = spent.get(id(site), (site, 0, 0, 0, 0))
                spent[id(site)] = (site, f + forward_ns, b + backward_ns, r + rules, again)
        return list(spent.values())
