"""Steps of several backward passes: parameters, memory, failed passes, retained graphs."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import GraphError

X = np.random.default_rng(0).normal(size=(8, 4)).astype("f4")


class Heads(nn.Module):
    """A layer with two heads."""

    def __init__(self):
        self.trunk, self.a, self.b = nn.Dense(4, 5, rng=0), nn.Dense(5, 3, rng=1), nn.Dense(5, 2, rng=2)


def one_pass(m):
    (m.a(m.trunk(X)).sum() + m.b(m.trunk(X)).sum()).backward()


def pass_by_pass(m):
    for head in (m.a, m.b):
        head(m.trunk(X)).sum().backward()


def forwards_first(m):
    for loss in [head(m.trunk(X)).sum() for head in (m.a, m.b)]:
        loss.backward()


def retained(m):
    h = m.trunk(X)
    first, second = m.a(h).sum(), m.b(h).sum()
    first.backward(retain_graph=True)
    second.backward()


def batches_of_any_size(m):
    for rows in (8, 3, 5, 8):
        for head in (m.b, m.a):
            head(m.trunk(X[:rows])).sum().backward()


def profiled(step, model=None, steps=3, every=1):
    model = model or Heads()
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    with mf.Profiler(model, every=every) as profiler:
        for _ in range(steps):
            step(model)
            optimizer.step()
            optimizer.zero_grad()
    (epoch,) = profiler.session.epochs
    return epoch


def test_a_pass_that_fails_is_not_counted():
    model, loss_function = nn.Dense(4, 3, rng=0), nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.01)

    def fail(g):
        raise ValueError

    with mf.Profiler(model) as profiler:
        for k in range(10):
            optimizer.zero_grad()
            output = model(X)
            if k % 2:
                output.register_hook(fail)
            try:
                loss_function(output, np.zeros(8, int)).backward()
            except ValueError:
                continue
            optimizer.step()
    (epoch,) = profiler.session.epochs
    count = epoch.counts()[0]
    assert (epoch.steps, count.N, count.rules, count.accumulated) == (5, 2, 2, 2)
    assert epoch.untagged_backward_ns >= 0


def test_a_second_pass_of_a_freed_graph_is_not_counted():
    def twice(m):
        loss = m.a(m.trunk(X)).sum()
        loss.backward()
        with pytest.raises(GraphError):
            loss.backward()

    count = profiled(twice).counts()[0]
    assert (count.N, count.E, count.rules, count.accumulated) == (3, 6, 3, 4)
