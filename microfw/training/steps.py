"""What a step can be besides forward, backward and update of one batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from microfw.errors import NonFiniteError
from microfw.optim import clip_grad_norm, clip_grad_value
from microfw.tensor import Tensor
from microfw.training.hooks import Hook, TrainState
from microfw.training.run import Run

Compute = Callable[..., Tensor]
"""``compute(X, y, run, share)`` adds a batch's gradients times ``share``, and returns the model's outputs."""


def in_parts(compute: Compute, X: Any, y: Any, run: Run) -> Tensor:
    """Add up the gradients of a step's batches: those of the joined batch, of whose loss each has its rows' share."""
    summed = getattr(run.state.loss_function, "reduction", "mean") == "sum"
    total, outputs = 0.0, []
    for k in range(0, len(y), run.batch_size):
        rows = slice(k, k + run.batch_size)
        share = 1.0 if summed else len(y[rows]) / len(y)
        outputs.append(compute(X[rows], y[rows], run, share).data)
        total += share * run.state.loss
    run.state.loss = total
    return Tensor(np.concatenate(outputs))


class Closure:
    """One batch's loss and gradients, as often as an optimizer asks for them.

    Every evaluation draws the same random numbers, so that the loss is a function of the parameters. Ctrl-C is
    let through here only, where the optimizer can go back to the parameters before its step.
    """

    def __init__(self, compute: Compute, X: Any, y: Any, run: Run) -> None:
        self.compute = compute if run.accumulate == 1 else partial(in_parts, compute)
        self.batch = X, y, run
        self.before = run.carried.save()
        self.first: tuple[float, Any] = (math.nan, None)

    def __call__(self) -> float:
        """Return the loss; infinity where it is not finite and was before."""
        run = self.batch[2]
        run.interrupts.release()
        run.carried.restore(self.before)
        run.state.optimizer.zero_grad()
        try:
            outputs = self.compute(*self.batch)
        except NonFiniteError:
            if self.first[1] is None:
                raise
            return math.inf
        finally:
            run.interrupts.held = True
        if self.first[1] is None:
            self.first = run.state.loss, outputs
        return run.state.loss


class Clip(Hook):
    """Clips gradients before each step, and adds the share of the steps that it clipped to the History."""

    def __init__(self, norm: float | None, value: float | None) -> None:
        self.norm = norm
        self.value = value
        self.steps = self.clipped = 0
        self._large = False

    def on_epoch_start(self, state: TrainState) -> None:
        """Count from 0."""
        self.steps = self.clipped = 0

    def on_gradients(self, state: TrainState) -> None:
        """Clip by value, and then by norm."""
        of = state.optimizer if hasattr(state.optimizer, "flat") else state.model.parameters()
        large = self.value is not None and clip_grad_value(of, self.value) > self.value
        if self.norm is not None:
            large |= clip_grad_norm(of, self.norm) > self.norm
        self._large = large

    def on_step_end(self, state: TrainState) -> None:
        """Count the step, which is complete only now."""
        self.steps += 1
        self.clipped += self._large

    def on_epoch_end(self, state: TrainState) -> None:
        """Tell how often."""
        state.history[-1]["clipped"] = self.clipped / self.steps

    def state_dict(self) -> dict[str, Any]:
        """Return the counts."""
        return {"steps": self.steps, "clipped": int(self.clipped)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` returned."""
        self.steps, self.clipped = int(state["steps"]), int(state["clipped"])
