"""Learning rates as functions of the step, or of the epoch: ``optimizer.lr = schedule(step)``.

A schedule is any function of a number; these are the usual ones, as dataclasses that can be called. The first step
has number 0. `microfw.training.LearningRate` applies a schedule in a Trainer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from microfw._lazy import unknown
from microfw.errors import ArgumentError
from microfw.optim.checks import is_integer, is_real

Schedule = Callable[[float], float]


def _require(schedule: Any, name: str, good: Callable[[Any], bool], expected: str) -> None:
    """Raise unless a setting is a finite number for which ``good`` is true."""
    value = getattr(schedule, name)
    if not (is_real(value) and good(value)):
        raise ArgumentError(type(schedule).__name__, f"{name} {expected}", repr(value))


def _positive(schedule: Any, *names: str) -> None:
    for name in names:
        _require(schedule, name, lambda value: value > 0, "above 0, finite")


def _integer(schedule: Any, name: str, least: int) -> None:
    _require(schedule, name, lambda value: is_integer(value, least), f"to be an integer of at least {least}")


def _end(schedule: Any) -> None:
    """Raise unless a rate ends at or below its start."""
    expected = f"from 0 to lr ({schedule.lr})"
    _require(schedule, "end", lambda value: 0 <= value <= schedule.lr, expected)


@dataclass(frozen=True)
class StepDecay:
    """Rate multiplied by ``factor`` after every ``every`` steps: ``lr * factor**(step // every)``.

    Examples
    --------
    >>> schedule = StepDecay(0.8, every=10, factor=0.5)
    >>> schedule(0), schedule(9), schedule(10)
    (0.8, 0.8, 0.4)
    """

    lr: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        _positive(self, "lr", "factor")
        _integer(self, "every", 1)

    def __call__(self, step: float) -> float:
        """Return the rate for a step."""
        return float(self.lr * self.factor ** (step // self.every))


@dataclass(frozen=True)
class Exponential:
    """Rate multiplied by ``factor`` after each step: ``lr * factor**step``.

    Examples
    --------
    >>> Exponential(0.8, factor=0.5)(3)
    0.1
    """

    lr: float
    factor: float

    def __post_init__(self) -> None:
        _positive(self, "lr", "factor")

    def __call__(self, step: float) -> float:
        """Return the rate for a step."""
        return float(self.lr * self.factor**step)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from ``lr`` to ``end``, then constant: ``end + (lr - end) * (1 + cos(pi * step / steps)) / 2``.

    The rate is ``end`` from step ``steps`` on. If ``end`` is 0, that step raises: optimizers need a rate above 0.
    Source: Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017, equation 5,
    without restarts.

    Examples
    --------
    >>> schedule = Cosine(0.1, steps=100)
    >>> schedule(0), schedule(50)
    (0.1, 0.05)
    """

    lr: float
    steps: int
    end: float = 0.0

    def __post_init__(self) -> None:
        _positive(self, "lr")
        _integer(self, "steps", 1)
        _end(self)

    def __call__(self, step: float) -> float:
        """Return the rate for a step."""
        return _between(self.lr, self.end, min(step / self.steps, 1))


@dataclass(frozen=True)
class OneCycle:
    """Rise from ``lr / start`` to ``lr`` in the share ``rise`` of the steps, then fall to ``lr / start / end``.

    Both are half a cosine; after that the rate is constant. Momentum is not changed. Source: Smith and Topin,
    "Super-convergence: very fast training of neural networks using large learning rates", 2018, with PyTorch's cosines
    and defaults.

    Examples
    --------
    >>> schedule = OneCycle(0.5, steps=101, rise=0.3)
    >>> [round(schedule(step), 3) for step in (0, 15, 30, 65, 100)]
    [0.02, 0.269, 0.5, 0.246, 0.0]
    """

    lr: float
    steps: int
    rise: float = 0.3
    start: float = 25.0
    end: float = 1e4

    def __post_init__(self) -> None:
        _positive(self, "lr", "rise", "end")
        _integer(self, "steps", 1)
        _require(self, "start", lambda value: value >= 1, "at least 1, finite")
        _require(self, "end", lambda value: value * self.start >= 1, f"at least 1 / start ({1 / self.start:g}), finite")
        if self.rise >= 1 or self.rise * self.steps <= 1:
            got = f"{self.rise} of {self.steps} steps"
            raise ArgumentError("OneCycle", "rise below 1, and more than a step long", got)

    def __call__(self, step: float) -> float:
        """Return the rate for a step."""
        low, top, last = self.lr / self.start, self.rise * self.steps - 1, self.steps - 1
        if step <= top:
            return _between(low, self.lr, step / top)
        return _between(self.lr, low / self.end, min((step - top) / (last - top), 1))


@dataclass(frozen=True)
class WarmUp:
    """Linear rise from the share ``start`` of a schedule's first rate, then the schedule, from its step 0.

    ``schedule(0) * (start + (1 - start) * step / steps)`` for the first ``steps`` steps, then
    ``schedule(step - steps)``. A number instead of a schedule is a constant rate. ``steps`` must not be above those of
    the schedule, if it has a number of steps. Source: Goyal et al., "Accurate, large minibatch SGD: training
    ImageNet in 1 hour", 2017, section 2.2.

    Examples
    --------
    >>> schedule = WarmUp(Cosine(0.8, steps=90), steps=10, start=0.5)
    >>> schedule(0), schedule(10), schedule(55)
    (0.4, 0.8, 0.4)
    """

    schedule: Schedule | float
    steps: int
    start: float = 0.01

    def __post_init__(self) -> None:
        _integer(self, "steps", 1)
        _require(self, "start", lambda value: 0 < value <= 1, "above 0, at most 1")
        if not callable(self.schedule):
            _positive(self, "schedule")
        elif isinstance(self.schedule, type | ReduceOnPlateau):
            got = "a class" if isinstance(self.schedule, type) else "a ReduceOnPlateau, a function of a metric"
            raise ArgumentError("WarmUp", "a rate, or a schedule that is a function of the step", got)
        elif isinstance(self.schedule, Cosine | OneCycle) and self.steps > self.schedule.steps:
            expected = f"steps of at most the {self.schedule.steps} of the {type(self.schedule).__name__} that follows"
            raise ArgumentError("WarmUp", expected, self.steps, "the two numbers add up to the whole run")

    def __call__(self, step: float) -> float:
        """Return the rate for a step."""
        after = self.schedule if callable(self.schedule) else lambda step: self.schedule
        if step >= self.steps:
            return after(step - self.steps)
        return after(0) * (self.start + (1 - self.start) * step / self.steps)


@dataclass
class ReduceOnPlateau:
    """Rate that falls when a metric has not improved for more than ``patience`` calls: ``lr = plateau(metric)``.

    An improvement is a value below ``best - threshold * abs(best)``, or above ``best + threshold * abs(best)`` with
    ``mode="max"``. (PyTorch's ``best * (1 - threshold)`` counts a worse value as an improvement where ``best`` is
    below 0.) After a fall, ``cooldown`` calls are not counted. NaN is no improvement. The schedule has a state,
    so it is not a function of the step.

    Attributes
    ----------
    lr : float
        The present rate.
    base_lr : float
        The rate at the start.
    best : float
        The best value so far; infinite before the first.

    Examples
    --------
    >>> plateau = ReduceOnPlateau(0.1, factor=0.5, patience=1)
    >>> [plateau(loss) for loss in (1.0, 0.8, 0.9, 0.9, 0.9)]
    [0.1, 0.1, 0.1, 0.05, 0.05]
    """

    lr: float
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    cooldown: int = 0
    mode: str = "min"
    end: float = 0.0
    base_lr: float = field(init=False)
    best: float = field(init=False)
    bad: int = field(init=False)
    resting: int = field(init=False)

    def __post_init__(self) -> None:
        self._check()
        self.base_lr = self.lr
        self.reset()

    def _check(self) -> None:
        _positive(self, "lr", "factor")
        if self.factor >= 1:
            raise ArgumentError("ReduceOnPlateau", "factor below 1", self.factor)
        _integer(self, "patience", 0)
        _integer(self, "cooldown", 0)
        _require(self, "threshold", lambda value: 0 <= value < 1, "from 0 to below 1")
        if self.mode not in ("min", "max"):
            raise ArgumentError("ReduceOnPlateau", "mode 'min' or 'max'", repr(self.mode))
        _end(self)

    def reset(self) -> None:
        """Restore the first rate, and forget all metrics."""
        self.lr = self.base_lr
        self.best = math.inf if self.mode == "min" else -math.inf
        self.bad = self.resting = 0

    def __call__(self, metric: Any) -> float:
        """Return the rate after one more value of the metric."""
        try:
            value = float("" if isinstance(metric, str | bytes) else metric)
        except (TypeError, ValueError):
            raise ArgumentError("ReduceOnPlateau", "a metric, one number", repr(metric)) from None
        if self._better(value):
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        if self.resting:
            self.resting, self.bad = self.resting - 1, 0
        if self.bad > self.patience:
            self.lr = max(self.lr * self.factor, self.end)
            self.resting, self.bad = self.cooldown, 0
        return self.lr

    def _better(self, value: float) -> bool:
        least = self.threshold * abs(self.best) if math.isfinite(self.best) else 0.0
        return value < self.best - least if self.mode == "min" else value > self.best + least

    def state_dict(self) -> dict[str, Any]:
        """Return settings and state, as plain data."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned. Raise, with nothing changed, if an entry is missing or out of range.

        States of older versions have no ``base_lr``; then it is not changed.
        """
        taken = {"base_lr": self.base_lr} | dict(state)
        missing = [name for name in self.state_dict() if name not in taken]
        if missing:
            got = f"only {', '.join(state) or 'an empty state'}"
            raise ArgumentError("ReduceOnPlateau.load_state_dict", f"an entry {missing[0]!r}", got)
        settings = {name: taken[name] for name in self.state_dict()}
        other: Any = object.__new__(type(self))
        vars(other).update(settings)
        other._check()
        _positive(other, "base_lr")
        _integer(other, "bad", 0)
        _integer(other, "resting", 0)
        if not isinstance(other.best, float) and not is_real(other.best):
            raise ArgumentError("ReduceOnPlateau.load_state_dict", "best to be a number", repr(other.best))
        if math.isnan(other.best):  # written by older versions if no metric was seen
            other.best = math.inf if other.mode == "min" else -math.inf
        vars(self).update(vars(other))


def _between(first: float, last: float, share: float) -> float:
    """Return a value on half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


def __getattr__(name: str) -> Any:
    raise unknown(__name__, name, __all__)


__all__ = ["Cosine", "Exponential", "OneCycle", "ReduceOnPlateau", "StepDecay", "WarmUp"]


def __dir__() -> list[str]:
    return sorted(__all__)
