"""Sampling: decides which steps are observed, and records when each phase of training begins.

A schedule is a pure function of the step number. The timer counts steps; ``enabled`` changes only at the end of a step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import lru_cache
from random import Random
from time import perf_counter_ns
from typing import Any

from microfw.autograd.mode import MODE
from microfw.autograd.observer import StepTimer
from microfw.autograd.phases import (
    BACKWARD,
    BEFORE_EVALUATION,
    BEFORE_FORWARD,
    EVALUATION,
    FORWARD,
    IDLE,
    OTHER,
    SET_UP,
    UNOBSERVED,
    UPDATE,
)
from microfw.profiler.recorder.log import Log
from microfw.profiler.recorder.passes import Passes

Schedule = Callable[[int], bool] | None
"""``schedule(step)`` returns True if that step is observed. Steps are numbered from 0. None observes all of them."""

BLOCKS = 256
"""Number of blocks after which the observed places in a block repeat."""

MAX_TIMESTAMPS = 1 << 12
"""Maximum number of buffered times, phases and losses; `flush` then adds them up."""


@lru_cache(8)
def every_nth(n: int) -> Schedule:
    """Return the schedule that observes one step of every n: the first step, then one of each block of n steps.

    Its place in the block changes in a fixed order. Otherwise a loop whose steps repeat, as those of two optimizers in
    turns, would be observed always in the same of its steps.

    Examples
    --------
    >>> schedule = every_nth(4)
    >>> [step for step in range(32) if schedule(step)]
    [0, 7, 9, 14, 17, 23, 26, 28]
    """
    if n == 1:
        return None  # saves a call in each step
    draw = Random(n).random  # the same numbers in every version of Python
    parts = min(n, BLOCKS)
    places: list[int] = []
    while len(places) < BLOCKS:  # each place once before any comes again: even few blocks have different ones
        order = sorted(range(parts), key=lambda _: draw())
        places += [part * n // parts + int(draw() * n / parts) for part in order]
    first = places.index(min(places[:parts]))
    places[first], places[0] = places[0], 0
    period, observed = BLOCKS * n, frozenset(block * n + place for block, place in enumerate(places[:BLOCKS]))
    return lambda step: step % period in observed


class SampledTimer(StepTimer):
    """Records when each phase begins, and counts steps.

    Parameters
    ----------
    schedule : callable or None
        Which steps are observed; None for all.
    takes_losses : bool
        Whether to record the loss of each step.

    Attributes
    ----------
    enabled : bool
        Whether the current step is observed, as the schedule says.
    step : int
        Number of the current step, counted over all epochs.
    observed : int
        Observed steps so far, over all epochs.
    steps_before, observed_before : int
        ``step`` and ``observed`` at the start of the epoch.
    replays : int
        Replayed steps of the epoch.
    timestamps : list of int
        ``[start_ns, phase, start_ns, phase, …]``, nanoseconds of ``perf_counter_ns``. Each phase ends where the next
        one begins, so the phases of an epoch add up to the epoch.
    root : Position
        Where steps begin.
    position : Position
        Last op of the current step.
    nodes_visited : int
        Nodes of the current step that backward passes have visited.
    passes : Passes
        Backward passes of the current step.
    """

    def __init__(self, schedule: Schedule, takes_losses: bool = True) -> None:
        self.schedule = schedule
        self.step = self.observed = self.steps_before = self.observed_before = self.replays = 0
        self.enabled = schedule is None or schedule(0)
        self.timestamps: Any = []
        self.losses: Any = [] if takes_losses else None
        self.backward_ran = self.step_observed = False  # in this step; of the last step
        self.optimizer: Any = None  # that ended the last step, if no backward pass ran in it
        self.root: Any = None
        self.position: Any = None
        self.nodes_visited = 0
        self.passes = Passes()
        self.forward_end_ns = 0  # of the last op in a forward pass
        self.set_up_ns = self.between_ns = 0  # profiler time before steps could be timed, and outside of epochs
        self.log = Log()

    def start_epoch(self) -> None:
        """Start a new log: of an epoch, or of the rest of an epoch of which a part was saved."""
        self.steps_before, self.observed_before, self.replays = self.step, self.observed, 0
        if self.losses:
            self.losses.clear()
        self.log = Log()
        self.timestamps[:] = (perf_counter_ns(), self._between)

    def end_epoch(self, number: int) -> Log:
        """Return the log of the epoch."""
        log = self.log
        self._cut_forward()
        self.timestamps += (perf_counter_ns(), self._between)
        self._flush_to_log()  # the log adds the phases up when it is read: saves 0.3 ms an epoch
        log.number, log.steps, log.observed = (
            number,
            self.step - self.steps_before,
            self.observed - self.observed_before,
        )
        log.replays = self.replays
        log.unfinished = bool(log.steps and self.passes.graphs)
        self.log = Log()  # for events between epochs
        return log

    @property
    def steps(self) -> int:
        """Number of steps of the epoch so far."""
        return self.step - self.steps_before

    @property
    def _between(self) -> int:
        return IDLE if self.enabled else UNOBSERVED

    def switch(self, phase: int) -> int:
        """Begin a phase; return the one that ends. In unobserved steps, only evaluations are recorded."""
        before: int = self.timestamps[-1]
        if self.enabled or before == EVALUATION:
            if phase in (IDLE, UNOBSERVED):
                phase = self._between
                if len(self.timestamps) > MAX_TIMESTAMPS:
                    self.flush()
            self.timestamps += (perf_counter_ns(), phase)
        return before

    def on_module_start(self, recording: bool) -> int | None:
        """Begin the forward pass or an evaluation, unless another phase is active."""
        before: int = self.timestamps[-1]
        if recording:
            if before in BEFORE_FORWARD:
                self.timestamps += (perf_counter_ns(), FORWARD)
        elif before in BEFORE_EVALUATION:
            self.timestamps += (perf_counter_ns(), EVALUATION)
            return before
        return None

    def on_module_error(self) -> None:
        """End the forward pass."""
        if self.timestamps[-1] == FORWARD:
            self.timestamps += (perf_counter_ns(), OTHER)

    def on_backward_start(self, loss: Any) -> int:
        """Begin the backward pass."""
        self.backward_ran = True
        if self.losses is not None:
            self.losses.append(loss)
        before: int = self.timestamps[-1]
        if self.enabled:
            self.timestamps += (perf_counter_ns(), BACKWARD)
        return before

    def on_backward_end(self, before: int) -> None:
        """End the backward pass, unless it is nested in another one."""
        self.timestamps += (perf_counter_ns(), BACKWARD if before == BACKWARD else OTHER)

    def on_update(self, optimizer: Any, start_ns: int) -> None:
        """End the step, unless it has ended with an update since the last backward pass.

        Without any backward pass, as with gradients that are set by hand, each update of one optimizer is a step.
        """
        timestamps = self.timestamps
        if not self.backward_ran and optimizer is not self.optimizer and self.step:
            between = timestamps[-1] in (IDLE, UNOBSERVED)
            if self.step_observed:  # time since the first update of this step is not data time
                timestamps[-1] = OTHER if between else timestamps[-1]
                timestamps += (start_ns, UPDATE, perf_counter_ns(), self._between)
            elif self.enabled:
                timestamps[-1] = UNOBSERVED if between else timestamps[-1]
                timestamps += (perf_counter_ns(), IDLE)
            return
        self.optimizer = None if self.backward_ran else optimizer
        if self.enabled:
            if timestamps[-1] == FORWARD:
                self._cut_forward()
            timestamps += (max(start_ns, timestamps[-2]), UPDATE)
        self._end_step(0)

    def on_update_error(self, start_ns: int) -> None:
        """End the update, but not the step."""
        if self.enabled:
            self.timestamps += (max(start_ns, self.timestamps[-2]), UPDATE, perf_counter_ns(), OTHER)

    def on_replay(self, start_ns: int, backward_start_ns: int, end_ns: int) -> None:
        """Record the passes of a replayed step."""
        self.backward_ran = True
        if self.enabled:
            self.timestamps += (start_ns, FORWARD, backward_start_ns, BACKWARD, end_ns, OTHER)

    def on_replay_end(self) -> None:
        """Count a replayed step."""
        self.replays += 1

    def on_set_up(self, ns: int) -> None:
        """Add to the profiler's own time before replayed steps could be timed."""
        self.set_up_ns += ns

    def _add_set_up(self, start_ns: int) -> None:
        """Add the time since ``start_ns`` to that of setting up: it is no part of the phase that it interrupts."""
        now, phase = perf_counter_ns(), self.timestamps[-1]
        self.set_up_ns += now - start_ns
        # A hook that calls backward is in the time of its derivative rule; ops of a checkpoint are in none.
        if phase != BACKWARD or MODE.get().recomputing:
            self.timestamps += (start_ns, SET_UP, now, phase)

    def on_replayed_step(
        self, start_ns: int, backward_start_ns: int, end_ns: int, update_start_ns: int, update_end_ns: int
    ) -> None:
        """Record a replayed step with its update: `on_replay` and `_end_step` in one call."""
        # `_end_step` written out: saves 0.2 us of an observed replayed step, 0.3 us of an unobserved one
        self.replays += 1
        observed = self.step_observed = self.enabled
        self.backward_ran = False
        self.passes.graphs = ()
        self.passes.counted.clear()
        self.step = step = self.step + 1
        schedule = self.schedule
        self.enabled = enabled = schedule is None or schedule(step)
        if observed:
            self.observed += 1
            after = IDLE if enabled else UNOBSERVED
            self.timestamps += (
                start_ns, FORWARD, backward_start_ns, BACKWARD, end_ns, OTHER, update_start_ns, UPDATE,
                update_end_ns, after,
            )  # fmt: skip
        elif enabled:
            self.timestamps += (perf_counter_ns(), IDLE)
        if not step & 63:
            self._flush_if_full()

    def _end_step(self, now: int) -> None:
        """Count the step, and ask the schedule whether the next step is observed."""
        observed = self.step_observed = self.enabled
        self.backward_ran = False
        self.position, self.nodes_visited = self.root, 0
        passes = self.passes
        passes.graphs, passes.ranges = (), None
        passes.counted.clear()
        self.step = step = self.step + 1
        self.observed += observed
        schedule = self.schedule
        self.enabled = enabled = schedule is None or schedule(step)
        if observed or enabled:
            self.timestamps += (now or perf_counter_ns(), IDLE if enabled else UNOBSERVED)
        if not step & 63:  # testing both lengths at each step takes 0.2 us
            self._flush_if_full()

    def _flush_if_full(self) -> None:
        losses = self.losses
        if len(self.timestamps) > MAX_TIMESTAMPS or (losses is not None and len(losses) > MAX_TIMESTAMPS):
            self.flush()

    def _cut_forward(self) -> None:
        """If no backward pass followed, end the forward pass at its last op."""
        if self.timestamps[-1] == FORWARD:
            self.timestamps += (max(self.forward_end_ns, self.timestamps[-2]), OTHER)

    def flush(self) -> None:
        """Add up the buffered marks and losses."""
        self._flush_to_log()
        self.log.add_pending()

    def _flush_to_log(self) -> None:
        """Move the buffered marks and losses into the log."""
        losses = self.losses
        timestamps = self.timestamps
        self.log.pending.append(timestamps)  # no copy: saves 1 us for 50 steps; an interrupt here loses nothing
        self.timestamps = timestamps[-2:]
        if losses:
            values = [array.item() for array in losses if array.size == 1]
            count, total = self.log.losses
            self.log.losses = (count + len(values), total + sum(values))
            losses.clear()

    def detach(self) -> None:
        """Stop recording, also in contexts that were copied while this timer was attached."""
        self.schedule, self.enabled = never, False
        self.timestamps, self.losses = deque((0, UNOBSERVED), 2), None if self.losses is None else deque(maxlen=0)


def never(step: int) -> bool:
    """Observe no step."""
    return False
