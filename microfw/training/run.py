"""A training run: the loop over epochs and steps, of `Trainer.fit` and of the estimators, and where it is."""

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
    """Take a step on each batch, until a hook stops the run."""
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
        """Put the saved state into a run."""


def data_digest(*arrays: Any) -> str:
    """Return one checksum for some arrays."""
    return hashlib.sha256("".join(fingerprint(plain(a)) for a in arrays).encode()).hexdigest()


class Run:
    """The parts of one run, and where it is.

    Parameters
    ----------
    stepper : Stepper
        What takes the steps.
    hooks : Hooks
        What is called at each moment.
    train : Rows
        What is trained on.
    step_rows : int
        How many rows a step has.
    rng : Generator
        Where the order of the rows comes from.
    metrics : dict
        Of the outputs of the steps.
    evaluate : callable, optional
        Returns what validation adds to the row of an epoch.
    shuffle, drop_last : bool
        Whether the order is new in each epoch, and whether rows that do not fill a step are left out.
    resumable : bool
        Whether the run can be saved, for which the state of ``rng`` is noted in each epoch.

    Attributes
    ----------
    tally : EpochTotals or None
        What the epoch that is running has come to; None between epochs.
    order : dict
        The state of ``rng`` from which the epoch's order was drawn.
    batches : iterable
        What is left of the epoch: the rows of a step each.
    whole : bool
        Whether the run is where it can be saved, as after each step for which all hooks were called.
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
        """What decides whether steps are replayed."""
        return self.stepper.replay_policy

    def epochs(self) -> None:
        """Run the epochs that are left."""
        state = self.state
        while self.totals is not None or (state.epoch < state.epochs and not state.stop):
            self.epoch()

    def epoch(self) -> None:
        """Run an epoch, or what is left of one: steps, validation, its row."""
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
        """Draw an order, and return the batches of an epoch but the first ``skip``."""
        rng, least = self.rng if self.shuffle else None, self.stepper.least
        return self.train.batches(self.step_rows, rng, least=least, drop_last=self.drop_last, skip=skip)

    @property
    def step_size(self) -> int | str:
        """The rows of a step, as files name them: a run goes on with steps of the same rows only."""
        return f"{self.step_rows}, drop_last" if self.drop_last else self.step_rows

    def rows_after(self, steps: int) -> int:
        """Return how many rows so many steps of an epoch have."""
        n = len(self.train)
        n = n // self.step_rows * self.step_rows if self.drop_last else n
        rows = steps * self.step_rows
        return n if steps and n - rows < self.stepper.least else rows

    def start_epoch(self) -> EpochTotals:
        """Begin an epoch in a new order, unless one is to be continued; return what it comes to."""
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
        """Undo the beginning of an epoch that a hook stopped before its first step."""
        if self.resumable:
            put(self.rng, self.order)
        self.state.epoch -= 1
        self.totals, self.batches = None, ()

    def resume_epoch(self, saved: dict[str, Any]) -> None:
        """Go to where an epoch was when it was saved. The order is drawn as it was, and ``rng`` is at its start."""
        self.order = saved.pop("order")
        put(self.rng, self.order)
        totals = self.new_totals()
        totals.load_state_dict(saved)
        self.batches = self.new_batches(skip=totals.steps)
        self.totals = totals

    def start_validation(self) -> None:
        """Call hooks, some of which may change the model until the epoch ends: only then is the run whole again."""
        self.interrupts.deferred = self.hooks.handles("on_validation_start")
        self.hooks.notify("on_validation_start", self.state)

    def end_epoch(self, row: dict[str, Any]) -> None:
        """End an epoch."""
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
        """Call the hooks as training starts, from the beginning or from a file."""
        if saved is not None:
            saved.set_counters(self)
        self.hooks.start(self.state)
        if saved is not None:
            saved.restore(self)
            earlier = self.totals.skipped if self.totals is not None else 0
            self.state.skipped = earlier + sum(row.get("skipped", 0) for row in self.state.history)
        self.state.save, self.can_be_saved = self.save if self.resumable else None, True

    def end(self) -> None:
        """Call the hooks as training ends."""
        if self.interrupts.deferred:  # something was left half-way: a hook raised, and others were not called
            self.interrupts.deferred = self.can_be_saved = False
            self.state.save = None
        try:
            self.hooks.end(self.state)
        finally:
            self.state.save = None

    def save(self, path: Any) -> None:
        """Write where training is."""
        if not self.can_be_saved:
            got = "a run that ended before it began, or while hooks were told of a moment"
            raise CheckpointError(message(f"saving {path}", "a run at the end of a step", got, "use an earlier file"))
        from microfw.training import saving

        saving.save(path, self)

    def data_digest(self) -> str:
        """Return the checksum of the training data, computed once."""
        self._digest = self._digest or data_digest(self.train.X, self.train.y)
        return self._digest
