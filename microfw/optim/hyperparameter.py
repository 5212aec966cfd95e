"""Hyperparameters of optimizers, as attributes that are checked."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

from microfw.errors import ArgumentError

POSITIVE = ("above 0", lambda value: bool(value > 0))
AT_LEAST_0 = ("at least 0", lambda value: bool(value >= 0))
FRACTION = ("from 0 to below 1", lambda value: bool(0 <= value < 1))


class Hyperparameter:
    """A hyperparameter, as an attribute of its optimizer. It can be set at any time; the next step checks it.

    Parameters
    ----------
    expected : str
        The condition, in words, for errors.
    good : callable, optional
        ``good(value)`` returns True for a good value; numbers must also be finite. By default it must be a bool.
    """

    def __init__(self, expected: str = "to be True or False", good: Callable[[Any], bool] | None = None) -> None:
        self.expected = expected if good is None else f"{expected}, finite"
        self.good = good

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, optimizer: Any, owner: Any = None) -> Any:
        return self if optimizer is None else optimizer.settings[self.name]

    def __set__(self, optimizer: Any, value: Any) -> None:
        optimizer.settings[self.name] = value
        optimizer.settings.changed = True

    def check(self, where: str, value: Any) -> None:
        """Raise unless a value meets the condition."""
        got: object = repr(value)
        try:
            if self.good is None:
                good = value in (True, False)
            else:
                numbers = value if isinstance(value, tuple | list) else (value,)
                got = value
                good = all(isfinite(n) and not isinstance(n, bool) for n in numbers) and self.good(value)
        except TypeError:
            good = False
        if not good:
            raise ArgumentError(where, f"{self.name} {self.expected}", got)
