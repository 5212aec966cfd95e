"""Fused losses: ops whose pieces, taken one by one, would lose digits or time."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from microfw.autograd.op import Array, Cost, Shape, elementwise_cost, op
from microfw.autograd.tensor import Tensor
from microfw.errors import DataError, ShapeError
from microfw.ops.elementwise import _sigmoid, sigmoid
from microfw.ops.reduction import softmax


@lru_cache(maxsize=32)
def _tables(shape: Shape, char: str) -> tuple[Array, ...]:
    """Return where rows start, zeros and shares for rows, minus ones for classes, a matrix of ones, the share."""
    # kept by shape: in a small batch, making six arrays takes as long as the loss
    rows, classes = shape
    zeros, shares, minus = np.zeros(rows, char), np.full(rows, 1 / rows, char), np.full(classes, -1, char)
    # the share of a row as an array, which is multiplied faster than a number of Python
    ones, share = np.ones((classes, classes), char), np.full((), 1 / rows, char)
    tables = np.arange(0, rows * classes, classes), zeros, shares, minus, ones, share
    for table in tables:
        table.setflags(write=False)
    return tables


def check_labels(labels: Any, classes: int, where: str) -> None:
    """Raise unless the labels are integers from 0 to ``classes - 1``.

    Raises
    ------
    DataError
        Naming the first label that is wrong.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"{where}: expected integer labels of shape (N,), got {labels.dtype}; cast them with .astype(int)"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise DataError(
            f"{where}: expected labels from 0 to {classes - 1}, got {labels.flat[wrong[0]]} at row {wrong[0]}; "
            "encode them as 0, 1, 2, … or give the model's last layer more outputs"
        )


def _delta(logits: Any, labels: Any) -> Any:
    n, classes = logits.shape
    return (softmax(logits, axis=1) - np.eye(classes, dtype=logits.dtype)[labels]) / n


def _cost(y: Shape, logits: Shape, labels: Shape) -> Cost:
    return Cost(9 * prod(logits) + 3 * logits[0], (prod(logits), 0))


SHAPES = "logits (N, C) and labels (N,) with N at least 1"


def _share(g: Any, delta: Any) -> Any:
    if isinstance(g, np.ndarray) and g.item() == 1.0:
        return delta  # gradients are never written to, so no copy is needed
    return g * delta


@op(
    vjp=(_share, None),
    jvp=(lambda dx, delta: np.sum(dx * delta), None),
    aux={"delta": _delta},
    cost=_cost,
    no_alias=True,
)
def cross_entropy(logits: Array, labels: Array) -> Array:
    """Mean of ``logsumexp(logits) - logits[label]`` over rows: `(N, C)` logits, `(N,)` integer labels.

    The gradient's entry at the label is minus the sum of the others, so that it keeps its digits when
    the prediction is nearly right.
    """
    n, classes = shape = logits.shape
    if labels.shape != (n,) or not n:
        raise ShapeError("cross_entropy", SHAPES, f"{logits.shape} and {labels.shape}")
    if classes > WIDE:
        check_labels(labels, classes, "cross_entropy")
        return _general(logits, labels)
    kind = labels.dtype.kind
    if kind not in "iu" or not (labels.item(labels.argmin()) >= 0 and labels.item(labels.argmax()) < classes):
        check_labels(labels, classes, "cross_entropy")
    flat = logits.ravel()
    if not (flat.item(flat.argmax()) < LARGE and flat.item(flat.argmin()) > -LARGE):
        return _general(logits, labels)
    # In a small batch a call costs more than its arithmetic. So products with constants do what sums and broadcasting
    # would, and entries are found by one number each.
    tables = _tables if n <= MANY else _tables.__wrapped__
    starts, zeros, shares, minus, ones, share = tables(shape, logits.dtype.char)
    at = (labels if kind == "i" else labels.astype(np.intp)) + starts
    entries = np.exp(flat)  # no maximum is subtracted: within LARGE nothing overflows
    delta = entries.reshape(shape)
    # a product with a matrix of ones: for each class the sum over classes, so that no sum has to be broadcast
    delta /= delta.dot(ones)  # probabilities
    # before they are divided by n: a difference of log(n) would lose the digits of a small loss
    loss = 0 - np.log(entries[at]).dot(shares)  # 0, where a minus would make -0
    if loss < 0:  # by rounding
        loss = loss * -0.0
    delta *= share
    # the entry at the label is minus the sum of the others: p - 1 would lose the digits of a good prediction
    entries[at] = zeros
    entries[at] = delta.dot(minus)
    return loss, delta


