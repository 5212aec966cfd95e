"""Arrays, models and Tensors whose entries tests change."""

from __future__ import annotations

import numpy as np

import microfw as mf
from microfw import nn, optim

W = np.arange(6.0).reshape(3, 2) + 1
X = np.arange(12.0).reshape(4, 3) - 5


class Model(nn.Module):
    """Two products, so that the gradient of the first weight needs the second."""

    def __init__(self):
        self.first = nn.Parameter(W, np.float64)
        self.second = nn.Parameter(W.T * 0.5, np.float64)

    def forward(self, x):
        return np.sum(np.square(np.matmul(np.matmul(x, self.first), self.second)))


def right(x=X):
    model = Model()
    model(x).backward()
    return [p.grad.copy() for p in model.parameters()]


def parameter(owned):
    p = nn.Parameter(W, np.float64)
    if owned:
        optim.SGD([p], lr=0.1)
    return p


SUBJECTS = {
    "leaf": lambda: mf.tensor(W, requires_grad=True),
    "constant": lambda: mf.tensor(W),
    "parameter": lambda: parameter(False),
    "owned parameter": lambda: parameter(True),
    "result": lambda: mf.tensor(W, requires_grad=True) * 2.0,
    "view of a result": lambda: (mf.tensor(W.T, requires_grad=True) * 2.0).T,
    "result of a view": lambda: mf.tensor(np.tile(W, (2, 1)), requires_grad=True)[:3],
    "broadcast": lambda: np.broadcast_to(mf.tensor(W[:1], requires_grad=True), (3, 2)),
    "detached leaf": lambda: mf.tensor(W, requires_grad=True).detach(),
    "detached result": lambda: (mf.tensor(W) * 2.0).detach(),
    "result without a graph": lambda: mf.tensor(W) * 2.0,
    "scalar": lambda: np.sum(mf.tensor(W, requires_grad=True)),
}


def used(t):
    """Compute something whose rules need the values; return what backward gives another leaf and this one."""
    other = mf.tensor(np.full(t.shape, 3.0), requires_grad=True)
    return other, np.sum(t * other * t)
