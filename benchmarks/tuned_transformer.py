"""Hand-tuned NumPy step of the transformer.

Activations are ``(features, batch * tokens)``: the statistics of a layer norm are products with a row, and broadcasting
them repeats a row of 256 numbers, not 256 columns. Attention is not normalized: the sum of a row's exponentials is one
more row of the product with the values, which are augmented by ones, and divides the result, half as many numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from columns import Step
from tuned_parts import Array, Parameters, cross_entropy, empty, with_ones

TOKENS, WIDTH, HEADS, EACH, UNITS = 16, 32, 4, 8, 128
Pair = tuple[Array, Array]  # a parameter and its gradient


class Norm:
    """A layer norm over the first axis: writes the normalized entries, without weight and bias."""

    def __init__(self, pair: Pair, columns: int) -> None:
        (self.weight, self.bias), (self.d_weight, self.d_bias) = pair
        self.weight_column, self.bias_column = self.weight[:, None], self.bias[:, None]
        self.shares, self.shared = np.full(WIDTH, 1 / WIDTH, np.float32), empty(WIDTH)
        self.share, self.eps = np.float32(1 / WIDTH), np.full(columns, 1e-5, np.float32)
        self.one, self.ones = np.float32(1), np.ones(columns, np.float32)
        self.out, self.product = empty(WIDTH, columns), empty(WIDTH, columns)
        self.mean, self.rstd = empty(columns), empty(columns)

    def forward(self, x: Array) -> Array:
        """Return ``(x - mean) / sqrt(variance + eps)``."""
        out, product, mean, rstd, dot = self.out, self.product, self.mean, self.rstd, self.shares.dot
        dot(x, mean)
        np.subtract(x, mean, out=out)
        np.multiply(out, out, out=product)
        dot(product, rstd)
        np.add(rstd, self.eps, out=rstd)
        np.sqrt(rstd, out=rstd)
        np.divide(self.one, rstd, out=rstd)
        return np.multiply(out, rstd, out=out)

    def affine(self, y: Array) -> None:
        """Write the normalized entries with weight and bias."""
        np.multiply(self.out, self.weight_column, out=y)
        np.add(y, self.bias_column, out=y)

    def back(self, d: Array) -> Array:
        """Return the gradient of the input from that of what `affine` wrote, which is overwritten."""
        product, mean, out, shared = self.product, self.mean, self.out, self.shared
        np.multiply(self.weight, self.share, out=shared)
        d.dot(self.ones, self.d_bias)
        np.multiply(d, out, out=product)
        product.dot(self.ones, self.d_weight)
        shared.dot(product, mean)
        np.multiply(out, mean, out=product)
        shared.dot(d, mean)
        np.multiply(d, self.weight_column, out=d)
        return self.centred(d, product, mean)

    def centred(self, d: Array, product: Array, mean: Array) -> Array:
        """Return ``(d - product - mean) * rstd``."""
        np.subtract(d, product, out=d)
        np.subtract(d, mean, out=d)
        return np.multiply(d, self.rstd, out=d)

    def back_normalized(self, d: Array) -> Array:
        """Return the gradient of the input from that of the normalized entries, which is overwritten."""
        product, mean, dot = self.product, self.mean, self.shares.dot
        np.multiply(d, self.out, out=product)
        dot(product, mean)
        np.multiply(self.out, mean, out=product)
        dot(d, mean)
        return self.centred(d, product, mean)


class Attention:
    """Attention of several heads; the weights of the queries are stored with the factor ``1 / sqrt(EACH)``."""

    def __init__(self, joined: Pair, out: Pair, batch: int) -> None:
        (self.joined, self.d_joined), (self.last, self.d_last) = joined, out
        columns = batch * TOKENS
        self.x, self.parts, self.d_parts = with_ones(WIDTH, columns), empty(96, columns), empty(96, columns)
        self.inner = self.x[:WIDTH]
        self.values = np.ones((HEADS, EACH + 1, columns), np.float32)  # and a row of ones
        self.d_values, self.sums = empty(HEADS, EACH + 1, columns), empty(HEADS, EACH + 1, columns)

        def by_head(a: Array) -> Array:
            return a.reshape(HEADS, -1, batch, TOKENS).transpose(2, 0, 1, 3)  # batch, head, entry, token

        q, k, v = (self.parts[i * WIDTH : (i + 1) * WIDTH] for i in range(3))
        self.q, self.k, self.k_t = by_head(q), by_head(k), by_head(k).swapaxes(2, 3)
        self.v, self.values_inner = v.reshape(HEADS, EACH, columns), self.values[:, :EACH]
        self.values_by_head, self.values_t = by_head(self.values), by_head(self.values).swapaxes(2, 3)
        self.sums_by_head, self.d_by_head = by_head(self.sums), by_head(self.d_values)
        self.dq, self.dk, self.dv = (by_head(self.d_parts[i * WIDTH : (i + 1) * WIDTH]) for i in range(3))
        self.d_inner_by_head = self.d_by_head[:, :, :EACH]
        self.scores, self.d_scores = (empty(batch, HEADS, TOKENS, TOKENS) for _ in range(2))  # of a key and a query
        self.scores_t, self.d_scores_t = self.scores.swapaxes(2, 3), self.d_scores.swapaxes(2, 3)
        self.mixed = with_ones(WIDTH, columns)
        self.mixed_heads = self.mixed[:WIDTH].reshape(HEADS, EACH, columns)
        self.d_mixed, self.y, self.dx = (empty(WIDTH, columns) for _ in range(3))
        self.d_mixed_heads = self.d_mixed.reshape(HEADS, EACH, columns)
        self.products, self.minus = empty(HEADS, EACH, columns), np.full((1, EACH), -1, np.float32)
        self.eighth = np.float32(1 / EACH)

    def forward(self) -> Array:
        """Return the attention of ``inner``."""
        self.joined.T.dot(self.x, self.parts)
        np.copyto(self.values_inner, self.v)
        np.matmul(self.k_t, self.q, out=self.scores)
        np.exp(self.scores, out=self.scores)
        np.matmul(self.values_by_head, self.scores, out=self.sums_by_head)
        np.divide(self.sums[:, :EACH], self.sums[:, EACH:], out=self.mixed_heads)
        return self.last.T.dot(self.mixed, self.y)

    def back(self, d: Array) -> Array:
        """Return the gradient of ``inner``."""
        self.mixed.dot(d.T, self.d_last)
        self.last[:WIDTH].dot(d, self.d_mixed)
        d_values = self.d_values
        np.divide(self.d_mixed_heads, self.sums[:, EACH:], out=d_values[:, :EACH])
        np.multiply(d_values[:, :EACH], self.mixed_heads, out=self.products)
        np.matmul(self.minus, self.products, out=d_values[:, EACH:])
        np.matmul(self.values_t, self.d_by_head, out=self.d_scores)
        np.multiply(self.d_scores, self.scores, out=self.d_scores)
        np.matmul(self.d_inner_by_head, self.scores_t, out=self.dv)
        np.matmul(self.k, self.d_scores, out=self.dq)
        np.matmul(self.q, self.d_scores_t, out=self.dk)
        self.x.dot(self.d_parts.T, self.d_joined)
        queries = self.d_joined[:, :WIDTH]
        np.multiply(queries, self.eighth, out=queries)
        return self.joined[:WIDTH].dot(self.d_parts, self.dx)


class Units:
    """Two dense layers with GELU between them: 18 calls for the distribution function, exact to 3e-6."""

    P = tuple(np.float32(a) for a in (3.27562466e-05, 3.81704483e-03, 2.76726853e-02, 3.98925386e-01))
    Q = tuple(np.float32(a) for a in (1.15420896e-03, 2.39141449e-02, 2.35967363e-01, 1.0))
    END = 4.6  # for larger numbers, those of this one

    def __init__(self, first: Pair, second: Pair, columns: int) -> None:
        (self.w1, self.g1), (self.w2, self.g2) = first, second
        self.x, self.z, self.u = with_ones(WIDTH, columns), empty(UNITS, columns), empty(UNITS, columns)
        self.h, self.cdf, self.bounded = with_ones(UNITS, columns), empty(UNITS, columns), empty(UNITS, columns)
        self.inner, self.activations = self.x[:WIDTH], self.h[:UNITS]
        self.y, self.dx, self.d = empty(WIDTH, columns), empty(WIDTH, columns), empty(UNITS, columns)
        self.top = np.full((UNITS, columns), self.END, np.float32)
        self.bottom = -self.top
        lead = self.Q[0]  # 1 after division
        self.p, self.q = [a / lead for a in self.P], [a / lead for a in self.Q[1:]]
        self.half, self.minus_half = np.float32(0.5), np.float32(-0.5)
        self.log = np.float32(-0.5 * np.log(2 * np.pi))

    def forward(self) -> Array:
        """Return the second layer's outputs for ``inner``."""
        add, multiply = np.add, np.multiply
        z, u, cdf, q, bounded = self.z, self.u, self.cdf, self.d, self.bounded
        p3, p2, p1, p0 = self.p
        q2, q1, q0 = self.q
        self.w1.T.dot(self.x, z)
        np.minimum(z, self.top, out=bounded)
        np.maximum(bounded, self.bottom, out=bounded)
        multiply(bounded, bounded, out=u)
        multiply(u, p3, out=cdf)
        add(cdf, p2, out=cdf)
        multiply(cdf, u, out=cdf)
        add(cdf, p1, out=cdf)
        multiply(cdf, u, out=cdf)
        add(cdf, p0, out=cdf)
        multiply(cdf, bounded, out=cdf)
        add(u, q2, out=q)
        multiply(q, u, out=q)
        add(q, q1, out=q)
        multiply(q, u, out=q)
        add(q, q0, out=q)
        np.divide(cdf, q, out=cdf)
        add(cdf, self.half, out=cdf)
        multiply(z, cdf, out=self.activations)
        return self.w2.T.dot(self.h, self.y)

    def back(self, d: Array) -> Array:
        """Return the gradient of ``inner``."""
        add, multiply = np.add, np.multiply
        u, cdf = self.u, self.cdf
        self.h.dot(d.T, self.g2)
        self.w2[:UNITS].dot(d, self.d)
        multiply(u, self.minus_half, out=u)
        add(u, self.log, out=u)
        np.exp(u, out=u)
        multiply(u, self.bounded, out=u)
        add(u, cdf, out=u)
        multiply(self.d, u, out=self.d)
        self.x.dot(self.d.T, self.g1)
        return self.w1[:WIDTH].dot(self.d, self.dx)


