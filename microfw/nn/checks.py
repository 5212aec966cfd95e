"""Checks that layers share: of their settings, and of what they are called with."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.errors import ArgumentError, ShapeError, message
from microfw.nn.dense import as_input
from microfw.nn.module import Module
from microfw.tensor import Tensor


def positive(layer: str, **sizes: Any) -> None:
    """Raise unless each size is a positive integer."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
            raise ArgumentError(message(layer, f"{name} to be a positive integer", repr(size)))


def positive_eps(layer: str, eps: Any) -> None:
    """Raise unless ``eps`` is a positive number, which keeps constant input from being divided by 0."""
    if not 0 < eps < np.inf:
        raise ArgumentError(message(layer, "a positive eps", eps))


def given(x: Any, dtype: Any, module: Module) -> Any:
    """Return what a layer is called with: a Tensor as it is, anything else as an array of a dtype."""
    if isinstance(x, Tensor) or (type(x) is np.ndarray and x.dtype == dtype):
        return x
    return as_input(x, dtype, module)


def floats_given(x: Any, module: Module) -> Any:
    """Return what a layer without parameters is called with; arrays of floats keep their dtype."""
    if isinstance(x, Tensor):
        return x
    dtype = getattr(x, "dtype", None)
    return as_input(x, dtype if dtype in (np.float32, np.float64) else np.float32, module)


def wrong_shape(module: Module, expected: str, x: Any, fix: str = "") -> ShapeError:
    """Return the error for an input of a wrong shape."""
    return ShapeError(message(module.where, f"x of shape {expected}", x.shape, fix))
