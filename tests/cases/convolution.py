"""Rows of windows, convolutions and poolings. The references are loops over places and taps."""

from __future__ import annotations

import itertools
import math

import numpy as np

from tests.cases.samples import Case, Sample, backwards, floats


def per_axis(value, axes):
    return (value,) * axes if isinstance(value, int) else tuple(value)


def places(size, kernel, stride, padding, dilation):
    """Return the number of windows along each axis, and where a tap of a window is in the input, by the definition."""
    axes = len(size)
    kernel, stride, dilation = (per_axis(v, axes) for v in (kernel, stride, dilation))
    if padding == "same":
        out = [math.ceil(n / s) for n, s in zip(size, stride, strict=True)]
        before = [
            max((m - 1) * s + d * (k - 1) + 1 - n, 0) // 2
            for n, m, s, d, k in zip(size, out, stride, dilation, kernel, strict=True)
        ]
    else:
        pads = [per_axis(p, 2) for p in per_axis(0 if padding == "valid" else padding, axes)]
        before = [p[0] for p in pads]
        out = [
            (n + sum(p) - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(size, pads, dilation, kernel, stride, strict=True)
        ]

    def where(place, tap):
        at = tuple(i * s + t * d - b for i, s, t, d, b in zip(place, stride, tap, dilation, before, strict=True))
        return at if all(0 <= a < n for a, n in zip(at, size, strict=True)) else None

    return tuple(out), where


def slow_windows(x, *, kernel, stride=1, padding=0, dilation=1):
    kernel = per_axis(kernel, x.ndim - 2)
    out, where = places(x.shape[2:], kernel, stride, padding, dilation)
    y = np.zeros((*x.shape[:2], *kernel, *out), x.dtype)
    for tap in np.ndindex(*kernel):
        for place in np.ndindex(*out):
            if (at := where(place, tap)) is not None:
                y[(..., *tap, *place)] = x[(..., *at)]
    return y


def slow_fold(x, *, size, stride=1, padding=0, dilation=1):
    axes = (x.ndim - 2) // 2
    kernel, size = x.shape[2 : 2 + axes], per_axis(size, axes)
    out, where = places(size, kernel, stride, padding, dilation)
    y = np.zeros((*x.shape[:2], *size), x.dtype)
    for tap in np.ndindex(*kernel):
        for place in np.ndindex(*out):
            if (at := where(place, tap)) is not None:
                y[(..., *at)] += x[(..., *tap, *place)]
    return y


def slow_conv(x, w, b, *, stride=1, padding=0, dilation=1, groups=1):
    kernel, inside, outside = w.shape[2:], w.shape[1], w.shape[0] // groups
    out, where = places(x.shape[2:], kernel, stride, padding, dilation)
    y = np.zeros((len(x), len(w), *out), x.dtype)
    for o, place, tap in itertools.product(range(len(w)), np.ndindex(*out), np.ndindex(*kernel)):
        if (at := where(place, tap)) is not None:
            own = o // outside * inside
            for c in range(inside):
                y[(slice(None), o, *place)] += w[(o, c, *tap)] * x[(slice(None), own + c, *at)]
    return y + np.reshape(b, (-1,) + (1,) * len(out)) if np.ndim(b) else y


def slow_conv_transpose(x, w, *, size=None, stride=1, padding=0, dilation=1, groups=1):
    axes, kernel, inside = x.ndim - 2, w.shape[2:], w.shape[1]
    if size is None:
        steps, dilations = per_axis(stride, axes), per_axis(dilation, axes)
        if padding == "same":
            size = tuple(n * s for n, s in zip(x.shape[2:], steps, strict=True))
        else:
            pads = [per_axis(p, 2) for p in per_axis(padding, axes)]
            size = tuple(
                (n - 1) * s + d * (k - 1) + 1 - sum(p)
                for n, s, d, k, p in zip(x.shape[2:], steps, dilations, kernel, pads, strict=True)
            )
    size = per_axis(size, axes)
    out, where = places(size, kernel, stride, padding, dilation)
    assert out == x.shape[2:]
    y = np.zeros((len(x), inside * groups, *size), x.dtype)
    for o, place, tap in itertools.product(range(len(w)), np.ndindex(*out), np.ndindex(*kernel)):
        if (at := where(place, tap)) is not None:
            own = o // (len(w) // groups) * inside
            for c in range(inside):
                y[(slice(None), own + c, *at)] += w[(o, c, *tap)] * x[(slice(None), o, *place)]
    return y


def slow_pool(reduce, empty):
    def pool(x, *, kernel, stride=None, padding=0):
        kernel = per_axis(kernel, x.ndim - 2)
        out, where = places(x.shape[2:], kernel, kernel if stride is None else stride, padding, 1)
        y = np.zeros((*x.shape[:2], *out), x.dtype)
        for place in np.ndindex(*out):
            spots = [where(place, tap) for tap in np.ndindex(*kernel)]
            entries = [np.full(x.shape[:2], empty, x.dtype) if at is None else x[(..., *at)] for at in spots]
            y[(..., *place)] = reduce(np.stack(entries), axis=0)
        return y

    return pool


def turned(x):
    """Images whose memory order is C, H, W, N, as convolutions make them."""
    order = (*range(1, x.ndim), 0)
    return (x * 1.0).transpose(order).transpose((x.ndim - 1, *range(x.ndim - 1))) if x.ndim > 2 else x * 1.0


IMAGE = (2, 2, 5, 4)

WINDOWS = [
    ("3×3", IMAGE, {"kernel": 3}),
    ("same", IMAGE, {"kernel": (2, 3), "padding": "same"}),
    ("stride", IMAGE, {"kernel": 2, "stride": (2, 1), "padding": 1}),
    ("dilation", IMAGE, {"kernel": 2, "dilation": (3, 2), "padding": (0, 1)}),
    ("tiles", (2, 2, 4, 6), {"kernel": (2, 3), "stride": (2, 3)}),
    ("gaps", IMAGE, {"kernel": 1, "stride": 3}),
    ("one entry", IMAGE, {"kernel": 1}),
    ("one axis", (2, 3, 7), {"kernel": 3, "stride": 2, "padding": [(2, 0)]}),
    ("three axes", (1, 2, 3, 3, 2), {"kernel": (2, 2, 1), "padding": "same", "stride": (1, 2, 1)}),
    ("no images", (0, 2, 5, 4), {"kernel": 3, "padding": 1}),
]


def windows_samples():
    rows = [Sample(label, (floats(shape),), params) for label, shape, params in WINDOWS]
    return [
        *rows,
        Sample("images last", (floats(IMAGE),), {"kernel": 2, "padding": 1}, turned),
        Sample("negative stride", (floats(IMAGE),), {"kernel": 2}, backwards),
    ]


def fold_samples():
    rows = []
    for label, shape, params in WINDOWS:
        params = dict(params)
        made = slow_windows(np.zeros(shape), **params)
        params.pop("kernel")
        rows.append(Sample(label, (floats(made.shape),), {"size": shape[2:], **params}))
    return [*rows, Sample("negative stride", (floats((2, 2, 2, 2, 4, 3)),), {"size": (5, 4)}, backwards)]


CONVS = [
    ("3×3", IMAGE, (3, 2, 3, 3), {}),
    ("same", IMAGE, (3, 2, 3, 3), {"padding": "same"}),
    ("same, even kernel", IMAGE, (3, 2, 2, 4), {"padding": "same"}),
    ("same, stride", IMAGE, (3, 2, 3, 2), {"padding": "same", "stride": (2, 3)}),
    ("same, dilation", IMAGE, (2, 2, 2, 2), {"padding": "same", "dilation": 2}),
    ("valid, stride", (2, 2, 6, 5), (3, 2, 3, 2), {"padding": "valid", "stride": 2}),
    ("padding", IMAGE, (2, 2, 2, 3), {"padding": ((0, 2), (1, 0)), "stride": (3, 1)}),
    ("groups", (2, 4, 4, 3), (6, 2, 2, 3), {"groups": 2, "padding": 1}),
    ("groups, same", (2, 4, 3, 3), (6, 2, 3, 3), {"groups": 2, "padding": "same"}),
    ("a group a channel", (2, 3, 4, 4), (3, 1, 2, 2), {"groups": 3, "stride": 2}),
    ("1×3", IMAGE, (2, 2, 1, 3), {}),
    ("3×1, same", IMAGE, (2, 2, 3, 1), {"padding": "same"}),
    ("1×1", IMAGE, (3, 2, 1, 1), {}),
    ("one axis", (2, 3, 7), (2, 3, 3), {"stride": 2, "padding": [(2, 0)], "dilation": 2}),
    ("three axes", (1, 2, 3, 2, 2), (2, 2, 2, 2, 1), {"padding": "same"}),
    ("one image", (1, 1, 3, 3), (1, 1, 3, 3), {}),
    ("no images", (0, 2, 4, 4), (3, 2, 3, 3), {"padding": 1}),
]


def conv_samples():
    def inputs(x, w):
        return floats(x, seed=1), floats(w, seed=2), floats(w[:1], seed=3)

    rows = [Sample(label, inputs(x, w), params) for label, x, w, params in CONVS]
    shapes = (IMAGE, (3, 2, 3, 3))
    return [
        *rows,
        Sample("images last", inputs(*shapes), {"padding": "same"}, turned),
        Sample("negative stride", inputs(*shapes), {"stride": 2}, backwards),
    ]


def transpose_samples():
    rows = []
    for label, x, w, params in CONVS:
        out, _ = places(
            x[2:],
            w[2:],
            **{"stride": 1, "padding": 0, "dilation": 1} | {k: v for k, v in params.items() if k != "groups"},
        )
        rows.append(Sample(label, (floats((x[0], w[0], *out), seed=1), floats(w, seed=2)), {"size": x[2:], **params}))
    small = (floats((2, 3, 2, 3), seed=1), floats((3, 2, 2, 2), seed=2))
    return [
        *rows,
        Sample("smallest size", small, {"stride": 2, "padding": 1, "dilation": 2}),
        Sample("largest size", small, {"stride": 3, "padding": "same"}),
        Sample("images last", small, {}, turned),
        Sample("negative stride", small, {"stride": 2}, backwards),
    ]


POOLS = [
    ("2×2", (2, 2, 4, 6), {"kernel": 2}),
    ("a row left over", (2, 2, 5, 4), {"kernel": (2, 2)}),
    ("overlapping", (1, 2, 5, 4), {"kernel": 3, "stride": 1}),
    ("padding", (2, 1, 4, 4), {"kernel": 3, "stride": 2, "padding": 1}),
    ("same", (2, 1, 5, 3), {"kernel": 2, "stride": 2, "padding": "same"}),
    ("1×3", (1, 2, 2, 6), {"kernel": (1, 3)}),
    ("one entry", (1, 2, 3, 3), {"kernel": 1, "stride": 2}),
    ("one axis", (2, 3, 7), {"kernel": 3, "stride": 2, "padding": [(0, 1)]}),
    ("three axes", (1, 1, 2, 4, 2), {"kernel": 2}),
    ("no images", (0, 2, 4, 4), {"kernel": 2}),
]


def pool_samples():
    rows = [Sample(label, (floats(shape),), params) for label, shape, params in POOLS]
    return [
        *rows,
        Sample("images last", (floats((2, 2, 4, 4)),), {"kernel": 2}, turned),
        Sample("negative stride", (floats((2, 2, 4, 4)),), {"kernel": 2, "stride": 1}, backwards),
    ]


WITHOUT = {"0-d": "images have an axis of rows, one of channels, and at least one of places"}

CASES = [
    Case("windows", slow_windows, windows_samples(), protocol=False, without=WITHOUT),
    Case("fold", slow_fold, fold_samples(), protocol=False, without=WITHOUT),
    Case("conv", slow_conv, conv_samples(), protocol=False, without=WITHOUT),
    Case("conv_transpose", slow_conv_transpose, transpose_samples(), protocol=False, without=WITHOUT),
    Case("max_pool", slow_pool(np.max, -np.inf), pool_samples(), protocol=False, without=WITHOUT),
    Case("avg_pool", slow_pool(np.mean, 0.0), pool_samples(), protocol=False, without=WITHOUT),
]
