"""Checks that layers share: of their settings, and of what they are called with."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, DTypeError, MicrofwError, ShapeError, message
from microfw.nn.module import Module

CheckShape = Callable[[Any], None]
"""Raises ShapeError if an input has a wrong shape."""


def positive(layer: str, **sizes: Any) -> None:
    """Raise unless each size is a positive integer."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
            raise ArgumentError(message(layer, f"{name} to be a positive integer", repr(size)))


def is_number(value: Any) -> bool:
    """Return True for a real number, of Python or NumPy, that is no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)


def positive_eps(layer: str, eps: Any) -> None:
    """Raise unless ``eps`` is a positive number, which keeps constant input from being divided by 0."""
    if not is_number(eps) or not 0 < eps < np.inf:
        raise ArgumentError(message(layer, "a positive eps", eps))


def as_layer_input(x: Any, dtype: Any, module: Module, check_shape: CheckShape) -> Any:
    """Return the input of a layer: a Tensor of the layer's dtype unchanged, anything else as an array of that dtype.

    ``check_shape`` is called before a cast, which takes memory.
    """
    if isinstance(x, Tensor):
        if x.dtype != dtype:
            raise wrong_dtype(module, x, dtype)
    elif type(x) is not np.ndarray or x.dtype != dtype:
        return as_input(x, dtype, module, check_shape)
    check_shape(x)
    return x


def as_float_input(x: Any, module: Module, check_shape: CheckShape | None = None) -> Any:
    """Return the input of a layer without parameters: floats keep their dtype, other numbers become float32."""
    dtype = getattr(x, "dtype", None)
    floats = dtype == np.float32 or dtype == np.float64
    if floats and isinstance(x, Tensor | np.ndarray):
        if check_shape is not None:
            check_shape(x)
        return x
    if isinstance(x, Tensor):
        raise DTypeError(message(module.where, "x of float32 or float64", x.dtype, "cast it with .astype"))
    return as_input(x, dtype if floats else np.float32, module, check_shape)


def numbers(x: Any, module: Module) -> Any:
    """Return an input that is no Tensor as an array of numbers of any dtype."""
    return as_input(x, None, module)


def wrong_shape(module: Module, expected: str, x: Any, fix: str = "") -> ShapeError:
    """Return the error for an input of a wrong shape."""
    return ShapeError(message(module.where, f"x of shape {expected}", x.shape, fix))


def as_input(x: Any, dtype: Any, module: Module, check_shape: CheckShape | None = None) -> np.ndarray[Any, Any]:
    """Return an array, frame or list as an array of a dtype; if ``dtype`` is None, of its own dtype.

    ``check_shape`` is called before a cast, which takes memory.
    """
    if isinstance(x, tuple | list) and any(isinstance(part, Tensor) for part in x):
        fix = "pick one, as nn.Lambda(lambda parts: parts[0]) does after a recurrent layer"
        raise DTypeError(message(module.where, "x to be one Tensor or array", f"a {type(x).__name__} of Tensors", fix))
    try:
        array = np.asarray(x)
        if array.dtype.kind not in "fiubO":
            fix = "encode text, and split complex numbers"
            raise DTypeError(message(module.where, "x to hold numbers", array.dtype, fix))
        if check_shape is not None:
            check_shape(array)
        if array.dtype.kind == "O" and dtype is None:  # frames of several dtypes, None as a missing number
            dtype = np.float64
        return array if dtype is None else array.astype(dtype, copy=False)
    except MicrofwError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        got = " ".join(str(error).split())
        raise DTypeError(
            message(module.where, "x to hold numbers", f"{type(x).__name__} ({got})", "encode text columns first")
        ) from None


def wrong_dtype(module: Module, x: Any, dtype: Any) -> DTypeError:
    """Return the error for a Tensor of another dtype than a layer's."""
    fix = f"cast it with .astype(np.{dtype})"
    if x.dtype.kind == "f":
        fix += f", or the model with model.astype(np.{x.dtype})"
    return DTypeError(message(module.where, f"x of {dtype}", x.dtype, fix))
