"""What a row of the table of ops is: what NumPy says the value is, and inputs to try it on, away from kinks.

Inputs come plain and in layouts that op results really have: transposed, with a negative stride, and
repeated without a copy. Each layout is a function of a Tensor or an array, applied inside of what is
checked, so that the rules meet such arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import microfw.ops.whole  # noqa: F401
from microfw.autograd.registry import OPS


def plain(x):
    return x


def transposed(x):
    return (x * 1.0).T


def backwards(x):
    return (x * 1.0)[::-1] if x.ndim else x * 1.0


def repeated(x):
    return np.broadcast_to(x * 1.0, (3, *x.shape))


def spaced(x):
    return (x * 1.0)[::2] if x.ndim else x * 1.0


def stretched(shape):
    """Return the layout that repeats an array to a shape without a copy."""
    return lambda x: np.broadcast_to(x * 1.0, shape)


@dataclass(frozen=True)
class Sample:
    """Inputs and parameters of one call."""

    label: str
    inputs: tuple[Any, ...]
    params: dict[str, Any] = field(default_factory=dict)
    layout: Callable[[Any], Any] | tuple[Callable[[Any], Any], ...] = plain
    """One for all inputs, or one for each."""

    def arranged(self, inputs=None):
        """Return the inputs in the sample's layout; only floats can be computed with, so only they are."""
        given = self.inputs if inputs is None else inputs
        layouts = self.layout if isinstance(self.layout, tuple) else (self.layout,) * len(given)
        return [
            layout(x) if layout is not plain and x.dtype.kind in "fc" else x
            for x, layout in zip(given, layouts, strict=True)
        ]


@dataclass(frozen=True)
class Case:
    """An op's row."""

    name: str
    reference: Callable[..., Any]
    samples: list[Sample]
    protocol: bool | Callable[..., Any] = True
    """Whether ``reference`` is itself NumPy's function for the op, or that function in the op's terms."""
    analytic: Callable[..., Any] | None = None
    """A formula for the value that takes complex numbers, where the op's own does not."""
    without: dict[str, str] = field(default_factory=dict)
    """Kinds of samples (`cases.kinds.KINDS`) that make no sense for the op, each with the reason."""
    random: Callable[[Any], Sample] | None = None
    """``random(draw)``: a sample of random shapes and arguments; without it `cases.strategies` finds one that fits."""

    torch: Callable[..., Any] | str = ""
    """PyTorch's function, ``torch(torch, *tensors, **params)``, or the reason why there is none."""

    @property
    def op(self):
        return OPS[self.name]

    def call(self, sample):
        """Return the op as a function of the inputs that have a derivative, and those inputs."""
        varying = [k for k in range(len(sample.inputs)) if self.op.partial(k) is not None]

        def function(*given):
            inputs = list(sample.inputs)
            for k, x in zip(varying, given, strict=True):
                inputs[k] = x
            return self.op.call(*sample.arranged(inputs), **sample.params)

        return function, [sample.inputs[k] for k in varying]


def floats(shape, low=-2.0, high=2.0, gap=0.0, seed=0):
    """Evenly spaced distinct numbers in random order, none within ``gap`` of 0."""
    n = math.prod(shape)
    x = np.linspace(low, high, n + 2)[1:-1] + 0.013
    x = np.where(np.abs(x) < gap, np.copysign(gap, x) + x, x)
    return np.random.default_rng(seed).permutation(x).reshape(shape)


def unary(low=-2.0, high=2.0, gap=0.0, **params):
    def x(*shape):
        return floats(shape, low, high, gap)

    return [
        Sample("plain", (x(3, 4),), params),
        Sample("transposed", (x(3, 4),), params, transposed),
        Sample("negative stride", (x(3, 4),), params, backwards),
        Sample("repeated", (x(4),), params, repeated),
        Sample("0-d", (x(),), params),
        Sample("empty", (np.zeros((0, 3)),), params),
    ]


SHAPES = {
    "same shape": ((3, 4), (3, 4)),
    "row": ((3, 4), (4,)),
    "column and row": ((3, 1), (1, 4)),
    "0-d": ((), ()),
    "0-d and array": ((), (2, 3)),
    "array and 0-d": ((2, 3), ()),
    "empty": ((0, 3), (3,)),
    "single axis and empty": ((1, 3), (0, 3)),
    "more axes": ((2, 1, 3), (4, 1)),
}


def binary(first=(-2.0, 2.0), second=(-2.0, 2.0), gap=0.0):
    def pair(a, b):
        return floats(a, *first, gap, seed=1), np.asarray(floats(b, *second, gap, seed=2) + 0.0217)

    return [Sample(label, pair(a, b)) for label, (a, b) in SHAPES.items()] + [
        Sample("transposed", pair((3, 4), (3, 4)), {}, transposed),
        Sample("negative stride", pair((3, 4), (3, 4)), {}, backwards),
        Sample("repeated", pair((4,), (1,)), {}, repeated),
        Sample("array operand of rank 1", pair((4,), (4,))),
    ]


def choose(rng_seed, *shape):
    return np.random.default_rng(rng_seed).random(shape) < 0.5


def whole(shape, seed=0, dtype=np.float64):
    """Whole numbers: their sums and products are exact in any order."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)
