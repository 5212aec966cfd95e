"""Rows of the recurrent op: each kind of cell, step by step as it is published."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from tests.cases.samples import Case, Sample, backwards, floats, transposed

GATES = {"tanh": 1, "relu": 1, "gru": 3, "lstm": 4}
H = 2


def recur(rows, s0, cell, steps):
    lead = cell == "gru"
    w, a = rows[lead : lead + H], rows[lead + H :].reshape(steps, len(s0), rows.shape[1])
    s, states = s0, []
    for t in range(steps):
        u = s[:, :H] @ w + (rows[0] if lead else 0)
        if cell in ("tanh", "relu"):
            s = np.tanh(a[t] + u) if cell == "tanh" else np.maximum(a[t] + u, 0)
        elif cell == "gru":
            r, z = np.split(expit(a[t] + u)[:, : 2 * H], 2, 1)
            n = np.tanh(a[t][:, 2 * H :] + r * u[:, 2 * H :])
            s = (1 - z) * n + z * s
        else:
            i, f, g, o = np.split(a[t] + u, 4, 1)
            c = expit(f) * s[:, H:] + expit(i) * np.tanh(g)
            s = np.concatenate([expit(o) * np.tanh(c), c], 1)
        states.append(s)
    return np.stack(states)


def recur_masked(rows, mask, s0, cell, steps):
    s, states = s0, []
    for t in range(steps):
        start = len(rows) - (steps - t) * len(s0)
        step = np.concatenate([rows[: H + (cell == "gru")], rows[start : start + len(s0)]])
        s = np.where(mask[t], recur(step, s, cell, 1)[0], s)
        states.append(s)
    return np.stack(states)


def sequence(label, cell, steps=3, n=2, layout=None):
    width, lead = GATES[cell] * H, H + (cell == "gru")
    rows = floats((lead + steps * n, width), -1.4, 1.4, gap=0.05, seed=1)
    s0 = floats((n, H * (1 + (cell == "lstm"))), -1, 1, seed=2)
    params = {"cell": cell, "steps": steps}
    if layout is transposed:
        return Sample(label, (np.array(rows.T), np.array(s0.T)), params, layout)
    return Sample(label, (rows, s0), params, *([layout] if layout else []))


def masked(label, cell, lengths=(3, 2), layout=None):
    """Return a sample whose steps from a row's length on are padding, or those before it if the length is negative."""
    sample = sequence(label, cell, 3, len(lengths), layout)
    t = np.arange(3)[:, None]
    mask = np.where(np.array(lengths) < 0, t >= 3 + np.array(lengths), t < lengths)[..., None]
    rows, s0 = sample.inputs
    return Sample(label, (rows, mask, s0), sample.params, sample.layout)


CASES = [
    Case(
        "recur",
        recur,
        [sequence(cell, cell) for cell in GATES]
        + [
            sequence("one step", "lstm", steps=1),
            sequence("one step of a gru", "gru", steps=1),
            sequence("one row", "gru", n=1),
            sequence("no rows", "lstm", n=0),
            sequence("transposed", "gru", layout=transposed),
            sequence("transposed lstm", "lstm", layout=transposed),
            sequence("negative stride", "tanh", layout=backwards),
        ],
        protocol=False,
        without={"0-d": "the state of a cell is a matrix"},
    ),
    Case(
        "recur_masked",
        recur_masked,
        [masked(cell, cell) for cell in GATES]
        + [
            masked("from the end", "lstm", lengths=(-1, -3)),
            masked("one row", "gru", lengths=(-2,)),
            masked("nothing", "gru", lengths=(0, 3)),
            masked("no rows", "lstm", lengths=()),
            masked("transposed", "gru", layout=transposed),
            masked("negative stride", "tanh", layout=backwards),
        ],
        protocol=False,
        without={"0-d": "the state of a cell is a matrix"},
    ),
]
