"""Progress: a bar on a terminal and in a notebook, plain lines in a file."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

from microfw.errors import printable
from microfw.training.hooks import Hook, TrainState

MAX_LINES = 10
MIN_GAIN = 2.0
"""Seconds that replaying the rest of a fit must save, as expected, for `Progress` to say why it is eager."""

OVERHEAD = 1e-3
"""Seconds of an eager step spent in Python, at most; replaying is expected to save half of them."""

REFRESH_SECONDS = 0.1
"""Time between two pictures of a bar. A widget in a notebook takes 5 ms for one."""

HIDDEN = ("epoch", "seconds", "lr", "gradient_norm")

WhyEager = Callable[[], tuple[str, str] | None]


def progress(why_eager: WhyEager | None = None, steps: int = 0) -> Progress:
    """Return the hook that shows progress where standard error goes.

    Parameters
    ----------
    why_eager : callable, optional
        Returns a reason why steps are not replayed and a fix, or None. Shown once if the fit is long.
    steps : int
        Steps of an epoch; 0 if they are not known.
    """
    # sys.stderr is None in programs without a console, such as those started by pythonw.
    return ProgressBar(why_eager, steps) if in_notebook() or is_terminal(sys.stderr) else Progress(why_eager)


def is_terminal(stream: Any) -> bool:
    """Return True if a stream is a terminal."""
    try:
        return bool(getattr(stream, "isatty", bool)())
    except (OSError, ValueError):  # it was closed
        return False


def in_notebook() -> bool:
    """Return True if a Jupyter kernel runs this."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in getattr(shell, "config", ())


class Progress(Hook):
    """Shows epochs with their loss and metrics as lines on standard error: one for each tenth of the run, and the last.

    If standard error is closed, or its reader has ended, nothing more is shown and training continues.

    Parameters
    ----------
    why_eager : callable, optional
        Returns a reason why steps are not replayed and a fix, or None. Shown once if the fit is long.
    """

    def __init__(self, why_eager: WhyEager | None = None) -> None:
        self.why_eager = why_eager
        self._explained = False
        self._last_shown = 0
        self._broken = False

    def on_fit_start(self, state: TrainState) -> None:
        """Begin a run."""
        self._last_shown, self._broken, self._explained = 0, sys.stderr is None, False

    def on_epoch_end(self, state: TrainState) -> None:
        """Show an epoch's row."""
        with self._ignoring_closed_stream():
            self._show_epoch(state)
            if not self._explained and not self._broken and expected_gain(state) >= MIN_GAIN:
                self._explain()

    def on_fit_end(self, state: TrainState) -> None:
        """Show the last epoch of a run that ended early."""
        with self._ignoring_closed_stream():
            if state.history and self._last_shown < state.history[-1]["epoch"]:
                self._line(state)

    @contextlib.contextmanager
    def _ignoring_closed_stream(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):  # ValueError: the stream was closed
            self._broken = True

    def _show_epoch(self, state: TrainState) -> None:
        if state.epoch * MAX_LINES // state.epochs > (state.epoch - 1) * MAX_LINES // state.epochs:
            self._line(state)

    def _line(self, state: TrainState) -> None:
        if self._broken or sys.stderr is None:
            return
        self._last_shown = state.history[-1]["epoch"]
        width = len(str(state.epochs))
        text = "  ".join(f"{name} {value}" for name, value in shown(state).items())
        self._write(f"epoch {self._last_shown:>{width}}/{state.epochs}  {text}")

    def _explain(self) -> None:
        """Show why a long fit is not replayed."""
        found = self.why_eager() if self.why_eager is not None else None
        if found is not None:
            self._explained = True
            text = f"Trainer.fit: steps are not replayed: {found[0]}; {found[1]}"
            self._write(printable(text).replace("\n", " "))

    def _write(self, line: str) -> None:
        if sys.stderr is None:
            return
        sys.stderr.write(f"{line}\n")
        if hasattr(sys.stderr, "flush"):
            sys.stderr.flush()


