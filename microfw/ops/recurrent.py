"""A recurrent layer's loop over time, as one op.

A step's new state depends on two sums: what the input gives it, and the weighted last output. Recorded
step by step, a sequence of T steps would be about ten T nodes, and each slice of the input would have
a gradient as long as the whole sequence. Here a sequence is one node. Each kind of cell is a class; the loops,
forward and both derivatives, are the same for all kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar

import numpy as np

from microfw.autograd.op import Array, Cost, Shape, op
from microfw.autograd.tensor import Tensor


def _block(x: Any, k: int, of: int, to: int | None = None) -> Any:
    """Return block ``k``, or blocks ``k`` up to ``to``, of the last axis."""
    width = x.shape[-1] // of
    return x[..., k * width : (k + 1 if to is None else to) * width]


def _join(*parts: Any) -> Any:
    return np.concatenate(parts, axis=-1)


class Cell:
    """A plain cell, ``h = tanh(a + u)``: ``a`` comes from the input, ``u`` from the last output.

    ``gates``, ``states`` and ``kept`` count blocks of the width of ``h``: in ``a`` and ``u``, in the state, of
    which ``h`` is the first, and in what `activate` returns. The methods work on arrays and on Tensors.
    """

    gates: ClassVar[int] = 1
    states: ClassVar[int] = 1
    bias: ClassVar[bool] = False
    """Whether a bias is added to ``u``."""
    operations: ClassVar[tuple[int, int]] = (2, 4)
    """Scalar operations for each entry of ``h``, forward and backward, products apart."""

    @staticmethod
    def activate(a: Any, u: Any) -> Any:
        """Return the gates; for all steps at once it serves as well."""
        return np.tanh(a + u)

    @staticmethod
    def advance(act: Any, s: Any) -> Any:
        """Return the new state."""
        return act

    @staticmethod
    def slopes(act: Any, before: Any, after: Any) -> tuple[Any, ...]:
        """Return the factors that `pull` and `push` need, for all steps at once."""
        return (1 - act * act,)

    @staticmethod
    def pull(g: Any, k: Sequence[Any], w: Any) -> tuple[Any, Any, Any]:
        """Return the gradients of ``a``, of ``u`` and of the old state, given the new state's; ``w`` is turned."""
        da = g * k[0]
        return da, da, da @ w

    @staticmethod
    def push(da: Any, du: Any, ds: Any, k: Sequence[Any]) -> Any:
        """Return the tangent of the new state; ``ds`` is the old state's, or None."""
        return (da + du) * k[0]


class ReLUCell(Cell):
    """A plain cell, ``h = max(a + u, 0)``."""

    operations = (2, 3)

    @staticmethod
    def activate(a: Any, u: Any) -> Any:
        """Return what is positive."""
        p = a + u
        return np.where(p > 0, p, 0)

    @staticmethod
    def slopes(act: Any, before: Any, after: Any) -> tuple[Any, ...]:
        """Return where the slope is 1."""
        return (act > 0,)


