"""One row for each op: what NumPy says its value is, and inputs to try it on, away from kinks.

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
import scipy.special

from microfw.graph import OPS


def plain(x):
    return x


def transposed(x):
    return (x * 1.0).T


def backwards(x):
    return (x * 1.0)[::-1] if x.ndim else x * 1.0


def repeated(x):
    return np.broadcast_to(x * 1.0, (3, *x.shape))


@dataclass(frozen=True)
class Sample:
    """Inputs and parameters of one call."""

    label: str
    inputs: tuple[Any, ...]
    params: dict[str, Any] = field(default_factory=dict)
    layout: Callable[[Any], Any] = plain

    def arranged(self, inputs=None):
        """Return the inputs in the sample's layout; only floats can be computed with, so only they are."""
        given = self.inputs if inputs is None else inputs
        return [self.layout(x) if self.layout is not plain and x.dtype.kind == "f" else x for x in given]


@dataclass(frozen=True)
class Case:
    """An op's row."""

    name: str
    reference: Callable[..., Any]
    samples: list[Sample]
    protocol: bool | Callable[..., Any] = True
    """Whether ``reference`` is itself NumPy's function for the op, or that function in the op's terms."""

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


def products(*shapes):
    return [Sample(f"{a} @ {b}", (floats(a, seed=1), floats(b, seed=2))) for a, b in shapes]


def reductions(*axes):
    x = floats((3, 4))
    samples = [
        Sample("all", (x,)),
        Sample("0-d", (floats(()),)),
        Sample("transposed", (x,), {"axis": 0}, transposed),
        Sample("negative stride", (x,), {"axis": 1, "keepdims": True}, backwards),
        Sample("repeated", (floats((4,)),), {"axis": 1}, repeated),
        Sample("one entry", (floats((1, 1)),), {"axis": 1}),
        Sample("empty, kept axis", (np.zeros((0, 3)),), {"axis": 1}),
    ]
    for axis in (0, 1, -1, (0, 2), (-1, 0), None):
        for keepdims in (False, True):
            params = {"axis": axis, "keepdims": keepdims}
            samples.append(Sample(f"axis {axis}, keepdims {keepdims}", (floats((2, 3, 4)),), params))
    return samples


def no_empty_for_all(samples):
    return [s for s in samples if 0 not in s.inputs[0].shape or s.params]


def along(**params):
    x = floats((3, 4), -3, 3)
    return [
        Sample("last axis", (x,)),
        Sample("first axis", (x,), {"axis": 0}),
        Sample("three axes", (floats((2, 3, 4)),), {"axis": 1}),
        Sample("vector", (floats((5,)),)),
        Sample("transposed", (x,), {}, transposed),
        Sample("negative stride", (x,), {}, backwards),
        Sample("repeated", (floats((4,)),), {}, repeated),
        Sample("no rows", (np.zeros((0, 3)),)),
    ]


def softmax(x, axis=-1):
    return scipy.special.softmax(x, axis=axis)


def log_softmax(x, axis=-1):
    return scipy.special.log_softmax(x, axis=axis)


def cross_entropy(logits, labels):
    return -np.mean(log_softmax(logits)[np.arange(len(labels)), labels])


def bce(z, t):
    p = scipy.special.expit(z)
    return -t * np.log(p) - (1 - t) * np.log(1 - p)


def put(x, *, shape, key):
    zeros = np.zeros(shape)
    np.add.at(zeros, key, x)
    return zeros


KEYS = {
    "integer": 1,
    "negative integer": -1,
    "slice": slice(0, 2),
    "reversed": (slice(None, None, -1), slice(None, None, 2)),
    "ellipsis": (..., 0),
    "new axis": (None, slice(None), None),
    "one entry": (2, 3),
    "nothing": slice(0, 0),
    "integers with repeats": np.array([0, 2, 0, 0]),
    "two integer arrays with repeats": (np.array([0, 0, 2]), np.array([1, 1, 3])),
    "integers in two axes": np.array([[0, 1], [1, 1]]),
    "mask": np.arange(12).reshape(3, 4) % 3 == 0,
    "mask of rows": np.array([True, False, True]),
    "empty mask": np.zeros((3, 4), bool),
    "slice and integers": (slice(None), np.array([3, 3, 0])),
    "integer and integers": (0, np.array([1, 1])),
}


