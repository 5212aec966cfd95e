"""Sliding windows: the entries under a kernel at each of its places, and the way back.

All convolutions and poolings are made of these. Axes are named N C H W in what users see. In memory the batch
comes last, C H W N: an entry of a window then is a run of N numbers, so that building windows copies whole runs,
and matrix products have their long axis where it is fast. Inputs may have any memory order; outputs have this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, wraps
from math import prod
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np

from microfw.autograd.op import Array, Cost, Shape, op
from microfw.errors import ArgumentError, ShapeError
from microfw.ops.mapping import either, empty, hashable, zeros

Sizes = int | Sequence[int]
Padding = int | str | Sequence[int | Sequence[int]]
P = ParamSpec("P")
R = TypeVar("R")

AXES = {1: "(N, C, W)", 2: "(N, C, H, W)", 3: "(N, C, D, H, W)"}


class Geometry(NamedTuple):
    """Where the windows of a kernel lie. A *tap* is one entry of the kernel."""

    size: Shape
    kernel: Shape
    pads: tuple[tuple[int, int], ...]  # before and after each axis
    padded: Shape
    out: Shape  # how many windows, along each axis
    inner: tuple[slice, ...] | None  # the input within the padded one; None without padding
    cuts: list[tuple[slice, ...]]  # for each tap, the entries of the padded input that it meets
    spots: Array | None  # the same as flat positions, tap by tap; None if a window is an entry
    spans: Shape  # from the first tap of a window to its last
    stride: Shape
    disjoint: bool  # no entry is in two windows
    tiles: bool  # every entry is in exactly one


def once(function: Callable[P, R]) -> Callable[P, R]:
    """Keep what a function of shapes and settings has returned, so that each combination is worked out once."""
    kept: Callable[..., R] = lru_cache(maxsize=128, typed=True)(function)

    @wraps(function)
    def call(*args: P.args, **settings: P.kwargs) -> R:
        # lru_cache hashes the arguments; lists are the rare case, and cost a second try
        try:
            return kept(*args, **settings)
        except TypeError:  # lists do
            return kept(*map(hashable, args), **{name: hashable(value) for name, value in settings.items()})

    return call


def per_axis(value: Any, axes: int, where: str, name: str) -> Shape:
    """Return a setting as a positive integer for each axis.

    Examples
    --------
    >>> per_axis(3, 2, "conv", "kernel")
    (3, 3)
    """
    values = (value,) * axes if isinstance(value, int | np.integer) else value
    fits = isinstance(values, list | tuple) and len(values) == axes
    if fits and all(isinstance(v, int | np.integer) and not isinstance(v, bool) and v > 0 for v in values):
        return tuple(map(int, values))
    raise ArgumentError(where, f"{name} to be a positive integer or {axes} of them", repr(value))


def check_padding(padding: Any, axes: int, where: str) -> str | tuple[tuple[int, int], ...]:
    """Return a padding as "same", or as (before, after) for each axis."""
    if padding == "same":
        return "same"
    if padding == "valid":
        padding = 0
    if isinstance(padding, int | np.integer):
        padding = (padding,) * axes
    if isinstance(padding, list | tuple) and len(padding) == axes:
        pairs = [tuple(p) if isinstance(p, list | tuple) else (p, p) for p in padding]
        if all(len(p) == 2 and all(isinstance(n, int | np.integer) and n >= 0 for n in p) for p in pairs):
            return tuple((int(a), int(b)) for a, b in pairs)
    expected = f"padding to be 'same', 'valid', an integer from 0 up, or {axes} of them (or of pairs: before, after)"
    raise ArgumentError(where, expected, repr(padding))


@once
def geometry(where: str, size: Shape, kernel: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> Geometry:
    """Return where windows lie on an input of some size.

    Raises
    ------
    ArgumentError
        If a setting makes no sense.
    ShapeError
        If not even one window fits.
    """
    axes = len(size)
    kernel, stride, dilation = (
        per_axis(value, axes, where, name)
        for value, name in ((kernel, "kernel"), (stride, "stride"), (dilation, "dilation"))
    )
    pads = check_padding(padding, axes, where)
    spans = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    if pads == "same":
        missing = [max((n - 1) // s * s + r - n, 0) for n, s, r in zip(size, stride, spans, strict=True)]
        pads = tuple((m // 2, m - m // 2) for m in missing)
    assert not isinstance(pads, str)
    padded = tuple(n + a + b for n, (a, b) in zip(size, pads, strict=True))
    if any(r > n for r, n in zip(spans, padded, strict=True)):
        spanned = " × ".join(map(str, spans))
        got = f"{' × '.join(map(str, size))} and padding {pads}"
        raise ShapeError(where, f"an input of at least {spanned} with its padding", got, "use a smaller kernel")
    out = tuple((n - r) // s + 1 for n, r, s in zip(padded, spans, stride, strict=True))
    taps = list(np.ndindex(*kernel))
    starts = [[d * t for d, t in zip(dilation, tap, strict=True)] for tap in taps]
    cuts = [
        (slice(None), *(slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(start, out, stride, strict=True)))
        for start in starts
    ]
    # take() by flat positions copies all windows in one call; a copy for each tap has its overhead
    flat = np.arange(prod(padded)).reshape(1, *padded)
    spots = np.concatenate([flat[cut].ravel() for cut in cuts])
    spots.setflags(write=False)
    inner = (slice(None), *(slice(a, a + n) for n, (a, _) in zip(size, pads, strict=True)))
    disjoint = all(s >= r for s, r in zip(stride, spans, strict=True))
    tiles = disjoint and tuple(n * k for n, k in zip(out, kernel, strict=True)) == size == padded
    return Geometry(
        size, kernel, pads, padded, out, inner if padded != size else None, cuts,
        None if tiles and prod(kernel) == 1 else spots, spans, stride, disjoint, tiles,
    )  # fmt: skip


def check_images(x: Shape, where: str) -> None:
    """Raise unless a shape has a batch axis, a channel axis and one to three more."""
    if len(x) - 2 not in AXES:
        raise ShapeError(where, f"x of shape {', '.join(AXES.values())}", x)


# Memory order


# Orders of axes, made once: every convolution transposes several times.

_LAST = [(*range(1, n), 0) for n in range(1, 9)]
_FIRST = [(n - 1, *range(n - 1)) for n in range(1, 9)]


def batch_last(x: Any) -> Any:
    """Move the batch axis to the end."""
    return x.transpose(_LAST[x.ndim - 1])


def batch_first(x: Any) -> Any:
    """Move the batch axis back to the front."""
    return x.transpose(_FIRST[x.ndim - 1])


def padded(x: Array, geo: Geometry, fill: Any) -> Array:
    """Return a batch-last array within its padding."""
    if geo.inner is None:
        return x
    shape = (x.shape[0], *geo.padded, x.shape[-1])
    if not fill:
        around = zeros(shape, x)
    else:
        around = empty(shape, x)
        around[...] = fill
    if type(x) is not np.ndarray and isinstance(
        x, np.ndarray
    ):  # entries of the law: NumPy's functions are those of their class
        around = around.view(type(x))
    around[geo.inner] = x
    return around


def columns(x: Array, geo: Geometry) -> Array:
    """Return the windows of an array as (C, taps and places, N)."""
    channels, n = x.shape[1], x.shape[0]
    flat = padded(batch_last(x), geo, 0).reshape(channels, prod(geo.padded), n)
    # "clip", since NumPy buffers the output of take with "raise" in a replay; all spots are in range
    return flat if geo.spots is None else flat.take(geo.spots, axis=1, mode="clip")


def put_back(parts: Iterable[Any], channels: int, n: int, like: Any, geo: Geometry) -> Array:
    """Add each tap's part to the entries under the tap; the batch is last in the input and first in the result."""
    shape = (channels, *geo.padded, n)
    out: Any = empty(shape, like) if geo.tiles else zeros(shape, like)  # tiles write every entry
    for cut, part in zip(geo.cuts, parts, strict=True):
        if geo.disjoint:
            out[cut] = part
        else:
            out[cut] += part
    return batch_first(out if geo.inner is None else out[geo.inner])


