"""One call of fit: what it needs from start to end, and what an epoch adds up to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np

from microfw.data.batching import batches, check_batch_size
from microfw.data.dataset import Dataset, as_dataset
from microfw.errors import CheckpointError, NonFiniteError, message
from microfw.files.random import put
from microfw.tensor import Tensor
from microfw.training import checks, saving
from microfw.training.compiled import Compiled
from microfw.training.hooks import Hooks, TrainState
from microfw.training.inputs import dtype_of
from microfw.training.metrics import Measure, decide
from microfw.training.nonfinite import explain
from microfw.training.state import Carried, Interrupts

Array = np.ndarray[Any, Any]


class Run:
    """The parts of one call of `Trainer.fit`, checked against each other, and where it is.

    Attributes
    ----------
    tally : Tally or None
        What the epoch that is running has come to; None between epochs.
    order : dict
        The state of ``rng`` from which the epoch's order was drawn.
    batches : iterator
        What is left of the epoch: the rows of a step each.
    whole : bool
        Whether it is where it can be saved, as after each step of which all hooks were told.
    """

    compiled: Compiled

    def __init__(
        self,
        state: TrainState,
        hooks: Hooks,
        train: Any,
        batch_size: int,
        validation: Any,
        rng: Any,
        metrics: dict[str, Measure],
        accumulate: int = 1,
    ) -> None:
        checks.check_epochs(state.epochs)
        check_batch_size(batch_size, "Trainer.fit")
        self.state = state
        self.hooks = hooks
        checks.check_parts(state.model, state.loss_function, state.optimizer)
        dtype = dtype_of(state.model)
        self.train = as_dataset(train, "Trainer.fit", dtype)
        self.validation: Dataset | None = None
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.metrics = metrics
        self.rng = np.random.default_rng(rng)
        self.tally: Tally | None = None
        self.order: dict[str, Any] = {}
        self.batches: Iterator[tuple[Array, Array]] = iter(())
        self.whole = self.rehearsed = False
        self._digest = ""
        self.interrupts = Interrupts()
        self.carried = Carried(state.model, state.loss_function)
        checks.check_fit(state.model, state.loss_function, self.train, "Trainer.fit")
        if validation is not None:
            self.validation = as_dataset(validation, "Trainer.fit, validation", dtype)
            checks.check_fit(state.model, state.loss_function, self.validation, "Trainer.fit, validation")

    @property
    def step_rows(self) -> int:
        """How many rows a step has."""
        return self.batch_size * self.accumulate

    def new_tally(self) -> Tally:
        """Return a tally of nothing."""
        return Tally(self.state.loss_function, self.metrics, self.state.optimizer)

    def open(self) -> Tally:
        """Begin an epoch in a new order, unless one is to be continued; return what it comes to."""
        if self.tally is not None:
            return self.tally
        tally = self.new_tally()
        self.interrupts.held = True
        self.state.epoch += 1
        self.tally, self.order = tally, self.rng.bit_generator.state  # type: ignore[assignment]
        self.batches = batches(self.train, self.step_rows, rng=self.rng)
        self.hooks.call("on_epoch_start", self.state)
        self.interrupts.release()
        return tally

    def reopen(self, saved: dict[str, Any]) -> None:
        """Go to where an epoch was when it was saved. The order is drawn as it was, and ``rng`` is at its start."""
        self.order = saved.pop("order")
        put(self.rng, self.order)
        tally = self.new_tally()
        tally.load_state_dict(saved)
        self.batches = batches(self.train, self.step_rows, rng=self.rng, skip=tally.steps)
        self.tally = tally

    def validation_starts(self) -> None:
        """Tell hooks, some of which may change the model until the epoch ends: only then is the run whole again."""
        self.interrupts.held = self.hooks.overridden("on_validation_start")
        self.hooks.call("on_validation_start", self.state)

    def close(self, row: dict[str, Any]) -> None:
        """End an epoch."""
        self.interrupts.held = True
        self.state.history.append(row)
        self.tally, self.batches = None, iter(())
        self.hooks.call("on_epoch_end", self.state)
        self.interrupts.release()

    def start(self, saved: saving.Saved | None) -> None:
        """Tell the hooks that training starts, from the beginning or from a file."""
        if saved is not None:
            saved.count(self)
        self.hooks.start(self.state)
        if saved is not None:
            saved.apply(self)
        self.state.save, self.whole = self.save, True

    def end(self) -> None:
        """Tell the hooks that training ends."""
        if self.interrupts.held:  # something was left half-way: a hook raised, and others were not told
            self.interrupts.held = self.whole = False
            self.state.save = None
        try:
            self.hooks.end(self.state)
        finally:
            self.state.save = None

    def save(self, path: Any) -> None:
        """Write where training is."""
        if not self.whole:
            got = "a run that ended before it began, or while hooks were told of a moment"
            raise CheckpointError(message(f"saving {path}", "a run at the end of a step", got, "use an earlier file"))
        saving.save(path, self)

    def data_digest(self) -> str:
        """Return the checksum of the training data, computed once."""
        self._digest = self._digest or saving.data_digest(self.train.X, self.train.y)
        return self._digest

    def look(self, loss: Any) -> None:
        """Note a batch's loss, which must be finite."""
        self.state.loss = value = loss.item()
        if not math.isfinite(value):
            raise NonFiniteError

    def hold(self) -> None:
        """Hold Ctrl-C back: from here on a step is made complete."""
        self.interrupts.held = True

    def undo(self, before: Any, error: BaseException, X: Array, y: Array) -> None:
        """Bring back what an unfinished step changed; say which op was to blame for NaN or infinity."""
        self.interrupts.held = True
        self.carried.restore(before)
        self.interrupts.held = False
        if isinstance(error, NonFiniteError):
            try:
                raise explain(self.state, X, y, error) from None
            finally:
                self.carried.restore(before)


