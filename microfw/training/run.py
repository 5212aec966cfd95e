"""One call of fit: what it needs from start to end, and what an epoch adds up to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from microfw.data.batching import batches, check_batch_size
from microfw.data.dataset import Dataset, as_dataset
from microfw.errors import NonFiniteError
from microfw.tensor import Tensor
from microfw.training import checks
from microfw.training.compiled import Compiled
from microfw.training.hooks import Hooks, TrainState
from microfw.training.metrics import Measure, decide
from microfw.training.nonfinite import explain
from microfw.training.state import Carried, Interrupts

Array = np.ndarray[Any, Any]


class Run:
    """The parts of one call of `Trainer.fit`, checked against each other."""

    compiled: Compiled

    def __init__(
        self,
        state: TrainState,
        hooks: Hooks,
        train: Any,
        batch_size: int,
        validation: Any,
        rng: Any,
        accumulate: int = 1,
    ) -> None:
        checks.check_epochs(state.epochs)
        check_batch_size(batch_size, "Trainer.fit")
        self.state = state
        self.hooks = hooks
        self.train = as_dataset(train, "Trainer.fit")
        self.validation: Dataset | None = None
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.rng = np.random.default_rng(rng)
        self.interrupts = Interrupts()
        self.carried = Carried(state.model, state.loss_function)
        checks.check_parts(state.model, state.loss_function, state.optimizer)
        checks.check_fit(state.model, state.loss_function, self.train, "Trainer.fit")
        if validation is not None:
            self.validation = as_dataset(validation, "Trainer.fit, validation")
            checks.check_fit(state.model, state.loss_function, self.validation, "Trainer.fit, validation")

    def batches(self) -> Iterator[tuple[Array, Array]]:
        """Yield the rows of an epoch's steps, in a new order."""
        return batches(self.train, self.batch_size * self.accumulate, rng=self.rng)

    def undo(self, before: Any, error: BaseException, X: Array, y: Array) -> None:
        """Bring back what an unfinished step changed; say which op was to blame for NaN or infinity."""
        self.interrupts.held = False
        self.carried.restore(before)
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


def measure(metrics: dict[str, Measure], loss: Any, outputs: Array, targets: Array) -> dict[str, float]:
    """Return all metrics of a model's outputs."""
    predictions = decide(outputs, targets, loss)
    return {name: metric(targets, outputs, predictions) for name, metric in metrics.items()}