def indexed():
    samples = [Sample(label, (floats((3, 4)),), {"key": key}) for label, key in KEYS.items()]
    return samples + [
        Sample("transposed", (floats((4, 3)),), {"key": (slice(1, 3), 0)}, transposed),
        Sample("0-d", (floats(()),), {"key": ()}),
        Sample("empty", (np.zeros((0, 3)),), {"key": slice(None)}),
    ]


def placed():
    return [
        Sample(label, (floats(np.shape(np.zeros((3, 4))[key])),), {"shape": (3, 4), "key": key})
        for label, key in KEYS.items()
    ]


LABELS = np.array([2, 0, 1, 2, 2])
TAKEN = np.array([[0, 0, 2], [1, 1, 1]])


def logic(function, name=None):
    samples = [
        Sample("some equal", (np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0]))),
        Sample("row", (floats((3, 4)), floats((4,)))),
        Sample("empty", (np.zeros((0, 3)), np.zeros(3))),
        Sample("0-d", (np.array(1.0), np.array(0.0))),
    ]
    if function.nin == 1:
        odd = np.array([[0.0, np.nan], [np.inf, -1.0]])
        samples = [Sample("odd", (odd,)), Sample("0-d", (np.array(0.0),)), Sample("empty", (np.zeros((0, 3)),))]
    return Case(name or function.__name__, function, samples)


