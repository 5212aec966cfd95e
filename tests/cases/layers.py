"""One row for each layer: how to make it, and inputs away from kinks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import microfw as mf
from microfw import nn
from tests.cases.ops import floats

# Contracts: the shape of the output for the shape of an input; None where the layer must raise


def last(n, to):
    """Return the contract of a layer of vectors: the last axis goes from one length to another."""
    return lambda s: (*s[:-1], to) if s[-1:] == (n,) else None


def steps(c, to):
    return lambda s: (*s[:2], to) if len(s) == 3 and s[2] == c and s[1] else None


def final(c, to):
    return lambda s: (s[0], to) if len(s) == 3 and s[2] == c and s[1] else None


def vectors(c, to):
    return lambda s: (s[0], to) if len(s) == 2 and s[1] == c else None


def windows(channels, to, kernel, stride, pads):
    def contract(s):
        if len(s) != len(kernel) + 2 or channels not in (None, s[1]):
            return None
        places = [(n + 2 * p - k) // t + 1 for n, k, t, p in zip(s[2:], kernel, stride, pads, strict=True)]
        return (s[0], s[1] if to is None else to, *places) if min(places) > 0 else None

    return contract


def spread(channels, to, kernel, stride, pads, extra=(0, 0)):
    def contract(s):
        if len(s) != len(kernel) + 2 or s[1] != channels or 0 in s[2:]:
            return None
        rules = zip(s[2:], kernel, stride, pads, extra, strict=False)
        sides = [(n - 1) * t - 2 * p + k + more for n, k, t, p, more in rules]
        return (s[0], to, *sides) if min(sides) > 0 else None

    return contract


def scaled(factors):
    def contract(s):
        fits = len(s) == len(factors) + 2 and 0 not in s[2:]
        return (*s[:2], *(n * k for n, k in zip(s[2:], factors, strict=True))) if fits else None

    return contract


def same_if(test):
    return lambda s: s if test(s) else None


SAME = same_if(lambda s: True)
CHANNELS = same_if(lambda s: len(s) >= 2 and s[1] == 4)
GROUPED = same_if(lambda s: len(s) >= 2 and s[1] == 4 and 0 not in s[2:])
BATCH = same_if(lambda s: len(s) in (2, 3) and s[1] == 4 and s[0] * (*s, 1)[2] > 1)
ATTENTION = same_if(lambda s: len(s) == 3 and s[2] == 4 and s[1] > 0)
ALONG = {0: same_if(lambda s: len(s) and s[0]), -1: same_if(lambda s: len(s) and s[-1])}


@dataclass(frozen=True)
class LayerCase:
    """A layer's row. A new layer gives `contract` and the fields below in one row; `tests/nn/test_rows.py` names those missing."""

    kind: type[nn.Module]
    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    title: str
    """How the first line of its repr begins."""
    label: str = ""
    contract: Callable[[tuple[int, ...]], tuple[int, ...] | None] = SAME
    """The shape of the output for any shape of an input, None where the layer raises; by default all shapes stay."""
    torch: Callable[[Any], Any] | str = ""
    """``torch(torch)`` makes PyTorch's layer, with parameters of the same names and shapes; or why there is none."""
    reference: Callable[[Any, Any], Any] | None = None
    """``reference(layer, x)`` computes the output with NumPy alone; needed if PyTorch has no such layer."""
    program: str | Callable[[Any, tuple[int, ...]], tuple[str, tuple[int, ...]] | None] = ""
    """How a random program writes the layer: a text, if the layer keeps the shape of each input; else a function.

    ``program(d, shape)`` returns the text and the shape of the output, or None if the layer does not take the shape. Shapes
    are without the axis of rows; ``d`` draws: ``d.integer(1, 3)``, ``d.choice([...])``, ``d.seed()``.
    """
    products: tuple[int, int] = (0, 0)
    """Operations of its matrix products in one step on the first shape, forward and backward; a multiply-add is two.

    The input needs no gradient there. Needed if a parameter has two axes or more.
    """

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


def state(result):
    parts = result[1] if isinstance(result[1], tuple) else (result[1],)
    # the rows first, which are behind layers and directions
    return np.concatenate([part if part.ndim == 2 else part.transpose((1, 0, 2)) for part in parts], axis=1)


def read(layer):
    """Return a model of a recurrent layer's outputs."""
    return nn.Sequential(layer, nn.Identity())


class Read(nn.Module):
    """The last state of a recurrent layer."""

    def __init__(self, layer):
        self.layer = layer

    def forward(self, x):
        return state(self.layer(x))


