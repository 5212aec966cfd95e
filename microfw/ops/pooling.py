"""Pooling: one number for each window of each channel."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from microfw.autograd.op import Array, Cost, Shape, op
from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, DTypeError
from microfw.ops.mapping import either
from microfw.ops.windows import (
    Geometry,
    Padding,
    Sizes,
    batch_first,
    batch_last,
    check_images,
    fold,
    geometry,
    padded,
    put_back,
)


def _geometry(where: str, x: Any, kernel: Sizes, stride: Sizes | None, padding: Padding) -> Geometry:
    check_images(x.shape, where)
    geo = geometry(where, x.shape[2:], kernel, kernel if stride is None else stride, padding)
    if geo.inner is not None and any(max(pair) >= k for pair, k in zip(geo.pads, geo.kernel, strict=True)):
        got = f"padding {geo.pads}, kernel {geo.kernel}"
        raise ArgumentError(where, "less padding than the kernel, so that no window is empty", got)
    return geo


def _costs(y: Shape, x: Shape, kernel: Sizes, stride: Sizes | None, padding: Padding) -> tuple[int, int]:
    """Return how many comparisons or additions the windows take, and how many additions putting them back."""
    geo = geometry("pool", x[2:], kernel, kernel if stride is None else stride, padding)
    return (prod(geo.kernel) - 1) * prod(y), 0 if geo.disjoint else prod(geo.kernel) * prod(y)


# Maximum


def _shares(g: Array, x: Array, y: Array, geo: Geometry) -> Iterator[Array]:
    """Give each tap in turn what it gets of a gradient: all that is left where the window's maximum is its own."""
    around = padded(x, geo, np.nan)  # NaN is equal to nothing: padding gets no gradient
    for cut in geo.cuts[:-1]:
        share = np.equal(around[cut], y).astype(g.dtype)
        share *= g
        yield share
        g = g - share  # of equal entries the first takes all: nothing is left for the others
    yield g  # the last tap needs no comparison


def _chosen(x: Any, y: Any, geo: Geometry) -> Array:
    """Return ones where a window's maximum is, and zeros elsewhere, in the shape of the windows; a constant."""
    x, y = (batch_last(a.data if isinstance(a, Tensor) else a) for a in (x, y))
    taps = np.stack(list(_shares(np.ones(y.shape, y.dtype), x, y, geo)), axis=1)
    return batch_first(taps.reshape((y.shape[0], *geo.kernel, *y.shape[1:])))


def _spread(g: Any, geo: Geometry) -> Any:
    """Give axes of length 1 for the kernel to an array of one number a window."""
    return g.reshape((*g.shape[:2], *(1 for _ in geo.kernel), *g.shape[2:]))


def _to_the_first(g: Any, x: Any, y: Any, kernel: Sizes, stride: Sizes | None, padding: Padding) -> Any:
    geo = _geometry("max_pool", x, kernel, stride, padding)
    if isinstance(g, Tensor):
        share = _spread(g, geo) * _chosen(x, y, geo)
        return fold(share, size=geo.size, stride=geo.stride, padding=geo.pads)
    shares = _shares(batch_last(g), batch_last(x), batch_last(y), geo)
    return put_back(shares, x.shape[1], x.shape[0], g, geo)


def _from_the_first(dx: Any, x: Any, y: Any, kernel: Sizes, stride: Sizes | None, padding: Padding) -> Any:
    geo = _geometry("max_pool", x, kernel, stride, padding)
    seen = either("windows", dx, kernel=kernel, stride=geo.stride, padding=geo.pads)
    return np.sum(seen * _chosen(x, y, geo), axis=tuple(range(2, 2 + len(geo.kernel))))


def _max_cost(y: Shape, x: Shape, *, kernel: Any, stride: Any = None, padding: Any = 0) -> Cost:
    compared, added = _costs(y, x, kernel, stride, padding)
    return Cost(compared, (3 * compared + added,))


@op(vjp=_to_the_first, jvp=_from_the_first, cost=_max_cost, no_alias=True)
def max_pool(x: Array, *, kernel: Sizes, stride: Sizes | None = None, padding: Padding = 0) -> Array:
    """Largest entry of each window: (N, C, H, W) becomes (N, C, H', W'); ties give the gradient to the first.

    Likewise with one or three axes in the place of H and W. The stride is the kernel by default, so that windows
    tile the input. Padding, as in `windows`, is of minus infinity: it never wins. First is in the order of the
    kernel's rows. A NaN makes its windows NaN.

    Raises
    ------
    ShapeError
        If ``x`` has other axes, or is smaller than the kernel.
    ArgumentError
        If a setting makes no sense, or a window could lie in the padding alone.
    DTypeError
        If there is padding and ``x`` are not floats.

    Examples
    --------
    >>> max_pool(np.array([[[1.0, 3.0, 2.0, 5.0]]]), kernel=2)
    tensor([[[3., 5.]]])
    """
    geo = _geometry("max_pool", x, kernel, stride, padding)
    if geo.inner is not None and x.dtype.kind not in "fO":
        raise DTypeError("max_pool", "floats, since there is padding", x.dtype, "cast with .astype")
    around = padded(batch_last(x), geo, -np.inf)
    taps = [around[cut] for cut in geo.cuts]
    # tap by tap over whole images; a maximum over an axis of windows would first copy them
    y = np.maximum(taps[0], taps[1]) if len(taps) > 1 else taps[0].copy()
    for tap in taps[2:]:
        np.maximum(y, tap, out=y)
    return batch_first(y)


# Average


def _evenly(g: Any, shape: Shape, kernel: Sizes, stride: Sizes | None, padding: Padding) -> Any:
    geo = geometry("avg_pool", shape[2:], kernel, kernel if stride is None else stride, padding)
    share = _spread(g * (1 / prod(geo.kernel)), geo)  # a product takes less time than a division
    share = np.broadcast_to(share, (*shape[:2], *geo.kernel, *geo.out))
    return either("fold", share, size=geo.size, stride=geo.stride, padding=padding)


def _mean_cost(y: Shape, x: Shape, *, kernel: Any, stride: Any = None, padding: Any = 0) -> Cost:
    summed, added = _costs(y, x, kernel, stride, padding)
    return Cost(summed + prod(y), (prod(y) + added,))


@op(vjp=_evenly, jvp="linear", cost=_mean_cost, no_alias=True)
def avg_pool(x: Array, *, kernel: Sizes, stride: Sizes | None = None, padding: Padding = 0) -> Array:
    """Mean of each window: (N, C, H, W) becomes (N, C, H', W').

    As `max_pool`, but padding is of zeros, and they count: each window's sum is divided by the kernel's size.

    Raises
    ------
    ShapeError
        If ``x`` has other axes, or is smaller than the kernel.
    ArgumentError
        If a setting makes no sense, or a window could lie in the padding alone.

    Examples
    --------
    >>> avg_pool(np.array([[[1.0, 3.0, 2.0, 5.0]]]), kernel=2)
    tensor([[[2. , 3.5]]])
    """
    geo = _geometry("avg_pool", x, kernel, stride, padding)
    around = padded(batch_last(x), geo, 0)
    total = reduce(np.add, [around[cut] for cut in geo.cuts])
    return batch_first(total * (1 / prod(geo.kernel)))
