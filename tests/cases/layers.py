"""One row for each layer: how to make it, and inputs away from kinks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import microfw as mf
from microfw import nn
from tests.cases.ops import floats


@dataclass(frozen=True)
class LayerCase:
    """A layer's row."""

    kind: type[nn.Module]
    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    title: str
    label: str = ""

    @property
    def name(self):
        return f"{self.kind.__name__} {self.label}".strip()

    def inputs(self):
        return [floats(shape, -3, 3, gap=0.05) for shape in self.shapes]


def dense_pair():
    return nn.Sequential(nn.Dense(4, 3, rng=0), nn.Tanh(), nn.Dense(3, 2, rng=1))


IDS = np.array([[2, 0, 2], [3, 3, 1]])


class Weighed(nn.Module):
    """Looks up fixed indices, and multiplies what it finds by the input."""

    def __init__(self, padding=None):
        self.padding = padding
        self.table = nn.Embedding(5, 4, padding, rng=0)

    def forward(self, x):
        return self.table(IDS) * x


def outputs(result):
    return result[0]


def state(result):
    return np.concatenate(result[1], axis=1) if isinstance(result[1], tuple) else result[1]


def read(layer, part=outputs):
    return nn.Sequential(layer, nn.Lambda(part))


def residual(shortcut=None):
    return nn.Residual(nn.Sequential(nn.Dense(4, 4 if shortcut is None else 2, rng=0), nn.Tanh()), shortcut)


def started(layer):
    """Return a layer whose parameters and running statistics are not 0 or 1 any more."""
    for k, (_, p) in enumerate(layer._walk()):
        if isinstance(p, mf.Tensor):
            p.data = 1 + 0.3 * floats(p.shape, -1, 1, seed=k)
    return layer


def attention(**options):
    return started(nn.MultiHeadAttention(4, 2, rng=0, **options))


IMAGES = ((2, 2, 5, 4), (1, 2, 3, 3), (0, 2, 4, 4))

ANY = ((3, 4), (4,), (2, 3, 4))

