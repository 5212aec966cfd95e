"""A training run: the loop over epochs and steps of `Trainer.fit` and of the estimators, and its hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import numpy as np

from microfw.autograd.mode import MODE, model_version
from microfw.autograd.phases import OTHER
from microfw.data.dataset import Batch
from microfw.errors import DataError, message
from microfw.serialization import attributes
from microfw.serialization.random import put
from microfw.training.checks import check_parts
from microfw.training.hooks import Hooks, TrainState
from microfw.training.metrics import Measure
from microfw.training.nonfinite import check_update
from microfw.training.ranks import check_steps, common_row
from microfw.training.stepper import Stepper
from microfw.training.totals import EpochTotals


def take_steps(batches: Iterable[Batch], stepper: Stepper, totals: EpochTotals, hooks: Hooks | None = None) -> None:
    """Run a step on each batch, and notify hooks of its end, until one stops the run."""
    state, notified = stepper.state, hooks if hooks is not None and hooks.methods["on_step_end"] else None
    for X, y, weight in batches:
        state.step = totals.steps + 1
        totals.add(stepper.step(X, y, weight), y)
        if notified is not None and stepper.updated:
            _end_step(notified, state)
        stepper.interrupts.release()
        if state.stop:
            break


def _end_step(hooks: Hooks, state: TrainState) -> None:
    timer = MODE.get().timer
    before = OTHER if timer is None else timer.switch(OTHER)  # hooks do not count as update
    hooks.notify("on_step_end", state)
    if timer is not None:
        timer.switch(before)


@dataclass(eq=False, repr=False)
class Run:
    """The parts and the state of one run.

    Parameters
    ----------
    stepper : Stepper
        Runs the steps.
    hooks : Hooks
        Called at each event.
    train : BatchSource
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
    started : bool
        Whether ``on_fit_start`` of all hooks was called, and a saved run restored.
    previous : Run or None
        The Trainer's run before, until this one has started.
    can_be_saved : bool
        Whether all hooks were called for the last event, so that the run can be saved.
    rebuilt : models.Made or None
        What the constructors make of the model; None before the first save.
    attributes_at_start : list of dict
        Digests, from the start, of attributes of model and loss that a file cannot hold: changes cause a warning.
    warnings_given, checksums : set of str, dict
        Texts of the warnings of this run; checksums of the training and the validation data.
    options : dict
        Names of the functions that change what a step trains on; None for those that are not given.
    """

    Totals: ClassVar[type[EpochTotals]] = EpochTotals

    stepper: Stepper
    hooks: Hooks
    train: Any
    step_rows: int
    rng: np.random.Generator
    metrics: dict[str, Measure]
    evaluate: Callable[[], dict[str, float]] | None = None
    _: KW_ONLY
    shuffle: bool = True
    drop_last: bool = False
    resumable: bool = True
    totals: EpochTotals | None = None
    order: dict[str, Any] = field(default_factory=dict)
    batches: Iterable[Batch] = ()
    started: bool = False
    previous: Run | None = None
    can_be_saved: bool = False
    rebuilt: Any = None
    attributes_at_start: list[Any] = field(default_factory=list)
    warnings_given: set[str] = field(default_factory=set)
    checksums: dict[str, str] = field(default_factory=dict)
    options: dict[str, str | None] = field(default_factory=lambda: {"transform": None, "sampler": None})

    def __post_init__(self) -> None:
        self.state, self.interrupts = self.stepper.state, self.stepper.interrupts
        self.version = 0
        self.stepper.wants_outputs = bool(self.metrics)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"batches": ()}  # a copy is saved; it does not continue

    def epochs(self, saved: Any = None) -> None:
        """Run all epochs, or those that remain of a saved run, a `microfw.training.saving.Saved`."""
        state = self.state
        try:
            self.interrupts.release()
            if self.stepper.takes_denominator:
                check_steps(self)
            if self.resumable:
                roots = (state.model, state.loss_function)
                self.attributes_at_start = [attributes.others(attributes.parts(root)) for root in roots]
            if saved is None:
                self.hooks.start(state)
            else:
                saved.start(self)
            state.save, self.can_be_saved = self.save if self.resumable else None, True
            self.started = True
            within = self.totals is not None  # of a resumed epoch, which is not done
            while (within or not state.stop) and state.epoch - within < state.epochs:
                self.epoch()
                within = False
        finally:
            self.end()

    def epoch(self) -> None:
        """Run an epoch, or the rest of a resumed one: steps, validation, row of the history."""
        totals = self.totals or self.start_epoch()
        if not self.state.stop:
            take_steps(self.batches, self.stepper, totals, self.hooks)
        if not totals.steps:
            self.cancel_epoch()
            if not self.state.stop:  # else no epoch would ever end
                where, fix = f"{self.stepper.where}, epoch {self.state.epoch + 1}", "leave drop_last out"
                raise DataError(where, "the rows of a step", "fewer with drop_last=True", fix)
            return
        seconds = totals.end()  # without validation
        check_update(self.state, self.stepper.where)
        row = {"epoch": self.state.epoch, **totals.result()}
        if self.evaluate is not None:
            row |= self.validate(self.evaluate)
        row |= {"seconds": seconds, **totals.rates()}
        if self.stepper.takes_denominator:
            row = common_row(self.stepper.optimizer, row, totals.count)
        self.end_epoch(totals, row)

    def start_epoch(self) -> EpochTotals:
        """Start an epoch in a new order; return its totals."""
        self.interrupts.deferred = True
        self.previous = None  # here, since Ctrl-C in a finalizer would be lost
        self.state.epoch += 1
        self.totals = totals = self.Totals(self.stepper, self.metrics)
        # The state before the order is drawn: a resumed epoch draws it again. Copying takes 20 us.
        if self.resumable:
            self.order = self.rng.bit_generator.state  # type: ignore[assignment]
        self.batches = self.new_batches()
        self.hooks.notify("on_epoch_start", self.state)
        if self.version != model_version.count:
            self.check_model()
        self.interrupts.release()
        return totals

    def check_model(self) -> None:
        """Raise if a hook has replaced parameters: the optimizer would change those from before."""
        self.version = model_version.count
        check_parts(self.state.model, self.state.loss_function, self.state.optimizer)

    def new_batches(self, skip: int = 0) -> Any:
        """Draw an order, and return the batches of an epoch without the first ``skip``."""
        rng, min_rows = self.rng if self.shuffle else None, self.stepper.min_rows
        return self.train.batches(self.step_rows, rng, min_rows=min_rows, drop_last=self.drop_last, skip=skip)

    def cancel_epoch(self) -> None:
        """Undo the start of an epoch that a hook stopped before its first step."""
        if self.resumable:  # the next fit with this generator gets the same order as without the cancelled epoch
            put(self.rng, self.order)
        self.state.epoch -= 1
        self.totals, self.batches = None, ()

    def resume_epoch(self, saved: dict[str, Any]) -> None:
        """Restore an epoch that was saved after some of its steps, with the same order of rows."""
        self.order = saved.pop("order")
        put(self.rng, self.order)
        totals = self.Totals(self.stepper, self.metrics)
        totals.load_state_dict(saved)
        self.batches = self.new_batches(skip=totals.steps)
        self.totals = totals

    def validate(self, evaluate: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Return the results of the validation."""
        # Hooks may change the model until the epoch ends, so interrupts are deferred until then.
        self.interrupts.deferred = bool(self.hooks.methods["on_validation_start"])
        self.hooks.notify("on_validation_start", self.state)
        return evaluate()

    def end_epoch(self, totals: EpochTotals, row: dict[str, Any]) -> None:
        """End an epoch: append its row, and notify hooks."""
        self.interrupts.deferred = True
        if self.state.skipped:
            for earlier in self.state.history:  # in every row, if in one
                earlier.setdefault("skipped", 0)
            row["skipped"] = totals.skipped
        self.state.history.append(row)
        self.totals, self.batches = None, ()
        self.hooks.notify("on_epoch_end", self.state)
        self.interrupts.release()

    def end(self) -> None:
        """End training."""
        if self.totals is not None:
            self.totals.end()
        if self.interrupts.deferred:  # a hook raised, and others were not called
            self.interrupts.deferred = self.can_be_saved = False
            self.state.save = None
        try:
            self.hooks.end(self.state, self.resumable)
        finally:
            self.state.save, self.interrupts.deferred = None, True  # until the caller has restored what it has set

    def save(self, path: Any) -> None:
        """Save the run."""
        from microfw.training import saving  # which imports this file

        saving.save(path, self)

    def why_not_saved(self) -> tuple[str, ...]:
        """Return why the run cannot be saved: what is expected, what the run is, and what helps; () if it can be."""
        if self.can_be_saved:
            return ()
        if not self.started:
            return "a run that has started", "one whose hooks are called for on_fit_start", "save in a later event"
        where = self.hooks.raised or "the start of an epoch, or a validation"
        fix = "resume from an earlier file, such as that of a Checkpoint; mf.save(path, trainer.model) saves the model"
        return "a run at the end of a step", f"one that an error ended within {where}", fix

    def interruption(self) -> str:
        """Return where Ctrl-C stopped the run, and how to continue."""
        state, rows, reason = self.state, len(self.state.history), self.why_not_saved()
        text = f"Trainer.fit: stopped {'after' if self.totals is None else 'in'} epoch {state.epoch} of {state.epochs}"
        text += f"; trainer.history has {rows} epoch{'s' * (rows != 1)}"
        keeps = "trainer.save(path) keeps the run, fit(..., resume=path) continues it"
        return f"{text}; {message('trainer.save(path)', *reason)}" if reason else f"{text}, {keeps}"
