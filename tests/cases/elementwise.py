"""Rows of the elementwise ops."""

from __future__ import annotations

import numpy as np
import scipy.special

from tests.cases import strategies
from tests.cases.samples import Case, Sample, binary, choose, floats, repeated, transposed, unary


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


def whole(shape, seed):
    """Return whole numbers, for ops on bits."""
    return np.random.default_rng(seed).integers(-9, 9, shape)


def bits(function):
    samples = [
        Sample("numbers", (whole((3, 4), 1), whole((3, 4), 2))),
        Sample("masks", (choose(1, 3, 4), choose(2, 4))),
        Sample("0-d", (np.array(True), np.array(False))),
        Sample("empty", (np.zeros((0, 3), bool), np.zeros(3, bool))),
    ]
    if function.nin == 1:
        samples = [Sample(s.label, s.inputs[:1]) for s in samples]
    return Case(function.__name__, function, samples)


CASES = [
    Case("add", np.add, binary()),
    Case("subtract", np.subtract, binary()),
    Case("multiply", np.multiply, binary()),
    Case("divide", np.divide, binary(gap=0.5)),
    Case("power", np.power, binary(first=(0.5, 2.0))),
    Case("power_log", lambda a, b, n=1: a**b * np.log(a) ** n, binary(first=(0.5, 2.0)), protocol=False),
    Case("remainder", np.remainder, binary(gap=0.5)),
    Case("fmod", np.fmod, binary(gap=0.5)),
    Case("floor_divide", np.floor_divide, binary(gap=0.5)),
    Case("hypot", np.hypot, binary(gap=0.1)),
    Case("arctan2", np.arctan2, binary(gap=0.1)),
    Case("logaddexp", np.logaddexp, binary(first=(-9.0, 9.0))),
    Case("negative", np.negative, unary()),
    Case("reciprocal", np.reciprocal, unary(gap=0.5)),
    Case("abs", np.absolute, unary(gap=0.1), analytic=lambda x: np.where(np.real(x) < 0, -x, x)),
    Case("sign", np.sign, unary(gap=0.1)),
    Case("floor", np.floor, unary()),
    Case("ceil", np.ceil, unary()),
    Case("trunc", np.trunc, unary()),
    Case("rint", np.rint, unary()),
    Case(
        "round",
        np.round,
        [*unary(), Sample("two decimals", (floats((3, 4)) / 8,), {"decimals": 2}), *unary(-40, 40, decimals=-1)],
    ),
    Case("exp", np.exp, unary()),
    Case("expm1", np.expm1, unary()),
    Case("log", np.log, unary(0.5, 3)),
    Case("exp2", np.exp2, unary()),
    Case("log1p", np.log1p, unary(-0.5, 3)),
    Case("log2", np.log2, unary(0.5, 3)),
    Case("log10", np.log10, unary(0.5, 3)),
    Case("sqrt", np.sqrt, unary(0.5, 3)),
    Case("cbrt", np.cbrt, unary(gap=0.2)),
    Case("square", np.square, unary()),
    Case("sin", np.sin, unary()),
    Case("cos", np.cos, unary()),
    Case("tan", np.tan, unary(-1.2, 1.2)),
    Case("arcsin", np.arcsin, unary(-0.8, 0.8)),
    Case("arccos", np.arccos, unary(-0.8, 0.8)),
    Case("arctan", np.arctan, unary()),
    Case("sinh", np.sinh, unary()),
    Case("cosh", np.cosh, unary()),
    Case("arcsinh", np.arcsinh, unary()),
    Case("arccosh", np.arccosh, unary(1.3, 3)),
    Case("arctanh", np.arctanh, unary(-0.8, 0.8)),
    Case("tanh", np.tanh, unary()),
    Case("sigmoid", scipy.special.expit, unary(-5, 5), protocol=False, analytic=lambda x: 1 / (1 + np.exp(-x))),
    Case(
        "softplus", lambda x: np.logaddexp(x, 0), unary(-5, 5), protocol=False, analytic=lambda x: np.log1p(np.exp(x))
    ),
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
    Case(
        "undefined",
        lambda y, x, at: y,
        [
            Sample("same shape", (floats((3, 4), seed=1), floats((3, 4), seed=2), np.zeros((3, 4), bool))),
            Sample("rows", (floats((3, 4), seed=1), floats((4,), seed=2), np.zeros((3, 1), bool))),
            Sample("0-d", (floats((), seed=1), floats((), seed=2), np.array(False))),
            Sample("empty", (np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3), bool))),
            Sample("transposed", (floats((3, 4)), floats((3, 4), seed=2), np.zeros((4, 3), bool)), {}, transposed),
        ],
        protocol=False,
        random=strategies.undefined,
    ),
    Case(
        "astype",
        lambda x, dtype: x.astype(dtype),
        [*unary(dtype=np.dtype(np.float64)), Sample("to integers", (floats((3, 4)),), {"dtype": np.dtype(int)})],
        protocol=False,
    ),
    Case("identity", lambda x: x, unary(), protocol=np.positive),
    logic(np.less),
    logic(np.less_equal),
    logic(np.greater),
    logic(np.greater_equal),
    logic(np.equal),
    logic(np.not_equal),
    logic(np.logical_and),
    logic(np.logical_or),
    logic(np.logical_xor),
    logic(np.logical_not),
    logic(np.isnan),
    logic(np.isfinite),
    logic(np.isinf),
    logic(np.signbit),
    bits(np.bitwise_and),
    bits(np.bitwise_or),
    bits(np.bitwise_xor),
    bits(np.invert),
    Case(
        "elu",
        lambda x, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(x)),
        unary(gap=0.1, alpha=0.7),
        protocol=False,
        analytic=lambda x, alpha: np.where(np.real(x) > 0, x, alpha * np.expm1(x)),
    ),
    Case(
        "silu", lambda x: x * scipy.special.expit(x), unary(), protocol=False, analytic=lambda x: x / (1 + np.exp(-x))
    ),
    Case(
        "mish",
        lambda x: x * np.tanh(np.log1p(np.exp(x))),
        unary(),
        protocol=False,
        analytic=lambda x: x * np.tanh(np.log1p(np.exp(x))),
    ),
    Case("relu", lambda x: np.maximum(x, 0), unary(gap=0.1), protocol=False),
]
