"""Linear algebra by factorization: inverses, linear systems, determinants, the Cholesky factor.

Each works on matrices in the last two axes. LAPACK's operations are counted by the textbook's formulas, n the
number of rows and k of right-hand sides: LU 2/3 n³, inverse 2 n³, solving 2/3 n³ + 2 n² k, Cholesky 1/3 n³.
They are not counted as matrix products, those in the derivatives are.

The rules are those of M. B. Giles, "Collected matrix derivative results for forward and reverse mode
algorithmic differentiation", 2008; that of the Cholesky factor is from I. Murray, "Differentiation of the
Cholesky decomposition", arXiv:1602.07527.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np

from microfw.autograd.op import Array, Cost, Shape, op
from microfw.autograd.tensor import Tensor
from microfw.errors import ShapeError, SingularError, message
from microfw.ops.elementwise import identity
from microfw.ops.layout import broadcast_to
from microfw.ops.linalg import matmul, swap
from microfw.ops.mapping import implements, operand


def square(where: str, a: Any) -> None:
    """Refuse what is no square matrix, nor a batch of such."""
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise ShapeError(where, "square matrices in the last two axes", a.shape)


def lapack(where: str, function: Callable[..., Any], *arrays: Array) -> Any:
    """Call a function of NumPy's, and name the matrix on which it fails. Arrays only."""
    # NumPy's error does not say which matrix of a batch it is; `_failure` tries them one by one
    try:
        return function(*arrays)
    except np.linalg.LinAlgError:
        raise SingularError(_failure(where, function, *arrays)) from None


def _failure(where: str, function: Callable[..., Any], a: Array, *others: Array) -> str:
    at = ""
    for index in np.ndindex(a.shape[:-2]):
        try:
            function(a[index], *(np.eye(a.shape[-1], dtype=a.dtype) for _ in others))
        except np.linalg.LinAlgError:
            at = f" at {index}" if index else ""
            break
    if function is np.linalg.cholesky:
        return message(
            where, "positive definite matrices", f"one that is not{at}", "add a small multiple of the identity"
        )
    fix = "look for rows that depend on each other, or add a small multiple of the identity"
    return message(where, "matrices that have an inverse", f"a singular one{at}", fix)


def _counts(shape: Shape) -> tuple[int, int]:
    """Return how many matrices there are, and how many rows each has."""
    return prod(shape[:-2]), shape[-1]


# The inverse


def _inv_cost(y: Shape, x: Shape) -> Cost:
    batch, n = _counts(x)
    return Cost(2 * batch * n**3, (4 * batch * n**3 + batch * n**2,), 0, (4 * batch * n**3,))


@op(
    vjp=lambda g, y: -np.matmul(np.matmul(swap(y), g), swap(y)),
    jvp=lambda dx, y: -np.matmul(np.matmul(y, dx), y),
    cost=_inv_cost,
    numpy=np.linalg.inv,
    no_alias=True,
)
def inv(x: Array) -> Array:
    """Inverse of a matrix; to solve a system, ``solve`` is faster and more accurate."""
    square("inv", x)
    return lapack("inv", np.linalg.inv, x)


def inverse(where: str, x: Any) -> Any:
    """Invert arrays as well as Tensors."""
    return inv(x) if isinstance(x, Tensor) else lapack(where, np.linalg.inv, x)


# Linear systems


def _columns(x: Any, a: Any) -> Any:
    """Return a vector of right-hand sides, or a batch of vectors, as matrices of one column."""
    return x if x.ndim >= a.ndim else x.reshape((*x.shape, 1))


def _solved(a: Any, b: Any) -> Any:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return solve(a, b)
    return lapack("solve", np.linalg.solve, a, b)


