"""Ops that draw random numbers or call Python functions. A replayed step runs them again. They have no gradient."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from microfw.autograd.op import Array, Cost, Shape, op, zero_cost


def _mask_cost(y: Shape, x: Shape, **params: Any) -> Cost:
    return Cost(2 * prod(y), ())


@op(cost=_mask_cost, no_alias=True)
def dropout_mask(x: Array, *, p: float, rng: np.random.Generator) -> Array:
    """An array like ``x`` that is 0 with probability ``p`` and else ``1 / (1 - p)``, drawn at each call.

    Examples
    --------
    >>> dropout_mask(np.ones(6), p=0.5, rng=np.random.default_rng(0))
    tensor([2., 2., 2., 0., 0., 0.])
    """
    # float32 numbers are drawn faster than float64 ones, and p needs no more digits
    keep = np.asarray(rng.random(x.shape, np.float32) >= p).astype(x.dtype)
    keep /= 1 - p
    return keep


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
