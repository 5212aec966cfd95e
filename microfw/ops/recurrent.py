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
from microfw.ops.cells import CELLS, Cell, by_step
from microfw.ops.joining import among_zeros
from microfw.ops.mapping import empty


def _unpack(rows: Any, s0: Any, cell: str, steps: int) -> tuple[Any, Any, Any]:
    """Return the weight, the bias of ``u`` or 0, and ``a`` for each step."""
    h, lead = s0.shape[2], int(CELLS[cell].bias)
    a = rows[:, lead + h :].reshape((len(rows), steps, *s0.shape[1:]))
    return rows[:, lead : lead + h], rows[:, :1] if lead else 0, a


def _before(s0: Any, y: Any) -> tuple[Any, Any]:
    """Return the state before each step, and the last output before each step as one matrix."""
    before = np.concatenate([s0.reshape((len(s0), 1, *s0.shape[1:])), y[:, :-1]], axis=1)
    return before, _flat(before)[0]


def _flat(x: Any) -> Any:
    """Return blocks of all steps as matrices, (blocks, T N, H)."""
    return x.reshape((len(x), x.shape[1] * x.shape[2], x.shape[3]))


def _walk(rows: Any, s0: Any, cell: str, steps: int, mask: Any) -> tuple[Any, Any]:
    """Return the states after each step, and what each step keeps; without a mask all steps change the state."""
    kind = CELLS[cell]
    w, bias, a = _unpack(rows, s0, cell, steps)
    if _in_place(kind, mask, rows, s0):
        y = empty((kind.states, *a.shape[1:]), a)
        kept = by_step(kind.kept, a)
        kind.walk(a, w, bias, s0, y, kept)
        return y, kept
    s, states, each = s0, [], []
    for t in range(steps):
        u = np.matmul(s[0], w)
        kept, new = kind.step(a[:, t], u + bias if kind.bias else u, s)
        s = new if mask is None else np.where(mask[t], new, s)
        each.append(kept)
        states.append(s)
    return np.stack(states, axis=1), np.stack(each, axis=1)


def _in_place(kind: type[Cell], mask: Any, *values: Any) -> bool:
    """Return True if loops may write to arrays. Tensors, and arrays that count operations, get other loops."""
    if kind.walk is None or mask is not None or values[0].dtype.char not in "fd":
        return False
    own = all(type(x) is np.ndarray or not isinstance(x, Tensor | np.ndarray) for x in values)
    return own and all(x.dtype == values[0].dtype for x in values)


def _kept(rows: Any, s0: Any, cell: str, steps: int, *, mask: Any = None) -> Any:
    settings = {"cell": cell, "steps": steps}
    y = recur(rows, s0, **settings) if mask is None else recur_masked(rows, mask, s0, **settings)
    w, bias, a = _unpack(rows, s0, cell, steps)
    before, h = _before(s0, y)
    u = np.matmul(h, w) + bias if CELLS[cell].bias else np.matmul(h, w)
    return CELLS[cell].step(a, u.reshape(a.shape), before)[0]


def _back(g: Any, rows: Any, s0: Any, y: Any, kept: Any, cell: str, steps: int, *, mask: Any = None) -> tuple[Any, ...]:
    """Walk from the last step to the first; return the gradients of ``a``, of ``u`` and of the first state."""
    kind = CELLS[cell]
    w = _turned(_unpack(rows, s0, cell, steps)[0])
    slopes = kind.slopes(kept, _before(s0, y)[0])  # for all steps at once: the loop below has few calls
    das, dus, ds = [], [], None
    for t in reversed(range(steps)):
        gs = g[:, t] if ds is None else g[:, t] + ds
        pulled = gs if mask is None else np.where(mask[t], gs, 0)
        da, du, ds = kind.pull(pulled, [k[:, t] for k in slopes], w)
        if mask is not None:
            ds = np.where(mask[t], ds, gs)
        das.append(da)
        dus.append(du)
    return np.stack(das[::-1], axis=1), np.stack(dus[::-1], axis=1), ds


def _sum_rows(g: Any) -> Any:
    """Return sums over the rows of each block, (blocks, H)."""
    if g.dtype.kind == "f" and not isinstance(g, Tensor):  # by a product: 13 µs in the place of 60 for 640 rows
        return np.matmul(np.ones((1, g.shape[1]), g.dtype), g)[:, 0]
    return g.sum(axis=1)


