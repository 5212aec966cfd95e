"""Convolutions, as matrix products with sliding windows, and their transposes.

They are cross-correlations, as everywhere in this field: the kernel is not flipped. One op serves one, two and
three axes; below, H and W stand for all of them.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from microfw.autograd.op import Array, Cost, Shape, op
from microfw.errors import ArgumentError, ShapeError
from microfw.ops.mapping import either, empty
from microfw.ops.rows import by_rows, convolve, input_gradient, suits, weight_gradient, windows_of_rows
from microfw.ops.windows import (
    AXES,
    Geometry,
    Padding,
    Sizes,
    batch_first,
    batch_last,
    check_images,
    check_padding,
    columns,
    geometry,
    once,
    per_axis,
    put_back,
)

# OpenBLAS multiplies small matrices without packing, which is twice as fast.
SMALL = 1_000_000
"""Most multiply-adds of a small product, of at least `WIDE` columns; longer ones are cut to that size if possible."""

WIDE = 64

KEPT = 1 << 22
"""Most bytes of a convolution's windows, which are several times its input, that are kept for its weight's gradient;
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


class ConvGeometry(NamedTuple):
    """The shapes in which a convolution is a matrix product for each group and block of columns.

    ``work`` is what an output sees: all taps of its group's channels.
    """

    geo: Geometry
    weight: Shape  # groups, 1, outputs, work
    cols: Shape  # groups, work, blocks, columns: a column is a window
    y: Shape  # groups, outputs, blocks, columns
    images: Shape  # outputs of all groups, H', W', N: what y is
    by_rows: bool