class Block:
    """A pre-norm block; ``x`` is changed in place."""

    def __init__(self, pairs: list[Pair], batch: int) -> None:
        norm1, joined, out, norm2, first, second = pairs
        columns = batch * TOKENS
        self.norm1, self.norm2 = Norm(norm1, columns), Norm(norm2, columns)
        self.attention, self.units = Attention(joined, out, batch), Units(first, second, columns)

    def forward(self, x: Array) -> None:
        """Add the two branches to ``x``."""
        for norm, branch in ((self.norm1, self.attention), (self.norm2, self.units)):
            norm.forward(x)
            norm.affine(branch.inner)
            np.add(x, branch.forward(), out=x)

    def back(self, d: Array) -> None:
        """Add the gradients of the branches to ``d``."""
        for norm, branch in ((self.norm2, self.units), (self.norm1, self.attention)):
            np.add(d, norm.back(branch.back(d)), out=d)


def block_arrays(start: dict[str, Array], name: str) -> list[tuple[Array, ...]]:
    """Return the arrays of a block as `Parameters` takes them."""
    scale = np.float32(EACH**-0.5)
    parts = ("weight", "bias")
    joined = [
        np.concatenate(
            [
                start[f"{name}.attention.{part}.{kind}"] * (scale if part == "query" else 1)
                for part in ("query", "key", "value")
            ],
            axis=-1,
        )
        for kind in parts
    ]
    others = [
        tuple(start[f"{name}.{part}.{kind}"] for kind in parts)
        for part in ("norm1", "attention.out", "norm2", "linear1", "linear2")
    ]
    return [others[0], tuple(joined), *others[1:]]


