"""Clipping of gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError, NonFiniteError
from tests.helpers.optimizers import given


@pytest.mark.parametrize("values", [[[3.0, 4.0], 12.0], [[3.0, 4.0], None, 12.0], [None], [[0.0, 0.0]]], ids=str)
@pytest.mark.parametrize("owned", [False, True])
@pytest.mark.parametrize("limit", [6.5, 100.0])
def test_clipping_by_norm_and_by_value(values, owned, limit):
    flat = np.concatenate([np.ravel(v) for v in values if v is not None] or [[]])
    norm, largest = np.linalg.norm(flat), np.abs(flat).max(initial=0)
    for clip, measure, expected in (
        (optim.clip_grad_norm, norm, flat * min(1, limit / norm if norm else 1)),
        (optim.clip_grad_value, largest, np.clip(flat, -limit, limit)),
    ):
        parameters, optimizer = given(values, owned)
        got = clip(optimizer if owned else parameters, limit)
        assert type(got) is float
        assert got == pytest.approx(measure)
        clipped = np.concatenate([np.ravel(p.grad) for p in parameters if p.grad is not None] or [[]])
        np.testing.assert_allclose(clipped, expected, rtol=1e-14)
        assert [p.grad is None for p in parameters] == [v is None for v in values]


def test_clipping_counts_a_shared_parameter_once():
    (p,), _ = given([[3.0, 4.0]])
    assert optim.clip_grad_norm([p, p], 1.0) == 5
    assert optim.clip_grad_norm(p, 0.5) == pytest.approx(1)


def test_clipping_with_an_optimizer_that_lost_its_parameters():
    (p,), first = given([[3.0, 4.0]])
    optim.SGD([p], lr=1.0)
    assert optim.clip_grad_norm(first, 1.0) == 5
    np.testing.assert_allclose(p.grad, [0.6, 0.8])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("clip", [optim.clip_grad_norm, optim.clip_grad_value])
def test_clipping_does_not_hide_what_is_not_finite(clip, bad):
    (p, q), optimizer = given([[3.0, bad], 4.0])
    assert not math.isfinite(clip(optimizer, 1.0))
    np.testing.assert_array_equal(p.grad, [3, bad])
    assert q.grad == 4
    with pytest.raises(NonFiniteError, match=f"got {bad} for parameter number 0"):
        optimizer.step()


@pytest.mark.parametrize("unit", [1e30, 1e-15, 1e-21, 1e-25])
def test_clipping_where_only_the_squares_overflow_or_underflow(unit):
    p = mf.tensor(np.zeros(2, np.float32), requires_grad=True)
    p.grad = np.array([3 * unit, 4 * unit], np.float32)
    assert optim.clip_grad_norm([p], unit) == pytest.approx(5 * unit, rel=1e-6)
    np.testing.assert_allclose(p.grad, [0.6 * unit, 0.8 * unit], rtol=1e-6)


def test_clipping_refuses():
    p = given([1.0])[0]
    for limit in (0, -1.0, math.nan, math.inf, "1", True):
        with pytest.raises(ArgumentError, match=r"^clip_grad_norm: expected max_norm above 0, finite, got"):
            optim.clip_grad_norm(p, limit)
        with pytest.raises(ArgumentError, match=r"^clip_grad_value: expected max_value above 0, finite, got"):
            optim.clip_grad_value(p, limit)
    with pytest.raises(
        ArgumentError, match=r"^clip_grad_norm: expected an optimizer, or parameters, got ndarray; pass model"
    ):
        optim.clip_grad_norm([np.ones(2)], 1.0)


def exhausted():
    parameters = iter(given([[3.0, 4.0]])[0])
    assert len(list(parameters)) == 1
    return parameters


CONSUMERS = {
    "clip_grad_norm": lambda parameters: optim.clip_grad_norm(parameters, 1.0),
    "clip_grad_value": lambda parameters: optim.clip_grad_value(parameters, 1.0),
    "SGD": lambda parameters: optim.SGD(parameters, lr=0.1),
    "Adam": optim.Adam,
    "AdamW": optim.AdamW,
    "Adagrad": optim.Adagrad,
    "RMSprop": optim.RMSprop,
    "LBFGS": optim.LBFGS,
    "SGD, group 0": lambda parameters: optim.SGD([{"params": parameters}], lr=0.1),
}


@pytest.mark.parametrize("name", CONSUMERS)
def test_an_iterator_of_parameters_with_nothing_left_is_refused(name):
    for parameters in (exhausted(), (p for p in []), map(id, [])):
        with pytest.raises(
            ArgumentError, match=f"^{name}: expected .*, got an iterator with nothing left; pass model.par"
        ):
            CONSUMERS[name](parameters)
    with pytest.raises(ArgumentError, match=f"^{name}: expected .*, got int; pass model.parameters"):
        CONSUMERS[name](3)
    CONSUMERS[name](iter(given([[3.0, 4.0]])[0]))


def test_clipping_no_parameters_is_clipping_nothing_and_results_have_no_gradients():
    assert optim.clip_grad_norm([], 1.0) == optim.clip_grad_value((), 1.0) == 0.0
    (p,), _ = given([[3.0, 4.0]])
    for clip in (optim.clip_grad_norm, optim.clip_grad_value):
        with pytest.raises(
            ArgumentError, match=f"^{clip.__name__}: expected .*, got the result of an op; pass model.par"
        ):
            clip([p * 2], 1.0)


def test_a_trainer_keeps_the_hooks_of_a_generator():
    model = nn.Dense(2, 2, rng=0)
    parts = model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1)
    hooks = [mf.training.EarlyStopping()]
    assert mf.Trainer(*parts, hooks=(hook for hook in hooks)).hooks == hooks
    for nothing in (iter(()), 3, np.array(3)):
        with pytest.raises(ArgumentError, match="^Trainer: expected hooks, got .*; pass a list of them"):
            mf.Trainer(*parts, hooks=nothing)
