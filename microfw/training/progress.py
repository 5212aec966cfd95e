"""Progress: a bar on a terminal, plain lines in a file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from microfw.errors import printable
from microfw.training.hooks import Hook, TrainState

MAX_LINES = 10
MIN_GAIN = 2.0
"""Seconds that replaying the rest of a fit must save, as expected, for `Progress` to say why it is eager."""

OVERHEAD = 1e-3
"""Seconds of an eager step spent in Python, at most; replaying is expected to save half of them."""

HIDDEN = ("epoch", "seconds", "lr", "gradient_norm")


class Progress(Hook):
    """Shows epochs with their loss and metrics on standard error.

    On a terminal it is a bar of tqdm. Elsewhere, as in a log file, it is a line for every tenth of the run and for
    the last epoch. If standard error is closed, or its reader has ended, nothing more is shown and training continues.

    Parameters
    ----------
    why_eager : callable, optional
        Returns a reason why steps are not replayed and a fix, or None. Shown once if the fit is long.
    """

    def __init__(self, why_eager: Callable[[], tuple[str, str] | None] | None = None) -> None:
        self.why_eager = why_eager
        self._explained = False
        self._bar: Any = None
        self._last_shown = 0
        self._broken = False

    def on_fit_start(self, state: TrainState) -> None:
        """Open the bar."""
        # sys.stderr is None in programs without a console, such as those started by pythonw.
        self._last_shown, self._broken, self._explained = 0, sys.stderr is None, False
        with self._ignoring_closed_stream():
            if self._broken or not getattr(sys.stderr, "isatty", bool)():
                return
            from tqdm import tqdm

            class Bar(tqdm):  # type: ignore[type-arg,misc,unused-ignore]
                monitor_interval = 0  # starts no thread

            self._bar = Bar(total=state.epochs, initial=len(state.history), unit="epoch", dynamic_ncols=True)

    def on_epoch_end(self, state: TrainState) -> None:
        """Show an epoch's row."""
        shown = self._shown(state.history[-1])
        with self._ignoring_closed_stream():
            if self._bar is not None:
                self._bar.set_postfix(shown, refresh=False)
                self._bar.update()
            elif state.epoch * MAX_LINES // state.epochs > (state.epoch - 1) * MAX_LINES // state.epochs:
                self._line(state, shown)
            if not self._explained and not self._broken and expected_gain(state) >= MIN_GAIN:
                self._explain()

    def on_fit_end(self, state: TrainState) -> None:
        """Close the bar; show the last epoch of a run that ended early."""
        with self._ignoring_closed_stream():
            if self._bar is not None:
                self._bar.close()
            elif state.history and self._last_shown < state.history[-1]["epoch"]:
                self._line(state, self._shown(state.history[-1]))
        self._bar = None

    @contextlib.contextmanager
    def _ignoring_closed_stream(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):  # ValueError: the stream was closed
            if self._bar is not None:
                self._bar.disable = True  # else it would write again when it is collected
            self._broken, self._bar = True, None

    def _shown(self, row: dict[str, Any]) -> dict[str, str]:
        return {printable(k): _number(v) for k, v in row.items() if k not in HIDDEN}

    def _line(self, state: TrainState, shown: dict[str, str]) -> None:
        if self._broken or sys.stderr is None:
            return
        self._last_shown = state.history[-1]["epoch"]
        width = len(str(state.epochs))
        text = "  ".join(f"{name} {value}" for name, value in shown.items())
        _write(f"epoch {self._last_shown:>{width}}/{state.epochs}  {text}")

    def _explain(self) -> None:
        """Show why a long fit is not replayed."""
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
    """Return the seconds that replaying the remaining steps might save, estimated from the last epoch."""
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
    except (TypeError, ValueError):  # a hook has added something else than a number
        return printable(str(value))
