"""Checks that layers share: of their settings, and of what they are called with."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np

from microfw.autograd._tensor_base import refuse_masked
from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, DTypeError, MicrofwError, ShapeError
from microfw.nn.module import Module

CheckShape = Callable[[Any], None]
"""Raises ShapeError if an input has a wrong shape."""


def positive(layer: str, **sizes: Any) -> None:
    """Raise unless each size is a positive integer."""
    for name, size in sizes.items():
        require(is_whole(size) and size > 0, layer, f"{name} to be a positive integer", repr(size))


def require(fits: object, layer: str, expected: str, got: Any) -> None:
    """Raise unless a setting fits."""
    if not fits:
        raise ArgumentError(layer, expected, got)


def is_whole(value: Any) -> bool:
    """Return True for an integer, of Python or NumPy, that is no truth value."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Return True for a real number, of Python or NumPy, that is no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)


def as_number(value: Any, fits: Callable[[Any], object], layer: str, expected: str) -> Any:
    """Return a setting that is a real number as an int or a float of Python; raise unless it fits."""
    require(is_number(value) and fits(value), layer, expected, value)
    # a float64 of NumPy would make float64 of float32 arrays, and files have settings without arrays
    return value if type(value) is int else float(value)


def as_flag(value: Any, layer: str, name: str, example: str) -> bool:
    """Return a setting that is True or False; in PyTorch another one may have its place."""
    if not isinstance(value, bool | np.bool_):
        fix = f"name each setting, as in {example}"
        raise ArgumentError(layer, f"{name} to be True or False", repr(value), fix)
    return bool(value)


def as_layer_input(x: Any, dtype: Any, module: Module, check_shape: CheckShape, name: str = "x") -> Any:
    """Return the input of a layer: a Tensor of the layer's dtype unchanged, anything else as an array of that dtype.

    ``check_shape`` is called before a cast, which takes memory. The input is called ``name`` in errors.
    """
    if isinstance(x, Tensor):
        if x.dtype != dtype:
            raise wrong_dtype(module, x, dtype, name)
    elif type(x) is not np.ndarray or x.dtype != dtype:
        return as_input(x, dtype, module, check_shape, name)
    check_shape(x)
    return x


def as_float_input(x: Any, module: Module, check_shape: CheckShape | None = None) -> Any:
    """Return the input of a layer without parameters: floats keep their dtype, other numbers become float32."""
    dtype = getattr(x, "dtype", None)  # a frame has dtypes, and a list has none
    floats = dtype == np.float32 or dtype == np.float64
    if floats and isinstance(x, Tensor | np.ndarray):
        if check_shape is not None:
            check_shape(x)
        return x
    if isinstance(x, Tensor):
        raise DTypeError(module.where, "x of float32 or float64", x.dtype, "cast it with .astype")
    native = dtype.newbyteorder("=") if isinstance(dtype, np.dtype) else None  # as read from some files
    return as_input(x, np.float64 if native == np.float64 else np.float32, module, check_shape)


def numbers(x: Any, module: Module) -> Any:
    """Return an input that is no Tensor as an array of numbers of any dtype."""
    return as_input(x, None, module)


def as_integers(x: Any, module: Module, what: str) -> np.ndarray[Any, Any]:
    """Return an array of integers, called ``what`` in errors; floats that are whole numbers are cast."""
    array = x if isinstance(x, np.ndarray) else as_input(x, None, module, name=what)
    got: Any = array.dtype
    if array.dtype.kind == "f":
        whole = np.isfinite(array) & (array == np.floor(array))
        if whole.all():
            return array.astype(np.intp)
        got = f"{array[~whole].flat[0]}"
    if array.dtype.kind not in "iu":
        raise DTypeError(module.where, f"integer {what}", got, "cast them with .astype(int)")
    return array


def wrong_shape(module: Module, expected: str, x: Any, fix: str = "") -> ShapeError:
    """Return the error for an input of a wrong shape."""
    return ShapeError(module.where, f"x of shape {expected}", x.shape, fix)


def as_input(
    x: Any, dtype: Any, module: Module, check_shape: CheckShape | None = None, name: str = "x"
) -> np.ndarray[Any, Any]:
    """Return an array, frame or list as an array of a dtype; if ``dtype`` is None, of its own dtype.

    ``check_shape`` is called before a cast, which takes memory. The input is called ``name`` in errors.
    """
    if isinstance(x, tuple | list) and any(isinstance(part, Tensor) for part in x):
        fix = "pick one, as in outputs, state = layer(x) with a recurrent layer, or X of (X, y)"
        raise DTypeError(module.where, f"{name} to be one Tensor or array", f"a {type(x).__name__} of Tensors", fix)
    try:
        refuse_masked(x, module.where)
        array = np.asarray(x)  # numbers first: a wrong dtype is a better error than what a cast says
        if array.dtype.kind not in "fiubO":
            fix = "encode text, and split complex numbers"
            raise DTypeError(module.where, f"{name} to hold numbers", array.dtype, fix)
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
            module.where, f"{name} to hold numbers", f"{type(x).__name__} ({got})", "encode text columns first"
        ) from None


def wrong_dtype(module: Module, x: Any, dtype: Any, name: str = "x") -> DTypeError:
    """Return the error for a Tensor of another dtype than a layer's."""
    fix = f"cast it with .astype(np.{dtype})"
    if x.dtype.kind == "f":
        fix += f", or the model with model.astype(np.{x.dtype})"
    return DTypeError(module.where, f"{name} of {dtype}", x.dtype, fix)