@once
def plan(
    where: str, x: Shape, w: Shape, stride: Sizes = 1, padding: Padding = 0, dilation: Sizes = 1, groups: int = 1
) -> ConvGeometry:
    """Return the plan of a convolution of two shapes, which are checked.

    Raises
    ------
    ShapeError
        If they do not fit each other, or the kernel is larger than the padded input.
    ArgumentError
        If a setting makes no sense.
    """
    _check(x, w, w[1] * groups if len(w) > 1 else 0, groups, where)
    geo = geometry(where, x[2:], w[2:], stride, padding, dilation)
    outputs, work, places = w[0] // groups, prod(w[1:]), prod(geo.out) * x[0]
    d = blocks(outputs * work, places)
    return ConvGeometry(
        geo,
        weight=(groups, 1, outputs, work),
        cols=(groups, work, d, places // d),
        y=(groups, outputs, d, places // d),
        images=(w[0], *geo.out, x[0]),
        by_rows=by_rows(geo, x[1], groups, x[0]),
    )


def _check(x: Shape, w: Shape, channels: int, groups: int, where: str) -> None:
    """Raise unless the shapes of a weight and of ``x``, with the given number of channels, agree."""
    check_images(x, where)
    if len(w) != len(x):
        raise ShapeError(where, f"a weight of {len(x)} axes, as x has", w)
    if not isinstance(groups, int | np.integer) or groups < 1 or w[0] % groups:
        expected = f"groups to divide the {w[0]} channels of the weight's first axis"
        raise ArgumentError(where, expected, groups)
    if x[1] != channels:
        axes = AXES[len(x) - 2].replace("C", str(channels))
        raise ShapeError(where, f"x of shape {axes} for a weight {w}, groups={groups}", x)


def _multiply(a: Array, b: Array, shape: Shape) -> Array:
    """Matrix products of (G, 1, M, K) and (G, K, D, P) as (G, M, D, P), one for each group and block."""
    # matmul writes into the transposed view, so that no copy brings the blocks into order
    y = empty(shape, b, a.dtype if a.dtype == b.dtype else np.result_type(a.dtype, b.dtype))
    if type(b) is not np.ndarray and isinstance(
        b, np.ndarray
    ):  # entries of the law: NumPy's functions are those of their class
        y = y.view(type(b))
    np.matmul(a, b.transpose((0, 2, 1, 3)), out=y.transpose((0, 2, 1, 3)))
    return y


def _convolve(x: Array, w: Array, shapes: ConvGeometry) -> tuple[Array, Array]:
    """Return the convolution, and the windows."""
    if shapes.by_rows and suits(x, w):
        cols = windows_of_rows(x, shapes.geo)
        return convolve(w, cols, shapes.geo).reshape(shapes.y), cols
    cols = columns(x, shapes.geo).reshape(shapes.cols)
    return _multiply(w.reshape(shapes.weight), cols, shapes.y), cols


# Derivatives, on arrays as on Tensors


def _by_weight(
    g: Any, x: Any, cols: Any, shape: Shape, stride: Sizes, padding: Padding, dilation: Sizes, groups: int
) -> Any:
    """Each output's gradient times the window that it saw, summed over places and batch."""
    shapes = plan("conv", x.shape, shape, stride, padding, dilation, groups)
    if shapes.by_rows and suits(g, x):
        seen = windows_of_rows(x, shapes.geo) if cols is None else cols
        return weight_gradient(g, seen, shape, shapes.geo)
    if cols is None:  # more than KEPT bytes: built again
        cols = batch_last(either("windows", x, kernel=shape[2:], stride=stride, padding=padding, dilation=dilation))
    g = batch_last(g).reshape(shapes.y).transpose((0, 2, 1, 3))
    products = np.matmul(g, cols.reshape(shapes.cols).transpose((0, 2, 3, 1)))
    return (products.sum(axis=1) if products.shape[1] > 1 else products).reshape(shape)


def _by_bias(g: Any, w: Any) -> Any:
    """Sum over places and batch."""
    # a product with ones takes half the time of a sum
    places = batch_last(g).reshape((w.shape[0], prod(g.shape[2:]) * g.shape[0]))
    return places.dot(_ones(places.shape[1], g.dtype.char))


# Ops


def _conv_cost(y: Shape, x: Shape, w: Shape, b: Shape, **params: Any) -> Cost:
    product = 2 * prod(y) * prod(w[1:])
    added = prod(y) if b else 0
    return Cost(product + added, (product, product, max(added - prod(b), 0)), product, (product, product, 0))


@op(
    vjp=(
        lambda g, w, shape, stride, padding, dilation, groups: either(
            "conv_transpose", g, w, size=shape[2:], stride=stride, padding=padding, dilation=dilation, groups=groups
        ),
        _by_weight,
        _by_bias,
    ),
    jvp=(
        lambda dx, w, shape, stride, padding, dilation, groups: either(
            "conv", dx, w, 0, stride=stride, padding=padding, dilation=dilation, groups=groups
        ),
        lambda dw, x, cols, shape, stride, padding, dilation, groups: either(
            "conv", x, dw, 0, stride=stride, padding=padding, dilation=dilation, groups=groups
        ),
        lambda db, w: db.reshape((-1,) + (1,) * (w.ndim - 2)),
    ),
    aux={"cols": lambda: None},
    cost=_conv_cost,
    no_alias=True,
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
    shapes = plan("conv", x.shape, w.shape, stride, padding, dilation, groups)
    y, cols = _convolve(x, w, shapes)
    if type(b) is not int or b:
        if np.shape(b) != w.shape[:1]:
            raise ShapeError("conv", f"b of shape {w.shape[:1]}, or 0 for none", np.shape(b))
        y += b.reshape((*shapes.y[:2], 1, 1))
    # kept for the weight's gradient; where a window is an entry, cols is a view of x and free
    kept = cols if cols.nbytes <= KEPT and shapes.geo.spots is not None else None
    return batch_first(y.reshape(shapes.images)), kept


def _transpose_cost(y: Shape, x: Shape, w: Shape, **params: Any) -> Cost:
    product = 2 * prod(x) * prod(w[1:])
    return Cost(product, (product, product), product, (product, product))


@op(
    vjp=(
        lambda g, w, stride, padding, dilation, groups: either(
            "conv", g, w, 0, stride=stride, padding=padding, dilation=dilation, groups=groups
        ),
        # the convolution's rule, in which the roles of x and g are exchanged
        lambda g, x, shape, stride, padding, dilation, groups: _by_weight(
            x, g, None, shape, stride, padding, dilation, groups
        ),
    ),
    jvp="linear",
    cost=_transpose_cost,
    no_alias=True,
)
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
    shapes, flipped = _plans(x.shape, w.shape, size, stride, padding, dilation, groups)
    if flipped is not None:
        w = w.reshape((groups, w.shape[0] // groups, *w.shape[1:])).swapaxes(1, 2)
        # as a convolution with the kernel turned round: no sums of overlapping windows
        w = w[..., *(slice(None, None, -1),) * (x.ndim - 2)]
        y, _ = _convolve(x, w.reshape((flipped.images[0], -1, *w.shape[3:])), flipped)
        return batch_first(y.reshape(flipped.images))
    if shapes.by_rows and suits(x, w):
        return input_gradient(x, w, shapes.geo)
    geo, n, channels = shapes.geo, x.shape[0], w.shape[1] * groups
    w = w.reshape(shapes.weight).swapaxes(2, 3)
    cols = _multiply(w, batch_last(x).reshape(shapes.y), shapes.cols)
    cols = cols.reshape((channels, prod(geo.kernel), *geo.out, n))
    return put_back((cols[:, k] for k in range(prod(geo.kernel))), channels, n, cols, geo)


@once
def _plans(
    x: Shape, w: Shape, size: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> tuple[ConvGeometry, ConvGeometry | None]:
    """Return the plan of the convolution that is transposed; if there is one, that of a convolution that does the same.

    If the size stays, that is with the kernel flipped, and as much work.
    """
    where, axes, kernel = "conv_transpose", len(x) - 2, w[2:]
    _check(x, w, w[0], groups, where)
    size = per_axis(_smallest(x[2:], kernel, stride, padding, dilation) if size is None else size, axes, where, "size")
    channels = w[1] * groups
    shapes = plan(where, (x[0], channels, *size), w, stride, padding, dilation, groups)
    geo = shapes.geo
    if geo.out != x[2:]:
        raise ShapeError(where, f"x of {geo.out} places for size {geo.size}", x)
    if geo.out != geo.size or max(geo.stride) > 1:
        return shapes, None
    pads = tuple((s - 1 - a, s - 1 - b) for s, (a, b) in zip(geo.spans, geo.pads, strict=True))
    return shapes, plan(where, x, (channels, w[0] // groups, *kernel), 1, pads, dilation, groups)


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
