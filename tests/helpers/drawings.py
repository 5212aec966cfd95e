"""Models whose graphs tests draw."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np

import microfw as mf
from microfw import nn
from microfw.visualization import svg as pen
from microfw.visualization.layout import place
from microfw.visualization.text import columns, short

X = np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8)


class Skip(nn.Module):
    def __init__(self, *layers):
        self.body = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.body(x)


class Tied(nn.Module):
    """A weight used twice, residual blocks, and ops of the model's own."""

    def __init__(self):
        self.encode = nn.Dense(8, 8, rng=0)
        self.block = Skip(nn.Dense(8, 8, rng=1), nn.ReLU(), Skip(nn.Dense(8, 8, rng=2), nn.Tanh()))

    def forward(self, x):
        return (self.block(self.encode(x)) - 0.5) @ self.encode.weight.T


def deep(n=12):
    return nn.Sequential(*(layer for k in range(n) for layer in (nn.Dense(8, 8, rng=k), nn.ReLU())))


def digits():
    model = nn.Sequential(nn.Dense(8, 6, rng=0), nn.ReLU(), nn.Dense(6, 3, rng=1))
    return nn.CrossEntropyLoss()(model(X), np.arange(4) % 3), model


def with_mse(make):
    def build():
        model = make()
        return nn.MSELoss()(model(X), X), model

    return build


class Recurrent(nn.Module):
    def __init__(self):
        self.inner, self.outer = nn.Dense(8, 8, rng=0), nn.Dense(8, 8, rng=1)

    def forward(self, x):
        h = np.zeros_like(x)
        for _ in range(4):
            h = np.tanh(self.inner(h) + self.outer(x))
        return h


def scalars():
    x, beta = mf.tensor([-2.0, 0.0, 2.0], requires_grad=True), mf.tensor(1.5, requires_grad=True)
    y = x / (1 + np.exp(-beta * x)) + np.sin(x * x)
    return (y * y).sum(), None


def ladder():
    x = mf.tensor(np.ones(3), requires_grad=True)
    return sum(np.sin(x * k) for k in range(12)).sum(), None


def regression():
    w, b = (mf.tensor(np.ones(shape), requires_grad=True) for shape in ((8, 1), (1,)))
    return ((X.astype(float) @ w + b - 1.0) ** 2).mean(), None


def tangled():
    """Ops that use earlier results at random."""
    rng = np.random.default_rng(0)
    made = [mf.tensor(1.0, requires_grad=True) for _ in range(4)]
    for _ in range(36):
        a, b = rng.integers(0, len(made), 2)
        made.append(made[a] * made[b] if rng.random() < 0.7 else np.sin(made[a]))
    return sum(made), None


CASES = {
    "digits": digits, "tied": with_mse(Tied), "recurrent": with_mse(Recurrent), "deep": with_mse(deep),
    "scalars": scalars, "ladder": ladder, "regression": regression, "tangled": tangled,
}  # fmt: skip


def laid_out(drawing):
    """The layout that the SVG is written from, with down and right for along and across."""
    picture = drawing.picture
    sizes = {op.id: pen.op_size(op) for op in picture.ops} | {a.id: pen.leaf_size(picture, a) for a in picture.leaves}
    titles = [columns(short(box.title, 44)) * pen.SMALL * pen.EM for box in picture.boxes]
    return place(picture, {k: s[::-1] if drawing.tall else s for k, s in sizes.items()}, titles, drawing.tall)


def elements(drawing, kind):
    root = ElementTree.fromstring(drawing.svg)
    return [g for g in root.iter("{http://www.w3.org/2000/svg}g") if g.get("class") == kind]


def apart(a, b):
    return a.u + a.du < b.u or b.u + b.du < a.u or a.v + a.dv < b.v or b.v + b.dv < a.v