class ProgressBar(Progress):
    """Shows a bar of all steps, with the loss of the last step and the row of the last epoch.

    Parameters
    ----------
    why_eager : callable, optional
        See `Progress`.
    steps : int
        Steps of an epoch; 0 if they are not known before the first epoch has ended.
    """

    def __init__(self, why_eager: WhyEager | None = None, steps: int = 0) -> None:
        super().__init__(why_eager)
        self.steps = steps
        self._bar: Any = None
        self._due = 0.0

    def on_fit_start(self, state: TrainState) -> None:
        """Open the bar."""
        super().on_fit_start(state)
        self._due = 0.0
        with self._ignoring_closed_stream():
            done, total = len(state.history) * self.steps, state.epochs * self.steps or None
            self._bar = bar_class()(total=total, initial=done, unit="step", dynamic_ncols=True)

    def on_step_end(self, state: TrainState) -> None:
        """Show the step, if the last picture is old enough."""
        now = perf_counter()
        if now >= self._due and self._bar is not None:
            self._due = now + REFRESH_SECONDS
            with self._ignoring_closed_stream():
                self._draw(state, {"step_loss": _number(state.loss)})

    def on_fit_end(self, state: TrainState) -> None:
        """Close the bar. In a notebook it is red if an error has ended the run."""
        if self._bar is None:
            return
        with self._ignoring_closed_stream():
            if state.stop:  # on purpose: all was done
                self._set_total(self._bar.n)
            self._draw(state, {})
        with self._ignoring_closed_stream():
            self._bar.close()
        self._bar = None

    @contextlib.contextmanager
    def _ignoring_closed_stream(self) -> Iterator[None]:
        with super()._ignoring_closed_stream():
            yield
        if self._broken and self._bar is not None:
            self._bar.disable = True  # else it would write again when it is collected
            self._bar = None

    def _show_epoch(self, state: TrainState) -> None:
        if self._bar is None:
            return
        if self.steps != state.step and not state.stop:
            self.steps = state.step
            self._set_total(state.epochs * self.steps)
        now = perf_counter()
        if now >= self._due or state.epoch == state.epochs or state.stop:
            self._due = now + REFRESH_SECONDS
            self._draw(state, {})

    def _draw(self, state: TrainState, extra: dict[str, str]) -> None:
        bar = self._bar
        bar.n = max(bar.n, (state.epoch - 1) * self.steps + state.step)
        bar.set_description(f"epoch {state.epoch}/{state.epochs}", refresh=False)
        bar.set_postfix({**(shown(state) if state.history else {}), **extra}, refresh=False)
        bar.refresh()

    def _set_total(self, total: int) -> None:
        bar = self._bar
        done, start = bar.n, bar.start_t
        bar.reset(total=total)  # also of a widget
        bar.n, bar.start_t = done, start

    def _write(self, line: str) -> None:
        self._bar.write(line, file=sys.stderr)


def bar_class() -> Any:
    """Return tqdm's bar for this place. Of a notebook without ipywidgets: one that replaces its text."""
    from tqdm.std import tqdm

    if in_notebook() and (best := best_bar()).status_printer is not tqdm.status_printer:
        return best

    class Bar(tqdm):  # type: ignore[type-arg,misc,unused-ignore]
        monitor_interval = 0  # starts no thread

        def __del__(self) -> None:
            with contextlib.suppress(AttributeError):  # of a bar that Ctrl-C has left half built
                super().__del__()

    if not in_notebook():
        return Bar
    from IPython.display import display

    class TextBar(Bar):
        handle: Any = None

        def __init__(self, **options: Any) -> None:
            self.handle = display({"text/plain": ""}, raw=True, display_id=True)
            super().__init__(**{**options, "dynamic_ncols": False, "ncols": 100}, file=io.StringIO())

        def display(self, msg: str | None = None, pos: int | None = None) -> None:
            self.handle.update({"text/plain": str(self) if msg is None else msg}, raw=True)

    return TextBar


def best_bar() -> Any:
    """Return tqdm's choice: its widget in a notebook with ipywidgets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that ipywidgets is not installed
        from tqdm.auto import tqdm
    return tqdm


def expected_gain(state: TrainState) -> float:
    """Return the seconds that replaying the remaining steps might save, estimated from the last epoch."""
    if state.stop or not state.step:
        return 0.0
    seconds: float = min(state.history[-1]["seconds"] / state.step, OVERHEAD) / 2
    return seconds * state.step * (state.epochs - state.epoch)


def shown(state: TrainState) -> dict[str, str]:
    """Return what is shown of the last epoch's row."""
    return {printable(k): _number(v) for k, v in state.history[-1].items() if k not in HIDDEN}


def _number(value: Any) -> str:
    try:
        return f"{value:.4g}"
    except (TypeError, ValueError):  # a hook has added something else than a number
        return printable(str(value))
