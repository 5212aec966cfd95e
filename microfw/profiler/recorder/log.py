"""Log of one epoch: raw readings of a recorder. They become an `Epoch` when the profile is read."""

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
    SET_UP,
    UPDATE,
)
from microfw.optim.checks import is_real
from microfw.profiler.epoch import LOSS_OF_PASSES, NOT_RECORDED, UNFINISHED, WITHOUT_BACKWARD, WITHOUT_UPDATES
from microfw.profiler.recorder.stats import GraphStats, OpStats
from microfw.profiler.session import Epoch, Row

STEPS = (FORWARD, BACKWARD, UPDATE, CHECK, PREPARATION, SET_UP)
"""Phases of a step. Idle time before one of them counts as data time."""

AFTER_IDLE = np.array([DATA if phase in STEPS else OTHER for phase in range(IDLE + 1)])
"""Phase that idle time counts as, by the phase that follows."""


class Log:
    """Raw readings of one epoch. `epoch` computes the numbers later, outside of the timed training."""

    losses = (0, 0.0)
    """Number of losses, and their sum."""

    timestamps: Sequence[tuple[Any, list[int]]] = ()
    """Timestamps of replayed steps, each list with the `InstrumentedPlan` that it belongs to."""

    metrics: Mapping[str, Any] = {}
    """Metrics of the epoch, from the Trainer."""

    counts: Sequence[tuple[GraphStats, int]] = ()
    op_times: Sequence[tuple[OpStats, int, int, int, int]] = ()
    passes = 0
    """Number of backward passes in `rows`."""

    unfinished = False
    """Whether backward passes ran after the last update."""

    parameters = (0, 0)
    number = steps = observed = replays = saved_bytes = 0
    older = False
    """Whether graphs had nodes from before the profiler was attached."""

    def __init__(self) -> None:
        self.phases: Any = 0  # nanoseconds by phase; an array only once there are some: making one takes 1 us
        self.pending: list[list[int]] = []  # arguments of `add_timestamps`
        self.rows: dict[tuple[str, str], Row] = {}

    def add_pending(self) -> None:
        """Add up the phases of all pending marks."""
        while self.pending:
            self.add_timestamps(self.pending[0])
            del self.pending[0]

    def add_timestamps(self, timestamps: list[int]) -> None:
        """Add up phases, given as ``[start_ns, phase, start_ns, phase, …]``. The last phase is still open."""
        table = np.array(timestamps, np.int64).reshape(-1, 2)
        before, after = table[:-1, 1], table[1:, 1]
        phases = np.where(before == IDLE, AFTER_IDLE[after], before)
        self.phases = self.phases + np.bincount(phases, np.diff(table[:, 0]), len(NAMES)).astype(np.int64)

    def add_graph(self, graph: GraphStats, count: int) -> None:
        """Add the counts of ``count`` steps that recorded a graph."""
        if count:
            graph.add_to(self.rows, count)
            self.passes += count
            self.older = self.older or graph.older > 0
            self.parameters = max(self.parameters, (graph.parameters, graph.parameter_tensors))
            self.saved_bytes = max(self.saved_bytes, graph.saved_bytes)

    def epoch(self) -> Epoch:
        """Return the epoch's numbers."""
        for graph, count in self.counts:
            self.add_graph(graph, count)
        metrics = {name: float(v) for name, v in self.metrics.items() if is_real(v) and name != "epoch"}
        self.add_pending()
        ns: list[int] = np.broadcast_to(self.phases, len(NAMES)).tolist()
        without_updates = not self.steps and self.passes > 0
        notes = {WITHOUT_UPDATES: without_updates, UNFINISHED: self.unfinished, NOT_RECORDED: self.older}
        notes[WITHOUT_BACKWARD] = self.observed > 0 and not self.passes
        steps = self.passes if without_updates else self.steps
        notes[LOSS_OF_PASSES] = self.losses[0] > steps + self.unfinished
        epoch = Epoch(
            self.number,
            steps=steps,
            observed=self.passes if without_updates else self.observed,
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
            other_ns=ns[OTHER] + ns[PREPARATION] + ns[SET_UP],
            preparation_ns=ns[PREPARATION],
            set_up_ns=ns[SET_UP],
            total_ns=sum(ns),
            notes=[note for note, holds in notes.items() if holds],
        )
        op_times = self._all_op_times()
        keys = [(stats.path, stats.op.name) for stats, *_ in op_times]  # in order of first use
        rows = {key: self.rows.get(key) or Row(*key) for key in keys} | self.rows
        for key, (stats, *what) in zip(keys, op_times, strict=True):
            stats.add_to(rows[key], *what)
        epoch.rows = list(rows.values())
        return epoch

    def _mean_loss(self) -> float | None:
        count, total = self.losses
        return total / count if count and isfinite(total) else None

    def _all_op_times(self) -> list[tuple[OpStats, int, int, int, int]]:
        """Return the time spent in each op, replayed steps included."""
        op_times = {id(entry[0]): entry for entry in self.op_times}
        for timed, timestamps in self.timestamps:
            for stats, forward_ns, backward_ns, vjp_calls in timed.elapsed(timestamps):
                _, f, b, v, recomputations = op_times.get(id(stats), (stats, 0, 0, 0, 0))
                op_times[id(stats)] = (stats, f + forward_ns, b + backward_ns, v + vjp_calls, recomputations)
        return list(op_times.values())
