"""check_op: passes a right op, and names the check that a wrong one fails."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import microfw as mf
from microfw.autograd import Cost, elementwise_cost
from microfw.errors import ArgumentError, GradientError

X = np.array([[0.5, -1.5, 2.0], [0.3, 1.1, -0.7]])


@pytest.fixture
def declared():
    """Return a function that declares an op under a name of its own."""
    numbers = itertools.count()
    return lambda value, **declaration: mf.op(value, name=f"tried_{next(numbers)}", **declaration)


def test_a_right_op_passes(declared):
    def value(x, beta):
        s = 1 / (1 + np.exp(-beta * x))
        return x * s, s

    op = declared(
        value,
        vjp=(lambda g, x, beta, s: g * (s + beta * x * s * (1 - s)), lambda g, x, s: g * (x * x * s * (1 - s))),
        aux={"s": lambda x, beta: 1 / (1 + np.exp(-beta * x))},
        cost=elementwise_cost(5, 6, 5),
    )
    mf.testing.check_op(op, X, 1.5)
    mf.testing.check_op(op, X.astype(np.float32), np.array([0.5, 1.0, 2.0]))
    mf.testing.check_op(op, np.zeros((0, 3)), 1.5)


def test_an_op_without_a_gradient_passes(declared):
    mf.testing.check_op(declared(lambda x: np.sign(x)), X)


def writes(x):
    x += 1
    return x * 1.0


def greedy(g, x):
    g *= 2
    return g * x


WRONG = {
    "a vjp that is too large": (dict(value=np.square, vjp=lambda g, x: 2.01 * g * x), "derivatives: .*backward derivative"),
    "a jvp that is too small": (dict(value=np.square, vjp=lambda g, x: 2 * g * x, jvp=lambda dx, x: dx * x), "derivatives: .*forward mode"),
    "a rule that stops at arrays": (dict(value=np.square, vjp=lambda g, x: 2 * g * np.asarray(x)), "derivatives of rules: "),
    "a rule for arrays only": (dict(value=np.square, vjp=lambda g, x: 2 * np.multiply(g, x, out=np.empty_like(np.asarray(g)))), "derivatives of rules: "),
    "a rule that writes to g": (dict(value=lambda x: x * x / 2, vjp=greedy, jvp=lambda dx, x: dx * x), "wrote to the gradient|second backward|derivatives"),
    "a value that is written where it is saved": (dict(value=writes, vjp=lambda g, x: g), "value: .*the op wrote to input 0"),
    "a value that is written": (dict(value=writes, vjp=lambda g: g), "value: .*the op wrote to input 0"),
    "float64 of float32": (dict(value=lambda x: x * np.float64(2.0), vjp=lambda g: g * np.float64(2.0)), "float32: .*float64"),
    "a cost that is no int": (dict(value=np.negative, vjp=lambda g: -g, cost=lambda y, x: Cost(1.5, (1,))), "cost: .*expected ints from 0 up"),
    "a cost that is no Cost": (dict(value=np.negative, vjp=lambda g: -g, cost=lambda y, x: 3), "cost: .*expected a Cost, got int"),
    "a cost without derivatives": (dict(value=np.negative, vjp=lambda g: -g, cost=lambda y, x: Cost(1, ())), "cost: .*derivative of input 0"),
    "products beyond all": (dict(value=np.negative, vjp=lambda g: -g, cost=lambda y, x: Cost(1, (1,), 2)), "cost: .*products among forward"),
    "another vjp_out": (dict(value=lambda x: x * 3.0, vjp=lambda g: g * 3.0, vjp_out=(lambda g, out: np.multiply(g, 2.0, out=out),)), "vjp_out: .*vjp_out gives another gradient for input 0"),
    "a value of the layout": (dict(value=lambda x: x * float(1 + x.flags.f_contiguous), vjp=lambda g: g), "memory layouts: .*another value"),
    "an error": (dict(value=lambda x: x[99] * 1.0, vjp=lambda g: g), "value: IndexError"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_op_is_told_which_check_it_fails(name, declared):
    declaration, text = WRONG[name]
    value = declaration["value"]
    op = declared(lambda x: value(x), **{k: v for k, v in declaration.items() if k != "value"})
    with pytest.raises(GradientError, match=rf"(?s)^check_op: tried_0: {text}"):
        mf.testing.check_op(op, X)


def test_the_error_is_an_assertion(declared):
    with pytest.raises(AssertionError):
        mf.testing.check_op(declared(lambda x: x * 2.0, vjp=lambda g: g), X)


def test_what_is_no_op_is_refused():
    with pytest.raises(ArgumentError, match="check_op: expected an op, got .*; declare it with mf.op"):
        mf.testing.check_op(lambda x: x, X)