class Tally:
    """Adds up an epoch: losses by row, gradients, and outputs, if metrics are to be computed from them."""

    def __init__(self, loss: Any, metrics: dict[str, Measure], optimizer: Any) -> None:
        self.loss = loss
        self.optimizer = optimizer
        self.flat = getattr(optimizer, "flat", None)
        self.metrics = metrics
        self.summed = getattr(loss, "reduction", "mean") == "sum"
        self.total = 0.0
        self.rows = 0
        self.steps = 0
        self.squares = 0.0
        self.began = perf_counter()
        self.outputs: list[Any] = []
        self.targets: list[Any] = []

    def add(self, loss: float, outputs: Tensor, targets: Array) -> None:
        """Add a step."""
        rows = len(targets)
        self.rows += rows
        self.steps += 1
        if self.flat is not None:
            self.squares += self.flat.squared
        self.total += loss if self.summed else loss * rows
        if self.metrics:
            self.outputs.append(outputs.data)
            self.targets.append(targets)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, which are all attributes that are numbers, the outputs so far, and the seconds."""
        sums = {name: value for name, value in vars(self).items() if type(value) in (int, float) and name != "began"}
        kept = {"outputs": _joined(self.outputs), "targets": _joined(self.targets)}
        return {"sums": sums, "seconds": perf_counter() - self.began, **kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        vars(self).update({name: type(vars(self)[name])(value) for name, value in state["sums"].items()})
        self.began = perf_counter() - float(state["seconds"])
        self.outputs, self.targets = ([] if part is None else [part] for part in (state["outputs"], state["targets"]))

    def result(self) -> dict[str, float]:
        """Return the mean loss and the metrics."""
        row = {"loss": self.total / self.rows}
        if self.metrics:
            row |= measure(self.metrics, self.loss, np.concatenate(self.outputs), np.concatenate(self.targets))
        return row

    def rates(self) -> dict[str, float]:
        """Return the learning rate of the last step, and the root of the mean square of the gradients' norms."""
        if self.flat is None:
            return {}
        return {"lr": float(self.optimizer.lr), "gradient_norm": math.sqrt(self.squares / self.steps)}


def _joined(parts: list[Any]) -> Any:
    return np.concatenate(parts) if parts else None


def measure(metrics: dict[str, Measure], loss: Any, outputs: Array, targets: Array) -> dict[str, float]:
    """Return all metrics of a model's outputs."""
    predictions = decide(outputs, targets, loss)
    return {name: metric(targets, outputs, predictions) for name, metric in metrics.items()}
