"""Hyperparameters of optimizers, as attributes that are checked, and groups of parameters with different ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any, Self

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError
from microfw.optim.checks import as_list

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


CONVERTED = (np.ndarray, Tensor)


class Settings(dict[str, Any]):
    """Hyperparameters of an optimizer by name. ``changed``: whether one was set since the last step.

    ``settings["lr"] = 0.1`` is ``optimizer.lr = 0.1``. Names are neither added nor removed.
    """

    __slots__ = ("changed",)

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__({name: constant(value) for name, value in settings.items()})
        self.changed = True

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self:
            raise ArgumentError("settings", f"one of {', '.join(self)}", repr(name))
        super().__setitem__(name, constant(value))
        self.changed = True

    def update(self, *given: Any, **named: Any) -> None:
        """Set several hyperparameters."""
        for name, value in dict(*given, **named).items():
            self[name] = value

    def __ior__(self, given: Any) -> Self:  # type: ignore[override,misc]
        self.update(given)
        return self

    def _refuse(self, *_: Any) -> Any:
        raise ArgumentError("settings", f"the hyperparameters {', '.join(self)} to stay", "one to be added or removed")

    __delitem__ = pop = popitem = clear = _refuse

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Return a hyperparameter; raise for a name that is none."""
        return self[name] if name in self else self._refuse()

    def __reduce__(self) -> tuple[Any, ...]:
        return Settings, (dict(self),)


def constant(value: Any) -> Any:
    """Return a tuple for a list, and numbers for arrays: a change of their entries would not reach the next step."""
    if isinstance(value, CONVERTED):
        if getattr(value, "requires_grad", False):
            raise ArgumentError("optimizer", "numbers as settings", "a Tensor that needs a gradient", "pass t.item()")
        value = value.tolist()
    return tuple(value) if isinstance(value, list) else value


class Group:
    """Parameters with the same hyperparameters, contiguous in the buffer.

    ``group["lr"]`` returns the group's value, and assigning sets it for this group alone. A group's learning rate is
    stored as the ratio to the optimizer's, so a schedule of the optimizer's rate changes both. ``group.lr`` is the
    same, as ``optimizer.lr`` is.
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
            raise ArgumentError("group", f"one of {', '.join(self.common)}", repr(name))
        if name == "lr":
            self.own["lr_ratio"] = _ratio(constant(value), self.common, "group")
        else:
            self.own[name] = constant(value)
        self.common.changed = True

    def __getattr__(self, name: str) -> Any:
        if name not in vars(self).get("common", ()):
            raise AttributeError(f"'Group' object has no attribute {name!r}", name=name, obj=self)
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("common", "own", "count"):
            object.__setattr__(self, name, value)
        else:
            self[name] = value

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
        return [(list({id(p): p for p in given}.values()), {})]  # a shared parameter once, in the order given
    parts: list[tuple[list[Any], dict[str, Any]]] = []
    seen: set[int] = set()
    for k, group in enumerate(given):
        place = f"{where}, group {k}"
        if not isinstance(group, dict) or "params" not in group:
            got = f"only {', '.join(map(str, group))}" if isinstance(group, dict) else type(group).__name__
            raise ArgumentError(place, 'a dict with "params"', got)
        own = {name: constant(value) for name, value in group.items() if name != "params"}
        for name in own:
            if name not in settings:
                raise ArgumentError(place, f"params and any of {', '.join(settings)}", repr(name))
        if "lr" in own:
            own = {"lr_ratio": _ratio(own.pop("lr"), settings, place)} | own  # a schedule then changes all groups
        tensors = group["params"]
        tensors = [tensors] if isinstance(tensors, Tensor) else as_list(tensors, place, "at least one parameter")
        tensors = list({id(p): p for p in tensors}.values())
        if not tensors:
            raise ArgumentError(place, "at least one parameter", "none")
        if seen & {id(p) for p in tensors}:
            raise ArgumentError(place, "parameters of no other group", "one that is in an earlier group")
        seen |= {id(p) for p in tensors}
        parts.append((tensors, own))
    return parts


def _ratio(lr: Any, common: dict[str, Any], where: str) -> Any:
    """Return the ratio of a group's learning rate to the optimizer's."""
    if not isinstance(lr, int | float | np.number):
        raise ArgumentError(where, "lr to be a number", repr(lr))
    return lr / common["lr"]


def load_groups(
    state: dict[str, Any], names: Iterable[str], present: list[Group], where: str
) -> tuple[Settings, list[Group]]:
    """Return the hyperparameters of a state, and its groups, which must have the sizes of the present ones."""
    sizes = [group.count for group in present]
    own = state.get("groups", [{}] * len(sizes))
    if not isinstance(own, list | tuple) or not all(isinstance(group, dict) for group in own):
        raise ArgumentError(where, "groups to be a list of dicts", repr(own))
    if len(own) != len(sizes):
        raise ArgumentError(where, f"{len(sizes)} groups", len(own))
    if state.get("group_sizes", sizes) != sizes:
        raise ArgumentError(where, f"groups of {sizes} parameters", state["group_sizes"])
    settings = Settings({name: state[name] for name in names})
    return settings, [Group(settings, dict(values), size) for values, size in zip(own, sizes, strict=True)]


def __getattr__(name: str) -> Any:
    if name == "Setting":
        raise ImportError(f"{__name__}: expected Hyperparameter, got {name}, its former name")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
