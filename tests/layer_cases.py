"""One row for each layer: how to make it, and inputs away from kinks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from op_cases import floats

from microfw import nn


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
    LayerCase(nn.Sequential, dense_pair, ((3, 4), (4,), (0, 4)), "Sequential()"),
]
