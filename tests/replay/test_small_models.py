"""The models that `benchmarks/bench_step.py` times: replayed in the open, with the bits of eager steps."""

from __future__ import annotations

import importlib.util
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import DataError
from tests.helpers.errors import raises

PAGE = Path(__file__).parents[2] / "benchmarks" / "model_columns.py"


def load_models():
    spec = importlib.util.spec_from_file_location("model_columns", PAGE)
    module = sys.modules["model_columns"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MODELS


MODELS = load_models()

OPAQUE = {"batchnorm": {"dropout_mask"}}
"""Ops that are replayed as one call in training: a generator draws."""


def build(name, training):
    network = MODELS[name]()
    model = network.microfw()
    model.train(training)
    loss_fn = getattr(nn, network.loss)()
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return network, model, optimizer, lambda X, y: loss_fn(model(X), y)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", MODELS)
def test_each_model_is_replayed_in_the_open_with_the_same_bits(name, training):
    network, model, optimizer, f = build(name, training)
    _, other, other_optimizer, eager = build(name, training)
    step = mf.compile(f, optimizer)
    for X, y in network.data(7):
        other_optimizer.zero_grad()
        loss = eager(mf.tensor(X), mf.tensor(y))
        loss.backward()
        other_optimizer.step()
        assert step(X, y).item() == loss.item()
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            assert p.data.tobytes() == q.data.tobytes()
            assert p.grad.tobytes() == q.grad.tobytes()
    for key, value in model.state_dict().items():  # running statistics, too
        assert value.tobytes() == other.state_dict()[key].tobytes()
    line, *others = step.explain().splitlines()
    assert line.endswith(": replayed")
    assert {text.split(" as one call")[0].strip() for text in others} == (
        OPAQUE.get(name, set()) if training else set()
    )


def test_a_replay_checks_the_range_of_indices():
    _, model, optimizer, f = build("embedding", True)
    step = mf.compile(f, optimizer)
    X, y = np.zeros((4, 3), np.int64), np.zeros(4, np.int64)
    for _ in range(4):
        step(X, y)
    before = model[0].weight.data.copy()
    for wrong in (27, -1):
        X[2, 1] = wrong
        fix = "number things from 0, or make a table of more rows"
        with raises(DataError, f"0 Embedding: expected indices from 0 to 26, got {wrong} at (2, 1); {fix}"):
            step(X, y)
    np.testing.assert_array_equal(before, model[0].weight.data)
    X[2, 1] = 26
    step(X, y)
    assert step.explain().endswith(": replayed")


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_sequences_of_any_length_are_replayed_in_the_open(kind, steps):
    layer = kind(2, 3, rng=0)
    step = mf.compile(lambda X: (layer(X)[0] ** 2).mean(), optim.SGD(layer.parameters(), lr=0.01))
    for _ in range(4):
        step(np.ones((4, steps, 2), np.float32))
    assert step.explain() == f"float32 (4, {steps}, 2): replayed"


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "replayed"])
@pytest.mark.parametrize("name", MODELS)
def test_a_profile_attributes_each_model_to_its_layers(name, compiled):
    network, model, optimizer, f = build(name, True)
    step = mf.compile(f, optimizer)
    with mf.Profiler(model) as profiler:
        for X, y in network.data(6):
            if compiled:
                step(X, y)
            else:
                optimizer.zero_grad()
                f(mf.tensor(X), mf.tensor(y)).backward()
                optimizer.step()
    (epoch,) = profiler.session.epochs
    assert epoch.replayed == (3 if compiled else 0)
    total, layers = epoch.sum(), epoch.layers()
    paths = {path for path, _ in model.named_modules()}
    assert {row.layer for row in layers if row.products_forward} <= paths
    for what in ("backward_ns", "forward_ns", "flops_backward", "nodes", "saved_bytes"):
        assert sum(getattr(row, what) for row in layers) == getattr(total, what)
    assert total.backward_ns + epoch.untagged_backward_ns == epoch.backward_ns
    if name == "batchnorm":  # a summary evaluates, without dropout and with the running statistics
        return
    one = mf.summary(model, X, y, getattr(nn, network.loss)())
    assert [(c.N, c.P, c.steps) for c in epoch.counts()] == [(c.N, c.P, c.steps) for c in one.counts]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_memory_does_not_grow_with_the_steps(name):
    network, _, optimizer, f = build(name, True)
    step = mf.compile(f, optimizer)
    batches = network.data(7) * 10
    for X, y in batches:  # past the check at replay 64
        step(X, y)
    tracemalloc.start()
    try:
        for X, y in batches[:10]:
            step(X, y)
        before = tracemalloc.get_traced_memory()[0]
        for k in range(2000):  # a check copies parameters, gradients and state, and gives them back
            step(*batches[k % len(batches)])
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 10_000  # an object in each step would be 100,000 bytes; the first check here makes 5,000
