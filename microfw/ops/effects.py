"""Ops that draw random numbers or call Python functions. A replayed step runs them again. They have no gradient."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, prod
from typing import Any

import numpy as np

from microfw.autograd.op import Array, Cost, Shape, op, zero_cost

DRAWS_64_BITS = ("PCG64", "PCG64DXSM", "Philox", "SFC64")
"""Bit generators of NumPy whose raw numbers have 64 random bits. Names: the classes import `numpy.random`, in 20 ms."""


def _mask_cost(y: Shape, x: Shape, **params: Any) -> Cost:
    return Cost(2 * prod(y), ())


@op(cost=_mask_cost, no_alias=True)
def dropout_mask(x: Array, *, p: float, rng: np.random.Generator) -> Array:
    """An array like ``x`` that is 0 with probability ``p`` and else ``1 / (1 - p)``, drawn at each call.

    Examples
    --------
    >>> dropout_mask(np.ones(6), p=0.5, rng=np.random.default_rng(0))
    tensor([0., 0., 0., 2., 2., 2.])
    """
    keep = _kept(x.shape, p, rng).astype(x.dtype)
    keep /= 1 - p
    return keep


def _kept(shape: Shape, p: float, rng: np.random.Generator) -> Array:
    """Return booleans, each True with probability ``1 - p``."""
    kind = type(getattr(rng, "bit_generator", None))
    if kind.__name__ not in DRAWS_64_BITS or not kind.__module__.startswith("numpy.random."):
        return np.asarray(rng.random(shape, np.float32) >= p)
    # Two integers of 32 bits from each raw number: drawing and comparing takes 0.75 of the time of floats for a
    # thousand entries, 0.5 for a hundred thousand.
    n = prod(shape)
    draws = np.asarray(rng.bit_generator.random_raw((n + 1) // 2)).view(np.uint32)[:n].reshape(shape)
    return np.asarray(draws <= np.uint32(max(ceil((1 - p) * 2**32) - 1, 0)))


@op(cost=zero_cost, allow_dtype_change=True)  # the library's functions check values, or look them up
def pure_callback(x: Array, *, by: Callable[..., Any], args: tuple[Any, ...] = ()) -> Array:
    """The result of a function of arrays, ``by(x, *args)``. A function that returns None may check ``x``.

    Examples
    --------
    >>> pure_callback(np.array([0, 2]), by=np.eye(3).take, args=(0,))
    tensor([[1., 0., 0.],
            [0., 0., 1.]])
    """
    made = by(x, *args)
    return np.zeros(()) if made is None else np.array(made)
