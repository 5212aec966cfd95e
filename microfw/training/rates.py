"""Learning rates in a Trainer: a hook that applies schedules, and a range test."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from microfw.data.faults import Array
from microfw.errors import ArgumentError, NonFiniteError, check_count, suggest_keywords
from microfw.optim.checks import is_real
from microfw.optim.schedules import Cosine, Exponential, OneCycle, ReduceOnPlateau, StepDecay, WarmUp
from microfw.serialization import attributes
from microfw.training.hooks import Hook, TrainState
from microfw.visualization.html_table import html_table


class LearningRate(Hook):
    """Sets the optimizer's learning rate by a schedule.

    Parameters
    ----------
    schedule : callable
        One of `optim.schedules`, or any function of a number that returns a rate.
    of : str
        The argument of the schedule. "step": the number of completed steps, set before each step. "epoch": the number
        of completed epochs, set before each epoch. Or an entry of the History, such as "val_loss" for a
        `ReduceOnPlateau`, set after each epoch whose row has the entry.

    Raises
    ------
    ArgumentError
        If the schedule is not callable, or its argument cannot be ``of``.

    Notes
    -----
    A fit that is not resumed restarts the schedule and the rate. A schedule with a method ``reset`` is reset, and its
    ``lr`` is the first rate. A schedule with only ``state_dict`` and ``load_state_dict`` gets the state that it had
    when the hook was made. A function of a metric has no first rate: the first epoch uses the optimizer's rate from
    before this hook first changed it, or the rate that you have set since.

    Examples
    --------
    >>> import microfw as mf
    >>> from microfw.optim import schedules
    >>> train, test = mf.data.load("iris", rng=0)
    >>> model = mf.nn.Sequential(mf.nn.Dense(4, 3, rng=0))
    >>> optimizer = mf.optim.Adam(model.parameters())
    >>> hook = LearningRate(schedules.StepDecay(0.8, every=2, factor=0.5), of="epoch")
    >>> trainer = mf.Trainer(model, mf.nn.CrossEntropyLoss(), optimizer, hooks=[hook])
    >>> trainer.fit(train, epochs=5, rng=0, progress=False).column("lr")
    [0.8, 0.8, 0.4, 0.4, 0.2]
    """

    def __init__(self, schedule: Callable[[float], float], of: str = "step") -> None:
        if not callable(schedule) or isinstance(schedule, type):
            got = f"the class {schedule.__name__}" if isinstance(schedule, type) else repr(schedule)
            raise ArgumentError("LearningRate", "a schedule, a function of a number", got)
        if not isinstance(of, str) or of in ("steps", "epochs"):
            raise ArgumentError("LearningRate", "of 'step', 'epoch' or an entry of the History", repr(of))
        self.by_metric = of not in ("step", "epoch")
        name = type(schedule).__name__
        if isinstance(schedule, ReduceOnPlateau) and not self.by_metric:
            raise ArgumentError("LearningRate", f"{name} of a metric, such as 'val_loss'", f"of={of!r}")
        if isinstance(schedule, StepDecay | Exponential | Cosine | OneCycle | WarmUp) and self.by_metric:
            raise ArgumentError("LearningRate", f"{name} of 'step' or 'epoch'", f"of={of!r}")
        self.schedule = schedule
        self.of = of
        self._start = {} if hasattr(schedule, "reset") else copy.deepcopy(self.state_dict())
        self._optimizer: Any = None  # of which the next two are rates
        self._first = self._last = None

    def on_fit_start(self, state: TrainState) -> None:
        """Restart the schedule, unless the run is resumed."""
        if state.epoch:
            return
        if hasattr(self.schedule, "reset"):
            self.schedule.reset()
        elif self._start:
            self.load_state_dict(copy.deepcopy(self._start))
        if self.by_metric:
            self._set_first(state.optimizer)

    def _set_first(self, optimizer: Any) -> None:
        rate = getattr(optimizer, "lr", None)
        if hasattr(self.schedule, "reset") and hasattr(self.schedule, "lr"):
            rate = self.schedule.lr
        elif optimizer is self._optimizer and rate == self._last:
            rate = self._first
        self._optimizer, self._first = optimizer, rate
        if rate is not None:
            self._set(optimizer, rate)

    def _set(self, optimizer: Any, rate: Any) -> None:
        optimizer.lr = self._last = rate

    def on_epoch_start(self, state: TrainState) -> None:
        """Set the rate of an epoch."""
        if self.of == "epoch":
            state.optimizer.lr = self.schedule(state.epoch - 1)

    def on_gradients(self, state: TrainState) -> None:
        """Set the rate of a step."""
        if self.of == "step":
            state.optimizer.lr = self.schedule(state.steps)

    def on_epoch_end(self, state: TrainState) -> None:
        """Set the rate for the metric of an epoch."""
        if self.by_metric:
            value = state.history.column(self.of)[-1]
            if value is not None:
                self._set(state.optimizer, self.schedule(value))

    def state_dict(self) -> dict[str, Any]:
        """Return the schedule's state; empty if it has none."""
        return dict(self.schedule.state_dict()) if hasattr(self.schedule, "state_dict") else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        if hasattr(self.schedule, "load_state_dict"):
            self.schedule.load_state_dict(state)


