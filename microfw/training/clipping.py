"""Clip: the hook that clips gradients, and counts the clipped steps; what can be combined in a step."""

from __future__ import annotations

from typing import Any

from microfw.data.dataset import check_count
from microfw.errors import ArgumentError
from microfw.nn import CrossEntropyLoss
from microfw.optim import clip_grad_norm, clip_grad_value
from microfw.optim.checks import is_real
from microfw.training.evaluation import is_sum
from microfw.training.hooks import Hook, TrainState


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
        # An optimizer's gradients are one array: one NumPy call instead of one for each parameter.
        of = state.optimizer if hasattr(state.optimizer, "flat") else state.model.parameters()
        large = self.value is not None and clip_grad_value(of, self.value) > self.value
        if self.norm is not None:
            large |= clip_grad_norm(of, self.norm) > self.norm
        self._large = large  # counted in on_step_end, which is not called if the step fails

    def on_step_end(self, state: TrainState) -> None:
        """Count a complete step."""
        self.steps += 1
        self.clipped += self._large

    def on_epoch_end(self, state: TrainState) -> None:
        """Add the share of clipped steps to the epoch's row."""
        state.history[-1]["clipped"] = self.clipped / self.steps if self.steps else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the counts."""
        return {"steps": self.steps, "clipped": int(self.clipped)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self.steps, self.clipped = int(state["steps"]), int(state["clipped"])


def smooths_weight_0(loss: Any) -> bool:
    """Return True for a loss that smooths labels, of which some have weight 0.

    A part of such labels alone adds to the loss by smoothing, but nothing to the sum of weights it is divided by.
    """
    smooth = isinstance(loss, CrossEntropyLoss) and loss.label_smoothing and loss.weight is not None
    return bool(smooth) and not loss.weight._array.all()


def check_steps(loss: Any, optimizer: Any, accumulate: Any, clip_norm: Any, clip_value: Any) -> None:
    """Raise unless loss, optimizer, accumulation and clipping can be combined."""
    if getattr(optimizer, "takes_denominator", False) and is_sum(loss):
        got, fix = f"{type(loss).__name__} with reduction='sum'", "use reduction='mean'"
        raise ArgumentError("Trainer", f"a mean with {type(optimizer).__name__}", got, fix)
    check_count("Trainer", "accumulate", accumulate)
    joins = accumulate > 1 or getattr(optimizer, "takes_denominator", False)
    if joins and smooths_weight_0(loss):
        got, fix = "one of 0", "leave label_smoothing out, or join no batches, as by accumulate"
        raise ArgumentError("Trainer", "class weights above 0 with label_smoothing in joined batches", got, fix)
    for name, limit in (("clip_norm", clip_norm), ("clip_value", clip_value)):
        if limit is None:
            continue
        if not is_real(limit) or limit <= 0:
            raise ArgumentError("Trainer", f"{name} above 0, finite", repr(limit))
        if getattr(optimizer, "takes_closure", False):
            fix = "its line search needs the true gradients"
            raise ArgumentError("Trainer", f"no {name} with {type(optimizer).__name__}", limit, fix)