class Ragged(nn.Module):
    """Outputs and last state of a recurrent layer, of rows of 1, 2, … steps, up to all and again from 1."""

    def __init__(self, layer):
        self.layer = layer

    def forward(self, x):
        n, steps = np.shape(x)[:2]
        outputs, last = self.layer(x, lengths=1 + np.arange(n) % steps)
        return np.concatenate([outputs.reshape((n, -1)), state((None, last)).reshape((n, -1))], axis=1)


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

SEQUENCES = ((2, 2, 5), (1, 2, 2), (0, 2, 4))

ANY = ((3, 4), (4,), (2, 3, 4))


# How random programs write layers; `d` draws


def longer(d, shape):
    if len(shape) != 2:
        return None
    to, kernel, stride = d.integer(1, 4), d.integer(1, 3), d.integer(1, 2)
    text = f"nn.ConvTranspose1D({shape[0]}, {to}, {kernel}, {stride}{d.choice(['', ', bias=False'])}, rng={d.seed()})"
    return text, (to, (shape[1] - 1) * stride + kernel)


def larger(d, shape):
    if len(shape) != 3:
        return None
    to, (kernel, stride, padding, extra) = (
        d.integer(1, 3),
        d.choice([(2, 2, 0, 0), (3, 2, 1, 1), (3, 1, "'same'", 0), (1, 1, 0, 0)]),
    )
    text = f"nn.ConvTranspose2D({shape[0]}, {to}, {kernel}, {stride}, {padding}, {extra}, rng={d.seed()})"
    return text, (to, *(n * stride for n in shape[1:]))


