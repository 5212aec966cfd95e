"""Progress: a bar on a terminal, plain lines in a file."""

from __future__ import annotations

import sys
from typing import Any

from microfw.training.hooks import Hook, TrainState

LINES = 10
UNSHOWN = ("epoch", "seconds", "lr", "gradient_norm")


class Progress(Hook):
    """Shows epochs with their loss and metrics on standard error.

    On a terminal there is one bar, tqdm's. Elsewhere, as in a log file, there is a line for every tenth of
    the run, and for the last epoch.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._told = 0

    def on_fit_start(self, state: TrainState) -> None:
        """Open the bar."""
        self._told = 0
        if sys.stderr is None or not sys.stderr.isatty():
            return
        from tqdm import tqdm

        class Bar(tqdm):  # type: ignore[type-arg,misc,unused-ignore]
            monitor_interval = 0  # no thread

        self._bar = Bar(total=state.epochs, initial=len(state.history), unit="epoch", dynamic_ncols=True)

    def on_epoch_end(self, state: TrainState) -> None:
        """Show an epoch's row."""
        row = state.history[-1]
        shown = self._shown(row)
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update()
        elif state.epoch * LINES // state.epochs > (state.epoch - 1) * LINES // state.epochs:
            self._line(state, shown)

    def on_fit_end(self, state: TrainState) -> None:
        """Close the bar; tell of an end before time."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        elif state.history and self._told < state.history[-1]["epoch"]:
            row = state.history[-1]
            self._line(state, self._shown(row))

    def _shown(self, row: dict[str, Any]) -> dict[str, str]:
        return {k: f"{v:.4g}" for k, v in row.items() if k not in UNSHOWN}

    def _line(self, state: TrainState, shown: dict[str, str]) -> None:
        if sys.stderr is None:
            return
        self._told = state.history[-1]["epoch"]
        width = len(str(state.epochs))
        text = "  ".join(f"{name} {value}" for name, value in shown.items())
        print(f"epoch {self._told:>{width}}/{state.epochs}  {text}", file=sys.stderr, flush=True)