@dataclass(frozen=True, repr=False)
class RangeTest:
    """The result of `lr_range_test`.

    Attributes
    ----------
    rates : list of float
        Learning rates, in order.
    losses : list of float
        Smoothed loss at each rate.
    suggestion : float
        Rate around which the loss fell fastest, over the logarithm of the rate; see `lr_range_test`.
    """

    rates: list[float]
    losses: list[float]
    suggestion: float

    @property
    def warning(self) -> str:
        """What to try if the suggestion is the first or the last of the rates; else empty."""
        if self.rates and self.suggestion == self.rates[0]:
            return "the lowest rate tried: repeat with a lower low"
        if self.rates and self.suggestion == self.rates[-1]:
            return "the highest rate tried: repeat with a higher high"
        return ""

    def __repr__(self) -> str:
        ends = f" from {self.rates[0]:.2g} to {self.rates[-1]:.2g}" if self.rates else ""
        return f"RangeTest({len(self.rates)} rates{ends}, {self._text()})"

    def _text(self) -> str:
        return f"suggestion {self.suggestion:.2g}" + (f", {self.warning}" if self.warning else "")

    def _repr_html_(self) -> str:
        rows = [[f"{rate:.2g}", f"{loss:.4g}"] for rate, loss in zip(self.rates, self.losses, strict=True)]
        return html_table(["learning rate", "loss, smoothed"], rows, f"{self._text().capitalize()}.")

    @suggest_keywords
    def plot(self, axes: Any = None) -> Any:
        """Draw the loss over the rate, with Matplotlib (extra ``plot``).

        Parameters
        ----------
        axes : matplotlib Axes, optional
            Axes to draw into; those of a new figure by default.

        Returns
        -------
        matplotlib Axes

        Examples
        --------
        >>> axes = RangeTest([0.01, 0.1, 1.0], [2.0, 1.5, 1.9], 0.1).plot()
        >>> axes.get_xlabel(), axes.get_xscale()
        ('learning rate', 'log')
        """
        from microfw.visualization.plots import finish, next_color, plot_axes

        (place,) = plot_axes(axes, "RangeTest.plot")
        color, marker = next_color(place), "." if len(self.rates) <= 30 else ""
        place.plot(self.rates, self.losses, color=color, marker=marker, label="loss, smoothed")
        place.axvline(self.suggestion, color=place.xaxis.label.get_color(), linestyle=":", label=self._text())
        place.set(xscale="log")
        finish(place, "Learning-rate range test", "learning rate", "loss, smoothed")
        return place


class _Rising(Hook):
    """Multiplies the rate by a factor at each step, until the loss has risen by three times the size of its lowest."""

    def __init__(self, low: float, high: float, steps: int, smooth: float) -> None:
        self.low, self.factor, self.steps, self.smooth = low, (high / low) ** (1 / max(steps - 1, 1)), steps, smooth
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.mean = 0.0

    def on_gradients(self, state: TrainState) -> None:
        rate = self.low * self.factor**state.steps
        self.mean = self.smooth * self.mean + (1 - self.smooth) * state.loss
        loss = self.mean / (1 - self.smooth ** (state.steps + 1))  # the mean starts at 0; this corrects it, as in Adam
        lowest = min(self.losses, default=loss)  # may be negative, as of likelihoods
        if loss <= lowest + 3 * abs(lowest):  # False for NaN
            state.optimizer.lr = rate
            self.rates.append(rate)
            self.losses.append(loss)
        else:
            state.stop = True

    def on_step_end(self, state: TrainState) -> None:
        state.stop = state.stop or state.steps >= self.steps