# Ops


def _windows_cost(y: Shape, x: Shape, *, kernel: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> Cost:
    geo = geometry("windows", x[2:], kernel, stride, padding, dilation)
    return Cost(0, (0 if geo.disjoint else prod(y),))


@op(
    vjp=lambda g, shape, kernel, stride, padding, dilation: either(
        "fold", g, size=shape[2:], stride=stride, padding=padding, dilation=dilation
    ),
    jvp="linear",
    cost=_windows_cost,
)
def windows(x: Array, *, kernel: Sizes, stride: Sizes = 1, padding: Padding = 0, dilation: Sizes = 1) -> Array:
    """Sliding windows: (N, C, H, W) becomes (N, C, kh, kw, H', W'), the entries under each tap of a kernel.

    Likewise with one or three axes in the place of H and W. ``stride`` is the step from window to window,
    ``dilation`` that from tap to tap. ``padding`` puts zeros around: "valid" none; an integer that many on each
    side; one for each axis, or a pair (before, after) for each; "same" as many as make ``H' = ceil(H / stride)``,
    the odd one after.

    Raises
    ------
    ShapeError
        If ``x`` has other axes, or is smaller than the kernel.

    Examples
    --------
    >>> windows(np.arange(4.0).reshape(1, 1, 4), kernel=2)
    tensor([[[[0., 1., 2.],
              [1., 2., 3.]]]])
    """
    check_images(x.shape, "windows")
    geo = geometry("windows", x.shape[2:], kernel, stride, padding, dilation)
    cols = columns(x, geo)
    return batch_first(cols.reshape((x.shape[1], *geo.kernel, *geo.out, x.shape[0])))


def _fold_cost(y: Shape, x: Shape, *, size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> Cost:
    geo = geometry("fold", y[2:], x[2 : (len(x) + 2) // 2], stride, padding, dilation)
    return Cost(0 if geo.disjoint else prod(x), (0,))


@op(
    vjp=lambda g, shape, stride, padding, dilation: either(
        "windows", g, kernel=shape[2 : (len(shape) + 2) // 2], stride=stride, padding=padding, dilation=dilation
    ),
    jvp="linear",
    cost=_fold_cost,
)
def fold(x: Array, *, size: Sizes, stride: Sizes = 1, padding: Padding = 0, dilation: Sizes = 1) -> Array:
    """The transpose of `windows`: adds up the entries of windows where they came from, in images of a ``size``.

    Raises
    ------
    ShapeError
        If there are not as many windows as such an image has.

    Examples
    --------
    >>> fold(np.ones((1, 1, 2, 3)), size=4)
    tensor([[[1., 2., 2., 1.]]])
    """
    axes = (x.ndim - 2) // 2
    if x.ndim % 2 or axes not in AXES:
        raise ShapeError("fold", "x of shape (N, C, kw, W), (N, C, kh, kw, H, W), …", x.shape)
    geo = geometry("fold", per_axis(size, axes, "fold", "size"), x.shape[2 : 2 + axes], stride, padding, dilation)
    if geo.out != x.shape[2 + axes :]:
        raise ShapeError("fold", f"{geo.out} windows in an image of {geo.size}", x.shape[2 + axes :])
    n, channels = x.shape[:2]
    last = batch_last(x)
    if geo.tiles:  # each entry is in one window: axes swap places
        order = [0, *(axis for k in range(1, axes + 1) for axis in (k + axes, k)), 2 * axes + 1]
        return batch_first(last.transpose(order).reshape(channels, *geo.size, n))
    parts = last.reshape((channels, prod(geo.kernel), *geo.out, n))
    return put_back((parts[:, k] for k in range(prod(geo.kernel))), channels, n, x, geo)