def _turned(w: Any) -> Any:
    """Return transposed blocks, as rows of memory if they are an array: the product is twice as quick."""
    turned = w.transpose((0, 2, 1))
    return turned if isinstance(w, Tensor) else turned.copy()


def _rows_vjp(g: Any, rows: Any, s0: Any, y: Any, kept: Any, cell: str, steps: int, *, mask: Any = None) -> Any:
    kind = CELLS[cell]
    if _in_place(kind, mask, rows, g, s0, y, kept):
        w, lead = _unpack(rows, s0, cell, steps)[0], int(kind.bias)
        grad, end = empty(rows.shape, rows), lead + w.shape[1]
        da = grad[:, end:].reshape((len(grad), *y.shape[1:]))
        du = _flat(kind.back(g, _turned(w), s0, y, kept, da))
        np.matmul(_before(s0[:1], y[:1])[1].T, du, out=grad[:, lead:end])
        if lead:
            grad[:, 0] = _sum_rows(du)
        return grad
    das, dus, _ = _back(g, rows, s0, y, kept, cell, steps, mask=mask)
    da = _flat(das)
    du = _flat(dus) if kind.bias else da  # only there do the two differ
    parts = [np.matmul(_before(s0, y)[1].T, du), da]
    return np.concatenate([du.sum(axis=1, keepdims=True), *parts] if kind.bias else parts, axis=1)


def _along(dz: Any, ds: Any, rows: Any, s0: Any, y: Any, kept: Any, cell: str, steps: int, *, mask: Any = None) -> Any:
    """Walk from the first step to the last; return the states' tangents."""
    kind = CELLS[cell]
    w = _unpack(rows, s0, cell, steps)[0]
    before, h = _before(s0, y)
    slopes = kind.slopes(kept, before)
    da = du = np.zeros((kind.gates, *y.shape[1:]), rows.dtype)
    if dz is not None:
        dw, db, da = _unpack(dz, s0, cell, steps)
        du = (np.matmul(h, dw) + db).reshape(da.shape)
    states = []
    for t in range(steps):
        dut = du[:, t] if ds is None else du[:, t] + np.matmul(ds[0], w)
        pushed = kind.push(da[:, t], dut, ds, [k[:, t] for k in slopes])
        ds = pushed if mask is None else np.where(mask[t], pushed, 0 if ds is None else ds)
        states.append(ds)
    return np.stack(states, axis=1)