def lr_range_test(
    trainer: Any,
    train: Any,
    low: float = 1e-5,
    high: float = 10.0,
    steps: int = 100,
    batch_size: int = 32,
    *,
    smooth: float = 0.9,
    rng: int | np.random.Generator | None = None,
) -> RangeTest:
    """Train for some steps at rising rates, and return the rate around which the loss falls fastest.

    Parameters
    ----------
    trainer : Trainer
        Its model, loss, optimizer and settings are used, not its hooks and metrics. All are restored at the end, with
        the numbers, texts, arrays, lists and dicts that are attributes of your own modules.
    train : Dataset or (X, y)
        Training data.
    low : float
        First rate.
    high : float
        Last rate.
    steps : int
        Number of rates; the test ends early when the loss has risen by three times the size of its lowest value.
    batch_size : int
        Rows in a step.
    smooth : float
        Decay rate of the running mean of the loss, from 0 to below 1.
    rng : int, numpy.random.Generator or None
        Decides the order of the rows.

    Returns
    -------
    RangeTest

    Raises
    ------
    ArgumentError
        If a setting is out of range.

    Notes
    -----
    The suggestion is the rate with the steepest line through the smoothed losses around it: those of a tenth of the
    rates on each side, over the logarithm of the rate, up to the lowest loss. If the first or the last of these lines
    is the steepest, the suggestion is the first or the last rate; see `RangeTest.warning`.

    Source: Smith, "Cyclical learning rates for training neural networks", 2017, section 3.3.

    Examples
    --------
    >>> import microfw as mf
    >>> train, test = mf.data.load("digits", rng=0)
    >>> model = mf.nn.Sequential(mf.nn.Dense(64, 32, rng=0), mf.nn.ReLU(), mf.nn.Dense(32, 10, rng=1))
    >>> trainer = mf.Trainer(model, mf.nn.CrossEntropyLoss(), mf.optim.SGD(model.parameters(), lr=0.1))
    >>> found = lr_range_test(trainer, train, rng=0)
    >>> 0.01 < found.suggestion < 2
    True
    """
    where = "lr_range_test"
    if not (is_real(low) and is_real(high) and 0 < low < high):
        raise ArgumentError(where, "0 < low < high, finite", f"{low!r} and {high!r}")
    check_count(where, "steps", steps, 5)
    if not is_real(smooth) or not 0 <= smooth < 1:
        raise ArgumentError(where, "smooth from 0 to below 1", repr(smooth))
    if any(getattr(trainer.optimizer, name, False) for name in ("takes_closure", "takes_denominator")):
        kind = type(trainer.optimizer).__name__
        raise ArgumentError(where, "an optimizer that takes single steps in one process", kind)
    from microfw.nn.forward_state import ForwardState
    from microfw.training.stepper import Interrupts

    rising, forward_state = _Rising(low, high, steps, smooth), ForwardState.of(trainer.model, trainer.loss)
    parts = [part for part in (trainer.model, trainer.loss, trainer.optimizer) if hasattr(part, "load_state_dict")]
    before = [part.state_dict() for part in parts], forward_state.save()
    kept = [change for part in (trainer.model, trainer.loss) for change in attributes.snapshot(part)]
    probe = copy.copy(trainer)  # keeps accumulation and clipping, which change the effect of a rate
    probe.hooks, probe.metrics = [rising], {}
    interrupts = Interrupts()
    with interrupts.around():
        interrupts.release()
        try:
            probe.fit(train, steps, batch_size, rng=rng, progress=False)
        except NonFiniteError:
            if len(rising.rates) < 5:
                raise
        except KeyboardInterrupt as error:  # the note of `fit` is about a run that can be continued
            text = f"{where}: stopped after {len(rising.rates)} of {steps} rates; model and optimizer are as before"
            error.__notes__ = [text]
            raise
        finally:
            interrupts.deferred = True
            attributes.apply(kept)
            for part, state in zip(parts, before[0], strict=True):
                part.load_state_dict(state)
            trainer.optimizer.zero_grad()
            forward_state.restore(before[1])
    rates, losses = rising.rates, rising.losses
    if len(rates) < 2:
        raise ArgumentError(where, "losses at two rates at least", len(rates), "lower low, or scale the data")
    return RangeTest(rates, losses, rates[_steepest(np.log(rates), np.array(losses), smooth)])


def _steepest(x: Array, losses: Array, smooth: float) -> int:
    """Return the number of the rate around which the smoothed losses fall fastest."""
    powers = smooth ** np.arange(1, len(x) + 1)
    # The first smoothed losses are those of a few batches. They count by the inverse of their variance.
    roots = np.sqrt((1 - powers) / (1 + powers))
    half = max(len(x) // 10, 1)
    last = max(len(x) - 1 - half, half)
    lowest = int(np.argmin(losses))  # after it the rates are too large
    parts = [slice(k - half, k + half + 1) for k in range(half, max(min(lowest, last), half) + 1)]
    # A line, not the difference of two neighbours, which is the noise of two batches.
    slopes = [np.polyfit(x[part], losses[part], 1, w=roots[part])[0] for part in parts]
    found = half + int(np.argmin(slopes))
    # At an end of the range, the steepest fall may be beyond it: the first or the last rate has a warning.
    return 0 if found == half else len(x) - 1 if found == last else found