class GRUCell(Cell):
    """``r, z = sigmoid(a + u)``, ``n = tanh(a + r * u)``, ``h = (1 - z) * n + z * h``; the blocks are r, z, n."""

    gates = 3
    bias = True
    operations = (19, 22)

    @staticmethod
    def activate(a: Any, u: Any) -> Any:
        """Return r, z, n, and the block of ``u`` that r weighs."""
        # sigmoid(x) = tanh(x / 2) / 2 + 1 / 2: one call, and exp cannot overflow
        rz = 0.5 * np.tanh(0.5 * (_block(a, 0, 3, 2) + _block(u, 0, 3, 2))) + 0.5
        un = _block(u, 2, 3)
        return _join(rz, np.tanh(_block(a, 2, 3) + _block(rz, 0, 2) * un), un)

    @staticmethod
    def advance(act: Any, s: Any) -> Any:
        """Return ``n + z * (h - n)``."""  # one product less than (1 - z) * n + z * h
        n = _block(act, 2, 4)
        return n + _block(act, 1, 4) * (s - n)

    @staticmethod
    def slopes(act: Any, before: Any, after: Any) -> tuple[Any, ...]:
        """Return z, and the slopes by ``a`` and by ``u``."""
        r, z, n, un = (_block(act, k, 4) for k in range(4))
        kn = (1 - z) * (1 - n * n)
        kr, kz = kn * un * r * (1 - r), (before - n) * z * (1 - z)
        return z, _join(kr, kz, kn), _join(kr, kz, kn * r)

    @staticmethod
    def pull(g: Any, k: Sequence[Any], w: Any) -> tuple[Any, Any, Any]:
        """Return the gradients of ``a``, of ``u`` and of the old state."""
        z, ka, ku = k
        three = _join(g, g, g)
        du = three * ku
        return three * ka, du, g * z + du @ w

    @staticmethod
    def push(da: Any, du: Any, ds: Any, k: Sequence[Any]) -> Any:
        """Return the tangent of ``h``."""
        z, ka, ku = k
        d = da * ka + du * ku
        dh = _block(d, 0, 3) + _block(d, 1, 3) + _block(d, 2, 3)
        return dh if ds is None else dh + z * ds


