"""Models, losses and comparisons for tests of replayed steps."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from tests.cases.optimizers import CASES as OPTIMIZERS


def values(model):
    return [t.data.copy() for _, t in model._walk() if isinstance(t, mf.Tensor)]


def assert_same(a, b):
    for u, v in zip(a, b, strict=True):
        assert u.dtype == v.dtype and u.tobytes() == v.tobytes()


def pair(make, options=None, kind=optim.SGD):
    """Return two equal models with their optimizers, the second one compiled."""
    models = make(), make()
    return models, [kind(m.parameters(), **(options or {"lr": 1e-3, "momentum": 0.9})) for m in models]


def race(make, loss, batches, options=None, kind=optim.SGD, replayed=True):
    """Train two equal models, eagerly and by replay, and compare all bits at every step."""
    (eager, compiled), (one, two) = pair(make, options, kind)
    step = mf.compile(lambda X, *y: loss(compiled(X), *y), two)
    for X, *y in batches:
        one.zero_grad()
        expected = loss(eager(mf.Tensor(X)), *y)
        expected.backward()
        one.step()
        got = step(X, *y)
        assert_same([expected.data], [got.data])
        assert_same([one.flat.gradients], [two.flat.gradients])
        assert_same(values(eager), values(compiled))
    assert not replayed or "run every time" not in step.explain(), step.explain()
    assert not replayed or step.replays
    return step


def mlp(*extra):
    return nn.Sequential(nn.Dense(5, 8, rng=0), nn.ReLU(), nn.Dense(8, 4, rng=1), *extra)


def drawn(steps, target, rows=12, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(rows, 5)).astype(np.float32), target(rng, rows)) for _ in range(steps)]


def labels(rng, rows):
    return rng.integers(0, 4, rows)


def optimizer_rows():
    for name, row in OPTIMIZERS.items():
        if row.reference is not None:
            for variant, options in row.variants.items():
                yield pytest.param(getattr(optim, name), options, id=f"{name} {variant}")


class Twins:
    """Two equal models, one trained eagerly and one by replay."""

    def __init__(self, make=mlp, loss=None, steps=4, kind=optim.SGD, **options):
        self.loss = nn.CrossEntropyLoss() if loss is None else loss
        (self.eager, self.model), (self.one, self.optimizer) = pair(make, options or None, kind)
        self.extra = 1.0
        self.step = mf.compile(self.forward(self.model), self.optimizer)
        self.plain = self.forward(self.eager)
        self.batches = iter(drawn(1000, labels))
        self.go(steps)
        assert self.replays() == (steps > 0)

    def forward(self, model):
        loss = self.loss
        return lambda X, y: loss(model(X), y)

    def both(self, change):
        change(self.eager, self.one)
        change(self.model, self.optimizer)

    def go(self, steps=4, rows=12):
        for _ in range(steps):
            X, y = next(self.batches)
            X, y = X[:rows], y[:rows]
            self.one.zero_grad()
            expected = self.plain(mf.Tensor(X), mf.Tensor(y))
            expected.backward()
            self.one.step()
            assert_same([expected.data], [self.step(X, y).data])
            assert_same(values(self.eager), values(self.model))

    def replays(self):
        return len(self.step.replays)


def setter(holder, name="value"):
    return lambda value: setattr(holder, name, value)


def losses(factor, change, compiled):
    """Return 12 losses of a step that reads `factor()`, which `change` changes after the sixth; and the step."""
    X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    model = nn.Dense(3, 1, rng=0)
    optimizer = optim.SGD(model.parameters(), lr=1e-9)
    step = mf.compile(lambda x: np.mean(model(x) ** 2) * factor(), optimizer)
    found = []
    for k in range(12):
        if k == 6:
            change(3.0)
        if compiled:
            found.append(step(X).item())
        else:
            optimizer.zero_grad()
            loss = step.f(mf.Tensor(X))
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    return found, step


def assert_change_is_seen(make):
    """Compare eager and compiled losses of a step that reads what `make()` gives: ``factor``, and what changes it."""
    (expected, _), (got, step) = (losses(*make(), compiled) for compiled in (False, True))
    assert got == expected
    assert got[5] != got[6]
    assert step.replays, step.explain()
