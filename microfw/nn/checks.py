"""Checks that layers share: of their settings, and of what they are called with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, DTypeError, ShapeError, message
from microfw.nn.dense import as_input, wrong_dtype
from microfw.nn.module import Module

Fits = Callable[[Any], None]


def positive(layer: str, **sizes: Any) -> None:
    """Raise unless each size is a positive integer."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
            raise ArgumentError(message(layer, f"{name} to be a positive integer", repr(size)))


def positive_eps(layer: str, eps: Any) -> None:
    """Raise unless ``eps`` is a positive number, which keeps constant input from being divided by 0."""
    if not 0 < eps < np.inf:
        raise ArgumentError(message(layer, "a positive eps", eps))


def given(x: Any, dtype: Any, module: Module, fits: Fits) -> Any:
    """Return a layer's input: a Tensor of the layer's dtype unchanged, anything else as an array of that dtype.

    ``fits`` raises where the shape is wrong; it is asked before anything is cast, which takes memory.
    """
    if isinstance(x, Tensor):
        if x.dtype != dtype:
            raise wrong_dtype(module, x, dtype)
    elif type(x) is not np.ndarray or x.dtype != dtype:
        return as_input(x, dtype, module, fits)
    fits(x)
    return x


def floats_given(x: Any, module: Module, fits: Fits | None = None) -> Any:
    """Return what a layer without parameters is called with: floats keep their dtype, other numbers are cast."""
    dtype = getattr(x, "dtype", None)
    floats = dtype == np.float32 or dtype == np.float64
    if floats and isinstance(x, Tensor | np.ndarray):
        if fits is not None:
            fits(x)
        return x
    if isinstance(x, Tensor):
        raise DTypeError(message(module.where, "x of float32 or float64", x.dtype, "cast it with .astype"))
    return as_input(x, dtype if floats else np.float32, module, fits)


def numbers(x: Any, module: Module) -> Any:
    """Return an input that is no Tensor as an array of numbers of any dtype."""
    return as_input(x, None, module)


def wrong_shape(module: Module, expected: str, x: Any, fix: str = "") -> ShapeError:
    """Return the error for an input of a wrong shape."""
    return ShapeError(message(module.where, f"x of shape {expected}", x.shape, fix))
