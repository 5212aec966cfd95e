"""Errors of backward: what they say, and gradients that stay as they were."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import GraphError, ShapeError
from tests.helpers.models import batch, classifier, leaf


def test_backward_twice_says_what_to_do():
    x = leaf(1.0)
    y = (x * 2.0).sum()
    y.backward()
    with pytest.raises(GraphError) as info:
        y.backward()
    assert str(info.value) == (
        "sum: backward has already run through this graph, and its saved values are freed; "
        "call backward(retain_graph=True) the first time, compute the loss again, or detach() what an earlier step computed"
    )
    np.testing.assert_array_equal(x.grad, [2])


def test_backward_twice_names_the_layer():
    model, (x, y) = classifier(), batch()
    loss = nn.CrossEntropyLoss()(model(x), y)
    loss.backward()
    with pytest.raises(
        GraphError, match="^CrossEntropyLoss: cross_entropy: backward has already run through this graph"
    ):
        loss.backward()


def test_a_part_that_was_freed_is_noticed_before_any_gradient_changes():
    x, w = leaf(1.0), leaf(5.0)
    part = x * 2.0
    part.sum().backward()
    kept = x.grad.copy()
    with pytest.raises(GraphError, match="^multiply: backward has already run through this graph"):
        (part + w * 3.0).sum().backward()
    np.testing.assert_array_equal(x.grad, kept)
    assert w.grad is None


def test_backward_from_a_non_scalar():
    with pytest.raises(GraphError) as info:
        (leaf(1.0, 2.0) * 2.0).backward()
    assert str(info.value) == (
        "backward: expected a scalar, got shape (2,); reduce it with .sum() or .mean(), or pass backward(gradient)"
    )


def test_backward_without_a_graph():
    text = (
        "backward: expected a Tensor computed from leaves with requires_grad=True, got one without a graph; "
        "was it computed under no_grad, or from .data?"
    )
    with mf.no_grad():
        y = leaf(1.0) * 2.0
    for t in (y, mf.tensor(1.0), (leaf(1.0) * 2.0).detach()):
        with pytest.raises(GraphError) as info:
            t.backward()
        assert str(info.value) == text


def test_a_gradient_of_another_shape():
    with pytest.raises(ShapeError) as info:
        (leaf(1.0, 2.0) * 2.0).backward(np.ones(3))
    assert str(info.value) == "backward: expected a gradient of shape (2,), got (3,)"


def test_create_graph_points_to_grad():
    with pytest.raises(GraphError, match=r"use mf.grad\(f\), which nests"):
        (leaf(1.0) * 2.0).sum().backward(create_graph=True)


def test_gradients_stay_as_they_were_if_backward_fails_midway():
    calls = []

    def rule(g):
        calls.append(1)
        raise RuntimeError("broken")

    bad = mf.op(lambda x: x * 1.0, vjp=rule, name="breaks")
    a, b = leaf(1.0), leaf(2.0)
    (a * b).sum().backward()
    before = a.grad.copy(), b.grad.copy()
    with pytest.raises(RuntimeError, match="broken"):
        (bad(a) + b * 2.0).sum().backward()
    assert calls
    np.testing.assert_array_equal(a.grad, before[0])
    np.testing.assert_array_equal(b.grad, before[1])


def test_gradients_in_an_optimizers_buffer_too_stay_if_backward_fails_midway():
    bad = mf.op(lambda x: x * 1.0, vjp=lambda g: 1 / 0, name="breaks")
    layer = nn.Dense(3, 2, rng=0)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    x = np.ones((4, 3), np.float32)
    layer(x).sum().backward()
    before = [p.grad.copy() for p in layer.parameters()]
    values = [p.data.copy() for p in layer.parameters()]
    with pytest.raises(ZeroDivisionError):
        np.sum(layer(x * 2) + np.sum(bad(layer.weight))).backward()
    for p, g in zip(layer.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.grad, g)
    optimizer.zero_grad()
    with pytest.raises(ZeroDivisionError):
        np.sum(layer(x * 2) + np.sum(bad(layer.weight))).backward()
    assert all(p.grad is None for p in layer.parameters())
    optimizer.step()
    for p, v in zip(layer.parameters(), values, strict=True):
        np.testing.assert_array_equal(p.data, v)
