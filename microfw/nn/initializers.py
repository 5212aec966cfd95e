"""Initial values of weights, as functions of a shape and a source of randomness.

A Dense weight is ``(in, out)``; in a weight of more axes the first is out, the second in, and the others
are the window's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from inspect import signature
from math import prod, sqrt
from typing import Any, TypeAlias

import numpy as np

from microfw.errors import ArgumentError, DTypeError, MicrofwError, ShapeError, described

Array = np.ndarray[Any, Any]
Seed: TypeAlias = "int | np.random.Generator | None"  # quoted: numpy.random takes a while to import


_LEFT: ContextVar[list[int] | None] = ContextVar("microfw_blank", default=None)


@contextlib.contextmanager
def blank(limit: int) -> Iterator[None]:
    """Have all of these functions return zeros, ``limit`` of them in all: layers made to be filled from a file.

    Raises
    ------
    ArgumentError
        In the function that is asked for more than the limit.
    """
    token = _LEFT.set([limit])
    try:
        yield
    finally:
        _LEFT.reset(token)


def _blank(shape: tuple[int, ...]) -> Array | None:
    """Return zeros within `blank`, and None elsewhere."""
    left = _LEFT.get()
    if left is None:
        return None
    left[0] -= prod(shape)  # before the array is made: a file must not take memory that it has no values for
    if left[0] < 0:
        raise ArgumentError("initializers.blank", "shapes that fit the limit", shape)
    return np.zeros(shape, np.float32)


NAMES = (
    "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "normal", "orthogonal", "zeros",
)  # fmt: skip
"""Initializers that a layer's ``init`` and ``bias_init`` may be given by name."""


def initial(layer: str, init: Any, shape: tuple[int, ...], rng: Seed, groups: int = 1, name: str = "init") -> Array:
    """Return what an initializer gives for a layer's weight, which must have the shape that was asked for.

    A weight of several ``groups`` tells their number to an initializer that takes it.
    """
    if isinstance(init, str) and init in NAMES:
        init = globals()[init]
    expected = f"{name} to be a function of a shape and rng, or one of {', '.join(NAMES)}"
    if not callable(init) or isinstance(init, type):
        plain = init.replace("xavier", "glorot").replace("kaiming", "he").rstrip("_") if isinstance(init, str) else ""
        raise ArgumentError(layer, expected, repr(init), f"here it is {plain}" if plain in NAMES else "")
    options = {"groups": groups} if groups > 1 and _takes_groups(init) else {}
    try:
        values: Array = np.array(init(shape, rng, **options))
    except TypeError as error:  # of a function of other arguments, such as np.zeros
        if isinstance(error, MicrofwError):
            raise
        got, fix = f"{described(init)}, which raises {error!r}", "wrap it, as in lambda shape, rng: np.zeros(shape)"
        raise ArgumentError(layer, expected, got, fix) from error
    if values.shape != shape:
        raise ShapeError(layer, f"{name} to return shape {shape}", values.shape)
    if values.dtype.kind not in "fiub":
        raise DTypeError(layer, f"{name} to return real numbers", values.dtype)
    return values


def initial_bias(layer: str, init: Any, size: int, rng: Seed, bound: float) -> Array:
    """Return what an initializer gives for a layer's bias; if it is None, uniform numbers within a bound."""
    return uniform((size,), rng, bound) if init is None else initial(layer, init, (size,), rng, name="bias_init")


def _takes_groups(init: Callable[..., Any]) -> bool:
    try:
        return "groups" in signature(init).parameters  # initializers of users know no groups
    except (TypeError, ValueError):  # of a function in C
        return False


