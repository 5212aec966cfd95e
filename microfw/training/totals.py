"""Sums over the steps of an epoch: losses, denominators, gradient norms, and outputs for metrics."""

from __future__ import annotations

import math
from time import perf_counter
from typing import Any

import numpy as np

from microfw.training.metrics import Measure, to_predictions
from microfw.training.stepper import Stepper

Array = np.ndarray[Any, Any]


class EpochTotals:
    """The sums of an epoch's steps.

    Attributes
    ----------
    total : float
        Sum of the losses of all rows.
    count : float
        Sum of the denominators; ``total / count`` is the loss of the epoch.
    rows : int
        Rows so far.
    steps : int
        Steps so far.
    skipped : int
        Those of ``steps`` without an update.
    squares : float
        Sum of the squared gradient norms.
    """

    def __init__(self, stepper: Stepper, metrics: dict[str, Measure]) -> None:
        self.stepper = stepper
        self.metrics = metrics
        self.flat = getattr(stepper.optimizer, "flat", None)
        self.total = 0.0
        self.count = 0.0
        self.rows = 0
        self.steps = 0
        self.skipped = 0
        self.squares = 0.0
        self.began = perf_counter()
        self.outputs: list[Any] = []
        self.targets: list[Any] = []

    def add(self, outputs: Array | None, targets: Array) -> None:
        """Add the last step."""
        stepper = self.stepper
        self.rows += len(targets)
        self.steps += 1
        if stepper.moved:
            self.squares += 0.0 if self.flat is None else self.flat.squared
        else:
            self.skipped += 1
        if stepper.count:
            self.total += stepper.state.loss if stepper.loss_is_sum else stepper.state.loss * stepper.count
            self.count += stepper.count
        if self.metrics:
            self.outputs.append(outputs)
            self.targets.append(targets)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums (all attributes that are numbers), the outputs and targets so far, and the seconds."""
        sums = {name: value for name, value in vars(self).items() if type(value) in (int, float) and name != "began"}
        kept = {"outputs": _joined(self.outputs), "targets": _joined(self.targets)}
        return {"sums": sums, "seconds": perf_counter() - self.began, **kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        vars(self).update({name: type(vars(self)[name])(value) for name, value in state["sums"].items()})
        self.began = perf_counter() - float(state["seconds"])
        self.outputs, self.targets = ([] if part is None else [part] for part in (state["outputs"], state["targets"]))

    @property
    def loss(self) -> float:
        """The mean loss; NaN if no row counts."""
        return self.total / self.count if self.count else math.nan

    def result(self) -> dict[str, float]:
        """Return the mean loss and the metrics."""
        row = {"loss": self.loss}
        if self.metrics:
            outputs, targets = np.concatenate(self.outputs), np.concatenate(self.targets)
            row |= measure(self.metrics, self.stepper.loss, outputs, targets)
        return row

    def rates(self) -> dict[str, float]:
        """Return the learning rate of the last step, and the root mean square of the gradient norms."""
        if self.flat is None:
            return {}
        moved = self.steps - self.skipped
        norm = math.sqrt(self.squares / moved) if moved else math.nan
        return {"lr": float(self.stepper.optimizer.lr), "gradient_norm": norm}


def _joined(parts: list[Any]) -> Any:
    return np.concatenate(parts) if parts else None


def measure(metrics: dict[str, Measure], loss: Any, outputs: Array, targets: Array) -> dict[str, float]:
    """Return all metrics of a model's outputs."""
    predictions = to_predictions(outputs, targets, loss)
    return {name: metric(targets, outputs, predictions) for name, metric in metrics.items()}
