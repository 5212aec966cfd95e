"""Hooks of a fit: set the attributes of the estimator, and stop training."""

from __future__ import annotations

import sys
from typing import Any

from microfw.training.hooks import Hook, TrainState
from microfw.training.stopping import EarlyStopping


def reports(estimator: Any) -> list[Hook]:
    """Return the hooks that report epochs: to the estimator, and to the user if it is ``verbose``."""
    bar = None
    if estimator.verbose:
        from microfw.training.progress import in_notebook, is_terminal, progress

        bar = progress() if in_notebook() or is_terminal(sys.stderr) else None
    return [Report(estimator, prints=bool(estimator.verbose) and bar is None), *([] if bar is None else [bar])]


class Report(Hook):
    """Adds each epoch to the attributes of the estimator, and prints it if asked to."""

    def __init__(self, estimator: Any, prints: bool) -> None:
        self.estimator = estimator
        self.prints = prints

    def on_epoch_end(self, state: TrainState) -> None:
        """Add the epoch."""
        estimator, row = self.estimator, state.history[-1]
        estimator._note(row["loss"])
        made = {"epoch": row["epoch"], "loss": row["loss"], "learning_rate": row["lr"]}
        made |= {name: row[name] for name in ("val_loss", "val_score", "seconds", "skipped") if name in row}
        if "val_score" in made:
            estimator.validation_scores_.append(made["val_score"])
        estimator.history_.append(made)
        if self.prints:
            print(", ".join(f"{k} {v:.4g}" for k, v in made.items()))


class Stopping(EarlyStopping):
    """Ends a fit when the loss or score no longer improves; the best epoch has the best score."""

    exact = True

    def on_fit_start(self, state: TrainState) -> None:
        """Count epochs without improvement from here, even if training continues an earlier fit."""
        self._improved = state.epoch  # best and weights stay, as does the network
