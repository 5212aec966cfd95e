"""Learning rates as functions of the step, or of the epoch: ``optimizer.lr = schedule(step)``.

Any function of a number does; these are the usual ones, as plain data that can be called. The first step is
number 0. `microfw.training.LearningRate` sets them in a Trainer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from microfw.errors import ArgumentError, message

Schedule = Callable[[float], float]


def _check(schedule: Any, positive: tuple[str, ...], expected: str = "above 0") -> None:
    for name in positive:
        value = getattr(schedule, name)
        if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
            raise ArgumentError(message(type(schedule).__name__, f"{name} {expected}, finite", repr(value)))


@dataclass(frozen=True)
class StepDecay:
    """A rate that is multiplied by ``factor`` after every so many steps: ``lr * factor**(step // every)``.

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
        _check(self, ("lr", "every", "factor"))

    def __call__(self, step: float) -> float:
        """Return the rate for a step."""
        return float(self.lr * self.factor ** (step // self.every))


@dataclass(frozen=True)
class Exponential:
    """A rate that is multiplied by ``factor`` after each step: ``lr * factor**step``.

    Examples
    --------
    >>> Exponential(0.8, factor=0.5)(3)
    0.1
    """

    lr: float
    factor: float

    def __post_init__(self) -> None:
        _check(self, ("lr", "factor"))

    def __call__(self, step: float) -> float:
        """Return the rate for a step."""
        return float(self.lr * self.factor**step)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from ``lr`` to ``end``, which stays: ``end + (lr - end) * (1 + cos(pi * step / steps)) / 2``.

    An ``end`` of 0 is reached at ``steps``, the first step that is no longer wanted; an optimizer refuses it.
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
        _check(self, ("lr", "steps"))
        if not 0 <= self.end < math.inf:
            raise ArgumentError(message("Cosine", "end at least 0, finite", repr(self.end)))

    def __call__(self, step: float) -> float:
        """Return the rate for a step."""
        return _between(self.lr, self.end, min(step / self.steps, 1))


@dataclass(frozen=True)
class OneCycle:
    """Up from ``lr / start`` to ``lr`` in the first share of the steps, then down to ``lr / start / end``.

    Both ways are half a cosine, and the last value stays. Source: Smith and Topin, "Super-convergence: very
    fast training of neural networks using large learning rates", 2018, with the cosines and the defaults that
    PyTorch has. Momentum stays as it is.

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
        _check(self, ("lr", "steps", "rise", "start", "end"))
        if self.rise >= 1 or self.rise * self.steps <= 1:
            got = f"{self.rise} of {self.steps} steps"
            raise ArgumentError(message("OneCycle", "rise below 1, and more than a step long", got))

    def __call__(self, step: float) -> float:
        """Return the rate for a step."""
        low, top, last = self.lr / self.start, self.rise * self.steps - 1, self.steps - 1
        if step <= top:
            return _between(low, self.lr, step / top)
        return _between(self.lr, low / self.end, min((step - top) / (last - top), 1))


@dataclass(frozen=True)
class WarmUp:
    """A straight line from a share of a rate up to it, and then the schedule that is given, from its step 0.

    ``schedule(0) * (start + (1 - start) * step / steps)``, and from ``steps`` on ``schedule(step - steps)``.
    A number stands for a rate that stays. Source: Goyal et al., "Accurate, large minibatch SGD: training
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
        _check(self, ("steps", "start"))

    def __call__(self, step: float) -> float:
        """Return the rate for a step."""
        after = self.schedule if callable(self.schedule) else lambda step: self.schedule
        if step >= self.steps:
            return after(step - self.steps)
        return after(0) * (self.start + (1 - self.start) * step / self.steps)


@dataclass
class ReduceOnPlateau:
    """A rate that falls when a metric has not improved for more than ``patience`` calls: ``lr = plateau(metric)``.

    An improvement is a value below ``best * (1 - threshold)``, or above ``best * (1 + threshold)`` with
    ``mode="max"``. After a fall, ``cooldown`` calls are not counted. NaN is no improvement. It remembers, so it
    is not a function of the step; `state_dict` is what it remembers.

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
    best: float | None = field(init=False, default=None)
    bad: int = field(init=False, default=0)
    resting: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        _check(self, ("lr", "factor"))
        if self.factor >= 1:
            raise ArgumentError(message("ReduceOnPlateau", "factor below 1", self.factor))
        if self.mode not in ("min", "max"):
            raise ArgumentError(message("ReduceOnPlateau", "mode 'min' or 'max'", repr(self.mode)))

    def __call__(self, metric: float) -> float:
        """Take a metric, and return the rate from here on."""
        if self._better(metric):
            self.best, self.bad = metric, 0
        else:
            self.bad += 1
        if self.resting:
            self.resting, self.bad = self.resting - 1, 0
        if self.bad > self.patience:
            self.lr = max(self.lr * self.factor, self.end)
            self.resting, self.bad = self.cooldown, 0
        return self.lr

    def _better(self, metric: float) -> bool:
        if self.best is None or math.isnan(self.best):  # NaN: nothing seen yet, in states that older releases saved
            return not math.isnan(metric)
        if self.mode == "min":
            return metric < self.best * (1 - self.threshold)
        return metric > self.best * (1 + self.threshold)

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as plain data."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` returned."""
        for name in self.state_dict():
            setattr(self, name, state[name])


def _between(first: float, last: float, share: float) -> float:
    """Return a value on half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


__all__ = ["Cosine", "Exponential", "OneCycle", "ReduceOnPlateau", "StepDecay", "WarmUp"]