def transformer(start: dict[str, Array], batch: int) -> Step:
    """16 of 27 letters, two pre-norm blocks, a layer norm, the mean over letters, dense to 10."""
    pairs_of = [(start["embed.weight"],), *block_arrays(start, "block1"), *block_arrays(start, "block2")]
    parameters = Parameters(
        *pairs_of, (start["norm.weight"], start["norm.bias"]), (start["head.weight"], start["head.bias"])
    )
    (table, g_table), *rest, last, (head, g_head) = parameters.pairs
    update = parameters.updater()
    columns = batch * TOKENS
    block1, block2, norm = Block(rest[:6], batch), Block(rest[6:], batch), Norm(last, columns)
    x, d, logits = empty(WIDTH, columns), empty(WIDTH, columns), empty(batch, 10)
    one_hot, letters = np.eye(27, dtype=np.float32), empty(columns, 27)
    rows, shares = norm.out.reshape(WIDTH * batch, TOKENS), np.full(TOKENS, 1 / TOKENS, np.float32)
    means, pooled, d_pooled, product = (
        empty(WIDTH, batch),
        with_ones(WIDTH, batch),
        empty(WIDTH, batch),
        empty(WIDTH, batch),
    )
    means_flat, inner, d_places, d_each = (
        means.reshape(-1),
        pooled[:WIDTH],
        d.reshape(WIDTH, batch, TOKENS),
        d_pooled[:, :, None],
    )
    ones, share = np.ones(batch, np.float32), np.float32(1 / TOKENS)
    loss_of = cross_entropy(logits)
    letters_t, pooled_t, logits_t, w_head, d_t = letters.T, pooled.T, logits.T, head[:WIDTH], d.T
    add, copyto, multiply = np.add, np.copyto, np.multiply

    def step(X: Any, y: Any) -> float:
        one_hot.take(X.reshape(-1), 0, letters, "clip")
        table.T.dot(letters_t, x)
        block1.forward(x)
        block2.forward(x)
        norm.forward(x)
        rows.dot(shares, means_flat)
        multiply(means, norm.weight_column, out=inner)  # after the mean: a sixteenth of the work
        add(inner, norm.bias_column, out=inner)
        pooled_t.dot(head, logits)
        loss = loss_of(y)

        pooled.dot(logits, g_head)
        w_head.dot(logits_t, d_pooled)
        d_pooled.dot(ones, norm.d_bias)
        multiply(d_pooled, means, out=product)
        product.dot(ones, norm.d_weight)
        multiply(d_pooled, norm.weight_column, out=d_pooled)
        multiply(d_pooled, share, out=d_pooled)
        copyto(d_places, d_each)
        norm.back_normalized(d)
        block2.back(d)
        block1.back(d)
        letters_t.dot(d_t, g_table)
        update()
        return loss

    return step
