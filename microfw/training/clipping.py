"""Clip: the hook that clips gradients, and counts the clipped steps."""

from __future__ import annotations

from typing import Any

from microfw.optim import clip_grad_norm, clip_grad_value
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
