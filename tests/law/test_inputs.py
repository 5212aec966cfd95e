"""Models, losses and data that `law`, `summary` and `assert_cost` take, as `Trainer.fit` does."""

from __future__ import annotations

import threading
from functools import partial

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import ArgumentError, MicrofwError
from microfw.profiler import assert_cost, law, sweep

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
Y = np.arange(6) % 3
CE = nn.CrossEntropyLoss()
CALLS = {
    "law": partial(law, budget=1e-3),
    "summary": lambda model, loss, X, y: mf.summary(model, X, y, loss),
    "assert_cost": lambda model, loss, X, y: assert_cost(model, X, y, loss, parameters=15),
}


def all_counts(model, loss, X, y):
    """Return the counts of `law` and `summary`; fail unless those of `assert_cost` are the same."""
    found = law(model, loss, X, y, rows=6, budget=1e-3)
    assert all(w.note or w.difference < 1e-6 for w in found.ways) and len(found.ways) == 7
    tensors, scalars = counts = mf.summary(model, X, y, loss).counts
    assert found.batch_counts == counts
    for kind in ("tensors", "scalars"):
        assert found.count(kind).steps == found.count(kind, batch=True).steps
    assert_cost(model, X, y, loss, parameters=scalars.P, nodes=tensors.N, steps=tensors.steps)
    assert sum(layer.parameters for layer in found.layers) == found.P
    return counts


class Two(nn.Module):
    def __init__(self):
        self.a, self.b = nn.Dense(4, 3, rng=0), nn.Dense(4, 3, rng=1)

    def forward(self, u, v):
        return self.a(u) + self.b(v)


class TwoInOne(Two):
    def forward(self, x):
        u, v = x.values() if isinstance(x, dict) else x
        return super().forward(u, v)


@pytest.mark.parametrize("model", [Two(), TwoInOne()])
@pytest.mark.parametrize("inputs", [(X, X), {"u": X, "v": X}])
def test_a_model_takes_several_inputs(model, inputs):
    assert all_counts(model, CE, inputs, Y)[1].P == 30


def test_a_sweep_of_your_models_takes_several_inputs():
    loss = lambda p, t: CE(p, t["a"])  # noqa: E731
    found = sweep("batch", (X, X), {"a": Y}, values=(2, 4, 6), loss=loss, build=lambda rows: Two(), budget=1e-3)
    assert [one.rows for one in found.laws] == [2, 4, 6]


def test_targets_are_nested_or_none():
    model = nn.Dense(4, 3, rng=0)
    nested = all_counts(model, lambda p, t: CE(p, t["a"]) + CE(p, t["b"][0]), X, {"a": Y, "b": (Y,)})
    assert nested[0].N == 4
    assert all_counts(model, lambda p, t: np.mean(p * p), X, None)[0].N == 3


def test_a_loss_is_the_sum_of_a_dict():
    model = nn.Dense(4, 3, rng=0)
    parts = all_counts(model, lambda p, t: {"ce": CE(p, t), "l2": np.mean(p * p)}, X, Y)
    assert parts == all_counts(model, lambda p, t: CE(p, t) + np.mean(p * p), X, Y)


class Penalty(nn.Module):
    def __init__(self, model):
        self.model = model

    def forward(self, p, t):
        return CE(p, t) + 0.1 * sum(np.sum(w * w) for w in self.model.parameters())


def test_a_loss_may_hold_the_model():
    model = nn.Sequential(nn.Dense(4, 3, rng=0))
    counts = all_counts(model, Penalty(model), X, Y)
    assert [c.P for c in counts] == [2, 15]
    with mf.Profiler(model) as profiler:
        Penalty(model)(model(X), Y).backward()
        profiler.end_epoch()
    assert profiler.session.epochs[0].counts() == counts


class Scaled(nn.Module):
    def __init__(self):
        self.scale, self.loss = nn.Parameter(np.zeros(3, np.float32)), nn.CrossEntropyLoss()

    def forward(self, p, t):
        return self.loss(p * np.exp(-self.scale), t)


def test_a_loss_may_have_parameters():
    counts = all_counts(nn.Dense(4, 3, rng=0), Scaled(), X, Y)
    assert [c.P for c in counts] == [3, 18]
    found = law(nn.Dense(4, 3, rng=0), Scaled(), X, Y, budget=1e-3)
    assert {row.layer: row.parameters for row in found.layers if row.parameters} == {"Dense": 15, "outside: Scaled": 3}


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", CALLS)
def test_a_function_that_uses_the_model_itself_is_refused(name, dtype):
    model = nn.Sequential(nn.Dense(4, 3, rng=0)).astype(dtype)
    penalty = Penalty(model)
    with pytest.raises(
        ArgumentError, match=f"^{name}: expected trained arrays that are copied with .* make it a Module"
    ):
        CALLS[name](model, lambda p, t: penalty(p, t), X.astype(dtype), Y)
    assert all(p.grad is None for p in model.parameters())


def test_gradients_of_other_arrays_stay():
    s = nn.Parameter(np.ones(3, np.float32))
    s.grad = np.full(3, 5.0, np.float32)
    loss = lambda p, t: CE(p * s, t)  # noqa: E731
    assert mf.summary(nn.Dense(4, 3, rng=0), X, Y, loss).counts[1].P == 18
    assert s.grad.tolist() == [5.0] * 3
    with pytest.raises(ArgumentError, match=r"^law: .* got a function that uses a trained array of shape \(3,\)"):
        law(nn.Dense(4, 3, rng=0), loss, X, Y)


class Locked(nn.Module):
    def __init__(self):
        self.layer, self.lock = nn.Dense(4, 3, rng=0), threading.Lock()

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize("name", CALLS)
def test_a_model_that_cannot_be_copied_is_refused(name):
    with pytest.raises(ArgumentError, match=f"^{name}: expected a model and a loss that can be copied, got TypeError"):
        CALLS[name](Locked(), CE, X, Y)


@pytest.mark.parametrize("made", [None, 1.0])
@pytest.mark.parametrize("name", CALLS)
def test_a_loss_that_is_no_tensor_is_refused(name, made):
    with pytest.raises(MicrofwError, match=f"^{name}: expected a loss .*, got {type(made).__name__}"):
        CALLS[name](nn.Dense(4, 3, rng=0), lambda p, t: made, X, Y)


@pytest.mark.parametrize(
    ("X_", "y", "says"),
    [
        (X, Y[:1], "law: expected arrays of one length, got 6 rows of X and 1 of y"),
        ((X, X[:2]), Y, "law: expected arrays of one length, got 6 rows of X/0 and 2 of X/1"),
        (None, Y, "law: expected arrays in X, with a row for each example, got NoneType"),
        (X, 3, "law: expected arrays in y, with a row for each example, got int"),
        ([[1.0], [1.0, 2.0]], Y, "expected X to be a full table, got rows of different lengths"),
        (X * np.nan, Y, "expected finite X, got nan at row 0, column 0"),
        (np.ma.masked_array(X, X > 1), Y, "expected X without masked entries"),
    ],
)
def test_data_that_fit_refuses_are_refused(X_, y, says):
    with pytest.raises(MicrofwError, match=says):
        law(nn.Dense(4, 3, rng=0), CE, X_, y)