def _by_gate(w: Any, gates: int) -> Any:
    """Return the blocks of columns of a matrix or of a row, (gates, C, H)."""
    return w.reshape((-1, gates, w.shape[-1] // gates)).transpose((1, 0, 2))


def _by_column(blocks: Any) -> Any:
    """Undo `_by_gate`."""
    gates, c, h = blocks.shape
    return blocks.transpose((1, 0, 2)).reshape((c, gates * h))


def _bias_tangent(db: Any, x: Any, gates: int, start: int) -> Any:
    each = _by_gate(db, gates)
    return among_zeros(each + np.zeros((gates, len(x), each.shape[2]), db.dtype), 1, start, 0)


def _inputs_cost(y: Shape, x: Shape, weight: Shape, bias: Shape, state: Shape, *, gates: int, start: int) -> Cost:
    product, added = 2 * prod(x) * weight[1], x[0] * weight[1] if bias else 0
    return Cost(
        product + added,
        (product + (gates - 1) * prod(x), product, max(added - prod(bias), 0), 0),
        products_forward=product,
        products_derivatives=(product, product, 0, 0),
    )


@op(
    vjp=(
        lambda g, weight, gates, start: np.matmul(g[:, start:], _by_gate(weight, gates).transpose((0, 2, 1))).sum(
            axis=0
        ),
        lambda g, x, gates, start: _by_column(np.matmul(x.T, g[:, start:])),
        lambda g, x, gates, start: _sum_rows(g[:, start:]).reshape(-1),
        lambda g, x, gates, start: _by_column(g[:, :start]),
    ),
    jvp=(
        lambda dx, weight, gates, start: among_zeros(np.matmul(dx, _by_gate(weight, gates)), 1, start, 0),
        lambda dw, x, gates, start: among_zeros(np.matmul(x, _by_gate(dw, gates)), 1, start, 0),
        _bias_tangent,
        lambda dw, x, gates, start: among_zeros(_by_gate(dw, gates), 1, 0, len(x)),
    ),
    cost=_inputs_cost,
    no_alias=True,
)
def recurrent_inputs(x: Array, weight: Array, bias: Array, state: Array, *, gates: int, start: int) -> Array:
    """What `recur` reads, ``(start + T N, H)`` for each gate, from inputs `(T N, C)` and a layer's parameters.

    The columns of ``weight``, `(C, gates * H)`, of ``bias``, which is 0 for none, and of ``state``, are those of one
    gate after the other. The ``start`` rows of ``state`` come first, then ``x @ weight + bias``.
    """
    dtype = np.result_type(x.dtype, weight.dtype, state.dtype)  # of objects, where some inputs are scalars with a graph
    rows = empty((gates, start + x.shape[0], weight.shape[1] // gates), x, dtype)
    rows[:, :start] = _by_gate(state, gates)
    # one product for all steps, in front of the loop: only h @ weight_hh has to wait for the step before
    np.matmul(x, _by_gate(weight, gates), out=rows[:, start:])
    if type(bias) is not int:
        rows[:, start:] += _by_gate(bias, gates)
    return rows


def _cost(y: Shape, rows: Shape, s0: Shape, *, cell: str, steps: int) -> Cost:
    kind = CELLS[cell]
    product = 2 * prod(y[1:]) * rows[0] * s0[2]
    forward, back = (count * prod(y[1:]) for count in kind.operations)
    back -= prod(s0)  # the last step has no gradient from a later one
    sums = (steps * s0[1] - 1) * rows[0] * s0[2] if kind.bias else 0
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
        lambda g, rows, s0, y, kept, cell, steps: _back(g, rows, s0, y, kept, cell, steps)[2],
    ),
    jvp=(
        lambda dx, rows, s0, y, kept, cell, steps: _along(dx, None, rows, s0, y, kept, cell, steps),
        lambda dx, rows, s0, y, kept, cell, steps: _along(None, dx, rows, s0, y, kept, cell, steps),
    ),
    aux={"kept": _kept},
    cost=_cost,
    no_alias=True,
)
def recur(rows: Array, s0: Array, *, cell: str, steps: int) -> Array:
    """States `(S, T, N, H)` of a recurrent cell after each step, from the first state `(S, N, H)`.

    ``rows`` holds for each gate, one under the other as `recurrent_inputs` makes them: a bias of the recurrent product
    (for the "gru" cell), the weight `(H, H)` of that product, and what the input adds in each step, `(T N, H)`. One
    walk back through time then gives the gradient of all of them. The state of the "lstm" cell is ``h`` and ``c``, that
    of the others ``h``.
    """
    return _walk(rows, s0, cell, steps, None)


@op(
    vjp=(
        lambda g, rows, mask, s0, y, kept, cell, steps: _rows_vjp(g, rows, s0, y, kept, cell, steps, mask=mask),
        None,
        lambda g, rows, mask, s0, y, kept, cell, steps: _back(g, rows, s0, y, kept, cell, steps, mask=mask)[2],
    ),
    jvp=(
        lambda dx, rows, mask, s0, y, kept, cell, steps: _along(dx, None, rows, s0, y, kept, cell, steps, mask=mask),
        None,
        lambda dx, rows, mask, s0, y, kept, cell, steps: _along(None, dx, rows, s0, y, kept, cell, steps, mask=mask),
    ),
    aux={"kept": lambda rows, mask, s0, cell, steps: _kept(rows, s0, cell, steps, mask=mask)},
    cost=lambda y, rows, mask, s0, **params: _masked_cost(_cost(y, rows, s0, **params)),
    no_alias=True,
)
def recur_masked(rows: Array, mask: Array, s0: Array, *, cell: str, steps: int) -> Array:
    """`recur` that keeps a row's state in the steps where the boolean ``mask``, `(T, N, 1)`, is false."""
    return _walk(rows, s0, cell, steps, mask)