def fans(shape: tuple[int, ...], groups: int = 1) -> tuple[int, int]:
    """Return how many inputs an output of a weight depends on, and how many outputs an input reaches.

    In a convolution with ``groups``, an input reaches the outputs of its own group alone.

    Examples
    --------
    >>> fans((64, 32))
    (64, 32)
    >>> fans((16, 8, 3, 3))
    (72, 144)
    >>> fans((64, 1, 3, 3), groups=64)
    (9, 9)
    """
    if len(shape) < 2:
        return (shape[0], shape[0]) if shape else (1, 1)
    if len(shape) == 2:
        return shape[0], shape[1]
    window = prod(shape[2:])
    return shape[1] * window, shape[0] // groups * window


def he_normal(shape: tuple[int, ...], rng: Seed = None) -> Array:
    """Normal with variance ``2 / fan_in``, which keeps the size of activations through ReLU layers.

    Source: He et al., "Delving Deep into Rectifiers", 2015, equation 10.
    """
    return _normal(shape, rng, sqrt(2 / max(fans(shape)[0], 1)))


def he_uniform(shape: tuple[int, ...], rng: Seed = None) -> Array:
    """Uniform with variance ``2 / fan_in``; see `he_normal`."""
    return uniform(shape, rng, sqrt(6 / max(fans(shape)[0], 1)))


def glorot_normal(shape: tuple[int, ...], rng: Seed = None, groups: int = 1) -> Array:
    """Normal with variance ``2 / (fan_in + fan_out)``, which suits tanh and sigmoid layers.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", 2010, equation 12.
    """
    return _normal(shape, rng, sqrt(2 / max(sum(fans(shape, groups)), 1)))


def glorot_uniform(shape: tuple[int, ...], rng: Seed = None, groups: int = 1) -> Array:
    """Uniform with variance ``2 / (fan_in + fan_out)``; Glorot and Bengio's equation 16."""
    return uniform(shape, rng, sqrt(6 / max(sum(fans(shape, groups)), 1)))


def orthogonal(shape: tuple[int, ...], rng: Seed = None) -> Array:
    """Draw a random matrix whose rows, or columns if there are fewer, are orthogonal and of length 1.

    In the weight of a convolution the axes after the first, that of the outputs, count as one. A state multiplied by
    such a weight step after step neither grows nor vanishes. Source: Saxe et al., "Exact solutions to the nonlinear
    dynamics of learning in deep linear neural networks", 2013, section 3.
    """
    if len(shape) < 2:
        raise ArgumentError("orthogonal", "a shape of at least two axes", shape)
    if (empty := _blank(shape)) is not None:
        return empty
    rows, columns = (shape[0], prod(shape[1:])) if len(shape) > 2 else shape
    # tall, since qr returns orthonormal columns; turned at the end if it should be wide
    square = np.random.default_rng(rng).standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(square)
    q *= np.where(np.diag(r) < 0, -1, 1)  # else the signs would depend on how qr computes
    return (q if rows >= columns else q.T).reshape(shape).astype(np.float32)


def normal(shape: tuple[int, ...], rng: Seed = None) -> Array:
    """Draw from the standard normal distribution, as the rows of an `Embedding` start."""
    return _normal(shape, rng, 1.0)


def zeros(shape: tuple[int, ...], rng: Seed = None) -> Array:
    """All zero, as biases start."""
    return constant(shape, 0.0)


def constant(shape: tuple[int, ...], value: float) -> Array:
    """All the same value, as the scales of normalization layers start."""
    empty = _blank(shape)
    return np.full(shape, value, np.float32) if empty is None else empty


def uniform(shape: tuple[int, ...], rng: Seed, bound: float) -> Array:
    """Uniform from ``-bound`` to ``bound``."""
    if (empty := _blank(shape)) is not None:
        return empty
    return np.random.default_rng(rng).uniform(-bound, bound, shape).astype(np.float32)


def _normal(shape: tuple[int, ...], rng: Seed, deviation: float) -> Array:
    if (empty := _blank(shape)) is not None:
        return empty
    return np.random.default_rng(rng).normal(0, deviation, shape).astype(np.float32)


__all__ = [*NAMES, "constant", "uniform"]


def __dir__() -> list[str]:
    return sorted(__all__)
