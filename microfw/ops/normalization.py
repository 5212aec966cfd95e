"""Fused ops that bring vectors and groups of entries to one size."""

from __future__ import annotations

from math import prod, sqrt
from typing import Any

import numpy as np

from microfw.autograd.op import Array, Cost, Shape, Written, op
from microfw.autograd.tensor import Tensor
from microfw.ops.elementwise.choices import undefined
from microfw.ops.linalg import bias_out, to_bias
from microfw.ops.reduction.sums import mean_first, sum_last

# To mean 0 and variance 1


def _mean(x: Any, axes: tuple[int, ...]) -> Any:
    if axes == (x.ndim - 1,):
        return sum_last(x, mean=True)
    if axes == (*range(x.ndim - 1),):  # of a batch norm without positions
        return mean_first(x)
    return x.sum(axis=axes, keepdims=True) / prod(x.shape[a] for a in axes)


FAR = 256
"""Number of standard deviations of a mean from 0 above which its rounding error shows in the result."""


def _scaled(x: Any, axes: tuple[int, ...]) -> tuple[Any, Any, Any, Any]:
    """Return a scale and, of ``x / scale``, the mean, the differences from it, and the variance."""
    # The scale keeps squares in range. It is a power of 2, so that dividing by it rounds nothing.
    values = x.detach() if isinstance(x, Tensor) else x  # the result does not depend on the scale
    largest = np.max(np.abs(values), axis=axes, keepdims=True)
    usual = (largest > 0) & (largest <= float(np.finfo(x.dtype).max))
    scale = np.exp2(np.floor(np.log2(np.where(usual, largest, 1)))).astype(x.dtype)
    x = x / scale
    mean = _mean(x, axes)
    centred = x - mean
    rest = _mean(centred, axes)  # what the mean has rounded off
    centred = centred - rest
    return scale, mean + rest, centred, _mean(np.square(centred), axes)


def _rstd(x: Any, axes: tuple[int, ...], eps: float) -> Any:
    scale, _, _, variance = _scaled(x, axes)
    return 1 / (np.sqrt(variance + eps / scale / scale) * scale)


def _xhat(x: Any, axes: tuple[int, ...], eps: float) -> Any:
    scale, _, centred, variance = _scaled(x, axes)
    return centred / np.sqrt(variance + eps / scale / scale)