CASES = [
    Case("add", np.add, binary()),
    Case("subtract", np.subtract, binary()),
    Case("multiply", np.multiply, binary()),
    Case("divide", np.divide, binary(gap=0.5)),
    Case("power", np.power, binary(first=(0.5, 2.0))),
    Case("negative", np.negative, unary()),
    Case("reciprocal", np.reciprocal, unary(gap=0.5)),
    Case("abs", np.absolute, unary(gap=0.1)),
    Case("sign", np.sign, unary(gap=0.1)),
    Case("exp", np.exp, unary()),
    Case("expm1", np.expm1, unary()),
    Case("log", np.log, unary(0.5, 3)),
    Case("log1p", np.log1p, unary(-0.5, 3)),
    Case("sqrt", np.sqrt, unary(0.5, 3)),
    Case("square", np.square, unary()),
    Case("sin", np.sin, unary()),
    Case("cos", np.cos, unary()),
    Case("tanh", np.tanh, unary()),
    Case("sigmoid", scipy.special.expit, unary(-5, 5), protocol=False),
    Case("softplus", lambda x: np.logaddexp(x, 0), unary(-5, 5), protocol=False),
    Case("erf", scipy.special.erf, unary(), protocol=False),
    Case("maximum", np.maximum, binary()),
    Case("minimum", np.minimum, binary()),
    Case(
        "clip",
        lambda x, low=None, high=None: np.clip(x, low, high),
        [
            Sample("both ends", (floats((3, 4)),), {"low": -1.0, "high": 0.9}),
            Sample("low", (floats((3, 4)),), {"low": 0.1}),
            Sample("high", (floats((3, 4)),), {"high": 0.1}),
            Sample("transposed", (floats((3, 4)),), {"low": -1.0, "high": 0.9}, transposed),
            Sample("repeated", (floats((4,)),), {"low": -1.0, "high": 0.9}, repeated),
            Sample("0-d", (floats(()),), {"low": -1.0, "high": 0.9}),
            Sample("empty", (np.zeros((0, 3)),), {"low": -1.0}),
        ],
        protocol=lambda x, low=None, high=None: np.clip(x, low, high),
    ),
    Case(
        "where",
        np.where,
        [
            Sample("same shape", (choose(0, 3, 4), floats((3, 4), seed=1), floats((3, 4), seed=2))),
            Sample("rows and columns", (choose(1, 3, 1), floats((1, 4), seed=1), floats((3, 4), seed=2))),
            Sample("0-d", (np.array(True), floats((), seed=1), floats((), seed=2))),
            Sample("0-d condition", (np.array(False), floats((2,), seed=1), floats((3, 1), seed=2))),
            Sample("empty", (choose(0, 0, 3), np.zeros((0, 3)), floats((3,)))),
            Sample("transposed", (choose(0, 4, 3), floats((3, 4), seed=1), floats((3, 4), seed=2)), {}, transposed),
        ],
    ),
    Case("astype", lambda x, dtype: x.astype(dtype), unary(dtype=np.dtype(np.float64)), protocol=False),
    Case("identity", lambda x: x, unary(), protocol=False),
    logic(np.less),
    logic(np.less_equal),
    logic(np.greater),
    logic(np.greater_equal),
    logic(np.equal),
    logic(np.not_equal),
    logic(np.logical_and),
    logic(np.logical_or),
    logic(np.logical_not),
    logic(np.isnan),
    logic(np.isfinite),
    logic(np.isinf),
    Case("relu", lambda x: np.maximum(x, 0), unary(gap=0.1), protocol=False),
    Case("getitem", lambda x, key: x[key], indexed(), protocol=False),
    Case("put", put, placed(), protocol=False),
    Case(
        "take_along_axis",
        np.take_along_axis,
        [
            Sample("last axis, repeats", (floats((2, 4)), TAKEN), {"axis": -1}),
            Sample("first axis", (floats((3, 3)), TAKEN), {"axis": 0}),
            Sample("argsort", (floats((2, 3)), np.argsort(floats((2, 3)), axis=1)), {"axis": 1}),
            Sample("vector", (floats((4,)), np.array([3, 3, 0])), {"axis": 0}),
            Sample("nothing", (floats((2, 4)), np.zeros((2, 0), int)), {"axis": 1}),
            Sample("transposed", (floats((4, 2)), TAKEN), {"axis": 1}, transposed),
        ],
    ),
    Case(
        "reshape",
        np.reshape,
        [
            Sample("matrix", (floats((3, 4)),), {"shape": (2, 6)}),
            Sample("flat", (floats((3, 4)),), {"shape": -1}),
            Sample("guess", (floats((2, 3, 4)),), {"shape": (4, -1)}),
            Sample("to 0-d", (floats((1, 1)),), {"shape": ()}),
            Sample("from 0-d", (floats(()),), {"shape": (1, 1)}),
            Sample("empty", (np.zeros((0, 3)),), {"shape": (3, 0)}),
            Sample("transposed", (floats((3, 4)),), {"shape": (6, 2)}, transposed),
            Sample("negative stride", (floats((3, 4)),), {"shape": (6, 2)}, backwards),
            Sample("repeated", (floats((4,)),), {"shape": (6, 2)}, repeated),
        ],
    ),
    Case(
        "transpose",
        np.transpose,
        [
            Sample("matrix", (floats((3, 4)),)),
            Sample("cycle", (floats((2, 3, 4)),), {"axes": (1, 2, 0)}),
            Sample("negative axes", (floats((2, 3, 4)),), {"axes": (-1, 0, -2)}),
            Sample("0-d", (floats(()),)),
            Sample("vector", (floats((3,)),)),
            Sample("empty", (np.zeros((0, 3)),)),
            Sample("negative stride", (floats((3, 4)),), {}, backwards),
        ],
    ),
    Case(
        "broadcast_to",
        lambda x, to: np.broadcast_to(x, to),
        [
            Sample("row", (floats((4,)),), {"to": (3, 4)}),
            Sample("column", (floats((3, 1)),), {"to": (2, 3, 4)}),
            Sample("0-d", (floats(()),), {"to": (2, 3)}),
            Sample("same", (floats((2, 3)),), {"to": (2, 3)}),
            Sample("to nothing", (floats((1, 3)),), {"to": (0, 3)}),
            Sample("transposed", (floats((3, 1)),), {"to": (2, 1, 3)}, transposed),
        ],
        protocol=lambda x, to: np.broadcast_to(x, to),
    ),
    Case(
        "concatenate",
        lambda *xs, axis=0: np.concatenate(xs, axis=axis),
        [
            Sample("two", (floats((2, 3), seed=1), floats((1, 3), seed=2))),
            Sample("three, last axis", tuple(floats((2, n), seed=n) for n in (1, 2, 3)), {"axis": -1}),
            Sample("one", (floats((2, 3)),)),
            Sample("with an empty one", (floats((2, 3)), np.zeros((0, 3)))),
            Sample("transposed", (floats((3, 2), seed=1), floats((3, 2), seed=2)), {"axis": 1}, transposed),
        ],
        protocol=lambda *xs, axis=0: np.concatenate(xs, axis=axis),
    ),
    Case(
        "matmul",
        np.matmul,
        [
            *products(
                ((3, 4), (4, 2)),
                ((4,), (4,)),
                ((4,), (4, 2)),
                ((3, 4), (4,)),
                ((2, 3, 4), (4, 5)),
                ((2, 3, 4), (2, 4, 5)),
                ((2, 1, 3, 4), (5, 4, 2)),
                ((3, 4), (2, 4, 5)),
                ((2, 3, 4), (4,)),
                ((4,), (2, 4, 3)),
                ((1, 3, 4), (2, 4, 5)),
                ((0, 4), (4, 2)),
                ((3, 0), (0, 2)),
                ((0, 3, 4), (4, 2)),
            ),
            Sample("transposed", (floats((4, 3), seed=1), floats((2, 4), seed=2)), {}, transposed),
            Sample("negative stride", (floats((3, 4), seed=1), floats((4, 2), seed=2)), {}, backwards),
            Sample("repeated", (floats((2, 3), seed=1), floats((3, 2), seed=2)), {}, repeated),
        ],
    ),
    Case(
        "linear",
        lambda x, w, b: x @ w + b,
        [
            Sample("batch", (floats((5, 3), seed=1), floats((3, 2), seed=2), floats((2,), seed=3))),
            Sample("vector", (floats((3,), seed=1), floats((3, 2), seed=2), floats((2,), seed=3))),
            Sample("three axes", (floats((2, 4, 3), seed=1), floats((3, 2), seed=2), floats((2,), seed=3))),
            Sample("one row", (floats((1, 3), seed=1), floats((3, 2), seed=2), floats((2,), seed=3))),
            Sample("no rows", (np.zeros((0, 3)), floats((3, 2), seed=2), floats((2,), seed=3))),
            Sample(
                "transposed", (floats((3, 5), seed=1), floats((2, 3), seed=2), floats((2,), seed=3)), {}, transposed
            ),
            Sample(
                "negative stride", (floats((5, 3), seed=1), floats((3, 2), seed=2), floats((2,), seed=3)), {}, backwards
            ),
        ],
        protocol=False,
    ),
    Case("sum", np.sum, [*reductions(), Sample("empty", (np.zeros((0, 3)),))]),
    Case("mean", np.mean, no_empty_for_all(reductions())),
    Case("max", np.max, no_empty_for_all(reductions())),
    Case("min", np.min, no_empty_for_all(reductions())),
    Case("argmax", np.argmax, [Sample("all", (floats((3, 4)),)), Sample("axis", (floats((3, 4)),), {"axis": 1})]),
    Case("argmin", np.argmin, [Sample("all", (floats((3, 4)),)), Sample("axis", (floats((3, 4)),), {"axis": 0})]),
    Case("log_softmax", log_softmax, along(), protocol=False),
    Case("softmax", softmax, along(), protocol=False),
    Case(
        "cross_entropy",
        cross_entropy,
        [
            Sample("batch", (floats((5, 3)), LABELS)),
            Sample("one row", (floats((1, 3)), np.array([1]))),
            Sample("one class", (floats((2, 1)), np.array([0, 0]))),
            Sample("transposed", (floats((3, 5)), LABELS), {}, transposed),
            Sample("negative stride", (floats((5, 3)), LABELS), {}, backwards),
        ],
        protocol=False,
    ),
    Case(
        "bce_with_logits",
        bce,
        [
            Sample("labels", (floats((3, 4), gap=0.1), choose(0, 3, 4) * 1.0)),
            Sample("probabilities", (floats((3, 4), gap=0.1), floats((3, 4), 0.1, 0.8, seed=1))),
            Sample("0-d", (floats(()), np.array(1.0))),
            Sample("empty", (np.zeros((0, 1)), np.zeros((0, 1)))),
            Sample("transposed", (floats((3, 4)), floats((3, 4), 0.1, 0.8, seed=1)), {}, transposed),
        ],
        protocol=False,
    ),
]

NAMES = [case.name for case in CASES]
SAMPLES = [(case, sample) for case in CASES for sample in case.samples]
DIFFERENTIABLE = [(case, sample) for case, sample in SAMPLES if case.op.differentiable]


def title(value):
    """Name a case or a sample in a test's id."""
    return value.name if isinstance(value, Case) else value.label if isinstance(value, Sample) else None
