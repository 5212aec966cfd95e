"""Progress: a bar on a terminal, plain lines in a file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from microfw.errors import printable
from microfw.training.hooks import Hook, TrainState

LINES = 10
UNSHOWN = ("epoch", "seconds", "lr", "gradient_norm")


class Progress(Hook):
    """Shows epochs with their loss and metrics on standard error.

    On a terminal there is one bar, tqdm's. Elsewhere, as in a log file, there is a line for every tenth of
    the run, and for the last epoch. A standard error that is closed, or whose reader has gone, ends the showing and
    nothing else.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._told = 0
        self._broken = False

    def on_fit_start(self, state: TrainState) -> None:
        """Open the bar."""
        self._told, self._broken = 0, sys.stderr is None
        with self._kept_going():
            if self._broken or not getattr(sys.stderr, "isatty", bool)():
                return
            from tqdm import tqdm

            class Bar(tqdm):  # type: ignore[type-arg,misc,unused-ignore]
                monitor_interval = 0  # no thread

            self._bar = Bar(total=state.epochs, initial=len(state.history), unit="epoch", dynamic_ncols=True)

    def on_epoch_end(self, state: TrainState) -> None:
        """Show an epoch's row."""
        shown = self._shown(state.history[-1])
        with self._kept_going():
            if self._bar is not None:
                self._bar.set_postfix(shown, refresh=False)
                self._bar.update()
            elif state.epoch * LINES // state.epochs > (state.epoch - 1) * LINES // state.epochs:
                self._line(state, shown)

    def on_fit_end(self, state: TrainState) -> None:
        """Close the bar; show the last epoch of a run that ended early."""
        with self._kept_going():
            if self._bar is not None:
                self._bar.close()
            elif state.history and self._told < state.history[-1]["epoch"]:
                self._line(state, self._shown(state.history[-1]))
        self._bar = None

    @contextlib.contextmanager
    def _kept_going(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):  # ValueError: the stream was closed
            if self._bar is not None:
                self._bar.disable = True  # it would write once more when it is collected
            self._broken, self._bar = True, None

    def _shown(self, row: dict[str, Any]) -> dict[str, str]:
        return {printable(k): _number(v) for k, v in row.items() if k not in UNSHOWN}

    def _line(self, state: TrainState, shown: dict[str, str]) -> None:
        if self._broken or sys.stderr is None:
            return
        self._told = state.history[-1]["epoch"]
        width = len(str(state.epochs))
        text = "  ".join(f"{name} {value}" for name, value in shown.items())
        sys.stderr.write(f"epoch {self._told:>{width}}/{state.epochs}  {text}\n")
        if hasattr(sys.stderr, "flush"):
            sys.stderr.flush()


def _number(value: Any) -> str:
    try:
        return f"{value:.4g}"
    except (TypeError, ValueError):  # what a hook added is no number
        return printable(str(value))