def _moments_rescaled(x: Array, axes: tuple[int, ...], eps: float) -> tuple[Array, Array, Array, Array]:
    """Return mean, variance, normalized entries and reciprocal deviation, also of entries far from 0, or huge."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        scale, mean, centred, variance = _scaled(x, axes)
        root = np.hypot(scale * np.sqrt(variance), x.dtype.type(sqrt(eps)))
        share = root / scale
        return mean * scale, variance * scale * scale, centred / (share + (share == 0)), 1 / root


def _project(g: Any, xhat: Any, axes: tuple[int, ...]) -> Any:
    """Take away what a change of the mean, and of the variance, undoes."""
    return g - _mean(g, axes) - xhat * _mean(g * xhat, axes)


def _constant(weight: Shape, ndim: int, axes: tuple[int, ...]) -> bool:
    """Return True if there is one weight for all entries that are normalized together."""
    return all(a < ndim - len(weight) or weight[a - ndim] == 1 for a in axes)


def _to_x(g: Any, weight: Any, xhat: Any, rstd: Any, axes: tuple[int, ...]) -> Any:
    if _constant(np.shape(weight), xhat.ndim, axes):
        return rstd * weight * _project(g, xhat, axes)  # one product of large arrays less
    return rstd * _project(g * weight, xhat, axes)


def _follow(running: Written, momentum: float, *news: Any) -> None:
    """Move running statistics toward those of a batch."""
    for kept, new in zip(running, news, strict=True):
        change = new.reshape(kept.shape) - kept
        change *= momentum
        kept += change


def _normalize_cost(y: Shape, x: Shape, weight: Shape, bias: Shape, *, axes: tuple[int, ...], **params: Any) -> Cost:
    n = prod(y)
    rows = n // max(prod(y[a] for a in axes), 1)
    back = 7 * n + rows if _constant(weight, len(y), axes) else 8 * n
    return Cost(7 * n + 4 * rows, (back, 2 * n - min(prod(weight), n), n - min(prod(bias), n)))


@op(
    vjp=(
        _to_x,
        lambda g, xhat, shape: to_bias(g * xhat, shape),
        to_bias,
    ),
    jvp=(
        lambda dx, weight, xhat, rstd, axes: weight * (rstd * _project(dx, xhat, axes)),
        lambda dw, xhat, shape: dw * xhat,
        lambda db, shape: db,
    ),
    # products with ones in the place of sums, of (256, 32): 7.0 → 1.2 µs each
    vjp_out=(None, lambda g, xhat, shape, out: bias_out(g * xhat, shape, out), bias_out),
    aux={"xhat": _xhat, "rstd": _rstd},
    cost=_normalize_cost,
    no_alias=True,
)
def normalize(
    x: Array,
    weight: Array,
    bias: Array,
    *,
    axes: tuple[int, ...],
    eps: float,
    running: Written | None = None,
    momentum: float = 0.0,
) -> Array:
    """``(x - mean) / sqrt(variance + eps) * weight + bias``, with mean and variance over axes.

    ``running``, if given, are a mean and a variance that move toward those of ``x`` by a share, ``momentum``.
    """
    mean = _mean(x, axes)
    centred = x - mean
    # the mean of the squares minus the square of the mean would lose digits
    variance = _mean(np.square(centred), axes)
    rstd = 1 / np.sqrt(variance + eps)
    xhat = centred * rstd
    # Almost all inputs pass this test, which reads two small arrays; argmax is faster than max for them.
    if x.dtype.char in "fd" and x.size:  # objects, with which the law counts, have no range
        ratio, least = (mean * rstd).ravel(), rstd.ravel()
        if not (
            ratio.item(ratio.argmax()) < FAR and ratio.item(ratio.argmin()) > -FAR and least.item(least.argmin()) > 0
        ):
            near = (np.abs(mean * rstd) < FAR) & (rstd > 0)
            usual, close = (mean, variance, xhat, rstd), _moments_rescaled(x, axes, eps)
            mean, variance, xhat, rstd = (np.where(near, a, b) for a, b in zip(usual, close, strict=True))
    # Not where the law runs the step once more, number by number: that must not count twice.
    if running is not None and x.dtype.char != "O":
        count = prod(x.shape[a] for a in axes)
        # the variance of a batch is too small on average, by the factor (n - 1) / n
        _follow(running, momentum, mean, variance * (count / (count - 1)))
    return xhat * weight + bias, xhat, rstd


# To length 1


def _inverse(x: Any) -> Any:
    """Return the reciprocal length of each vector, 0 for a zero vector."""
    # no np.where, whose unused branch would be differentiated too
    largest = np.abs(x).max(axis=-1, keepdims=True)
    scale = largest.detach() + (largest == 0)  # by which the result does not depend on it
    squares = np.square(x / scale).sum(axis=-1, keepdims=True)
    zero = largest == 0
    return (1 - zero.astype(x.dtype)) / (scale * np.sqrt(squares + zero))


def _unit_rule(g: Any, x: Any, y: Any, r: Any) -> Any:
    share = r * (g - y * (g * y).sum(axis=-1, keepdims=True))
    return undefined(share, x, r == 0, axis=-1) if isinstance(y, Tensor) else share


def _by_largest(x: Array) -> tuple[Array, Array, Array]:
    """Return vectors scaled by their largest entry, the scale, and the size of the entry."""
    largest = np.abs(x).max(axis=-1, keepdims=True, initial=0)
    scale = np.where(largest > 0, largest, 1)
    return x / scale, scale, largest  # no square of the first overflows or vanishes


def _unit_cost(y: Shape, x: Shape) -> Cost:
    return Cost(6 * prod(y) + 4 * prod(y[:-1]), (5 * prod(y) - prod(y[:-1]),))


@op(vjp=_unit_rule, aux={"r": _inverse}, cost=_unit_cost, no_alias=True)
def unit(x: Array) -> Array:
    """``x / length(x)`` along the last axis; a zero vector stays zero, with gradient 0."""
    scaled, scale, largest = _by_largest(x)
    size = np.sqrt(np.square(scaled).sum(axis=-1, keepdims=True))
    size = np.where(size > 0, size, 1)
    return scaled / size, np.where(largest > 0, 1 / size / scale, 0)


def _along_unit(t: Any, x: Any) -> Any:
    """Return gradients or tangents times the direction of each vector."""
    if not isinstance(x, Tensor):
        return t * unit.op.value(x)[0]
    return undefined(t * unit(x), x, np.all(x == 0, axis=-1, keepdims=True), axis=-1)


def _length_cost(y: Shape, x: Shape) -> Cost:
    return Cost(5 * prod(x) + prod(y), (7 * prod(x) + 4 * prod(y),))


@op(
    vjp=lambda g, x: _along_unit(g.reshape((*g.shape, 1)), x),
    jvp=lambda dx, x: _along_unit(dx, x).sum(axis=-1),
    cost=_length_cost,
    no_alias=True,
)
def length(x: Array) -> Array:
    """Euclidean length along the last axis; slope 0 at a zero vector."""
    scaled, scale, _ = _by_largest(x)
    return np.sqrt(np.square(scaled).sum(axis=-1)) * scale[..., 0]


# To sum 1


def _attend_cost(y: Shape, x: Shape, mask: Shape, **params: Any) -> Cost:
    return Cost(6 * prod(y), (5 * prod(y) - prod(y[:-1]) + max(prod(y) - prod(x), 0), 0))


@op(
    vjp=(lambda g, y, scale: (y * scale) * (g - sum_last(g * y)), None),
    cost=_attend_cost,
    no_alias=True,
)
def masked_softmax(x: Array, mask: Array, *, scale: float = 1.0) -> Array:
    """Softmax of ``scale * x`` along the last axis over the entries where ``mask`` is true; 0 elsewhere.

    Where no entry of a row may take part, the whole row is 0.
    """
    # exp(-inf) is exactly 0; a large negative number would leave shares for masked entries where all are masked
    z = np.where(mask, x * scale, -np.inf)
    highest = z.max(axis=-1, keepdims=True, initial=-np.inf)
    e = np.exp(z - np.where(highest > -np.inf, highest, 0))  # -inf minus -inf would be NaN
    total = sum_last(e)
    return e / np.where(total > 0, total, 1)
