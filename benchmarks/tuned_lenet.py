"""Hand-tuned NumPy step of LeNet.

Images are (row, channel, column, batch). What a row of outputs sees then is one run of memory, once each row is there
for every column of the kernel: the windows take ``kernel`` times the memory of the images, not its square, and a
convolution is a `matmul` of overlapping views, one for each row. The first convolution, of one channel, computes two
rows with each product: a weight of 12 × 30 with zeros in the corners takes half the time of two of 6 × 25.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from columns import Step
from numpy.lib.stride_tricks import as_strided
from tuned_parts import Array, Parameters, cross_entropy, empty, with_ones


def slabs(seen: Array, count: int, rows: int, step: int) -> Array:
    """Return overlapping views of ``rows`` rows, each ``step`` rows below the one before, as matrices."""
    row, taps, runs = len(seen), seen.shape[1], seen[0, 0].size
    strides = (step * seen.strides[0], seen.strides[1], seen.itemsize)
    assert (count - 1) * step + rows <= row
    return as_strided(seen, (count, rows * taps, runs), strides)


class First:
    """The first convolution, 1 to 6 channels with padding 2, ReLU and pooling."""

    def __init__(self, weight: tuple[Array, Array], bias: tuple[Array, Array], batch: int) -> None:
        (self.weight, self.gradient), (self.bias, self.d_bias) = weight, bias
        # even and odd columns apart: then the entries under a tap, for one place of the pooling, are one run in a row
        framed = np.zeros((28, 2, 16, batch), np.float32)
        row, _, column, one = framed.strides
        self.inside = [framed[:, k, 1:15] for k in (0, 1)]
        seen = np.zeros((32, 5, 2, 14, batch), np.float32)
        self.copies = []
        for odd in (0, 1):
            for place in (0, 1):
                to = seen[2:30, odd::2, place]
                start = framed[:, (odd + place) % 2, (odd + place) // 2 :]
                self.copies.append((to, as_strided(start, to.shape, (row, column, column, one))))
        runs = 14 * batch
        self.seen, self.twice = slabs(seen, 14, 6, 2), np.zeros((12, 30), np.float32)
        self.seen_t, self.upper, self.lower = self.seen.transpose(0, 2, 1), self.twice[:6, :25], self.twice[6:, 5:]
        self.z, self.parts, self.sums = empty(14, 12, 2 * runs), empty(14, 12, 30), empty(12, 30)
        z = self.z.reshape(14, 2, 6, 2, runs)
        self.left, self.right, lines = z[:, :, :, 0], z[:, :, :, 1], empty(14, 2, 6, runs)
        self.lines, self.top, self.bottom = lines, lines[:, 0], lines[:, 1]
        self.out, self.d_out = empty(14, 6, runs), empty(14, 6, runs)
        self.zeros, self.on, self.on_lines = (
            np.zeros_like(self.out),
            np.empty((14, 6, runs), bool),
            np.empty(lines.shape, bool),
        )
        self.ones, self.ones_rows = np.ones(runs, np.float32), np.ones(14, np.float32)
        self.line_sums, self.d_rows = empty(84), self.d_out.reshape(84, runs)

    def forward(self, X: Array) -> None:
        """Write the pooled layer."""
        add, copyto, maximum, out = np.add, np.copyto, np.maximum, self.out
        pixels = X[:, 0].transpose(1, 2, 0)
        copyto(self.inside[0], pixels[:, ::2])
        copyto(self.inside[1], pixels[:, 1::2])
        for to, start in self.copies:
            copyto(to, start)
        copyto(self.upper, self.weight)
        copyto(self.lower, self.weight)
        np.matmul(self.twice, self.seen, out=self.z)
        maximum(self.left, self.right, out=self.lines)
        maximum(self.top, self.bottom, out=out)
        add(out, self.bias, out=out)  # after pooling: a quarter of the work
        maximum(out, self.zeros, out=out)

    def backward(self) -> None:
        """Write the gradients of weight and bias from that of the pooled layer."""
        greater_equal, multiply, subtract = np.greater_equal, np.multiply, np.subtract
        d, on, on_lines, top, left, lines = self.d_out, self.on, self.on_lines, self.top, self.left, self.lines
        np.greater(self.out, self.zeros, out=on)
        multiply(d, on, out=d)
        self.d_rows.dot(self.ones, self.line_sums)
        self.ones_rows.dot(self.line_sums.reshape(14, 6), self.d_bias)
        greater_equal(top, self.bottom, out=on)  # the first of equal ones gets all
        greater_equal(left, self.right, out=on_lines)
        multiply(d, on, out=top)
        subtract(d, top, out=self.bottom)
        multiply(lines, on_lines, out=left)
        subtract(lines, left, out=self.right)
        np.matmul(self.z, self.seen_t, out=self.parts)
        np.add.reduce(self.parts, axis=0, out=self.sums)
        np.add(self.sums[:6, :25], self.sums[6:, 5:], out=self.gradient)


class Second:
    """The second convolution, 6 to 16 channels, ReLU and pooling."""

    def __init__(self, weight: tuple[Array, Array], bias: tuple[Array, Array], x: Array, dx: Array, out: Array) -> None:
        (self.weight, self.gradient), (self.bias, self.d_bias) = weight, bias
        batch = x.shape[-1] // 14
        runs, pooled = 10 * batch, (5, 16, 5 * batch)
        seen = empty(14, 5, 6, 10, batch)
        row, channel, one = x.strides
        column = batch * one
        self.to, self.start = seen, as_strided(x, seen.shape, (row, column, channel, column, one))
        self.seen = slabs(seen.reshape(14, 30, runs), 10, 5, 1)
        self.seen_t = self.seen.transpose(0, 2, 1)
        self.z, self.parts = empty(10, 16, runs), empty(10, 16, 150)
        z = self.z.reshape(10, 16, 5, 2, batch)
        lines = empty(10, 16, 5, batch)
        self.left, self.right, self.lines = z[:, :, :, 0], z[:, :, :, 1], lines
        pairs = lines.reshape(5, 2, *pooled[1:])
        self.top, self.bottom = pairs[:, 0], pairs[:, 1]
        self.out, self.d_out = out.reshape(pooled), empty(*pooled)
        self.zeros, self.on, self.on_lines = (
            np.zeros(pooled, np.float32),
            np.empty(pooled, bool),
            np.empty(lines.shape, bool),
        )
        self.ones, self.ones_rows = np.ones(pooled[2], np.float32), np.ones(5, np.float32)
        self.line_sums, self.d_rows = empty(80), self.d_out.reshape(80, -1)
        # the gradient of an input row: a product with the rows of outputs that saw it, and a sum over the columns
        self.turned = empty(5, 6, 5, 16)
        self.weight_turned = self.weight.reshape(16, 5, 5, 6)[:, ::-1].transpose(2, 3, 1, 0)
        turned, d_seen = self.turned.reshape(30, 80), empty(14, 5, 6, runs)
        self.products = []
        for k in range(14):
            first, last = max(k - 4, 0), min(k + 1, 10)
            taps = turned[:, 16 * (first - k + 4) : 16 * (last - k + 4)]
            self.products.append((taps.dot, self.z[first:last].reshape(-1, runs), d_seen[k].reshape(30, runs)))
        self.dx_first, self.d_seen_first, self.dx_rest = dx[:, :, :runs], d_seen[:, 0], dx[:, :, runs:]
        self.adds = [(dx[:, :, b * batch : b * batch + runs], d_seen[:, b]) for b in range(1, 5)]

    def forward(self) -> None:
        """Write the pooled layer."""
        maximum, out = np.maximum, self.out
        np.copyto(self.to, self.start)
        np.matmul(self.weight, self.seen, out=self.z)
        maximum(self.left, self.right, out=self.lines)
        maximum(self.top, self.bottom, out=out)
        np.add(out, self.bias, out=out)
        maximum(out, self.zeros, out=out)

    def backward(self) -> None:
        """Write the gradients of weight, bias and input from those of the pooled layer."""
        add, greater_equal, multiply, subtract = np.add, np.greater_equal, np.multiply, np.subtract
        d, on, on_lines, top, left, lines = self.d_out, self.on, self.on_lines, self.top, self.left, self.lines
        np.greater(self.out, self.zeros, out=on)
        multiply(d, on, out=d)
        self.d_rows.dot(self.ones, self.line_sums)
        self.ones_rows.dot(self.line_sums.reshape(5, 16), self.d_bias)
        greater_equal(top, self.bottom, out=on)
        greater_equal(left, self.right, out=on_lines)
        multiply(d, on, out=top)
        subtract(d, top, out=self.bottom)
        multiply(lines, on_lines, out=left)
        subtract(lines, left, out=self.right)
        np.matmul(self.z, self.seen_t, out=self.parts)
        np.add.reduce(self.parts, axis=0, out=self.gradient)
        np.copyto(self.turned, self.weight_turned)
        for dot, rows, to in self.products:
            dot(rows, to)
        np.copyto(self.dx_first, self.d_seen_first)
        self.dx_rest.fill(0)
        for to, part in self.adds:
            add(to, part, out=to)


def lenet(start: dict[str, Array], batch: int) -> Step:
    """LeNet with ReLU on images of 28×28."""
    parameters = Parameters(
        (start["0.weight"].reshape(6, 25),), (start["0.bias"],),
        (start["3.weight"].transpose(0, 2, 3, 1).reshape(16, 150),), (start["3.bias"],),
        (start["7.weight"].reshape(16, 5, 5, 120).transpose(1, 0, 2, 3).reshape(400, 120), start["7.bias"]),
        *((start[f"{k}.weight"], start[f"{k}.bias"]) for k in (9, 11)),
    )  # fmt: skip
    weight1, bias1, weight2, bias2, (w3, g3), (w4, g4), (w5, g5) = parameters.pairs
    update = parameters.updater()
    bias1, bias2 = ((b.reshape(-1, 1), db.reshape(-1)) for b, db in (bias1, bias2))
    first = First(weight1, bias1, batch)
    h2, h3, h4 = with_ones(400, batch), with_ones(120, batch), with_ones(84, batch)
    second = Second(weight2, bias2, first.out, first.d_out, h2[:400])
    d2, d3, d4, a3, a4 = second.d_out.reshape(400, batch), empty(120, batch), empty(84, batch), h3[:120], h4[:84]
    on3, on4, zeros3, zeros4 = np.empty(d3.shape, bool), np.empty(d4.shape, bool), np.zeros_like(d3), np.zeros_like(d4)
    logits = empty(batch, 10)
    loss_of = cross_entropy(logits)
    w3_t, w4_t, h4_t, logits_t, d3_t, d4_t = w3.T, w4.T, h4.T, logits.T, d3.T, d4.T
    v3, v4, v5 = w3[:400], w4[:120], w5[:84]
    greater, maximum, multiply = np.greater, np.maximum, np.multiply
    first_forward, second_forward = first.forward, second.forward
    first_backward, second_backward = first.backward, second.backward

    def step(X: Any, y: Any) -> float:
        first_forward(X)
        second_forward()
        w3_t.dot(h2, a3)
        maximum(a3, zeros3, out=a3)
        w4_t.dot(h3, a4)
        maximum(a4, zeros4, out=a4)
        h4_t.dot(w5, logits)
        loss = loss_of(y)

        h4.dot(logits, g5)
        v5.dot(logits_t, d4)
        greater(a4, zeros4, out=on4)
        multiply(d4, on4, out=d4)
        h3.dot(d4_t, g4)
        v4.dot(d4, d3)
        greater(a3, zeros3, out=on3)
        multiply(d3, on3, out=d3)
        h2.dot(d3_t, g3)
        v3.dot(d3, d2)
        second_backward()
        first_backward()
        update()
        return loss

    return step
