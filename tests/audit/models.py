"""Forty models, and layers by their rows, each with the operations that its products take, by formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import microfw as mf
from microfw import nn
from tests.audit.products import added, attention, conv, dense, product, recurrent
from tests.cases.layers import LAYERS

ROWS = 24


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def labels(rows, classes, seed=1):
    return np.random.default_rng(seed).integers(0, classes, rows)


def squares(output, targets):
    return (output * output).mean()


@dataclass(frozen=True)
class Model:
    """A model, what it is fed, and what its products take in one step."""

    name: str
    make: Callable[[], nn.Module]
    data: Callable[[], tuple[Any, Any]]
    products: tuple[int, int]
    loss: Callable[[Any, Any], mf.Tensor] = squares
    overhead_bytes: int = 0
    """Bytes that its graph keeps besides what ops saved, such as the rest of an array of which a view was saved."""

    def run(self, model, x, y):
        output = model(*x) if isinstance(x, tuple) else model(x)
        return self.loss(output[0] if isinstance(output, tuple) else output, y)


def features(*shape):
    return lambda: (numbers(*shape), None)


def classes(shape, count):
    return lambda: (numbers(*shape), labels(shape[0], count))


def sequential(*layers):
    return lambda: nn.Sequential(*(layer() for layer in layers))


def d(ins, outs, **settings):
    return lambda: nn.Dense(ins, outs, rng=ins + outs, **settings)


def frozen(make, *places):
    def made():
        model = make()
        for place in places:
            model[place].requires_grad_(False)
        return model

    return made


class Shared(nn.Module):
    """One layer, three times."""

    def __init__(self):
        self.layer = nn.Dense(8, 8, rng=0)

    def forward(self, x):
        return self.layer(np.tanh(self.layer(np.tanh(self.layer(x)))))


class Matrices(nn.Module):
    """Products of bare parameters."""

    def __init__(self):
        self.a, self.b = nn.Parameter(numbers(12, 6)), nn.Parameter(numbers(5, 6, 7))

    def forward(self, x):
        return np.matmul(x @ self.a, self.b)


class Gram(nn.Module):
    """A product of a result with itself."""

    def __init__(self):
        self.w = nn.Parameter(numbers(8, 8))

    def forward(self, x):
        h = x @ self.w
        return h @ h.T


class Branches(nn.Module):
    """Two ways, joined."""

    def __init__(self):
        self.left, self.right, self.head = (nn.Dense(*s, rng=k) for k, s in enumerate([(10, 6), (10, 4), (10, 3)]))

    def forward(self, x):
        return self.head(np.concatenate([np.tanh(self.left(x)), self.right(x)], axis=1))


class Tied(nn.Module):
    """An encoder whose weight, turned, decodes."""

    def __init__(self):
        self.encoder = nn.Dense(12, 5, rng=0)

    def forward(self, x):
        return np.tanh(self.encoder(x)) @ self.encoder.weight.T


class Low(nn.Module):
    """A fixed matrix after one that is trained."""

    def __init__(self):
        self.u, self.v = nn.Parameter(numbers(9, 4)), nn.Parameter(numbers(4, 6))
        self.v.requires_grad = False

    def forward(self, x):
        return x @ self.u @ self.v


class Broadcast(nn.Module):
    """A vector that is read as a matrix."""

    def __init__(self):
        self.v, self.w = nn.Parameter(numbers(100)), nn.Parameter(numbers(100, 100))

    def forward(self, x):
        return np.broadcast_to(self.v * 2.0, (100, 100)) * self.w


class Rows(nn.Module):
    """Entries picked by arrays of indices."""

    def __init__(self):
        self.w = nn.Parameter(numbers(50, 40))

    def forward(self, rows, columns):
        return self.w[rows, columns]


class Halves(nn.Module):
    """Parts of an array, each used on its own."""

    def __init__(self):
        self.layer = nn.Dense(6, 8, rng=0)

    def forward(self, x):
        h = self.layer(x)
        return h[:, :4] * np.tanh(h[:, 4:])


class InPart(nn.Module):
    """A model of which a part is a checkpoint."""

    def __init__(self):
        self.first, self.block, self.last = nn.Dense(9, 8, rng=0), sequential(d(8, 8), nn.Tanh)(), nn.Dense(8, 2, rng=2)

    def forward(self, x):
        return self.last(mf.checkpoint(self.block, self.first(x)))


def entropy(output, targets):
    return nn.CrossEntropyLoss()(output, targets)


mlp = sequential(d(20, 16), nn.ReLU, d(16, 10))
deep = sequential(d(12, 8), nn.Tanh, d(8, 8), nn.Tanh, d(8, 8), nn.Tanh, d(8, 3))
convolutional = sequential(
    lambda: nn.Conv2D(1, 4, 3, rng=0), nn.ReLU, lambda: nn.MaxPool2D(2), nn.Flatten, lambda: nn.Dense(36, 5, rng=1)
)
R = ROWS

MODELS = [
    Model("one layer", d(5, 4), features(R, 5), dense(R, 5, 4, first=True)),
    Model("no bias", d(5, 4, bias=False), features(R, 5), dense(R, 5, 4, first=True)),
    Model("a classifier", mlp, classes((R, 20), 10), added(dense(R, 20, 16, first=True), dense(R, 16, 10)), entropy),
    Model("deep", deep, features(R, 12), added(dense(R, 12, 8, first=True), *[dense(R, 8, 8)] * 2, dense(R, 8, 3))),
    Model("one row", mlp, features(1, 20), added(dense(1, 20, 16, first=True), dense(1, 16, 10))),
    Model("rows as many as features", sequential(d(16, 16), nn.ReLU, d(16, 16)), features(16, 16),
          added(dense(16, 16, 16, first=True), dense(16, 16, 16))),
    Model("three axes", d(6, 4), features(7, 5, 6), dense(35, 6, 4, first=True)),
    Model("first layer frozen", frozen(mlp, 0), classes((R, 20), 10),
          added((dense(R, 20, 16)[0], 0), dense(R, 16, 10, first=True)), entropy),
    Model("last layer frozen", frozen(mlp, 2), classes((R, 20), 10),
          added(dense(R, 20, 16, first=True), dense(R, 16, 10, trained=False)), entropy),
    Model("middle layers frozen", frozen(deep, 2, 4), features(R, 12),
          added(dense(R, 12, 8, first=True), *[dense(R, 8, 8, trained=False)] * 2, dense(R, 8, 3))),
    Model("all but the last frozen", frozen(deep, 0, 2, 4), features(R, 12),
          added(*((p[0], 0) for p in (dense(R, 12, 8), *[dense(R, 8, 8)] * 2)), dense(R, 8, 3, first=True))),
    Model("normalized in batches", sequential(d(8, 6), lambda: nn.BatchNorm1D(6), nn.ReLU, d(6, 2)), features(R, 8),
          added(dense(R, 8, 6, first=True), dense(R, 6, 2))),
    Model("normalized in rows", sequential(d(8, 6), lambda: nn.LayerNorm(6), nn.GELU, d(6, 2)), features(R, 8),
          added(dense(R, 8, 6, first=True), dense(R, 6, 2))),
    Model("dropout", sequential(d(8, 6), lambda: nn.Dropout(0.5, rng=0), d(6, 2)), features(R, 8),
          added(dense(R, 8, 6, first=True), dense(R, 6, 2))),
    Model("activations", sequential(d(8, 6), nn.SiLU, nn.Softplus, nn.ELU, nn.Mish, nn.PReLU, nn.Softsign, d(6, 2)),
          features(R, 8), added(dense(R, 8, 6, first=True), dense(R, 6, 2))),
    Model("softmax", sequential(d(8, 6), nn.Softmax, nn.LogSoftmax), features(R, 8), dense(R, 8, 6, first=True)),
    Model("convolutional", convolutional, classes((R, 1, 8, 8), 5),
          added(conv(R, (6, 6), 1, 4, (3, 3), first=True), dense(R, 36, 5)), entropy),
    Model("two convolutions", sequential(lambda: nn.Conv2D(2, 3, 3, padding=1, rng=0), nn.ReLU,
                                         lambda: nn.Conv2D(3, 4, 3, stride=2, rng=1)), features(4, 2, 9, 9),
          added(conv(4, (9, 9), 2, 3, (3, 3), first=True), conv(4, (4, 4), 3, 4, (3, 3)))),
    Model("groups", sequential(lambda: nn.Conv2D(4, 8, 3, groups=2, rng=0), lambda: nn.Conv2D(8, 8, 3, groups=8, rng=1)),
          features(3, 4, 8, 8),
          added(conv(3, (6, 6), 4, 8, (3, 3), groups=2, first=True), conv(3, (4, 4), 8, 8, (3, 3), groups=8))),
    Model("one by one", sequential(lambda: nn.Conv2D(3, 5, 1, rng=0), nn.ReLU, lambda: nn.Conv2D(5, 2, 1, rng=1)),
          features(4, 3, 6, 6), added(conv(4, (6, 6), 3, 5, (1, 1), first=True), conv(4, (6, 6), 5, 2, (1, 1)))),
    Model("dilated", lambda: nn.Conv2D(2, 3, 3, dilation=2, rng=0), features(4, 2, 9, 9),
          conv(4, (5, 5), 2, 3, (3, 3), first=True)),
    Model("along one axis", sequential(lambda: nn.Conv1D(3, 6, 4, rng=0), nn.Tanh, lambda: nn.Conv1D(6, 2, 3, rng=1)),
          features(5, 3, 16), added(conv(5, (13,), 3, 6, (4,), first=True), conv(5, (11,), 6, 2, (3,)))),
    Model("average pooling", sequential(lambda: nn.Conv2D(1, 4, 3, rng=0), lambda: nn.AvgPool2D(2), nn.Flatten, d(36, 3)),
          features(R, 1, 8, 8), added(conv(R, (6, 6), 1, 4, (3, 3), first=True), dense(R, 36, 3))),
    Model("pooled to one", sequential(lambda: nn.Conv2D(1, 4, 3, rng=0), lambda: nn.BatchNorm2D(4), nn.ReLU,
                                      nn.GlobalAvgPool2D, d(4, 3)),
          features(R, 1, 8, 8), added(conv(R, (6, 6), 1, 4, (3, 3), first=True), dense(R, 4, 3))),
    Model("a frozen convolution", frozen(convolutional, 0), features(R, 1, 8, 8),
          added((conv(R, (6, 6), 1, 4, (3, 3))[0], 0), dense(R, 36, 5, first=True))),
    Model("residual", sequential(d(6, 6), lambda: nn.Residual(sequential(d(6, 6), nn.ReLU, d(6, 6))())), features(R, 6),
          added(dense(R, 6, 6, first=True), *[dense(R, 6, 6)] * 2)),
    Model("shared", Shared, features(R, 8), added(dense(R, 8, 8, first=True), *[dense(R, 8, 8)] * 2)),
    Model("branches", Branches, features(R, 10),
          added(dense(R, 10, 6, first=True), dense(R, 10, 4, first=True), dense(R, 10, 3))),
    Model("tied", Tied, features(R, 12), added(dense(R, 12, 5, first=True), dense(R, 5, 12))),
    Model("plain recurrent", lambda: nn.RNN(3, 5, rng=0), features(6, 7, 3), recurrent(6, 7, 3, 5, 1, first=True)),
    Model("GRU", lambda: nn.GRU(3, 5, rng=0), features(6, 7, 3), recurrent(6, 7, 3, 5, 3, first=True)),
    Model("LSTM", lambda: nn.LSTM(3, 5, rng=0), features(6, 7, 3), recurrent(6, 7, 3, 5, 4, first=True)),
    Model("an LSTM above a layer", sequential(d(4, 3), lambda: nn.LSTM(3, 5, rng=0)), features(6, 7, 4),
          added(dense(42, 4, 3, first=True), recurrent(6, 7, 3, 5, 4))),
    Model("attention", lambda: nn.MultiHeadAttention(8, 2, rng=0), features(3, 5, 8), attention(3, 5, 5, 8, first=True)),
    Model("attention, causal", sequential(d(4, 8), lambda: nn.MultiHeadAttention(8, 4, causal=True, rng=0)),
          features(3, 6, 4), added(dense(18, 4, 8, first=True), attention(3, 6, 6, 8))),
    Model("an embedding", sequential(lambda: nn.Embedding(11, 6, rng=0), nn.Flatten, d(18, 4)),
          lambda: (labels(R * 3, 11).reshape(R, 3), None), dense(R, 18, 4)),
    Model("matrices", Matrices, features(9, 12),
          added(product(2 * 9 * 12 * 6, first=True), product(2 * 5 * 9 * 6 * 7))),
    Model("a product with itself", Gram, features(R, 8), added(dense(R, 8, 8, first=True), product(2 * R * R * 8))),
    Model("a fixed factor", Low, features(R, 9), added(dense(R, 9, 4, first=True), dense(R, 4, 6, trained=False))),
    Model("a vector read as a matrix", Broadcast, features(1, 1), (0, 0)),
    Model("entries by index", Rows, lambda: ((labels(5000, 50), labels(5000, 40)), None), (0, 0)),
    Model("halves", Halves, features(R, 6), dense(R, 6, 8, first=True)),
    Model("a checkpoint inside", InPart, features(R, 9),
          added(dense(R, 9, 8, first=True), dense(R, 8, 8), (0, dense(R, 8, 8)[0]), dense(R, 8, 2)),
          overhead_bytes=4 * R * 8),  # what goes into the checkpoint, kept to run it again
]  # fmt: skip
MODELS += [
    Model(case.name, case.make, features(*case.shapes[0]), case.products) for case in LAYERS if any(case.products)
]
