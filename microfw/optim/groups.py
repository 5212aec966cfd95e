"""Hyperparameters of an optimizer, and groups of parameters with different ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, message
from microfw.optim.checks import as_list


class Settings(dict[str, Any]):
    """Hyperparameters of an optimizer by name. ``changed``: whether one was set since the last step."""

    __slots__ = ("changed",)

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self.changed = True

    def __reduce__(self) -> tuple[Any, ...]:
        return Settings, (dict(self),)


class Hyperparameter:
    """A hyperparameter, as an attribute of its optimizer. It can be set at any time; the next step checks it.

    Parameters
    ----------
    expected : str
        The condition, in words, for errors.
    good : callable, optional
        ``good(value)`` returns True if a value meets the condition. Numbers must also be finite. By default the
        value must be True or False.
    """

    def __init__(self, expected: str = "True or False", good: Callable[[Any], bool] | None = None) -> None:
        self.expected = expected
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
        if self.good is None:
            if value not in (True, False):
                raise ArgumentError(message(where, f"{self.name} to be {self.expected}", repr(value)))
            return
        try:
            finite = all(math.isfinite(v) for v in (value if isinstance(value, tuple | list) else (value,)))
            good = finite and self.good(value)
        except TypeError:
            raise ArgumentError(message(where, f"{self.name} {self.expected}, finite", repr(value))) from None
        if not good:
            raise ArgumentError(message(where, f"{self.name} {self.expected}, finite", value))


class Group:
    """Parameters with the same hyperparameters, contiguous in the buffer.

    ``group["lr"]`` returns the group's value, and assigning sets it for this group alone. A group's learning rate is
    stored as the ratio to the optimizer's, so a schedule of the optimizer's rate changes both.
    """

    def __init__(self, common: Settings, own: dict[str, Any], count: int) -> None:
        self.common = common
        self.own = own
        self.count = count

    def __getitem__(self, name: str) -> Any:
        if name == "lr" and "lr_ratio" in self.own:
            return self.common["lr"] * self.own["lr_ratio"]
        return self.own.get(name, self.common[name])

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self.common:
            raise ArgumentError(message("group", f"one of {', '.join(self.common)}", repr(name)))
        if name == "lr":
            self.own["lr_ratio"] = value / self.common["lr"]
        else:
            self.own[name] = value
        self.common.changed = True

    def all(self) -> dict[str, Any]:
        """Return all hyperparameters of the group."""
        return {name: self[name] for name in self.common}

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value}" for name, value in self.all().items())
        return f"Group({settings}; {self.count} arrays)"


def split(parameters: Iterable[Any], settings: dict[str, Any], where: str) -> list[tuple[list[Any], dict[str, Any]]]:
    """Return an optimizer's groups: parameters, and the hyperparameters set for them.

    Raises
    ------
    ArgumentError
        If a group has no parameters, an unknown hyperparameter, or a parameter of another group.
    """
    given = as_list(parameters, where, "at least one parameter")
    if not any(isinstance(group, dict) for group in given):
        return [(list({id(p): p for p in given}.values()), {})]
    parts: list[tuple[list[Any], dict[str, Any]]] = []
    seen: set[int] = set()
    for k, group in enumerate(given):
        place = f"{where}, group {k}"
        if not isinstance(group, dict) or "params" not in group:
            got = f"only {', '.join(map(str, group))}" if isinstance(group, dict) else type(group).__name__
            raise ArgumentError(message(place, 'a dict with "params"', got))
        own = {name: value for name, value in group.items() if name != "params"}
        for name in own:
            if name not in settings:
                raise ArgumentError(message(place, f"params and any of {', '.join(settings)}", repr(name)))
        if "lr" in own:
            if not isinstance(own["lr"], int | float | np.number):
                raise ArgumentError(message(place, "lr to be a number", repr(own["lr"])))
            own = {"lr_ratio": own.pop("lr") / settings["lr"]} | own
        tensors = group["params"]
        tensors = [tensors] if isinstance(tensors, Tensor) else as_list(tensors, place, "at least one parameter")
        tensors = list({id(p): p for p in tensors}.values())
        if not tensors:
            raise ArgumentError(message(place, "at least one parameter", "none"))
        if seen & {id(p) for p in tensors}:
            raise ArgumentError(message(place, "parameters of no other group", "one that is in an earlier group"))
        seen |= {id(p) for p in tensors}
        parts.append((tensors, own))
    return parts


def __getattr__(name: str) -> Any:
    if name == "Setting":
        raise ImportError("microfw.optim.groups: expected the name Hyperparameter, got Setting, its former name")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
