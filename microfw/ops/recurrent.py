"""A recurrent layer's loop over time, as one op.

A step's new state depends on two sums: what the input gives it, and the weighted last output. Recorded
step by step, a sequence of T steps would be about ten T nodes, and each slice of the input would have
a gradient as long as the whole sequence. Here a sequence is one node. Each kind of cell is a class in
`microfw.ops.cells`. The loops here, forward and both derivatives, are the same for all kinds.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from microfw.autograd.op import Array, Cost, Shape, op
from microfw.autograd.tensor import Tensor
from microfw.ops.cells import CELLS, Cell, block
from microfw.ops.mapping import empty


def _unpack(rows: Any, s0: Any, cell: str, steps: int) -> tuple[Any, Any, Any]:
    """Return the weight, the bias of ``u`` or 0, and ``a`` for each step."""
    kind = CELLS[cell]
    h, lead = s0.shape[1] // kind.states, int(kind.bias)
    a = rows[lead + h :].reshape((steps, s0.shape[0], rows.shape[1]))
    return rows[lead : lead + h], rows[0] if lead else 0, a


def _all(s0: Any, y: Any, cell: str) -> tuple[Any, Any]:
    """Return the state before each step, and the last output before each step as one matrix."""
    before = np.concatenate([s0.reshape((1, *s0.shape)), y[:-1]], axis=0)
    h = block(before, 0, CELLS[cell].states)
    return before, h.reshape((h.shape[0] * h.shape[1], h.shape[2]))


def _walk(rows: Any, s0: Any, cell: str, steps: int, mask: Any) -> tuple[Any, Any]:
    """Return the states after each step, and what each step activates; without a mask all steps change the state."""
    kind = CELLS[cell]
    w, bias, a = _unpack(rows, s0, cell, steps)
    if _in_place(kind, mask, rows, s0):
        y, act = (empty((steps, s0.shape[0], blocks * w.shape[0]), a) for blocks in (kind.states, 4))
        kind.walk(a, w, bias, s0, y, act)
        return y, act
    s, states, acts = s0, [], []
    for t in range(steps):
        u = block(s, 0, kind.states) @ w
        act = kind.activate(a[t], u + bias if kind.bias else u)
        s = kind.advance(act, s) if mask is None else np.where(mask[t], kind.advance(act, s), s)
        acts.append(act)
        states.append(s)
    return np.stack(states), np.stack(acts)


def _in_place(kind: type[Cell], mask: Any, *values: Any) -> bool:
    """Return True if loops may write to arrays. Tensors, and arrays that count operations, get other loops."""
    if kind.walk is None or mask is not None or values[0].dtype.char not in "fd":
        return False
    own = all(type(x) is np.ndarray or not isinstance(x, Tensor | np.ndarray) for x in values)
    return own and all(x.dtype == values[0].dtype for x in values)


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
    kind = CELLS[cell]
    if _in_place(kind, mask, rows, g, s0, y, act):
        grad, lead = empty(rows.shape, rows), int(kind.bias)
        w = _unpack(rows, s0, cell, steps)[0]
        da, end = grad[lead + w.shape[0] :].reshape((*y.shape[:2], rows.shape[1])), lead + w.shape[0]
        du = kind.back(g, w.T.copy(), s0, y, act, da).reshape((-1, rows.shape[1]))
        before = np.concatenate([s0[None, :, : w.shape[0]], y[:-1, :, : w.shape[0]]], axis=0)
        np.matmul(before.reshape((-1, w.shape[0])).T, du, out=grad[lead:end])
        if lead:
            grad[0] = du.sum(axis=0)
        return grad
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
        dut = du[t] if ds is None else du[t] + block(ds, 0, kind.states) @ w
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