def _solve_cost(y: Shape, a: Shape, b: Shape) -> Cost:
    n = a[-1]
    batch, k = (prod(a[:-2]), 1) if len(b) == 1 else (prod(y[:-2]), y[-1])
    product = batch * 2 * n**2 * k
    solving = batch * (2 * n**3 // 3) + product
    left = max(batch * n**2 - prod(a), 0)  # additions that undo broadcasting
    right = max(prod(y) - prod(b), 0)
    return Cost(solving, (solving + product + batch * n**2 + left, solving + right), 0, (product, 0))


@op(
    vjp=(
        lambda g, a, y: -np.matmul(_solved(swap(a), _columns(g, a)), swap(_columns(y, a))),
        lambda g, a: _solved(swap(a), _columns(g, a)).reshape(g.shape),
    ),
    jvp=(
        lambda da, a, y: -_solved(a, np.matmul(da, _columns(y, a))).reshape(y.shape),
        lambda db, a: _solved(a, db),
    ),
    cost=_solve_cost,
    no_alias=True,
)
def solve(a: Array, b: Array) -> Array:
    """Solution ``x`` of ``a x = b``, with ``b`` a vector or matrices.

    Examples
    --------
    >>> import microfw as mf
    >>> solve(mf.tensor([[2.0, 0.0], [0.0, 4.0]]), [1.0, 1.0])
    tensor([0.5 , 0.25])
    """
    square("solve", a)
    if not b.ndim or b.shape[-1 if b.ndim == 1 else -2] != a.shape[-1]:
        raise ShapeError("solve", f"right-hand sides of {a.shape[-1]} rows, as the matrices have", b.shape)
    return lapack("solve", np.linalg.solve, a, b)


@implements(np.linalg.solve)
def _solve(a: Any, b: Any) -> Tensor:
    return solve(operand(a), operand(b))


# Determinants


def _of_matrices(g: Any) -> Any:
    """Give numbers two more axes, so that each meets its matrix."""
    return g.reshape((*g.shape, 1, 1))


def _traces(a: Any, dx: Any) -> Any:
    return np.sum(swap(a) * dx, axis=(-2, -1))


def _det_cost(y: Shape, x: Shape) -> Cost:
    batch, n = _counts(x)
    return Cost(batch * (2 * n**3 // 3 + n), (batch * (2 * n**3 + n**2 + 1),))


@op(
    vjp=lambda g, x, y: _of_matrices(g * y) * swap(inverse("derivative of det", x)),
    jvp=lambda dx, x, y: y * _traces(inverse("derivative of det", x), dx),
    cost=_det_cost,
    numpy=np.linalg.det,
    no_alias=True,
)
def det(x: Array) -> Array:
    """Determinant; at a singular matrix it is 0 and its derivative an error."""
    square("det", x)
    return np.linalg.det(x)


def _slogdet_cost(y: Shape, x: Shape) -> Cost:
    batch, n = _counts(x)
    return Cost(batch * (2 * n**3 // 3 + 2 * n), (batch * (2 * n**3 + n**2),))


def _slogdet_push(dx: Any, x: Any) -> Any:
    t = _traces(inverse("derivative of slogdet", x), dx)
    return np.stack([np.zeros(t.shape, t.dtype), t])


@op(
    vjp=lambda g, x: _of_matrices(g[1, ...]) * swap(inverse("derivative of slogdet", x)),
    jvp=_slogdet_push,
    cost=_slogdet_cost,
    no_alias=True,
)
def slogdet(x: Array) -> Array:
    """Sign of the determinant, which has no gradient, and the logarithm of its absolute value, as one array."""
    square("slogdet", x)
    return np.stack(np.linalg.slogdet(x))


class SlogdetResult(NamedTuple):
    """A determinant as the sign and the logarithm of its absolute value."""

    sign: Tensor
    logabsdet: Tensor


@implements(np.linalg.slogdet)
def _slogdet(a: Any) -> SlogdetResult:
    both = slogdet(operand(a))
    return SlogdetResult(both[0].detach(), both[1])


# The Cholesky factor


def _lower(x: Any) -> Any:
    """Lower triangle, with half of the diagonal."""
    n = x.shape[-1]
    return x * (np.tri(n, dtype=x.dtype) - np.eye(n, dtype=x.dtype) / 2)


def _between(f: Any, x: Any) -> Any:
    """``inv(f) x inv(f).T``."""
    return swap(_solved(f, swap(_solved(f, x))))


def _cholesky_vjp(g: Any, y: Any) -> Any:
    both = _between(swap(y), _lower(np.matmul(swap(y), np.tril(g))))
    return _lower(both + swap(both))


def _cholesky_push(dx: Any, y: Any) -> Any:
    half = _lower(dx)
    return np.matmul(y, _lower(_between(y, half + swap(half))))


def _cholesky_cost(y: Shape, x: Shape) -> Cost:
    batch, n = _counts(x)
    derivative = 2 * n**3 + 2 * (2 * n**3 // 3 + 2 * n**3) + 4 * n**2
    return Cost(batch * (n**3 // 3), (batch * derivative,), 0, (batch * 2 * n**3,))


@op(vjp=_cholesky_vjp, jvp=_cholesky_push, cost=_cholesky_cost, no_alias=True)
def cholesky(x: Array) -> Array:
    """Lower triangular ``L`` with ``L @ L.T == x``; only the lower triangle of ``x`` is read, and gets the gradient."""
    square("cholesky", x)
    return lapack("cholesky", np.linalg.cholesky, x)


@implements(np.linalg.cholesky)
def _cholesky(a: Any, /, *, upper: bool = False) -> Tensor:
    x = operand(a)
    made: Tensor = swap(cholesky(swap(x))) if upper else cholesky(x)
    return made


@implements(np.linalg.matrix_power)
def matrix_power(a: Any, n: int) -> Tensor:
    """Multiply a matrix with itself, ``n`` factors in about ``2 log2(n)`` products; of the inverse if ``n < 0``."""
    x = operand(a)
    square("matrix_power", x)
    if n == 0:
        return broadcast_to(np.eye(x.shape[-1], dtype=x.dtype), to=x.shape)
    power: Tensor = inv(x) if n < 0 else identity(x)
    made, n = None, abs(int(n))
    while True:
        if n % 2:
            made = power if made is None else matmul(made, power)
        n //= 2
        if not n and made is not None:
            return made
        power = matmul(power, power)
