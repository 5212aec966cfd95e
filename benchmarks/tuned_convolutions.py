"""Hand-tuned NumPy steps of the convolutional networks.

The batch is on the last axis: a window then is runs of ``batch`` numbers, which are copied fast. A convolution is one
product with the windows, ``(taps, places)``, and one more row of ones for the bias. Where pooling follows, the places
are sorted by their position under the pooling kernel, so that pooling is a maximum of blocks without gaps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from columns import Step
from numpy.lib.stride_tricks import as_strided
from tuned_parts import Array, Parameters, cross_entropy, empty, with_ones


def conv1d(start: dict[str, Array], batch: int) -> Step:
    """3×48, convolution 3 to 16 channels, ReLU, pooling of 2, convolution 3 to 16 channels, ReLU, mean, dense to 10."""
    parameters = Parameters(
        (start["0.weight"].reshape(16, 9).T, start["0.bias"]),
        (start["3.weight"].transpose(2, 1, 0).reshape(48, 16), start["3.bias"]),
        (start["6.weight"], start["6.bias"]),
    )
    (w1, g1), (w2, g2), (head, g_head) = parameters.pairs
    update = parameters.updater()
    framed = np.zeros((3, 50, batch), np.float32)
    inside, (far, near, one) = framed[:, 1:-1], framed.strides
    seen1 = with_ones(9, 48 * batch)
    windows1 = seen1[:9].reshape(3, 3, 2, 24, batch)  # channel, tap, place under the pooling, pooled place, image
    source1 = as_strided(framed, windows1.shape, (far, near, near, 2 * near, one))
    z1, places = empty(16, 2, 24 * batch), (16, 24 * batch)  # later its gradient
    z1_flat, even, odd = z1.reshape(16, -1), z1[:, 0], z1[:, 1]

    seen2 = np.zeros((49, 24 * batch), np.float32)
    seen2[48] = 1
    taps = seen2[:48].reshape(3, 16, 24, batch)  # tap, channel, place, image; the middle tap is the pooled layer
    h1 = taps[1].reshape(places)
    to_left, from_left, to_right, from_right = taps[0][:, 1:], taps[1][:, :-1], taps[2][:, :-1], taps[1][:, 1:]
    h2, d2 = empty(16, 24, batch), empty(16, 24, batch)
    h2_flat, d2_flat, d2_t = h2.reshape(places), d2.reshape(places), d2.reshape(places).T
    d_seen2 = empty(48, 24 * batch)
    d_taps = d_seen2.reshape(3, 16, 24, batch)
    d1, d_from_left, d_from_right = d_taps[1].reshape(places), d_taps[0][:, 1:], d_taps[2][:, :-1]
    d_to_left, d_to_right = d_taps[1][:, :-1], d_taps[1][:, 1:]

    means, d_means, logits = with_ones(16, batch), empty(16, batch), empty(batch, 10)
    means_out, d_means_each = means[:16].reshape(16, 1, batch), d_means.reshape(16, 1, batch)
    loss_of = cross_entropy(logits)
    shares, share = np.full((1, 24), 1 / 24, np.float32), np.float32(1 / 24)
    zeros, on = np.zeros(places, np.float32), np.empty(places, bool)
    w1_t, w2_t, w2_taps, w_head = w1.T, w2.T, w2[:48], head[:16]
    means_t, logits_t, z1_t = means.T, logits.T, z1_flat.T
    add, copyto, greater, greater_equal = np.add, np.copyto, np.greater, np.greater_equal
    matmul, maximum, multiply, subtract = np.matmul, np.maximum, np.multiply, np.subtract

    def step(X: Any, y: Any) -> float:
        copyto(inside, X.transpose(1, 2, 0))
        copyto(windows1, source1)
        w1_t.dot(seen1, z1_flat)
        maximum(even, odd, out=h1)
        maximum(h1, zeros, out=h1)  # after pooling: half of the work
        copyto(to_left, from_left)
        copyto(to_right, from_right)
        w2_t.dot(seen2, h2_flat)
        maximum(h2_flat, zeros, out=h2_flat)
        matmul(shares, h2, out=means_out)
        means_t.dot(head, logits)
        loss = loss_of(y)

        means.dot(logits, g_head)
        w_head.dot(logits_t, d_means)
        multiply(d_means, share, out=d_means)
        copyto(d2, d_means_each)
        greater(h2_flat, zeros, out=on)
        multiply(d2_flat, on, out=d2_flat)
        seen2.dot(d2_t, g2)
        w2_taps.dot(d2_flat, d_seen2)
        add(d_to_left, d_from_left, out=d_to_left)
        add(d_to_right, d_from_right, out=d_to_right)
        greater(h1, zeros, out=on)
        multiply(d1, on, out=d1)
        greater_equal(even, odd, out=on)  # the first of equal ones gets all
        multiply(d1, on, out=even)
        subtract(d1, even, out=odd)
        seen1.dot(z1_t, g1)
        update()
        return loss

    return step


def images(start: dict[str, Array], batch: int) -> Step:
    """1×8×8, convolution to 8 channels, ReLU, pooling of 2×2, convolution to 16 channels, ReLU, dense to 10."""
    parameters = Parameters(
        (start["K1"].reshape(8, 9).T, start["c1"]),
        (start["K2"].transpose(2, 3, 1, 0).reshape(72, 16), start["c2"]),
        (start["W"], start["b"]),
    )
    (w1, g1), (w2, g2), (head, g_head) = parameters.pairs
    update = parameters.updater()
    framed1 = np.zeros((10, 10, batch), np.float32)
    inside1, (row, column, one) = framed1[1:-1, 1:-1], framed1.strides
    seen1 = with_ones(9, 64 * batch)
    windows1 = seen1[:9].reshape(3, 3, 2, 2, 4, 4, batch)  # tap, place under the pooling, pooled place, image
    source1 = as_strided(framed1, windows1.shape, (row, column, row, column, 2 * row, 2 * column, one))
    places = 16 * batch
    z1, tops = empty(8, 2, 2, places), empty(8, 2, places)  # later their gradients
    z1_flat, left, right, top, bottom = z1.reshape(8, -1), z1[:, :, 0], z1[:, :, 1], tops[:, 0], tops[:, 1]
    h1 = empty(8, places)
    h1_places, zeros1 = h1.reshape(8, 4, 4, batch), np.zeros((8, 4, 4, batch), np.float32)
    on1, on_top, on_left = np.empty((8, places), bool), np.empty(top.shape, bool), np.empty(left.shape, bool)
    zeros1_flat = zeros1.reshape(8, places)

    framed2 = np.zeros((8, 6, 6, batch), np.float32)
    inside2, (channel, row, column, one) = framed2[:, 1:-1, 1:-1], framed2.strides
    seen2 = with_ones(72, places)
    windows2 = seen2[:72].reshape(3, 3, 8, 4, 4, batch)
    source2 = as_strided(framed2, windows2.shape, (row, column, channel, row, column, one))
    h2 = with_ones(256, batch)
    flat2 = h2[:256]
    z2, d2, zeros2, on2 = (
        flat2.reshape(16, places),
        empty(256, batch),
        np.zeros_like(flat2),
        np.empty(flat2.shape, bool),
    )
    d2_places, d2_t = d2.reshape(16, places), d2.reshape(16, places).T
    d_seen2 = empty(72, places)
    taps = d_seen2.reshape(3, 3, 8, 4, 4, batch)
    # a window gives its gradient back to its taps: those of a row are added first, then the rows
    middle = taps[:, 1]
    across = [(middle[..., :-1, :], taps[:, 0, ..., 1:, :]), (middle[..., 1:, :], taps[:, 2, ..., :-1, :])]
    (d_at_left, d_left_tap), (d_at_right, d_right_tap) = across
    d1 = middle[1].reshape(8, places)
    d_above, d_below = middle[1][:, :-1], middle[1][:, 1:]
    d_top_taps, d_bottom_taps = middle[0][:, 1:], middle[2][:, :-1]
    logits = empty(batch, 10)
    loss_of = cross_entropy(logits)
    w1_t, w2_t, w2_taps, w_head = w1.T, w2.T, w2[:72], head[:256]
    h2_t, logits_t, z1_t = h2.T, logits.T, z1_flat.T
    add, copyto, greater, greater_equal = np.add, np.copyto, np.greater, np.greater_equal
    maximum, multiply, subtract = np.maximum, np.multiply, np.subtract

    def step(X: Any, y: Any) -> float:
        copyto(inside1, X[:, 0].transpose(1, 2, 0))
        copyto(windows1, source1)
        w1_t.dot(seen1, z1_flat)
        maximum(left, right, out=tops)
        maximum(top, bottom, out=h1)
        maximum(h1_places, zeros1, out=inside2)
        copyto(windows2, source2)
        w2_t.dot(seen2, z2)
        maximum(flat2, zeros2, out=flat2)
        h2_t.dot(head, logits)
        loss = loss_of(y)

        h2.dot(logits, g_head)
        w_head.dot(logits_t, d2)
        greater(flat2, zeros2, out=on2)
        multiply(d2, on2, out=d2)
        seen2.dot(d2_t, g2)
        w2_taps.dot(d2_places, d_seen2)
        add(d_at_left, d_left_tap, out=d_at_left)
        add(d_at_right, d_right_tap, out=d_at_right)
        add(d_above, d_top_taps, out=d_above)
        add(d_below, d_bottom_taps, out=d_below)
        greater(h1, zeros1_flat, out=on1)
        multiply(d1, on1, out=d1)
        greater_equal(top, bottom, out=on_top)  # the first of equal ones gets all
        multiply(d1, on_top, out=top)
        subtract(d1, top, out=bottom)
        greater_equal(left, right, out=on_left)
        multiply(tops, on_left, out=left)
        subtract(tops, left, out=right)
        seen1.dot(z1_t, g1)
        update()
        return loss

    return step