def _shifted(logits: Array) -> tuple[Array, Array]:
    """Return logits less the largest of their row, and the exponentials, to the last digit."""
    top = logits.max(1, keepdims=True)
    z = logits - top
    # Knuth's two-sum: the rounding error of the subtraction, which exp turns into a factor of 1 + rest
    with np.errstate(invalid="ignore"):  # infinite logits
        rest = (logits - (z + (logits - z))) - (top - (logits - z))
    e = np.exp(z)
    e += e * np.where(np.isfinite(rest), rest, 0)
    return z, e


def _general(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Do the same for logits of any size, and for many classes, where a table of all of them would be large."""
    n, rows = len(labels), np.arange(len(labels))
    z, e = _shifted(logits)  # logits may be so large that their difference loses digits
    picked = z[rows, labels].sum()
    total = e.sum(1, keepdims=True)
    loss = (np.log(total).sum() - picked) / n
    e[rows, labels] = 0
    e[rows, labels] = -e.sum(1)
    e /= total * n
    return loss, e


MANY = 1 << 12
"""Most rows for which tables are kept."""

WIDE = 128
"""Most classes for which rows are summed by matrix products."""

LARGE = 40
"""Between this and its negative, exp neither overflows nor underflows, also in float32.

The smallest probability there, over the rows of a large batch, may be subnormal and so have fewer digits; its
logarithm keeps enough of them.
"""


def _squared_cost(y: Shape, x: Shape, t: Shape) -> Cost:
    n = prod(x)
    return Cost(4 * n + 1, (n, 2 * n))


@op(
    vjp=(_share, lambda g, delta: -_share(g, delta)),
    jvp=(lambda dx, delta: np.sum(dx * delta), lambda dt, delta: -np.sum(dt * delta)),
    aux={"delta": lambda x, t: (x - t) / (0.5 * getattr(x, "size", 1))},
    cost=_squared_cost,
    no_alias=True,
)
def squared_error(x: Array, t: Array) -> Array:
    """Mean of ``(x - t) ** 2`` over the entries of two arrays of one shape."""
    if getattr(x, "shape", ()) != getattr(t, "shape", ()) or not getattr(x, "size", 1):
        raise ShapeError(
            f"squared_error: expected two arrays of one shape with at least one entry, "
            f"got {np.shape(x)} and {np.shape(t)}"
        )
    d = x - t
    n = d.size
    if n > FEW or d.dtype.char not in "fd":
        return np.mean(np.square(d)), d / (0.5 * n)
    flat = d.ravel()  # a product adds the squares in a quarter of the time of np.mean
    return flat.dot(flat) / n, d / (0.5 * n)


FEW = 1 << 14
"""Most squares that a product adds in a quarter of the time, with no more rounding error than pairwise summation."""


def _bce_slope(g: Any, z: Any, t: Any) -> Any:
    s = sigmoid if isinstance(z, Tensor) else _sigmoid
    # s(-z) and not 1 - s(z), which is 0 where s(z) rounds to 1
    return g * ((1 - t) * s(z) - t * s(-z))


@op(
    vjp=(_bce_slope, lambda g, z: g * -z),
    cost=elementwise_cost(16, 18, 2),
    no_alias=True,
)
def bce_with_logits(z: Array, t: Array) -> Array:
    """``-t log(p) - (1 - t) log(1 - p)`` with ``p = sigmoid(z)``, entry by entry."""
    # log(1 + exp(-abs(z))) is exact for any z; log(sigmoid(z)) is -inf where sigmoid underflows
    tail = np.log1p(np.exp(-np.abs(z)))
    dtype = tail.dtype if hasattr(z, "dtype") else np.result_type(z, t, 0.0)
    with np.errstate(invalid="ignore"):  # 0 * inf, replaced below
        over = np.where((t == 1) & (z == np.inf), 0, np.where(z > 0, (1 - t) * z, t * -z))
    return np.add(np.where((t == 0) & (z == -np.inf), 0, over), tail, dtype=dtype)


def _weighted_slope(g: Any, z: Any, ones: Any, zeros: Any) -> Any:
    s = sigmoid if isinstance(z, Tensor) else _sigmoid
    return g * (zeros * s(z) - ones * s(-z))


@op(
    vjp=(_weighted_slope, lambda g, z: g * np.logaddexp(0, -z), lambda g, z: g * np.logaddexp(0, z)),
    cost=elementwise_cost(10, 17, 3, 2),
    no_alias=True,
)
def weighted_bce(z: Array, ones: Array, zeros: Array) -> Array:
    """``-ones log(p) - zeros log(1 - p)`` with ``p = sigmoid(z)``, entry by entry; 0 times infinity is 0."""
    size: Array = np.abs(z)
    wrong: Array = np.where(z > 0, zeros, ones)  # the weight of the term that grows with abs(z)
    with np.errstate(invalid="ignore"):
        over = np.where(wrong == 0, 0, wrong * size)
    return over + (ones + zeros) * np.log1p(np.exp(-size))
