"""Hand-tuned NumPy steps of the dense networks in `model_columns`."""

from __future__ import annotations

from typing import Any

import numpy as np
from columns import LR, Step
from tuned_parts import Array, Parameters, empty, with_ones


def autoencoder(start: dict[str, Array], batch: int) -> Step:
    """64-32-8-32-64 with ReLU and the mean squared error."""
    parameters = Parameters(*((start[f"{k}.weight"], start[f"{k}.bias"]) for k in (0, 2, 4, 6)))
    (w1, g1), (w2, g2), (w3, g3), (w4, g4) = parameters.pairs
    update = parameters.updater()
    x = np.ones((batch, 65), np.float32)  # the input has the batch first, as it comes
    pixels = x[:, :64]
    h1, h2, h3 = with_ones(32, batch), with_ones(8, batch), with_ones(32, batch)
    a1, a2, a3 = h1[:32], h2[:8], h3[:32]
    d1, d2, d3, out = empty(32, batch), empty(8, batch), empty(32, batch), empty(batch, 64)
    on1, on2, on3 = (np.empty(d.shape, bool) for d in (d1, d2, d3))
    zeros1, zeros2 = np.zeros_like(d1), np.zeros_like(d2)
    flat, share, rate = out.ravel(), 1 / out.size, np.float32(2 * LR / out.size)
    copyto, maximum, greater, multiply, subtract = np.copyto, np.maximum, np.greater, np.multiply, np.subtract
    forward1, forward2, forward3, forward4 = w1.T.dot, w2.T.dot, w3.T.dot, h3.T.dot
    back4, back3, back2 = w4[:32].dot, w3[:8].dot, w2[:32].dot
    weight4, weight3, weight2, weight1 = h3.dot, h2.dot, h1.dot, x.T.dot
    x_t, d3_t, d2_t, d1_t, out_t = x.T, d3.T, d2.T, d1.T, out.T

    def step(X: Any, y: Any) -> float:
        copyto(pixels, X)
        forward1(x_t, a1)
        maximum(a1, zeros1, out=a1)
        forward2(h1, a2)
        maximum(a2, zeros2, out=a2)
        forward3(h2, a3)
        maximum(a3, zeros1, out=a3)
        forward4(w4, out)
        subtract(out, y, out=out)
        loss = float(flat.dot(flat)) * share

        multiply(out, rate, out=out)
        weight4(out, g4)
        back4(out_t, d3)
        greater(a3, zeros1, out=on3)
        multiply(d3, on3, out=d3)
        weight3(d3_t, g3)
        back3(d3, d2)
        greater(a2, zeros2, out=on2)
        multiply(d2, on2, out=d2)
        weight2(d2_t, g2)
        back2(d2, d1)
        greater(a1, zeros1, out=on1)
        multiply(d1, on1, out=d1)
        weight1(d1_t, g1)
        update()
        return loss

    return step
