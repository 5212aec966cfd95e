"""Convolutions, as matrix products with sliding windows, and their transposes.

They are cross-correlations, as everywhere in this field: the kernel is not flipped. One op serves one, two and
three axes; below, H and W stand for all of them.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from microfw.errors import ArgumentError, ShapeError, message
from microfw.op import Array, Cost, Shape, op
from microfw.ops.windows import (
    AXES,
    Padding,
    Sizes,
    batch_first,
    batch_last,
    check_images,
    check_padding,
    columns,
    either,
    geometry,
    per_axis,
    put_back,
    windows,
)

SMALL = 1_000_000
"""Below so many multiply-adds, and in matrices of at least `WIDE` columns, OpenBLAS multiplies without packing,
which is twice as fast; so longer products are cut to that size where it divides them."""

WIDE = 64

KEPT = 1 << 22
"""So many bytes of a convolution's windows, which are several times its input, are kept for its weight's gradient;
more are built again there."""


@lru_cache(maxsize=256)
def blocks(work: int, columns: int) -> int:
    """Return into how many blocks of columns to cut a product with so much work a column."""
    for count in range(1, columns // WIDE + 1):
        if work * (columns // count) <= SMALL and not columns % count:
            return count
    return 1


@lru_cache(maxsize=64)
def _ones(n: int, char: str) -> Array:
    ones = np.ones(n, char)
    ones.setflags(write=False)
    return ones


def _check(x: Any, w: Any, channels: int, groups: int, where: str) -> None:
    """Raise unless a weight fits ``x``, which is to have so many channels."""
    check_images(x, where)
    if w.ndim != x.ndim:
        raise ShapeError(message(where, f"a weight of {x.ndim} axes, as x has", w.shape))
    if groups < 1 or w.shape[0] % groups:
        expected = f"groups to divide the {w.shape[0]} channels of the weight's first axis"
        raise ArgumentError(message(where, expected, groups))
    if x.shape[1] != channels:
        axes = AXES[x.ndim - 2].replace("C", str(channels))
        raise ShapeError(message(where, f"x of shape {axes} for a weight {w.shape}, groups={groups}", x.shape))


def _multiply(w: Array, x: Array) -> Array:
    """Matrix products, one a group: (G, M, K) by (G, K, P) in blocks of columns."""
    (groups, m, k), columns = w.shape, x.shape[2]
    d = blocks(m * k, columns)
    y = np.empty((groups, m, d, columns // d), w.dtype if w.dtype == x.dtype else np.result_type(w, x))
    x = x.reshape((groups, k, d, columns // d))
    np.matmul(w[:, None], x.transpose((0, 2, 1, 3)), out=y.transpose((0, 2, 1, 3)))
    return y


# Derivatives, on arrays as on Tensors


def _by_input(g: Any, w: Any, shape: Shape, stride: Sizes, padding: Padding, dilation: Sizes, groups: int) -> Any:
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return either(conv_transpose, g, w, size=shape[2:], **settings)


def _by_weight(
    g: Any, x: Any, cols: Any, shape: Shape, stride: Sizes, padding: Padding, dilation: Sizes, groups: int
) -> Any:
    """Each output's gradient times the window that it saw, summed over places and batch."""
    if cols is None:
        cols = batch_last(either(windows, x, kernel=shape[2:], stride=stride, padding=padding, dilation=dilation))
    out, work, places = shape[0] // groups, prod(shape[1:]), prod(g.shape[2:]) * g.shape[0]
    d = blocks(out * work, places)
    g = batch_last(g).reshape((groups, out, d, places // d)).transpose((0, 2, 1, 3))
    cols = cols.reshape((groups, work, d, places // d)).transpose((0, 2, 3, 1))
    products = np.matmul(g, cols)
    return (np.sum(products, axis=1) if d > 1 else products).reshape(shape)


def _by_bias(g: Any, w: Any) -> Any:
    """Sum over places and batch; a product with ones takes half the time of a sum."""
    rows = batch_last(g).reshape((w.shape[0], prod(g.shape[2:]) * g.shape[0]))
    return np.matmul(rows, _ones(rows.shape[1], g.dtype.char))


def _push(dx: Any, w: Any, shape: Shape, stride: Sizes, padding: Padding, dilation: Sizes, groups: int) -> Any:
    return either(conv, dx, w, 0, stride=stride, padding=padding, dilation=dilation, groups=groups)


def _push_weight(
    dw: Any, x: Any, cols: Any, shape: Shape, stride: Sizes, padding: Padding, dilation: Sizes, groups: int
) -> Any:
    return either(conv, x, dw, 0, stride=stride, padding=padding, dilation=dilation, groups=groups)


def _push_bias(db: Any, w: Any) -> Any:
    return db.reshape((-1,) + (1,) * (w.ndim - 2))


# Ops


def _conv_cost(y: Shape, x: Shape, w: Shape, b: Shape, **params: Any) -> Cost:
    product = 2 * prod(y) * prod(w[1:])
    added = prod(y) if b else 0
    return Cost(product + added, (product, product, max(added - prod(b), 0)), product, (product, product, 0))


@op(
    vjp=(_by_input, _by_weight, _by_bias),
    jvp=(_push, _push_weight, _push_bias),
    aux={"cols": lambda: None},
    cost=_conv_cost,
    fresh=True,
)
def conv(
    x: Array,
    w: Array,
    b: Array,
    *,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> tuple[Array, Array | None]:
    """Convolution: ``y[n, o, i, j]`` is ``b[o]`` plus the sum of ``w[o]`` times the window of ``x[n]`` at (i, j).

    ``x`` is (N, C, H, W), ``w`` (O, C / groups, kh, kw), ``b`` (O,) or 0 for none, ``y`` (N, O, H', W');
    likewise with one or three axes in the place of H and W. Stride, padding and dilation are those of `windows`.
    With ``groups``, the channels and the outputs are in as many groups, and an output sees its own group only.

    A multiply-add with a zero of the padding is computed, and counted, like any other: ``2 O (C / groups) kh kw``
    operations for each of the N H' W' windows, and as many again for each of the two derivatives.

    Raises
    ------
    ShapeError
        If the shapes do not fit each other, or the kernel is larger than the padded input.
    ArgumentError
        If a setting makes no sense.

    Examples
    --------
    >>> conv(np.array([[[1.0, 2.0, 4.0]]]), np.array([[[-1.0, 1.0]]]), 0)
    tensor([[[1., 2.]]])
    """
    _check(x, w, w.shape[1] * groups if w.ndim > 1 else 0, groups, "conv")
    geo = geometry("conv", x.shape[2:], w.shape[2:], stride, padding, dilation)
    outputs, n, work, places = w.shape[0], x.shape[0], prod(w.shape[1:]), prod(geo.out) * x.shape[0]
    cols = columns(x, geo).reshape((groups, work, places))
    y = _multiply(w.reshape((groups, outputs // groups, work)), cols).reshape((outputs, places))
    kept = cols if cols.nbytes <= KEPT and geo.spots is not None else None
    if type(b) is not int or b:
        if np.shape(b) != (outputs,):
            raise ShapeError(message("conv", f"b of shape ({outputs},), or 0 for none", np.shape(b)))
        y += b.reshape((outputs, 1))
    return batch_first(y.reshape((outputs, *geo.out, n))), kept


def _transpose_by_input(g: Any, w: Any, stride: Sizes, padding: Padding, dilation: Sizes, groups: int) -> Any:
    return either(conv, g, w, 0, stride=stride, padding=padding, dilation=dilation, groups=groups)


def _transpose_by_weight(
    g: Any, x: Any, shape: Shape, stride: Sizes, padding: Padding, dilation: Sizes, groups: int
) -> Any:
    return _by_weight(x, g, None, shape, stride, padding, dilation, groups)


def _transpose_cost(y: Shape, x: Shape, w: Shape, **params: Any) -> Cost:
    product = 2 * prod(x) * prod(w[1:])
    return Cost(product, (product, product), product, (product, product))


@op(vjp=(_transpose_by_input, _transpose_by_weight), jvp="linear", cost=_transpose_cost, fresh=True)
def conv_transpose(
    x: Array,
    w: Array,
    *,
    size: Sizes | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Array:
    """The transpose of `conv`, and its derivative by the input: spreads each entry of ``x`` over a window of ``y``.

    ``x`` is (N, O, H', W'), ``w`` (O, C / groups, kh, kw), as for the convolution that this transposes, ``y``
    (N, C, H, W). A strided convolution takes several sizes to the same H' and W'; ``size`` says which one is
    meant, by default the smallest, with "same" padding the largest.

    Raises
    ------
    ShapeError
        If the shapes do not fit each other, or a convolution from ``size`` does not lead to those of ``x``.
    ArgumentError
        If a setting makes no sense.

    Examples
    --------
    >>> conv_transpose(np.array([[[1.0, 2.0]]]), np.array([[[1.0, 1.0, 1.0]]]), stride=2)
    tensor([[[1., 1., 3., 2., 2.]]])
    """
    where = "conv_transpose"
    _check(x, w, w.shape[0], groups, where)
    kernel, axes = w.shape[2:], x.ndim - 2
    size = _smallest(x.shape[2:], kernel, stride, padding, dilation) if size is None else size
    geo = geometry(where, per_axis(size, axes, where, "size"), kernel, stride, padding, dilation)
    if geo.out != x.shape[2:]:
        raise ShapeError(message(where, f"x of {geo.out} places for size {geo.size}", x.shape))
    outputs, n, work = w.shape[0], x.shape[0], prod(w.shape[1:])
    channels = w.shape[1] * groups
    w = w.reshape((groups, outputs // groups, *w.shape[1:]))
    if geo.out == geo.size and not geo.stepped:  # then it is a convolution with the kernel flipped, and as much work
        flipped = w.swapaxes(1, 2)[(..., *(slice(None, None, -1),) * axes)].reshape(
            (channels, outputs // groups, *kernel)
        )
        pads = tuple((s - 1 - a, s - 1 - b) for s, (a, b) in zip(geo.spans, geo.pads, strict=True))
        return conv.op.value(x, flipped, 0, padding=pads, dilation=dilation, groups=groups)[0]
    places = prod(geo.out) * n
    w = w.reshape((groups, outputs // groups, work)).transpose((0, 2, 1))
    cols = _multiply(w, batch_last(x).reshape((groups, outputs // groups, places)))
    cols = cols.reshape((channels, prod(kernel), *geo.out, n))
    return put_back((cols[:, k] for k in range(prod(kernel))), channels, n, cols.dtype, geo)


def _smallest(out: Shape, kernel: Shape, stride: Any, padding: Any, dilation: Any) -> Shape:
    """Return the size that a transposed convolution leads to if none is asked for."""
    where, axes = "conv_transpose", len(out)
    stride, dilation = per_axis(stride, axes, where, "stride"), per_axis(dilation, axes, where, "dilation")
    pads = check_padding(padding, axes, where)
    if isinstance(pads, str):
        return tuple(n * s for n, s in zip(out, stride, strict=True))
    return tuple(
        (n - 1) * s + d * (k - 1) + 1 - p[0] - p[1]
        for n, s, k, d, p in zip(out, stride, kernel, dilation, pads, strict=True)
    )
