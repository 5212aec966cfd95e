"""Rows of the recurrent op: each kind of cell, step by step as it is published."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from tests.cases.samples import Case, Sample, backwards, floats, transposed

GATES = {"tanh": 1, "relu": 1, "gru": 3, "lstm": 4}
H = 2


def recur(rows, s0, cell, steps):
    lead = cell == "gru"
    w, a = rows[:, lead : lead + H], rows[:, lead + H :].reshape(len(rows), steps, *s0.shape[1:])
    s, states = s0, []
    for t in range(steps):
        u = s[0] @ w + (rows[:, :1] if lead else 0)
        if cell in ("tanh", "relu"):
            s = np.tanh(a[:, t] + u) if cell == "tanh" else np.maximum(a[:, t] + u, 0)
        elif cell == "gru":
            r, z, _ = expit(a[:, t] + u)
            n = np.tanh(a[2, t] + r * u[2])
            s = (1 - z) * n + z * s
        else:
            i, f, g, o = a[:, t] + u
            c = expit(f) * s[1] + expit(i) * np.tanh(g)
            s = np.stack([expit(o) * np.tanh(c), c])
        states.append(s)
    return np.stack(states, 1)


def recur_masked(rows, mask, s0, cell, steps):
    s, states, n = s0, [], s0.shape[1]
    for t in range(steps):
        start = rows.shape[1] - (steps - t) * n
        step = np.concatenate([rows[:, : H + (cell == "gru")], rows[:, start : start + n]], 1)
        s = np.where(mask[t], recur(step, s, cell, 1)[:, 0], s)
        states.append(s)
    return np.stack(states, 1)


def recurrent_inputs(x, weight, bias, state, gates, start):
    return np.stack(np.split(np.concatenate([state, x @ weight + bias]), gates, 1))


def sequence(label, cell, steps=3, n=2, layout=None):
    rows = floats((GATES[cell], H + (cell == "gru") + steps * n, H), -1.4, 1.4, gap=0.05, seed=1)
    s0 = floats((1 + (cell == "lstm"), n, H), -1, 1, seed=2)
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


def layer(label, gates, rows=4, start=H, layout=None):
    """Return a sample of a layer's parameters, with 3 input features."""
    shapes = [(rows, 3), (3, gates * H), (gates * H,), (start, gates * H)]
    inputs = [floats(shape, seed=k) for k, shape in enumerate(shapes)]
    if layout is transposed:
        inputs = [np.array(x.T) for x in inputs]
    return Sample(label, tuple(inputs), {"gates": gates, "start": start}, *([layout] if layout else []))


CASES = [
    Case(
        "recurrent_inputs",
        recurrent_inputs,
        [
            layer("plain", 1),
            layer("gru", 3, start=H + 1),
            layer("lstm", 4),
            layer("one row", 4, rows=1),
            layer("no rows", 3, rows=0),
            layer("transposed", 3, layout=transposed),
            layer("negative stride", 3, layout=backwards),
        ],
        protocol=False,
        without={"0-d": "weights are matrices"},
    ),
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
        without={"0-d": "the states of a cell are matrices"},
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
        without={"0-d": "the states of a cell are matrices"},
    ),
]
