"""Argument checks of optimizers, schedules and hooks: numbers, and iterables of parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from microfw.errors import ArgumentError


def is_real(value: Any) -> bool:
    """Return True if a value is a finite real number.

    Examples
    --------
    >>> is_real(0.5), is_real(np.float32(2)), is_real(True), is_real(float("nan")), is_real("1")
    (True, True, False, False, False)
    """
    numeric = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return numeric and math.isfinite(value)


def is_integer(value: Any, least: int) -> bool:
    """Return True if a value is an integer of at least ``least``.

    Examples
    --------
    >>> is_integer(3, 1), is_integer(np.int64(0), 1), is_integer(3.0, 1), is_integer(True, 1)
    (True, False, False, False)
    """
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= least)


def as_list(values: Any, where: str, expected: str, fix: str = "pass model.parameters()") -> list[Any]:
    """Return the items of an iterable.

    Raises
    ------
    ArgumentError
        If ``values`` is not iterable, or is an exhausted iterator.

    Examples
    --------
    >>> as_list([], "clip_grad_norm", "parameters"), as_list(iter("ab"), "clip_grad_norm", "parameters")
    ([], ['a', 'b'])
    """
    if not isinstance(values, Iterable):
        raise ArgumentError(where, expected, type(values).__name__, fix)
    items = list(values)
    if not items and isinstance(values, Iterator):
        raise ArgumentError(where, expected, "an iterator with nothing left", fix)
    return items


def require_entries(state: dict[str, Any], names: Iterable[str], where: str) -> None:
    """Raise ArgumentError unless a state has entries of these names."""
    for name in names:
        if name not in state:
            raise ArgumentError(where, f"an entry {name!r}", f"only {', '.join(state)}")
