"""What ``p.grad`` returns belongs to the code that reads it: later backward passes do not change it."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from tests.helpers.replay import Twins, mlp, optimizer_rows, values

X = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)
Y = np.arange(8) % 4
LOSS = nn.CrossEntropyLoss()


def gradients(model):
    return [p.grad for p in model.parameters()]


def passed(model, optimizer, rows):
    """Run both passes on some rows, and return the gradients without a copy."""
    optimizer.zero_grad()
    LOSS(model(X[rows]), Y[rows]).backward()
    return gradients(model)


def test_gradients_of_two_tasks_are_kept_side_by_side():
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    first, second = passed(model, optimizer, slice(4)), passed(model, optimizer, slice(4, 8))
    alone = mlp()
    for rows, kept in ((slice(4), first), (slice(4, 8), second)):
        alone.zero_grad()
        LOSS(alone(X[rows]), Y[rows]).backward()
        for a, b in zip(kept, gradients(alone), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("kind", "options"), list(optimizer_rows()))
def test_reading_and_changing_gradients_acts_as_without_an_optimizers_buffer(kind, options):
    """The other model gets the same gradients by assignment, which copies them into the buffer."""
    one, other = mlp(), mlp()
    first, second = (kind(model.parameters(), **{"lr": 0.01} | options) for model in (one, other))
    history = []
    for k in range(6):
        kept = passed(one, first, slice(None))
        history.append([g.copy() for g in kept])
        passed(other, second, slice(None))
        changed = [g * (0.5 if k % 2 else 1) for g in history[-1]]
        if k % 2:
            for g in kept:
                g *= 0.5  # in place: no setter sees it
        for p, g in zip(other.parameters(), changed, strict=True):
            p.grad = g
        first.step()
        second.step()
        for a, b in zip(values(one), values(other), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_second_backward_adds_to_the_gradient_that_was_read():
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    kept = passed(model, optimizer, slice(None))
    once = [g.copy() for g in kept]
    LOSS(model(X), Y).backward()
    assert all(a is b for a, b in zip(kept, gradients(model), strict=True))
    before = values(model)
    optimizer.step()
    for old, new, g in zip(before, values(model), once, strict=True):
        np.testing.assert_allclose(new, old - 0.2 * g, rtol=1e-5, atol=1e-7)


def test_gradients_after_replayed_steps_are_kept():
    twins, kept = Twins(lr=0.1), []
    for _ in range(5):
        twins.go(1)
        kept.append(([p.grad for p in twins.model.parameters()], [p.grad.copy() for p in twins.eager.parameters()]))
    assert twins.replays()
    for mine, right in kept:
        for a, b in zip(mine, right, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("compile", [False, True])
def test_a_hook_that_changes_gradients_in_place_changes_the_update(compile):
    class Halve(mf.Hook):
        def on_gradients(self, state):
            for p in state.model.parameters():
                p.grad[...] *= 0.5

    one, other = mlp(), mlp()
    for model, rate, hooks in ((one, 0.2, [Halve()]), (other, 0.1, [])):
        trainer = mf.Trainer(model, LOSS, optim.SGD(model.parameters(), lr=rate), hooks=hooks, compile=compile)
        trainer.fit((X, Y), epochs=9, batch_size=4, rng=0, progress=False)
    for a, b in zip(values(one), values(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("listed", [False, True], ids=["optimizer", "parameters"])
def test_gradients_that_were_read_are_clipped(listed):
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    kept, before = passed(model, optimizer, slice(None)), values(model)
    norm = optim.clip_grad_norm(model.parameters() if listed else optimizer, 0.01)
    assert norm > 0.01
    np.testing.assert_allclose(np.sqrt(sum((g**2).sum() for g in kept)), 0.01, rtol=1e-5)
    optimizer.step()
    assert optimizer.gradient_norm == pytest.approx(0.01, rel=1e-5)
    for old, new, g in zip(before, values(model), kept, strict=True):
        np.testing.assert_allclose(new, old - g, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
def test_copies_of_an_optimizer_whose_gradients_were_read_train_on(copied):
    model = mlp()
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    passed(model, optimizer, slice(None))
    optimizer.step()
    again, other = copied((model, optimizer))
    for net, steps in ((model, optimizer), (again, other)):
        passed(net, steps, slice(4))
        steps.step()
    for a, b in zip(values(model), values(again), strict=True):
        np.testing.assert_array_equal(a, b)
