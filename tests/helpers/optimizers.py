"""Functions to minimise, and gradients to give."""

from __future__ import annotations

import numpy as np

import microfw as mf
from microfw import optim


def given(values, owned=True):
    """Return parameters with gradients, of which None is none."""
    parameters = [mf.tensor(np.zeros(np.shape(v if v is not None else 0)), requires_grad=True) for v in values]
    optimizer = optim.SGD(parameters, lr=1.0) if owned else None
    for p, v in zip(parameters, values, strict=True):
        p.grad = v
    return parameters, optimizer


def leaves(dtype=np.float64):
    rng = np.random.default_rng(0)
    return [mf.tensor(rng.standard_normal(s).astype(dtype), requires_grad=True) for s in ((3, 2), (2,), (), (2, 2, 2))]


def rosenbrock(p):
    x, y = p[::2], p[1::2]
    return ((1 - x) ** 2 + 100 * (y - x**2) ** 2).sum()
