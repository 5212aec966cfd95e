"""Hooks of an estimator's fit: its attributes, and when it stops."""

from __future__ import annotations

from typing import Any

from microfw.training.hooks import Hook, TrainState
from microfw.training.stopping import EarlyStopping


class Report(Hook):
    """Adds each epoch of a fit to the attributes of its estimator, and prints it if asked to."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def on_epoch_end(self, state: TrainState) -> None:
        """Add a row."""
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
    """Ends a fit when its loss or score no longer improves; the best epoch is that of the best score."""

    exact = True

    def on_fit_start(self, state: TrainState) -> None:
        """Count epochs without an improvement from here, also where a fit goes on."""
        self._improved = state.epoch
