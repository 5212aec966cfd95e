"""`optimizer.step(gradients)` takes what `mf.grad` returns, and loops may update parameters themselves."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError, NonFiniteError, ShapeError
from tests.helpers.errors import raises

X = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)


def loss(model):
    return np.square(model(X)).mean()


def model():
    return nn.Sequential(nn.Dense(3, 4, rng=0), nn.Tanh(), nn.Dense(4, 2, rng=1))


def values(net):
    return [p.data.copy() for p in net.parameters()]


@pytest.mark.parametrize("form", [dict, list, tuple, "reversed dict"])
def test_a_step_with_given_gradients_is_that_after_backward(form):
    first, second = model(), model()
    optimizers = [optim.Adam(net.parameters(), lr=0.1) for net in (first, second)]
    for _ in range(3):
        optimizers[0].zero_grad()
        loss(first).backward()
        optimizers[0].step()
        gradients = mf.grad(loss)(second)
        if form == "reversed dict":
            gradients = dict(reversed(gradients.items()))
        elif form is not dict:
            gradients = form(gradients.values())
        optimizers[1].step(gradients)
    for a, b in zip(values(first), values(second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_parameters_without_a_given_gradient_stay():
    net = model()
    before, gradients = values(net), mf.grad(loss)(net)
    optim.SGD(net.parameters(), lr=0.1).step({"2.bias": gradients["2.bias"]})
    changed = [not np.array_equal(a, b) for a, b in zip(before, values(net), strict=True)]
    assert changed == [False, False, False, True]


def test_gradients_of_a_function_of_arrays():
    p = mf.tensor([1.0, 2.0], requires_grad=True)
    gradient = mf.grad(lambda x: (x * x).sum())(p.data)
    optim.SGD([p], lr=0.25).step([gradient])
    assert p.tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("gradients", "kind", "text"),
    [
        ({"3.weight": X}, ArgumentError, "SGD.step: expected gradients of 0.weight, 0.bias, 2.weight, 2.bias, got '3.weight'"),
        ([X], ArgumentError, "SGD.step: expected a gradient for each of 4 parameters, got 1; pass what mf.grad returns for these parameters"),
        ({"0.bias": X}, ShapeError, "SGD.step: expected a gradient of 0.bias, (4,), got float32 (6, 3)"),
        ({"0.bias": np.arange(4)}, ShapeError, "SGD.step: expected a gradient of 0.bias, (4,), got int64 (4,)"),
    ],
)  # fmt: skip
def test_gradients_that_do_not_fit(gradients, kind, text):
    net = model()
    loss(net).backward()
    before = [p.grad.copy() for p in net.parameters()]
    with raises(kind, text):
        optim.SGD(net.parameters(), lr=0.1).step(gradients)
    for p, grad in zip(net.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.grad, grad)


def test_given_gradients_are_checked():
    net = model()
    gradients = {name: np.full(p.shape, np.nan, np.float32) for name, p in net.named_parameters()}
    before = values(net)
    with pytest.raises(NonFiniteError):
        optim.SGD(net.parameters(), lr=0.1).step(gradients)
    assert all(np.array_equal(a, b) for a, b in zip(before, values(net), strict=True))


@pytest.mark.parametrize("update", ["data", "leaf"])
def test_a_loop_that_updates_by_hand_equals_sgd(update):
    by_hand, reference = model(), model()
    optimizer = optim.SGD(reference.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        loss(reference).backward()
        optimizer.step()
        for p in by_hand.parameters():
            p.zero_grad()
        loss(by_hand).backward()
        with mf.no_grad():
            for p in by_hand.parameters():
                if update == "data":
                    p.data -= np.float32(0.1) * p.grad
                else:
                    p -= np.float32(0.1) * p.grad
    for a, b in zip(values(by_hand), values(reference), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("update", ["data", "leaf"])
def test_a_step_that_updates_by_hand_is_not_replayed_and_says_why(update):
    net, reference = model(), model()

    def decayed(x, net=net):
        with mf.no_grad():
            for p in net.parameters():
                if update == "data":
                    p.data *= np.float32(0.9)
                else:
                    p *= np.float32(0.9)
        return np.square(net(x)).mean()

    step = mf.compile(decayed, optim.SGD(net.parameters(), lr=0.1))
    optimizer = optim.SGD(reference.parameters(), lr=0.1)
    for _ in range(5):
        step(X)
        optimizer.zero_grad()
        decayed(X, reference).backward()
        optimizer.step()
    assert step.explain() == (
        "float32 (6, 3): run every time: it changes parameters, as an optimizer's step or p -= lr * p.grad does"
    )
    for a, b in zip(values(net), values(reference), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_message_on_float64_says_what_to_write():
    p = nn.Parameter(np.ones(3))
    noise = np.random.default_rng(0).normal(size=3)
    with pytest.raises(
        mf.errors.DTypeError, match=r"cast it with .astype\(np.float32\), as in rng.normal\(size=3\).astype"
    ):
        p + noise
    with pytest.raises(
        mf.errors.DTypeError, match=r"make it as mf.tensor\(values, np.float32\), since NumPy's generators"
    ):
        p + mf.tensor(noise)
    assert (p + mf.tensor(noise, np.float32)).dtype == np.float32


def test_a_closure_is_no_gradient():
    p = mf.tensor([1.0], requires_grad=True)
    with raises(
        ArgumentError,
        "SGD.step: expected gradients, or nothing, got a function; "
        "call it before, then step(); optim.LBFGS takes a closure",
    ):
        optim.SGD([p], lr=0.1).step(lambda: None)
