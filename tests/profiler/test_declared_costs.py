"""Wrong costs of ops are errors that name the op."""

from __future__ import annotations

import re

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.autograd import Cost
from microfw.errors import ArgumentError
from microfw.ops import elementwise_cost
from microfw.profiler import compare
from microfw.profiler.cost_check import one_step
from microfw.profiler.reports.markdown import decoded


def profiled(cost):
    @mf.op(vjp=lambda g, x: g * 2, cost=cost)
    def twice(x):
        return x * 2

    model = nn.Dense(4, 3, rng=0)
    with mf.Profiler(model) as profiler:
        twice(model(np.ones((8, 4), np.float32))).sum().backward()
    return profiler.session.epochs[0].sum()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (Cost(3, ()), r"the cost of twice: expected a number for the derivative of input 0, got Cost\("),
        (Cost(3, (3,), 3, ()), None),
        (Cost(np.int64(3), (3.0,)), None),
        (None, "the cost of twice: expected a Cost, got NoneType"),
        ((3, (3,)), "expected a Cost, got tuple"),
        (Cost(float("nan"), (3,)), "expected whole numbers from 0"),
        (Cost(float("inf"), (3,)), "expected whole numbers from 0"),
        (Cost(3, (-10,)), "expected whole numbers from 0"),
        (Cost(1 << 63, (3,)), "expected whole numbers from 0"),
        (Cost(2.5, (3,)), "expected whole numbers from 0"),
    ],
)
def test_a_wrong_cost_names_the_op(made, message):
    if message is None:
        assert profiled(lambda y, *inputs: made).flops_forward > 0
        return
    with pytest.raises(ArgumentError, match=message):
        profiled(lambda y, *inputs: made)


@pytest.mark.parametrize("cost", [lambda y, x: 1 / 0, lambda y: Cost(1, (1,))])
def test_an_error_in_a_cost_has_a_note_with_the_op(cost):
    with pytest.raises((ZeroDivisionError, TypeError)) as caught:
        profiled(cost)
    assert "in the cost of twice, called as cost((8, 3), (8, 3))" in caught.value.__notes__[0]


def test_checks_of_values_have_a_cost_of_no_operations():
    """The library calls Python functions on targets and tokens that are Tensors, as with a Trainer."""
    model, X, y = nn.Dense(6, 2, rng=0), np.ones((8, 6), np.float32), np.ones((8, 2), np.float32)
    found = [one_step(model, X, target, nn.BCEWithLogitsLoss()).sum() for target in (y, mf.tensor(y))]
    assert found[0].flops_forward == found[1].flops_forward > 0
    assert [row.uncounted for row in found] == [0, 0]


@mf.op(vjp=lambda g, x: 2 * g * x, name="my_square")
def my_square(x):
    return x * x


@mf.op(vjp=lambda g, x: 2 * g * x, name="my_square", cost=elementwise_cost(1, 2))
def counted_square(x):
    return x * x


def squared(square):
    model = nn.Sequential(nn.Dense(4, 5, rng=0), nn.Lambda(square), nn.Dense(5, 3, rng=1))
    with mf.Profiler(model) as profiler:
        nn.CrossEntropyLoss()(model(np.ones((8, 4), np.float32)), np.zeros(8, int)).backward()
    return model, profiler.session


@pytest.mark.parametrize(("square", "says"), [(my_square, True), (counted_square, False)])
def test_all_reports_name_the_ops_without_a_declared_cost(square, says):
    model, session = squared(square)
    X, y, loss = np.ones((8, 4), np.float32), np.zeros(8, int), nn.CrossEntropyLoss()
    texts = [str(mf.summary(model, X, y, loss)), str(mf.profiler.law(model, loss, X, y, budget=0.01))]
    for text in (*texts, decoded(session.markdown())):
        found = "perations are without those of my_square: no cost is declared" in re.sub("<[^>]+>", "", text)
        assert found == says, text


def test_operations_are_compared_if_both_runs_declare_them():
    sessions = [squared(square)[1] for square in (my_square, counted_square)]
    for a, b in (sessions, sessions[::-1]):
        found = compare(a, b)
        assert {c.what for c in found.counts} == {"uncounted"}
        assert not [c for c in found.worse(0.1) if not c.phase]
