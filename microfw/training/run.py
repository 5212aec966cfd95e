"""A training run: the loop over epochs and steps of `Trainer.fit` and of the estimators, and its state."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from microfw.autograd.mode import MODE
from microfw.autograd.phases import OTHER
from microfw.data.rows import Batch, Rows
from microfw.errors import CheckpointError, message
from microfw.serialization.layout import fingerprint, plain
from microfw.serialization.random import put
from microfw.training.hooks import Hooks, TrainState
from microfw.training.metrics import Measure
from microfw.training.replay_policy import ReplayPolicy
from microfw.training.stepper import Stepper
from microfw.training.totals import EpochTotals

Array = np.ndarray[Any, Any]


def take_steps(
    batches: Iterable[Batch],
    stepper: Stepper,
    totals: EpochTotals,
    step_end: Sequence[Callable[[TrainState], None]] = (),
) -> None:
    """Run a step on each batch, until a hook stops the run."""
    state = stepper.state
    for X, y, weight in batches:
        state.step = totals.steps + 1
        totals.add(stepper.step(X, y, weight), y)
        if stepper.moved and step_end:
            timer = MODE.get().timer
            before = OTHER if timer is None else timer.switch(OTHER)
            for call in step_end:
                call(state)
            if timer is not None:
                timer.switch(before)
        stepper.interrupts.release()
        if state.stop:
            break


class SavedRun(Protocol):
    """A run in a file; see `microfw.training.saving.Saved`."""

    def set_counters(self, run: Run) -> None:
        """Set the counters of a run."""

    def restore(self, run: Run) -> None:
        """Restore the rest of a run."""


def data_digest(*arrays: Any) -> str:
    """Return one checksum of several arrays."""
    return hashlib.sha256("".join(fingerprint(plain(a)) for a in arrays).encode()).hexdigest()


class Run:
    """The parts and the state of one run.

    Parameters
    ----------
    stepper : Stepper
        Runs the steps.
    hooks : Hooks
        Called at each event.
    train : Rows
        Training data.
    step_rows : int
        Rows of a step.
    rng : Generator
        Decides the order of the rows.
    metrics : dict
        Measures of the outputs in training, by name.
    evaluate : callable, optional
        Validates, and returns entries of the epoch's row.
    shuffle : bool
        Whether to draw a new order for each epoch.
    drop_last : bool
        Whether to leave out rows that do not fill a step.
    resumable : bool
        Whether the run can be saved; then the state of ``rng`` is copied in each epoch.

    Attributes
    ----------
    totals : EpochTotals or None
        Sums of the present epoch; None between epochs.
    order : dict
        State of ``rng`` before the epoch's order was drawn.
    batches : iterable
        Remaining batches of the epoch, one for each step.
    can_be_saved : bool
        Whether all hooks were called for the last event, so that the run can be saved.
    """

    def __init__(
        self,
        stepper: Stepper,
        hooks: Hooks,
        train: Rows,
        step_rows: int,
        rng: np.random.Generator,
        metrics: dict[str, Measure],
        evaluate: Callable[[], dict[str, float]] | None = None,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        resumable: bool = True,
    ) -> None:
        self.stepper, self.state, self.hooks = stepper, stepper.state, hooks
        self.train, self.step_rows, self.rng, self.metrics = train, step_rows, rng, metrics
        self.evaluate, self.shuffle, self.drop_last, self.resumable = evaluate, shuffle, drop_last, resumable
        self.interrupts = stepper.interrupts
        stepper.wants_outputs = bool(metrics)
        self.totals: EpochTotals | None = None
        self.order: dict[str, Any] = {}
        self.batches: Iterable[Batch] = ()
        self.can_be_saved = self.is_rehearsed = False
        self._digest = ""

    @property
    def replay_policy(self) -> ReplayPolicy:
        """Decides which steps are replayed."""
        return self.stepper.replay_policy

    def epochs(self) -> None:
        """Run the remaining epochs."""
        state = self.state
        while self.totals is not None or (state.epoch < state.epochs and not state.stop):
            self.epoch()

    def epoch(self) -> None:
        """Run an epoch, or the rest of a resumed one: steps, validation, row of the history."""
        totals = self.start_epoch()
        if not self.state.stop:
            take_steps(self.batches, self.stepper, totals, self.hooks.step_end)
        if not totals.steps:
            self.cancel_epoch()
            return
        seconds = perf_counter() - totals.began
        row = {"epoch": self.state.epoch, **totals.result()}
        if self.evaluate is not None:
            self.start_validation()
            row |= self.evaluate()
        self.end_epoch({**row, "seconds": seconds, **totals.rates()})

    def new_totals(self) -> EpochTotals:
        """Return totals of no steps."""
        return EpochTotals(self.stepper, self.metrics)

    def new_batches(self, skip: int = 0) -> Iterable[Batch]:
        """Draw an order, and return the batches of an epoch without the first ``skip``."""
        rng, min_rows = self.rng if self.shuffle else None, self.stepper.min_rows
        return self.train.batches(self.step_rows, rng, min_rows=min_rows, drop_last=self.drop_last, skip=skip)

    @property
    def step_size(self) -> int | str:
        """Rows of a step, as saved in files: a run can only be resumed with the same."""
        return f"{self.step_rows}, drop_last" if self.drop_last else self.step_rows

    def rows_after(self, steps: int) -> int:
        """Return the number of rows in the first ``steps`` steps of an epoch."""
        n = len(self.train)
        n = n // self.step_rows * self.step_rows if self.drop_last else n
        rows = steps * self.step_rows
        return n if steps and n - rows < self.stepper.min_rows else rows

    def start_epoch(self) -> EpochTotals:
        """Start an epoch in a new order, or continue a resumed one; return its totals."""
        if self.totals is not None:
            return self.totals
        totals = self.new_totals()
        self.interrupts.deferred = True
        self.state.epoch += 1
        self.totals = totals
        if self.resumable:  # 20 us
            self.order = self.rng.bit_generator.state  # type: ignore[assignment]
        self.batches = self.new_batches()
        self.hooks.notify("on_epoch_start", self.state)
        self.interrupts.release()
        return totals

    def cancel_epoch(self) -> None:
        """Undo the start of an epoch that a hook stopped before its first step."""
        if self.resumable:
            put(self.rng, self.order)
        self.state.epoch -= 1
        self.totals, self.batches = None, ()

    def resume_epoch(self, saved: dict[str, Any]) -> None:
        """Restore an epoch that was saved after some of its steps, with the same order of rows."""
        self.order = saved.pop("order")
        put(self.rng, self.order)
        totals = self.new_totals()
        totals.load_state_dict(saved)
        self.batches = self.new_batches(skip=totals.steps)
        self.totals = totals

    def start_validation(self) -> None:
        """Notify hooks. They may change the model until the epoch ends, so interrupts are deferred until then."""
        self.interrupts.deferred = self.hooks.handles("on_validation_start")
        self.hooks.notify("on_validation_start", self.state)

    def end_epoch(self, row: dict[str, Any]) -> None:
        """End an epoch: append its row, and notify hooks."""
        self.interrupts.deferred = True
        history = self.state.history
        if self.state.skipped and self.totals is not None:
            row["skipped"] = self.totals.skipped
            for earlier in history:
                earlier.setdefault("skipped", 0)
        history.append(row)
        self.totals, self.batches = None, ()
        self.hooks.notify("on_epoch_end", self.state)
        self.interrupts.release()

    def start(self, saved: SavedRun | None = None) -> None:
        """Start training, from the beginning or from a file."""
        if saved is not None:
            saved.set_counters(self)
        self.hooks.start(self.state)
        if saved is not None:
            saved.restore(self)
            earlier = self.totals.skipped if self.totals is not None else 0
            self.state.skipped = earlier + sum(row.get("skipped", 0) for row in self.state.history)
        self.state.save, self.can_be_saved = self.save if self.resumable else None, True

    def end(self) -> None:
        """End training."""
        if self.interrupts.deferred:  # a hook raised, and others were not called
            self.interrupts.deferred = self.can_be_saved = False
            self.state.save = None
        try:
            self.hooks.end(self.state)
        finally:
            self.state.save = None

    def save(self, path: Any) -> None:
        """Save the run."""
        if not self.can_be_saved:
            got = "a run that ended before its first step, or while hooks were called"
            raise CheckpointError(message(f"saving {path}", "a run at the end of a step", got, "use an earlier file"))
        from microfw.training import saving

        saving.save(path, self)

    def data_digest(self) -> str:
        """Return the checksum of the training data; computed once."""
        self._digest = self._digest or data_digest(self.train.X, self.train.y)
        return self._digest
