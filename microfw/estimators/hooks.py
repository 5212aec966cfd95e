"""Hooks of a fit: set the attributes of the estimator, and stop training."""

from __future__ import annotations

from typing import Any

from microfw.training.hooks import Hook, TrainState
from microfw.training.stopping import EarlyStopping


class Report(Hook):
    """Adds each epoch to the attributes of the estimator; prints it if ``verbose``."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def on_epoch_end(self, state: TrainState) -> None:
        """Add the epoch."""
        estimator, row = self.estimator, state.history[-1]
        estimator._note(row["loss"])
        made = {"epoch": row["epoch"], "loss": row["loss"], "learning_rate": float(state.optimizer.lr)}
        made |= {name: row[name] for name in ("val_loss", "val_score", "seconds", "skipped") if name in row}
        if "val_score" in made:
            estimator.validation_scores_.append(made["val_score"])
        estimator.history_.append(made)
        if estimator.verbose:
            print(", ".join(f"{k} {v:.4g}" for k, v in made.items()))


class Stopping(EarlyStopping):
    """Ends a fit when the loss or score no longer improves; the best epoch has the best score."""

    exact = True

    def on_fit_start(self, state: TrainState) -> None:
        """Count epochs without improvement from here, even if training continues an earlier fit."""
        self._improved = state.epoch  # best and weights stay, as does the network