def shorter(d, shape):
    if len(shape) != 2 or shape[1] < 2:
        return None
    kind, (size, stride, padding) = d.choice(["Max", "Avg", "Avg"]), d.choice([(2, 2, 0), (2, 1, 0), (2, 2, 1)])
    if kind == "Max":
        d.slopes = False  # its second derivative reads values, so a penalty on slopes is not replayed
    return f"nn.{kind}Pool1D({size}, {stride}, {padding})", (shape[0], (shape[1] + 2 * padding - size) // stride + 1)


def upsampled(d, shape):
    mode = {2: ["nearest", "linear"], 3: ["nearest", "bilinear"]}.get(len(shape))
    return mode and (f"nn.Upsample(scale_factor=2, mode='{d.choice(mode)}')", (shape[0], *(2 * n for n in shape[1:])))


LAYERS = [
    LayerCase(nn.Dense, lambda: nn.Dense(4, 3, rng=0), (*ANY, (0, 4), (1, 4)), "Dense(4 -> 3)", contract=last(4, 3)),
    LayerCase(nn.Dense, lambda: nn.Dense(4, 3, bias=False, rng=0), ANY, "Dense(4 -> 3, bias=False)", "without bias", contract=last(4, 3)),
    LayerCase(
        nn.Conv1D, lambda: nn.Conv1D(2, 3, 3, padding=1, rng=0), ((2, 2, 5), (0, 2, 4)), "Conv1D(2 -> 3, 3, padding=1)",
        contract=windows(2, 3, (3,), (1,), (1,)),
    ),
    LayerCase(
        nn.Conv2D, lambda: nn.Conv2D(2, 3, 3, padding="same", rng=0), IMAGES, "Conv2D(2 -> 3, 3×3, padding=same)",
        contract=windows(2, 3, (3, 3), (1, 1), (1, 1)),
    ),
    LayerCase(
        nn.Conv2D,
        lambda: nn.Conv2D(2, 4, (2, 3), 2, (1, 0), groups=2, bias=False, rng=0),
        IMAGES,
        "Conv2D(2 -> 4, 2×3, stride=2, padding=(1, 0), groups=2, bias=False)",
        "with settings",
        contract=windows(2, 4, (2, 3), (2, 2), (1, 0)),
    ),
    LayerCase(nn.MaxPool2D, lambda: nn.MaxPool2D(2), IMAGES, "MaxPool2D(2×2)", contract=windows(None, None, (2, 2), (2, 2), (0, 0))),
    LayerCase(
        nn.MaxPool2D, lambda: nn.MaxPool2D(3, 1, 1), IMAGES, "MaxPool2D(3×3, stride=1, padding=1)", "overlapping",
        contract=windows(None, None, (3, 3), (1, 1), (1, 1)),
    ),
    LayerCase(nn.AvgPool2D, lambda: nn.AvgPool2D(2), IMAGES, "AvgPool2D(2×2)", contract=windows(None, None, (2, 2), (2, 2), (0, 0))),
    LayerCase(nn.GlobalAvgPool2D, nn.GlobalAvgPool2D, IMAGES, "GlobalAvgPool2D()", contract=lambda s: s[:2] if len(s) == 4 and s[2] * s[3] else None),
    LayerCase(
        nn.ConvTranspose1D, lambda: nn.ConvTranspose1D(2, 3, 3, stride=2, padding=1, rng=0), (*SEQUENCES, (2, 2, 1)),
        "ConvTranspose1D(2 -> 3, 3, stride=2, padding=1)", contract=spread(2, 3, (3,), (2,), (1,)),
        torch=lambda torch: torch.nn.ConvTranspose1d(2, 3, 3, stride=2, padding=1), program=longer, products=(360, 360),
    ),
    LayerCase(
        nn.ConvTranspose2D, lambda: nn.ConvTranspose2D(2, 3, 2, rng=0), IMAGES, "ConvTranspose2D(2 -> 3, 2×2)",
        contract=spread(2, 3, (2, 2), (1, 1), (0, 0)), torch=lambda torch: torch.nn.ConvTranspose2d(2, 3, 2), program=larger,
        products=(1920, 1920),
    ),
    LayerCase(
        nn.ConvTranspose2D, lambda: nn.ConvTranspose2D(2, 4, (3, 2), (2, 3), (1, 0), (1, 2), groups=2, bias=False, rng=0), IMAGES,
        "ConvTranspose2D(2 -> 4, 3×2, stride=(2, 3), padding=(1, 0), groups=2, bias=False, output_padding=(1, 2))", "with settings",
        contract=spread(2, 4, (3, 2), (2, 3), (1, 0), (1, 2)),
        torch=lambda torch: torch.nn.ConvTranspose2d(2, 4, (3, 2), (2, 3), (1, 0), (1, 2), groups=2, bias=False),
    ),
    LayerCase(
        nn.MaxPool1D, lambda: nn.MaxPool1D(2), SEQUENCES, "MaxPool1D(2)", contract=windows(None, None, (2,), (2,), (0,)),
        torch=lambda torch: torch.nn.MaxPool1d(2), program=shorter,
    ),
    LayerCase(
        nn.AvgPool1D, lambda: nn.AvgPool1D(3, 1, 1), SEQUENCES, "AvgPool1D(3, stride=1, padding=1)",
        contract=windows(None, None, (3,), (1,), (1,)), torch=lambda torch: torch.nn.AvgPool1d(3, 1, 1), program=shorter,
    ),
    LayerCase(
        nn.GlobalAvgPool1D, nn.GlobalAvgPool1D, SEQUENCES, "GlobalAvgPool1D()", contract=lambda s: s[:2] if len(s) == 3 and s[2] else None,
        torch=lambda torch: torch.nn.Sequential(torch.nn.AdaptiveAvgPool1d(1), torch.nn.Flatten()),
        program=lambda d, shape: ("nn.GlobalAvgPool1D()", shape[:1]) if len(shape) == 2 else None,
    ),
    LayerCase(
        nn.Upsample, lambda: nn.Upsample(scale_factor=(2, 3)), IMAGES, "Upsample((2, 3), nearest)", contract=scaled((2, 3)),
        torch=lambda torch: torch.nn.Upsample(scale_factor=(2, 3)), program=upsampled,
    ),
    LayerCase(
        nn.Upsample, lambda: nn.Upsample(scale_factor=3, mode="bilinear"), IMAGES, "Upsample(3, bilinear)", "bilinear",
        contract=scaled((3, 3)), torch=lambda torch: torch.nn.Upsample(scale_factor=3, mode="bilinear"),
    ),
    LayerCase(
        nn.Upsample, lambda: nn.Upsample(scale_factor=2, mode="linear"), SEQUENCES, "Upsample(2, linear)", "linear",
        contract=scaled((2,)), torch=lambda torch: torch.nn.Upsample(scale_factor=2, mode="linear"),
    ),
    LayerCase(nn.ReLU, nn.ReLU, (*ANY, (), (0, 4)), "ReLU()"),
    LayerCase(nn.LeakyReLU, lambda: nn.LeakyReLU(0.2), (*ANY, (), (0, 4)), "LeakyReLU(0.2)"),
    LayerCase(nn.Sigmoid, nn.Sigmoid, (*ANY, (), (0, 4)), "Sigmoid()"),
    LayerCase(nn.Tanh, nn.Tanh, (*ANY, (), (0, 4)), "Tanh()"),
    LayerCase(nn.GELU, nn.GELU, (*ANY, (), (0, 4)), "GELU()"),
    LayerCase(nn.GELU, lambda: nn.GELU("tanh"), (*ANY, (), (0, 4)), "GELU(tanh)", "by tanh"),
    LayerCase(nn.Softplus, nn.Softplus, (*ANY, (), (0, 4)), "Softplus()"),
    LayerCase(nn.Softmax, nn.Softmax, (*ANY, (0, 4)), "Softmax()", contract=ALONG[-1]),
    LayerCase(nn.Softmax, lambda: nn.Softmax(axis=0), ANY, "Softmax()", "axis 0", contract=ALONG[0]),
    LayerCase(nn.LogSoftmax, nn.LogSoftmax, (*ANY, (0, 4)), "LogSoftmax()", contract=ALONG[-1]),
    LayerCase(nn.Flatten, nn.Flatten, ((3, 4), (2, 3, 4), (3,), (0, 2, 2)), "Flatten()", contract=lambda s: (s[0], int(np.prod(s[1:]))) if s else None),
    LayerCase(nn.Dropout, lambda: nn.Dropout(0.5, rng=0).eval(), (*ANY, (0, 4)), "Dropout(0.5)"),
    LayerCase(nn.PReLU, nn.PReLU, (*ANY, (), (0, 4)), "PReLU(1)"),
    LayerCase(nn.PReLU, lambda: started(nn.PReLU(4)), ((3, 4), (2, 4, 3), (2, 4, 2, 2)), "PReLU(4)", "by channel", contract=CHANNELS),
    LayerCase(nn.ELU, lambda: nn.ELU(0.7), (*ANY, (), (0, 4)), "ELU(0.7)"),
    LayerCase(nn.SiLU, nn.SiLU, (*ANY, (), (0, 4)), "SiLU()"),
    LayerCase(nn.Mish, nn.Mish, (*ANY, (), (0, 4)), "Mish()"),
    LayerCase(nn.Softsign, nn.Softsign, (*ANY, (), (0, 4)), "Softsign()"),
    LayerCase(nn.Identity, nn.Identity, (*ANY, (), (0, 4)), "Identity()"),
    LayerCase(nn.Lambda, lambda: nn.Lambda(np.sin), (*ANY, (), (0, 4)), "Lambda(sin)", reference=lambda layer, x: np.sin(x)),
    LayerCase(nn.BatchNorm1D, lambda: started(nn.BatchNorm1D(4)), ((5, 4), (2, 4, 3)), "BatchNorm1D(4)", contract=BATCH),
    LayerCase(nn.BatchNorm1D, lambda: nn.BatchNorm1D(4, affine=False), ((5, 4), (2, 4, 3)), "BatchNorm1D(4, affine=False)", "plain", contract=BATCH),
    LayerCase(nn.BatchNorm2D, lambda: started(nn.BatchNorm2D(3)), ((2, 3, 2, 2), (1, 3, 1, 3)), "BatchNorm2D(3)", contract=same_if(lambda s: len(s) == 4 and s[1] == 3 and s[0] * s[2] * s[3] > 1)),
    LayerCase(nn.LayerNorm, lambda: started(nn.LayerNorm(4)), (*ANY, (0, 4)), "LayerNorm(4)", contract=last(4, 4)),
    LayerCase(nn.LayerNorm, lambda: started(nn.LayerNorm((3, 4))), ((3, 4), (2, 3, 4)), "LayerNorm((3, 4))", "two axes", contract=same_if(lambda s: s[-2:] == (3, 4))),
    LayerCase(nn.LayerNorm, lambda: nn.LayerNorm(4, affine=False), ANY, "LayerNorm(4, affine=False)", "plain", contract=last(4, 4)),
    LayerCase(nn.GroupNorm, lambda: started(nn.GroupNorm(2, 4)), ((3, 4), (2, 4, 3), (2, 4, 2, 2), (0, 4)), "GroupNorm(2, 4)", contract=GROUPED),
    LayerCase(nn.GroupNorm, lambda: nn.GroupNorm(2, 4, affine=False), ((3, 4),), "GroupNorm(2, 4, affine=False)", "plain", contract=GROUPED),
    LayerCase(nn.Embedding, Weighed, ((2, 3, 4), (4,)), "Weighed()", contract=lambda s: (*s, 4)),
    LayerCase(nn.Embedding, lambda: Weighed(3), ((2, 3, 4),), "Weighed()", "padding", contract=lambda s: (*s, 4)),
    LayerCase(
        nn.Residual, residual, (*ANY, (0, 4)), "Residual()", contract=last(4, 4),
        reference=lambda layer, x: x + np.tanh(x @ layer.module[0].weight.data + layer.module[0].bias.data),
    ),
    LayerCase(nn.Residual, lambda: residual(nn.Dense(4, 2, rng=1)), ANY, "Residual()", "shortcut", contract=last(4, 2)),
    LayerCase(nn.RNN, lambda: read(started(nn.RNN(4, 3, rng=0))), ((2, 3, 4), (1, 1, 4), (0, 2, 4)), "Sequential()", contract=steps(4, 3)),
    LayerCase(nn.RNN, lambda: Read(started(nn.RNN(4, 3, nonlinearity="relu", rng=0))), ((2, 3, 4),), "Read()", "relu, state", contract=final(4, 3)),
    LayerCase(
        nn.RNN, lambda: read(nn.RNN(4, 3, num_layers=2, bidirectional=True, rng=0)), ((2, 3, 4), (1, 1, 4), (0, 2, 4)), "Sequential()", "stacked",
        contract=steps(4, 6), products=(1152, 2016),
    ),
    LayerCase(nn.GRU, lambda: read(started(nn.GRU(4, 3, rng=0))), ((2, 3, 4), (1, 1, 4), (0, 2, 4)), "Sequential()", contract=steps(4, 3)),
    LayerCase(nn.GRU, lambda: Read(nn.GRU(4, 3, bias=False, rng=0)), ((2, 3, 4),), "Read()", "without bias, state", contract=final(4, 3)),
    LayerCase(nn.GRU, lambda: Ragged(nn.GRU(4, 3, num_layers=2, bidirectional=True, rng=0)), ((4, 3, 4), (1, 1, 4)), "Ragged()", "ragged"),
    LayerCase(nn.LSTM, lambda: read(started(nn.LSTM(4, 3, rng=0))), ((2, 3, 4), (1, 1, 4), (0, 2, 4)), "Sequential()", contract=steps(4, 3)),
    LayerCase(nn.LSTM, lambda: Read(nn.LSTM(4, 3, bias=False, rng=0)), ((2, 3, 4),), "Read()", "without bias, state", contract=final(4, 6)),
    LayerCase(nn.LSTM, lambda: Ragged(nn.LSTM(4, 3, bidirectional=True, rng=0)), ((4, 3, 4), (1, 1, 4)), "Ragged()", "ragged"),
    LayerCase(
        nn.GRUCell, lambda: started(nn.GRUCell(4, 3, rng=0)), ((2, 4), (1, 4), (0, 4)), "GRUCell(4 -> 3)", contract=vectors(4, 3),
        torch="tests/peers/test_sequences.py compares it", products=(252, 360),
        program=lambda d, shape: (f"nn.GRUCell({shape[0]}, 3, rng={d.seed()})", (3,)) if len(shape) == 1 else None,
    ),
    LayerCase(
        nn.LSTMCell, lambda: read(started(nn.LSTMCell(4, 3, rng=0))), ((2, 4), (1, 4), (0, 4)), "Sequential()", contract=vectors(4, 3),
        torch="tests/peers/test_sequences.py compares it", products=(336, 480),
        program=lambda d, shape: (f"nn.LSTMCell({shape[0]}, 3, rng={d.seed()}), nn.Identity()", (3,)) if len(shape) == 1 else None,
    ),
    LayerCase(
        nn.TransformerEncoderLayer, lambda: nn.TransformerEncoderLayer(4, 2, 6, 0.0, "gelu", rng=0), ((2, 3, 4), (1, 1, 4), (0, 2, 4)),
        "TransformerEncoderLayer(4, 2 heads, 6)", contract=ATTENTION, torch="tests/peers/test_sequences.py compares it", products=(1632, 2688),
        program=lambda d, shape: (f"nn.TransformerEncoderLayer({shape[1]}, 1, 5, 0.1, rng={d.seed()})", shape) if len(shape) == 2 else None,
    ),
    LayerCase(
        nn.TransformerEncoderLayer, lambda: nn.TransformerEncoderLayer(4, 2, 6, norm_first=True, causal=True, rng=0).eval(), ((2, 3, 4),),
        "TransformerEncoderLayer(4, 2 heads, 6, norm_first)", "norm first", contract=ATTENTION,
    ),
    LayerCase(nn.MultiHeadAttention, attention, ((2, 3, 4), (1, 1, 4), (0, 2, 4)), "MultiHeadAttention(4, 2 heads)", contract=ATTENTION),
    LayerCase(nn.MultiHeadAttention, lambda: attention(causal=True, bias=False), ((2, 3, 4),), "MultiHeadAttention(4, 2 heads, causal)", "causal", contract=ATTENTION),
    LayerCase(nn.Sequential, dense_pair, ((3, 4), (4,), (0, 4)), "Sequential()", contract=last(4, 2)),
]  # fmt: skip
