"""Convolutions over two axes by rows of outputs, for large ones.

With the rows first, (H, C, kw, W', N), all that a row of outputs sees is one run of memory. The windows then take kw
times the memory of the images, not kh kw times, and each row is a product with a part of them; the parts overlap.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from microfw.autograd.op import Array, Shape
from microfw.ops.mapping import empty, zeros
from microfw.ops.windows import Geometry, batch_first, batch_last, padded

LEAST = 1 << 18
"""Fewest entries of all windows for which this pays: LeNet's steps take a quarter less time, those of 8 × 8 images the
same."""

WIDE = 64
"""Fewest entries of a row of outputs."""


def by_rows(geo: Geometry, channels: int, groups: int, n: int) -> bool:
    """Return True if a convolution of these sizes takes less time by rows."""
    plain = len(geo.size) == 2 and groups == 1 and max(geo.stride) == 1 and geo.spans == geo.kernel
    return plain and channels * prod(geo.kernel) * prod(geo.out) * n >= LEAST and geo.out[1] * n >= WIDE


def suits(*arrays: Any) -> bool:
    """Return True for arrays of floats of one dtype. Tensors, and arrays that count operations, have other ways."""
    kinds = {x.dtype.char for x in arrays}
    own = all(type(x) is np.ndarray or not hasattr(x, "__array_interface__") for x in arrays)
    return own and len(kinds) == 1 and kinds <= {"f", "d"}


def _overlapping(x: Array, count: int, axis: int) -> Array:
    """Return what `sliding_window_view` does, of an array without gaps in a fiftieth of the time."""
    if type(x) is not np.ndarray or not x.flags.c_contiguous:
        return sliding_window_view(x, count, axis=axis)
    shape = [n - (count - 1) * (k == axis) for k, n in enumerate(x.shape)]
    return np.ndarray((*shape, count), x.dtype, x, 0, (*x.strides, x.strides[axis]))


def windows_of_rows(x: Array, geo: Geometry) -> Array:
    """Return the windows along rows, (H, C, kw, W', N), of an array (N, C, H, W)."""
    around = padded(batch_last(x), geo, 0)
    seen = empty((geo.padded[0], x.shape[1], geo.kernel[1], geo.out[1], x.shape[0]), x)
    seen[...] = _overlapping(around, geo.kernel[1], 2).transpose((1, 0, 4, 2, 3))
    return seen


def _slabs(seen: Array, geo: Geometry) -> Array:
    """Return what each row of outputs sees, (H', kh C kw, W' N), as views that overlap."""
    stacked = _overlapping(seen, geo.kernel[0], 0).transpose((0, 5, 1, 2, 3, 4))
    return stacked.reshape((geo.out[0], geo.kernel[0] * prod(seen.shape[1:3]), prod(seen.shape[3:])))


def _rows_first(g: Array) -> Array:
    """Return an array (N, O, H', W') as (H', O, W' N)."""
    n, outputs, rows, width = g.shape
    return batch_last(g).reshape((outputs, rows, width * n)).transpose((1, 0, 2))


def convolve(w: Array, seen: Array, geo: Geometry) -> Array:
    """Return the convolution, (O, H', W' N)."""
    y = empty((w.shape[0], geo.out[0], prod(seen.shape[3:])), w)
    kernel = w.transpose((0, 2, 1, 3)).reshape((w.shape[0], prod(w.shape[1:])))
    np.matmul(kernel, _slabs(seen, geo), out=y.transpose((1, 0, 2)))
    return y


def weight_gradient(g: Array, seen: Array, shape: Shape, geo: Geometry) -> Array:
    """Return each output's gradient times the window that it saw, summed over places and batch."""
    # the long axis inside, and the windows first: in the other order LeNet's first takes 1.6 times as long
    products = np.matmul(_slabs(seen, geo), _rows_first(g).transpose((0, 2, 1)))
    outputs, channels, kh, kw = shape
    return products.sum(axis=0).reshape((kh, channels, kw, outputs)).transpose((3, 1, 0, 2))


def input_gradient(g: Array, w: Array, geo: Geometry) -> Array:
    """Return the transpose of the convolution: for each row of the input, a product with the rows that saw it."""
    (outputs, channels, kh, kw), (n, width) = w.shape, (g.shape[0], geo.out[1])
    rows = _rows_first(g).copy()
    turned = w[:, :, ::-1].transpose((1, 3, 2, 0)).reshape((channels * kw, kh * outputs))
    seen = empty((geo.padded[0], channels * kw, width * n), g)
    for r in range(geo.padded[0]):
        first, last = max(r - kh + 1, 0), min(r + 1, geo.out[0])
        taps = turned[:, outputs * (first - r + kh - 1) : outputs * (last - r + kh - 1)]
        taps.dot(rows[first:last].reshape((outputs * (last - first), width * n)), seen[r])
    parts = seen.reshape((geo.padded[0], channels, kw, width, n)).transpose((1, 0, 2, 3, 4))
    out = zeros((channels, *geo.padded, n), g)
    for k in range(kw):
        out[:, :, k : k + width] += parts[:, :, k]
    return batch_first(out if geo.inner is None else out[geo.inner])