class LSTMCell(Cell):
    """``i, f, o = sigmoid(a + u)``, ``g = tanh(a + u)``, ``c = f * c + i * g``, ``h = o * tanh(c)``: i, f, g, o."""

    gates = 4
    states = 2
    operations = (25, 25)

    @staticmethod
    def activate(a: Any, u: Any) -> Any:
        """Return i, f, g and o."""
        # One tanh does all, since sigmoid(x) = tanh(x / 2) / 2 + 1 / 2: factors of 1 for g, of 1 / 2 for the others.
        p = a + u
        half = np.full(p.shape[-1], 0.5, p.dtype)
        half[p.shape[-1] // 2 : 3 * (p.shape[-1] // 4)] = 1
        return np.tanh(p * half) * half + (1 - half)

    @staticmethod
    def advance(act: Any, s: Any) -> Any:
        """Return h and c."""
        c = _block(act, 1, 4) * _block(s, 1, 2) + _block(act, 0, 4) * _block(act, 2, 4)
        return _join(_block(act, 3, 4) * np.tanh(c), c)

    @staticmethod
    def slopes(act: Any, before: Any, after: Any) -> tuple[Any, ...]:
        """Return f, the slope of h by c, those of c by i, f and g, and that of h by o, all before their gates."""
        i, f, g, o = (_block(act, k, 4) for k in range(4))
        t = np.tanh(_block(after, 1, 2))
        gates = _join(g * i * (1 - i), _block(before, 1, 2) * f * (1 - f), i * (1 - g * g), t * o * (1 - o))
        return f, o * (1 - t * t), gates

    @staticmethod
    def pull(g: Any, k: Sequence[Any], w: Any) -> tuple[Any, Any, Any]:
        """Return the gradients of ``a``, of ``u`` and of the old state."""
        f, hc, gates = k
        dh = _block(g, 0, 2)
        dc = _block(g, 1, 2) + dh * hc
        da = _join(dc, dc, dc, dh) * gates
        return da, da, _join(da @ w, dc * f)

    @staticmethod
    def push(da: Any, du: Any, ds: Any, k: Sequence[Any]) -> Any:
        """Return the tangents of h and c."""
        f, hc, gates = k
        d = (da + du) * gates
        dc = _block(d, 0, 4) + _block(d, 1, 4) + _block(d, 2, 4)
        dc = dc if ds is None else dc + f * _block(ds, 1, 2)
        return _join(_block(d, 3, 4) + hc * dc, dc)


CELLS: dict[str, type[Cell]] = {"tanh": Cell, "relu": ReLUCell, "gru": GRUCell, "lstm": LSTMCell}


def _unpack(rows: Any, s0: Any, cell: str, steps: int) -> tuple[Any, Any, Any]:
    """Return the weight, the bias of ``u`` or 0, and ``a`` for each step."""
    kind = CELLS[cell]
    h, lead = s0.shape[1] // kind.states, int(kind.bias)
    a = rows[lead + h :].reshape((steps, s0.shape[0], rows.shape[1]))
    return rows[lead : lead + h], rows[0] if lead else 0, a


def _all(s0: Any, y: Any, cell: str) -> tuple[Any, Any]:
    """Return the state before each step, and the last output before each step as one matrix."""
    before = np.concatenate([s0.reshape((1, *s0.shape)), y[:-1]], axis=0)
    h = _block(before, 0, CELLS[cell].states)
    return before, h.reshape((h.shape[0] * h.shape[1], h.shape[2]))


def _walk(rows: Any, s0: Any, cell: str, steps: int, mask: Any) -> tuple[Any, Any]:
    """Return the states after each step, and what each step activates; without a mask all steps change the state."""
    kind = CELLS[cell]
    w, bias, a = _unpack(rows, s0, cell, steps)
    s, states, acts = s0, [], []
    for t in range(steps):
        u = _block(s, 0, kind.states) @ w
        act = kind.activate(a[t], u + bias if kind.bias else u)
        s = kind.advance(act, s) if mask is None else np.where(mask[t], kind.advance(act, s), s)
        acts.append(act)
        states.append(s)
    return np.stack(states), np.stack(acts)


def _gates(rows: Any, s0: Any, cell: str, steps: int, *, mask: Any = None) -> Any:
    settings = {"cell": cell, "steps": steps}
    y = recur(rows, s0, **settings) if mask is None else recur_masked(rows, mask, s0, **settings)
    w, bias, a = _unpack(rows, s0, cell, steps)
    return CELLS[cell].activate(a, (_all(s0, y, cell)[1] @ w).reshape(a.shape) + bias)


def _back(g: Any, rows: Any, s0: Any, y: Any, act: Any, cell: str, steps: int, *, mask: Any = None) -> tuple[Any, ...]:
    """Walk from the last step to the first; return the gradients of ``a``, of ``u`` and of the first state."""
    kind = CELLS[cell]
    w = _unpack(rows, s0, cell, steps)[0].T
    w = w if isinstance(w, Tensor) else w.copy()  # as rows of memory: the product is twice as quick
    slopes = kind.slopes(act, _all(s0, y, cell)[0], y)  # for all steps at once: the loop below has few calls
    das, dus, ds = [], [], None
    for t in reversed(range(steps)):
        gs = g[t] if ds is None else g[t] + ds
        if mask is None:
            da, du, ds = kind.pull(gs, [k[t] for k in slopes], w)
        else:
            da, du, ds = kind.pull(np.where(mask[t], gs, 0), [k[t] for k in slopes], w)
            ds = np.where(mask[t], ds, gs)
        das.append(da)
        dus.append(du)
    return das[::-1], dus[::-1], ds


def _rows_vjp(g: Any, rows: Any, s0: Any, y: Any, act: Any, cell: str, steps: int, *, mask: Any = None) -> Any:
    das, dus, _ = _back(g, rows, s0, y, act, cell, steps, mask=mask)
    da = np.concatenate(das, axis=0)
    du = np.concatenate(dus, axis=0) if CELLS[cell].bias else da  # only there do the two differ
    parts = [_all(s0, y, cell)[1].T @ du, da]
    return np.concatenate([du.sum(axis=0, keepdims=True), *parts] if CELLS[cell].bias else parts, axis=0)


def _along(dz: Any, ds: Any, rows: Any, s0: Any, y: Any, act: Any, cell: str, steps: int, *, mask: Any = None) -> Any:
    """Walk from the first step to the last; return the states' tangents."""
    kind = CELLS[cell]
    w = _unpack(rows, s0, cell, steps)[0]
    before, h = _all(s0, y, cell)
    slopes = kind.slopes(act, before, y)
    da = du = np.zeros((steps, s0.shape[0], rows.shape[1]), rows.dtype)
    if dz is not None:
        dw, db, da = _unpack(dz, s0, cell, steps)
        du = (h @ dw).reshape(da.shape) + db
    states = []
    for t in range(steps):
        dut = du[t] if ds is None else du[t] + _block(ds, 0, kind.states) @ w
        pushed = kind.push(da[t], dut, ds, [k[t] for k in slopes])
        ds = pushed if mask is None else np.where(mask[t], pushed, 0 if ds is None else ds)
        states.append(ds)
    return np.concatenate(states, axis=0).reshape(y.shape)


def _cost(y: Shape, rows: Shape, s0: Shape, *, cell: str, steps: int) -> Cost:
    kind = CELLS[cell]
    product = 2 * steps * s0[0] * (s0[1] // kind.states) * rows[1]
    entries = prod(y) // kind.states
    forward, back = (count * entries for count in kind.operations)
    back -= prod(s0)  # the last step has no gradient from a later one
    sums = (steps * s0[0] - 1) * rows[1] if kind.bias else 0
    return Cost(product + forward, (2 * product + back + sums, product + back), product, (2 * product, product))


def _masked_cost(cost: Cost) -> Cost:
    """Return the cost with a place for the mask, which has no derivative."""  # a choice is no operation
    return cost._replace(
        derivatives=(cost.derivatives[0], 0, cost.derivatives[1]),
        products_derivatives=(cost.products_derivatives[0], 0, cost.products_derivatives[1]),
    )


@op(
    vjp=(
        _rows_vjp,
        lambda g, rows, s0, y, act, cell, steps: _back(g, rows, s0, y, act, cell, steps)[2],
    ),
    jvp=(
        lambda dx, rows, s0, y, act, cell, steps: _along(dx, None, rows, s0, y, act, cell, steps),
        lambda dx, rows, s0, y, act, cell, steps: _along(None, dx, rows, s0, y, act, cell, steps),
    ),
    aux={"act": _gates},
    cost=_cost,
    no_alias=True,
)
def recur(rows: Array, s0: Array, *, cell: str, steps: int) -> Array:
    """States `(T, N, S)` of a recurrent cell after each step, from the first state `(N, S)`.

    ``rows`` holds, one under the other and all as wide as the cell's gates: a bias of the recurrent product
    (for the "gru" cell), the weight `(H, …)` of that product, and what the input adds in each step, `(T N, …)`.
    One walk back through time then gives the gradient of all of them. The state of the "lstm" cell is ``h``
    and ``c`` side by side, that of the others ``h``.
    """
    return _walk(rows, s0, cell, steps, None)


@op(
    vjp=(
        lambda g, rows, mask, s0, y, act, cell, steps: _rows_vjp(g, rows, s0, y, act, cell, steps, mask=mask),
        None,
        lambda g, rows, mask, s0, y, act, cell, steps: _back(g, rows, s0, y, act, cell, steps, mask=mask)[2],
    ),
    jvp=(
        lambda dx, rows, mask, s0, y, act, cell, steps: _along(dx, None, rows, s0, y, act, cell, steps, mask=mask),
        None,
        lambda dx, rows, mask, s0, y, act, cell, steps: _along(None, dx, rows, s0, y, act, cell, steps, mask=mask),
    ),
    aux={"act": lambda rows, mask, s0, cell, steps: _gates(rows, s0, cell, steps, mask=mask)},
    cost=lambda y, rows, mask, s0, **params: _masked_cost(_cost(y, rows, s0, **params)),
    no_alias=True,
)
def recur_masked(rows: Array, mask: Array, s0: Array, *, cell: str, steps: int) -> Array:
    """`recur` that keeps a row's state in the steps where the boolean ``mask``, `(T, N, 1)`, is false."""
    return _walk(rows, s0, cell, steps, mask)
