"""Progress: a bar on a terminal, plain lines in a file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from microfw.errors import printable
from microfw.training.hooks import Hook, TrainState

LINES = 10
GAIN = 2.0
"""Seconds that replaying the rest of a fit must be expected to gain for a line about an eager fit."""

OVERHEAD = 1e-3
"""Seconds of an eager step that are Python's, at most; replaying is expected to gain half of them."""

UNSHOWN = ("epoch", "seconds", "lr", "gradient_norm")


class Progress(Hook):
    """Shows epochs with their loss and metrics on standard error.

    On a terminal there is one bar, tqdm's. Elsewhere, as in a log file, there is a line for every tenth of
    the run, and for the last epoch. A standard error that is closed, or whose reader has gone, ends the showing and
    nothing else.

    Parameters
    ----------
    why_eager : callable, optional
        Returns why the steps are not replayed and a fix, or None; shown once if the fit is long.
    """

    def __init__(self, why_eager: Callable[[], tuple[str, str] | None] | None = None) -> None:
        self.why_eager = why_eager
        self._explained = False
        self._bar: Any = None
        self._told = 0
        self._broken = False

    def on_fit_start(self, state: TrainState) -> None:
        """Open the bar."""
        self._told, self._broken, self._explained = 0, sys.stderr is None, False
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
            if not self._explained and not self._broken and expected_gain(state) >= GAIN:
                self._explain()

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
        _write(f"epoch {self._told:>{width}}/{state.epochs}  {text}")

    def _explain(self) -> None:
        """Show why a long fit is not replayed, if it is not."""
        found = self.why_eager() if self.why_eager is not None else None
        if found is None:
            return
        self._explained = True
        text = printable(f"Trainer.fit: steps are not replayed: {found[0]}; {found[1]}").replace("\n", " ")
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            _write(text)


def expected_gain(state: TrainState) -> float:
    """Return how many seconds replaying the steps that are left might gain, judged by those of the last epoch."""
    if state.stop or not state.step:
        return 0.0
    seconds: float = min(state.history[-1]["seconds"] / state.step, OVERHEAD) / 2
    return seconds * state.step * (state.epochs - state.epoch)


def _write(line: str) -> None:
    if sys.stderr is None:
        return
    sys.stderr.write(f"{line}\n")
    if hasattr(sys.stderr, "flush"):
        sys.stderr.flush()


def _number(value: Any) -> str:
    try:
        return f"{value:.4g}"
    except (TypeError, ValueError):  # what a hook added is no number
        return printable(str(value))
