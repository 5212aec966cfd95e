"""Linear algebra: matrix products."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from microfw.autograd.backward import unbroadcast
from microfw.autograd.op import Array, Cost, Shape, op
from microfw.autograd.tensor import Tensor
from microfw.errors import ShapeError

_ONES: dict[int, Array] = {}


def bias_out(g: Any, shape: Shape, out: Any = None) -> Any:
    """Sum a gradient over its rows, as that of a bias; into an array, if one is given."""
    if shape != g.shape[-1:]:  # repeated along the columns, too
        total = unbroadcast(g, shape)
        return total if out is None else np.add(total, 0, out)
    # a product with ones takes a third of the time of a sum; the ones of a batch size are kept
    if g.ndim != 2:
        g = _rows(g)
    ones = _ONES.get(len(g))
    if ones is None or ones.dtype is not g.dtype:
        ones = np.ones(len(g), g.dtype)
        ones.setflags(write=False)
        if len(_ONES) > 64:  # sizes that do not come again must not fill the memory
            _ONES.clear()
        if g.dtype.kind == "f":  # not objects, with which the law and the cost checks count operations
            _ONES[len(g)] = ones
    # np.dot also takes the arrays on which replay traces; the method takes 60 ns less
    return ones.dot(g, out) if type(g) is np.ndarray else np.dot(ones, g, out)


def to_bias(g: Any, shape: Shape) -> Any:
    """Return the gradient of a bias."""
    # by the same product as vjp_out, which writes into an optimizer's buffer: a sum would give other bits
    plain = g.dtype.kind == "f" and not isinstance(g, Tensor)  # the law runs rules on objects
    return bias_out(g, shape) if plain else g


def _rows(x: Any) -> Any:
    return x if x.ndim == 2 else x.reshape(prod(x.shape[:-1]), x.shape[-1])


def _by_rows(x: Any, w: Any) -> Any:
    """Return ``x.dot(w)`` for any number of axes."""
    # np.dot of more than two axes does not use BLAS
    return _rows(x).dot(w).reshape((*x.shape[:-1], w.shape[1]))


def _matmul_cost(y: Shape, a: Shape, b: Shape) -> Cost:
    product = 2 * prod(y) * a[-1]
    left, right = _broadcast_sums(y, a, b)
    return Cost(product, (product + left, product + right), product, (product, product))


def _broadcast_sums(y: Shape, a: Shape, b: Shape) -> tuple[int, int]:
    """Return how many additions undo the broadcasting of each factor, in its derivative."""
    batch = prod(y[: max(len(a), len(b)) - 2]) if max(len(a), len(b)) > 2 else 1
    entries = [prod(shape[-2:]) for shape in (a, b)]
    sums = [max(batch * n - prod(shape), 0) for n, shape in zip(entries, (a, b), strict=True)]
    return sums[0], 0 if len(b) == 2 and len(a) > 2 else sums[1]  # the derivative is one product of all rows


def swap(x: Any) -> Any:
    """Exchange the last two axes."""
    return x.T if x.ndim == 2 else x.transpose((*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def _matmul_left(g: Any, a: Any, b: Any) -> Any:
    if b.ndim == 1:
        return g * b if a.ndim == 1 else g.reshape((*g.shape, 1)) * b
    if a.ndim == 1:
        return np.matmul(b, g.reshape((*g.shape, 1)))[..., 0]
    return np.matmul(g, swap(b))


def _matmul_right(g: Any, a: Any, b: Any) -> Any:
    if a.ndim == 1:
        return g * a if b.ndim == 1 else a.reshape((-1, 1)) * g.reshape((*g.shape[:-1], 1, g.shape[-1]))
    if b.ndim == 1:
        return np.matmul(swap(a), g.reshape((*g.shape, 1)))[..., 0]
    if b.ndim == 2 and a.ndim > 2:  # one product of all rows, where a batch of them would have to be summed
        rows = prod(a.shape[:-1])
        return np.matmul(a.reshape((rows, a.shape[-1])).T, g.reshape((rows, g.shape[-1])))
    return np.matmul(swap(a), g)


@op(
    vjp=(_matmul_left, _matmul_right),
    jvp="linear",
    cost=_matmul_cost,
    numpy=(np.matmul, np.linalg.matmul),
    no_alias=True,
)
def matmul(a: Array, b: Array) -> Array:
    """Matrix product of the last two axes, the others broadcast."""
    return np.matmul(a, b)


def _linear_cost(y: Shape, x: Shape, w: Shape, b: Shape) -> Cost:
    product = 2 * prod(x) * w[1]
    return Cost(
        product + prod(y),
        (product, product, max(prod(y) - prod(b), 0)),
        products_forward=product,
        products_derivatives=(product, product, 0),
    )


def _back_to_x(g: Any, w: Any, x: Any) -> Any:
    if x.ndim != 2:
        return _by_rows(g, w.T)
    if not isinstance(x, Tensor):
        row, column = x.strides
        if row < column:  # the memory order of x, which is faster for the op before, such as a convolution
            return w.dot(g.T).T
    return g.dot(w.T)


@op(
    vjp=(_back_to_x, lambda g, x: _rows(x).T.dot(_rows(g)), to_bias),
    jvp=(lambda dx, w, x: _by_rows(dx, w), lambda dw, x: _by_rows(x, dw), lambda db, shape: db),
    vjp_out=(
        None,
        lambda g, x, out: x.T.dot(g, out) if x.ndim == 2 else _rows(x).T.dot(_rows(g), out),
        bias_out,
    ),
    cost=_linear_cost,
    no_alias=True,
)
def linear(x: Array, w: Array, b: Array) -> Array:
    """Affine map ``x @ w + b`` over the last axis of ``x``, with ``w`` of shape (in, out)."""
    if not x.ndim:
        raise ShapeError("linear: expected x with at least one axis, got a single number")
    y = x.dot(w) if x.ndim == 2 else _by_rows(x, w)
    y += b  # in place: the product is a new array, and x @ w + b would allocate another one
    return y
