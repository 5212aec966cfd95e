"""The sums of an epoch: its mean loss, metrics, and rates."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from microfw.training.evaluation import is_sum
from microfw.training.metrics import Measure, measure
from microfw.training.stepper import Stepper


@dataclass(eq=False, repr=False)
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
    rate : float
        Learning rate of the last update; NaN before the first.
    start, stop : float
        Times of `perf_counter` at which the steps began and ended; ``stop`` is infinite until they end.
    """

    stepper: Stepper
    metrics: dict[str, Measure]
    total: float = 0.0
    count: float = 0.0
    rows: int = 0
    steps: int = 0
    skipped: int = 0
    squares: float = 0.0
    rate: float = math.nan
    start: float = field(default_factory=perf_counter)
    stop: float = math.inf
    outputs: list[Any] = field(default_factory=list)
    targets: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.flat = getattr(self.stepper.optimizer, "flat", None)

    def add(self, outputs: Any, targets: Any) -> None:
        """Add the last step."""
        stepper, flat = self.stepper, self.flat
        count = stepper.last_denominator
        self.rows += len(targets)
        self.steps += 1
        if not stepper.updated:
            self.skipped += 1
        elif flat is not None:
            self.squares += flat.squared
            self.rate = float(stepper.optimizer.settings["lr"])  # here: a hook may set the next one in on_step_end
        if count:
            self.total += stepper.state.loss if is_sum(stepper.loss) else stepper.state.loss * count
            self.count += count
        if self.metrics:
            self.outputs.append(outputs)
            self.targets.append(targets)

    @property
    def seconds(self) -> float:
        """Time of the steps, until they ended or now."""
        return min(self.stop, perf_counter()) - self.start

    def end(self) -> float:
        """End the time of the steps, unless it has ended; return the seconds."""
        self.stop = min(self.stop, perf_counter())
        return self.seconds

    def state_dict(self) -> dict[str, Any]:
        """Return the sums (all attributes that are numbers), the outputs and targets so far, and the seconds."""
        times = ("start", "stop")
        sums = {name: value for name, value in vars(self).items() if type(value) in (int, float) and name not in times}
        kept = {name: np.concatenate(parts) if (parts := vars(self)[name]) else None for name in ("outputs", "targets")}
        return {"sums": sums, "seconds": self.seconds, **kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        vars(self).update({name: type(vars(self)[name])(value) for name, value in state["sums"].items()})
        self.start, self.stop = perf_counter() - float(state["seconds"]), math.inf
        self.outputs, self.targets = ([] if part is None else [part] for part in (state["outputs"], state["targets"]))

    @property
    def loss(self) -> float:
        """The mean loss; NaN if no row counts."""
        return self.total / self.count if self.count else math.nan

    def result(self) -> dict[str, float]:
        """Return the mean loss and the metrics."""
        if not self.metrics:
            return {"loss": self.loss}
        outputs, targets = np.concatenate(self.outputs), np.concatenate(self.targets)
        return {"loss": self.loss, **measure(self.metrics, self.stepper.loss, outputs, targets)}

    def rates(self) -> dict[str, float]:
        """Return the learning rate of the last step, and the root mean square of the gradient norms."""
        if self.flat is None:
            return {}
        updates = self.steps - self.skipped  # a skipped step has no gradient
        norm = math.sqrt(self.squares / updates) if updates else math.nan
        rate = self.stepper.optimizer.settings["lr"] if math.isnan(self.rate) else self.rate
        return {"lr": float(rate), "gradient_norm": norm}
