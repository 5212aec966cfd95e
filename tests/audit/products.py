"""Operations in products, by formula: what a layer of a kind costs on inputs of a shape, forward and backward.

Each function returns a pair. A multiply-add counts as 2. ``trained``: True if the layer's weights get a gradient,
``first`` that its input gets none.
"""

from __future__ import annotations

from math import prod


def product(forward, trained=True, first=False):
    """Return the pair of a product of two factors: each factor that needs a gradient takes a product as large."""
    return forward, forward * (trained + (not first))


def dense(rows, ins, outs, **which):
    return product(2 * rows * ins * outs, **which)


def conv(images, size, ins, outs, kernel, groups=1, **which):
    """``size`` is that of the output, a tuple as ``kernel`` is."""
    return product(2 * images * prod(size) * outs * (ins // groups) * prod(kernel), **which)


def recurrent(rows, steps, ins, hidden, gates, first=False):
    """All steps' inputs in one product; then a product of each step's state, whose first factor is the state before."""
    inputs = product(2 * rows * steps * ins * gates * hidden, first=first)
    states = 2 * rows * steps * hidden * gates * hidden
    return inputs[0] + states, inputs[1] + 2 * states


def attention(rows, queries, keys, width, first=False):
    """Query, key and value; scores and their use, whose factors both need gradients; the output."""
    q, k = dense(rows * queries, width, width, first=first), dense(rows * keys, width, width, first=first)
    scores = product(2 * rows * queries * keys * width)
    return added(q, k, k, scores, scores, dense(rows * queries, width, width))


def added(*pairs):
    return tuple(map(sum, zip(*pairs, strict=True)))
