"""Models as users write them, each by a function that returns model, loss, X and y."""

from __future__ import annotations

import numpy as np

import microfw as mf
from microfw import nn

HOSTILE = "</script><img src=x onerror=alert(1)>"


def data(*shape, classes=3):
    rng = np.random.default_rng(0)
    return rng.normal(size=shape).astype("f4"), rng.integers(0, classes, shape[0])


class Gated(nn.Module):
    def __init__(self, n, k):
        self.value, self.gate = nn.Dense(n, k, rng=0), nn.Dense(n, k, rng=1)

    def forward(self, x):
        return self.value(x) * mf.ops.sigmoid(self.gate(x))


class Tied(nn.Module):
    def __init__(self):
        self.w = nn.Parameter(data(4, 3)[0])
        self.bias = nn.Parameter(np.zeros(4))

    def forward(self, x):
        return np.tanh(x @ self.w) @ self.w.T + self.bias


class Loop(nn.Module):
    def __init__(self):
        self.cell, self.head = nn.Dense(7, 5, rng=0), nn.Dense(5, 2, rng=1)

    def forward(self, x):
        h = np.zeros((len(x), 5), "f4")
        for t in range(x.shape[1]):
            h = np.tanh(self.cell(np.concatenate([x[:, t], h], axis=1)))
        return self.head(h)


class Last(nn.Module):
    def __init__(self):
        self.rnn, self.head = nn.GRU(3, 4, rng=0), nn.Dense(4, 2, rng=1)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class Block(nn.Module):
    def __init__(self, d):
        self.norm, self.attention, self.mlp = (
            nn.LayerNorm(d),
            nn.MultiHeadAttention(d, 2, rng=0),
            nn.Dense(d, d, rng=1),
        )

    def forward(self, x):
        h = self.norm(x)
        x = x + self.attention(h, h, h)
        return (x + mf.ops.relu(self.mlp(x))).mean(axis=1)


class Words(nn.Module):
    def __init__(self):
        self.table, self.out = nn.Embedding(11, 3, rng=0), nn.Dense(6, 11, rng=1)

    def forward(self, words):
        return self.out(self.table(words).reshape(len(words), -1))


@mf.op(vjp=lambda g, x: 3 * x * x * g, name="cube_of_a_user")
def cube(x):
    """x ** 3, without a cost."""
    return x**3


class Cubic(nn.Module):
    def __init__(self):
        self.dense = nn.Dense(4, 1, rng=0)

    def forward(self, x):
        return cube(self.dense(x))


class Hostile(nn.Module):
    def __init__(self):
        setattr(self, HOSTILE, nn.Dense(4, 3, rng=0))
        self.blocks = [nn.Residual(nn.Dense(3, 3, rng=k)) for k in range(2)]

    def forward(self, x):
        x = getattr(self, HOSTILE)(x)
        for block in self.blocks:
            x = block(x)
        return x


def gated():
    return nn.Sequential(Gated(4, 6), nn.Dense(6, 3, rng=2)), nn.CrossEntropyLoss(), *data(16, 4)


def tied():
    X, _ = data(16, 4)
    return Tied(), nn.MSELoss(), X, X


def convolution():
    layers = nn.Conv2D(1, 3, 3, rng=0), nn.ReLU(), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(12, 3, rng=1)
    return nn.Sequential(*layers), nn.CrossEntropyLoss(), *data(8, 1, 6, 6)


def python_loop():
    return Loop(), nn.CrossEntropyLoss(), *data(8, 4, 2, classes=2)


def recurrent():
    return Last(), nn.CrossEntropyLoss(), *data(8, 5, 3, classes=2)


def attention():
    return nn.Sequential(Block(4), nn.Dense(4, 2, rng=0)), nn.CrossEntropyLoss(), *data(6, 5, 4, classes=2)


def words():
    rng = np.random.default_rng(0)
    return Words(), nn.CrossEntropyLoss(), rng.integers(0, 11, (12, 2)), rng.integers(0, 11, 12)


def frozen():
    body = nn.Sequential(nn.Dense(4, 6, rng=0), nn.Tanh()).requires_grad_(False)
    return nn.Sequential(body, nn.Dense(6, 3, rng=1)), nn.CrossEntropyLoss(), *data(16, 4)


def custom_op():
    return Cubic(), lambda out, y: ((out - y) ** 2).mean(), data(16, 4)[0], data(16, 1)[0]


def hostile():
    return Hostile(), nn.CrossEntropyLoss(), *data(16, 4)


def noise():
    layers = nn.Dense(4, 8, rng=0), nn.BatchNorm1D(8), nn.ReLU(), nn.Dropout(0.3, rng=0), nn.Dense(8, 1, rng=1)
    return nn.Sequential(*layers), nn.MSELoss(), data(16, 4)[0], data(16, 1)[0]
