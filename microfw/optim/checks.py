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
    try:
        return numeric and math.isfinite(value)
    except OverflowError:  # an int above 1.8e308
        return False


def is_integer(value: Any, least: float) -> bool:
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
    if not isinstance(values, Iterable) or getattr(values, "ndim", 1) == 0:  # an array without axes has no items
        raise ArgumentError(where, expected, type(values).__name__, fix)
    items = list(values)
    if not items and isinstance(values, Iterator):
        raise ArgumentError(where, expected, "an iterator with nothing left", fix)
    return items


def require_entries(state: dict[str, Any], names: Iterable[str], where: str) -> None:
    """Raise ArgumentError unless a state has entries of these names."""
    for name in names:
        if name not in state:
            raise ArgumentError(where, f"an entry {name!r}", f"only {', '.join(state) or 'an empty state'}")


def as_state(value: Any, dtype: np.dtype[Any], where: str, name: str) -> np.ndarray[Any, Any]:
    """Return an entry of a state as a new array of a dtype; raise ArgumentError if that loses values.

    Examples
    --------
    >>> as_state([1.0, 2.0], np.dtype(int), "Adam.load_state_dict", "counts")
    array([1, 2])
    """
    expected = f"{name} to be an array of numbers"
    try:
        given = np.asarray(value)
    except (TypeError, ValueError):
        raise ArgumentError(where, expected, type(value).__name__) from None
    if given.dtype.kind not in "fiub":
        raise ArgumentError(where, expected, f"{type(value).__name__} of {given.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        array = given.astype(dtype)
    if dtype.kind != "f":  # counts, or which parameters had a gradient
        lost = (array != given) | (given < 0)
        expected = f"{name} to be {'truth values' if dtype.kind == 'b' else 'integers of at least 0'}"
    else:
        lost, expected = np.isfinite(given) & ~np.isfinite(array), f"{name} of finite values of {dtype}"
    if lost.any():
        raise ArgumentError(where, expected, given[lost][0])
    return array