LAYERS = [
    LayerCase(nn.Dense, lambda: nn.Dense(4, 3, rng=0), (*ANY, (0, 4), (1, 4)), "Dense(4 -> 3)"),
    LayerCase(nn.Dense, lambda: nn.Dense(4, 3, bias=False, rng=0), ANY, "Dense(4 -> 3, bias=False)", "without bias"),
    LayerCase(
        nn.Conv1D, lambda: nn.Conv1D(2, 3, 3, padding=1, rng=0), ((2, 2, 5), (0, 2, 4)), "Conv1D(2 -> 3, 3, padding=1)"
    ),
    LayerCase(
        nn.Conv2D, lambda: nn.Conv2D(2, 3, 3, padding="same", rng=0), IMAGES, "Conv2D(2 -> 3, 3×3, padding=same)"
    ),
    LayerCase(
        nn.Conv2D,
        lambda: nn.Conv2D(2, 4, (2, 3), 2, (1, 0), groups=2, bias=False, rng=0),
        IMAGES,
        "Conv2D(2 -> 4, 2×3, stride=2, padding=(1, 0), groups=2, bias=False)",
        "with settings",
    ),
    LayerCase(nn.MaxPool2D, lambda: nn.MaxPool2D(2), IMAGES, "MaxPool2D(2×2)"),
    LayerCase(
        nn.MaxPool2D, lambda: nn.MaxPool2D(3, 1, 1), IMAGES, "MaxPool2D(3×3, stride=1, padding=1)", "overlapping"
    ),
    LayerCase(nn.AvgPool2D, lambda: nn.AvgPool2D(2), IMAGES, "AvgPool2D(2×2)"),
    LayerCase(nn.GlobalAvgPool2D, nn.GlobalAvgPool2D, IMAGES, "GlobalAvgPool2D()"),
    LayerCase(nn.ReLU, nn.ReLU, (*ANY, (), (0, 4)), "ReLU()"),
    LayerCase(nn.LeakyReLU, lambda: nn.LeakyReLU(0.2), (*ANY, (), (0, 4)), "LeakyReLU(0.2)"),
    LayerCase(nn.Sigmoid, nn.Sigmoid, (*ANY, (), (0, 4)), "Sigmoid()"),
    LayerCase(nn.Tanh, nn.Tanh, (*ANY, (), (0, 4)), "Tanh()"),
    LayerCase(nn.GELU, nn.GELU, (*ANY, (), (0, 4)), "GELU()"),
    LayerCase(nn.GELU, lambda: nn.GELU("tanh"), (*ANY, (), (0, 4)), "GELU(tanh)", "by tanh"),
    LayerCase(nn.Softplus, nn.Softplus, (*ANY, (), (0, 4)), "Softplus()"),
    LayerCase(nn.Softmax, nn.Softmax, (*ANY, (0, 4)), "Softmax()"),
    LayerCase(nn.Softmax, lambda: nn.Softmax(axis=0), ANY, "Softmax()", "axis 0"),
    LayerCase(nn.LogSoftmax, nn.LogSoftmax, (*ANY, (0, 4)), "LogSoftmax()"),
    LayerCase(nn.Flatten, nn.Flatten, ((3, 4), (2, 3, 4), (3,), (0, 2, 2)), "Flatten()"),
    LayerCase(nn.Dropout, lambda: nn.Dropout(0.5, rng=0).eval(), (*ANY, (0, 4)), "Dropout(0.5)"),
    LayerCase(nn.PReLU, nn.PReLU, (*ANY, (), (0, 4)), "PReLU(1)"),
    LayerCase(nn.PReLU, lambda: started(nn.PReLU(4)), ((3, 4), (2, 4, 3), (2, 4, 2, 2)), "PReLU(4)", "by channel"),
    LayerCase(nn.ELU, lambda: nn.ELU(0.7), (*ANY, (), (0, 4)), "ELU(0.7)"),
    LayerCase(nn.SiLU, nn.SiLU, (*ANY, (), (0, 4)), "SiLU()"),
    LayerCase(nn.Mish, nn.Mish, (*ANY, (), (0, 4)), "Mish()"),
    LayerCase(nn.Softsign, nn.Softsign, (*ANY, (), (0, 4)), "Softsign()"),
    LayerCase(nn.Identity, nn.Identity, (*ANY, (), (0, 4)), "Identity()"),
    LayerCase(nn.Lambda, lambda: nn.Lambda(np.sin), (*ANY, (), (0, 4)), "Lambda(sin)"),
    LayerCase(nn.BatchNorm1D, lambda: started(nn.BatchNorm1D(4)), ((5, 4), (2, 4, 3)), "BatchNorm1D(4)"),
    LayerCase(nn.BatchNorm1D, lambda: nn.BatchNorm1D(4, affine=False), ((5, 4), (2, 4, 3)), "BatchNorm1D(4, affine=False)", "plain"),
    LayerCase(nn.BatchNorm2D, lambda: started(nn.BatchNorm2D(3)), ((2, 3, 2, 2), (1, 3, 1, 3)), "BatchNorm2D(3)"),
    LayerCase(nn.LayerNorm, lambda: started(nn.LayerNorm(4)), (*ANY, (0, 4)), "LayerNorm(4)"),
    LayerCase(nn.LayerNorm, lambda: started(nn.LayerNorm((3, 4))), ((3, 4), (2, 3, 4)), "LayerNorm((3, 4))", "two axes"),
    LayerCase(nn.LayerNorm, lambda: nn.LayerNorm(4, affine=False), ANY, "LayerNorm(4, affine=False)", "plain"),
    LayerCase(nn.GroupNorm, lambda: started(nn.GroupNorm(2, 4)), ((3, 4), (2, 4, 3), (2, 4, 2, 2), (0, 4)), "GroupNorm(2, 4)"),
    LayerCase(nn.GroupNorm, lambda: nn.GroupNorm(2, 4, affine=False), ((3, 4),), "GroupNorm(2, 4, affine=False)", "plain"),
    LayerCase(nn.Embedding, Weighed, ((2, 3, 4), (4,)), "Weighed()"),
    LayerCase(nn.Embedding, lambda: Weighed(3), ((2, 3, 4),), "Weighed()", "padding"),
    LayerCase(nn.Residual, residual, (*ANY, (0, 4)), "Residual()"),
    LayerCase(nn.Residual, lambda: residual(nn.Dense(4, 2, rng=1)), ANY, "Residual()", "shortcut"),
    LayerCase(nn.RNN, lambda: read(started(nn.RNN(4, 3, rng=0))), ((2, 3, 4), (1, 1, 4), (0, 2, 4)), "Sequential()"),
    LayerCase(nn.RNN, lambda: read(started(nn.RNN(4, 3, nonlinearity="relu", rng=0)), state), ((2, 3, 4),), "Sequential()", "relu, state"),
    LayerCase(nn.GRU, lambda: read(started(nn.GRU(4, 3, rng=0))), ((2, 3, 4), (1, 1, 4), (0, 2, 4)), "Sequential()"),
    LayerCase(nn.GRU, lambda: read(nn.GRU(4, 3, bias=False, rng=0), state), ((2, 3, 4),), "Sequential()", "without bias, state"),
    LayerCase(nn.LSTM, lambda: read(started(nn.LSTM(4, 3, rng=0))), ((2, 3, 4), (1, 1, 4), (0, 2, 4)), "Sequential()"),
    LayerCase(nn.LSTM, lambda: read(nn.LSTM(4, 3, bias=False, rng=0), state), ((2, 3, 4),), "Sequential()", "without bias, state"),
    LayerCase(nn.MultiHeadAttention, attention, ((2, 3, 4), (1, 1, 4), (0, 2, 4)), "MultiHeadAttention(4, 2 heads)"),
    LayerCase(nn.MultiHeadAttention, lambda: attention(causal=True, bias=False), ((2, 3, 4),), "MultiHeadAttention(4, 2 heads, causal)", "causal"),
    LayerCase(nn.Sequential, dense_pair, ((3, 4), (4,), (0, 4)), "Sequential()"),
]  # fmt: skip
