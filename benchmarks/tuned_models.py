"""Hand-tuned NumPy steps of the dense networks in `model_columns`: an autoencoder, batch norm, an embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
from columns import LR, Step
from tuned_parts import Array, Parameters, cross_entropy, empty, with_ones


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


def batchnorm(start: dict[str, Array], batch: int, dropped: float = 0.2) -> Step:
    """30-64-64-2 with batch normalization, ReLU and dropout; the batch is on the first axis.

    A bias in front of a normalization has no effect and gradient 0: there is none. The first layer's inputs are
    centred, not its outputs, so that their gradient need not be. Kept units are multiplied by ``1 / (1 - dropped)``
    nowhere: after the first layer that only changes epsilon and the running statistics of the second normalization,
    and after the second its weight and bias are stored with the factor.
    """
    factor = 1 / (1 - dropped)
    scaled = [np.float32(factor) * start[f"5.{name}"] for name in ("weight", "bias")]
    parameters = Parameters(
        (start["0.weight"],), (start["1.weight"], start["1.bias"]), (start["4.weight"],), tuple(scaled),
        (start["8.weight"], start["8.bias"]),
    )  # fmt: skip
    (w1, g1), (n1, gn1), (w2, g2), (n2, gn2), (head, g_head) = parameters.pairs
    update = parameters.updater()
    bits, limit = np.random.SFC64(0), np.full((2, batch, 64), round((1 - dropped) * 65536), np.uint16)
    draws, kept = batch * 2 * 64 // 4, np.empty((2, batch, 64), bool)  # an integer of 64 bits is four draws
    kept1, kept2 = kept
    x, mean_x = empty(batch, 30), empty(30)
    z1, h1, d1, t1, z2, h2, d2, t2 = (empty(batch, 64) for _ in range(8))
    squares, zeros, alive = empty(batch, 64), np.zeros((batch, 64), np.float32), np.empty((batch, 64), bool)
    root1, s1, p1, q1, root2, s2, p2, q2 = (empty(64) for _ in range(8))
    logits = empty(batch, 2)
    loss_of = cross_entropy(logits)
    statistics = empty(4, 64)  # mean and variance of both layers
    mean1, variance1, mean2, variance2 = statistics
    running, change = np.zeros((4, 64), np.float32), empty(4, 64)
    running[1::2] = 1
    unbiased = batch / (batch - 1)
    weights = np.array([0.1, 0.1 * unbiased, 0.1 * factor, 0.1 * unbiased * factor**2], np.float32)
    weights = np.repeat(weights, 64).reshape(4, 64)
    old = np.float32(0.9)
    ones, shares = np.ones(batch, np.float32), np.full(batch, 1 / batch, np.float32)
    eps1, eps2 = np.full(64, 1e-5, np.float32), np.full(64, 1e-5 / factor**2, np.float32)
    minus_n, share, factors = np.float32(-batch), np.float32(1 / batch), np.full((2, 64), factor**2, np.float32)
    (weight1, bias1), (weight2, bias2) = n1, n2
    (g_weight1, g_bias1), (g_weight2, g_bias2) = gn1, gn2
    add, divide, greater, less, maximum = np.add, np.divide, np.greater, np.less, np.maximum
    multiply, sqrt, subtract = np.multiply, np.sqrt, np.subtract
    raw, u2 = bits.random_raw, np.dtype(np.uint16)
    sum_rows, mean_rows = ones.dot, shares.dot
    w_head, b_head, g_w_head, g_b_head = head[:64], head[64], g_head[:64], g_head[64]
    w_head_t, w2_t, x_t, h1_t, h2_t = w_head.T, w2.T, x.T, h1.T, h2.T

    def step(X: Any, y: Any) -> float:
        less(raw(draws).view(u2).reshape(kept.shape), limit, out=kept)
        mean_rows(X, mean_x)
        subtract(X, mean_x, out=x)
        x.dot(w1, z1)
        mean_x.dot(w1, mean1)
        multiply(z1, z1, out=squares)
        mean_rows(squares, variance1)
        add(variance1, eps1, out=root1)
        sqrt(root1, out=root1)
        divide(weight1, root1, out=s1)
        multiply(z1, s1, out=h1)
        add(h1, bias1, out=h1)
        maximum(h1, zeros, out=h1)
        multiply(h1, kept1, out=h1)

        h1.dot(w2, z2)
        mean_rows(z2, mean2)
        subtract(z2, mean2, out=z2)
        multiply(z2, z2, out=squares)
        mean_rows(squares, variance2)
        add(variance2, eps2, out=root2)
        sqrt(root2, out=root2)
        divide(weight2, root2, out=s2)
        multiply(z2, s2, out=h2)
        add(h2, bias2, out=h2)
        maximum(h2, zeros, out=h2)
        multiply(h2, kept2, out=h2)

        h2.dot(w_head, logits)
        add(logits, b_head, out=logits)
        loss = loss_of(y)

        h2_t.dot(logits, g_w_head)
        sum_rows(logits, g_b_head)
        logits.dot(w_head_t, d2)
        greater(h2, zeros, out=alive)  # what was dropped is 0 as well
        multiply(d2, alive, out=d2)
        sum_rows(d2, g_bias2)
        multiply(d2, z2, out=t2)
        sum_rows(t2, p2)
        divide(p2, root2, out=g_weight2)
        multiply(root2, minus_n, out=root2)
        divide(g_weight2, root2, out=p2)
        multiply(z2, p2, out=t2)
        add(t2, d2, out=t2)
        multiply(g_bias2, share, out=q2)
        subtract(t2, q2, out=t2)
        multiply(t2, s2, out=t2)
        multiply(gn2, factors, out=gn2)
        h1_t.dot(t2, g2)

        t2.dot(w2_t, d1)
        greater(h1, zeros, out=alive)
        multiply(d1, alive, out=d1)
        sum_rows(d1, g_bias1)
        multiply(d1, z1, out=t1)
        sum_rows(t1, p1)
        divide(p1, root1, out=g_weight1)
        multiply(root1, minus_n, out=root1)
        divide(g_weight1, root1, out=p1)
        multiply(z1, p1, out=t1)
        add(t1, d1, out=t1)
        multiply(t1, s1, out=t1)
        x_t.dot(t1, g1)

        update()
        multiply(running, old, out=running)
        multiply(statistics, weights, out=change)
        add(running, change, out=running)
        return loss

    return step


def embedding(start: dict[str, Array], batch: int) -> Step:
    """Three of 27 letters, vectors of 10, dense to 200, tanh, dense to 27."""
    parameters = Parameters(
        (start["0.weight"],), (start["2.weight"], start["2.bias"]), (start["4.weight"], start["4.bias"])
    )
    (table, g_table), (w1, g1), (w2, g2) = parameters.pairs
    update = parameters.updater()
    vectors, x = empty(batch * 3, 10), np.ones((batch, 31), np.float32)
    x_vectors, vectors_rows = x[:, :30], vectors.reshape(batch, 30)
    h1, d1, slope, logits = with_ones(200, batch), empty(200, batch), empty(200, batch), empty(batch, 27)
    a1, d_vectors = h1[:200], empty(batch, 30)
    one_hot, letters = np.eye(27, dtype=np.float32), empty(batch * 3, 27)
    loss_of = cross_entropy(logits)
    ones = np.ones((200, batch), np.float32)
    w1_t, x_t, h1_t, logits_t, d1_t, letters_t = w1.T, x.T, h1.T, logits.T, d1.T, letters.T
    w_back1, w_back2, d_letters = w1[:30].T, w2[:200], d_vectors.reshape(batch * 3, 10)
    copyto, multiply, subtract, tanh = np.copyto, np.multiply, np.subtract, np.tanh

    def step(X: Any, y: Any) -> float:
        picked = X.reshape(-1)
        table.take(picked, 0, vectors, "clip")
        copyto(x_vectors, vectors_rows)
        w1_t.dot(x_t, a1)
        tanh(a1, out=a1)
        h1_t.dot(w2, logits)
        loss = loss_of(y)

        h1.dot(logits, g2)
        w_back2.dot(logits_t, d1)
        multiply(a1, a1, out=slope)
        subtract(ones, slope, out=slope)
        multiply(d1, slope, out=d1)
        x_t.dot(d1_t, g1)
        d1_t.dot(w_back1, d_vectors)
        one_hot.take(picked, 0, letters, "clip")  # a product with ones and zeros adds the rows of each letter
        letters_t.dot(d_letters, g_table)
        update()
        return loss

    return step
