"""`mf.compile`: refusals, interrupts, threads, observers, results and memory."""

from __future__ import annotations

import copy
import os
import pickle
import sys
import threading
import tracemalloc

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.autograd.mode import mode
from microfw.autograd.observer import Observer
from microfw.errors import ArgumentError, DataError, GraphError, MicrofwError, NonFiniteError
from tests.helpers.replay import Twins, assert_same, drawn, labels, mlp, pair, values


def test_wrong_data_is_refused_in_the_layers_words_and_changes_nothing():
    twins = Twins(lambda: mlp(nn.Dropout(0.5, rng=0), nn.BatchNorm1D(4)))
    X, y = next(twins.batches)
    before = values(twins.model)
    for wrong in (y - 9, y + 9):
        with pytest.raises(DataError, match="^CrossEntropyLoss: expected labels from 0 to 3"):
            twins.step(X, wrong)
    assert_same(before[:4], values(twins.model)[:4])
    assert all(p.grad is None for p in twins.model.parameters())


def test_a_function_that_runs_the_whole_step_is_refused():
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    X, y = np.ones((3, 5), np.float32), np.zeros(3, int)

    def whole(X, y):
        loss = nn.CrossEntropyLoss()(model(X), y)
        loss.backward()
        return loss

    fix = "leave zero_grad, backward and the optimizer's step to the compiled step"
    with pytest.raises(
        GraphError, match=f"^compiled step: expected a loss with its graph, got one whose graph .* freed; {fix}$"
    ):
        mf.compile(whole, optimizer)(X, y)


@pytest.mark.parametrize(("returned", "got"), [(1.0, "float"), ({}, "dict"), ((), "tuple"), (None, "NoneType")])
def test_a_function_that_returns_no_tensor_is_refused(returned, got):
    step = mf.compile(lambda X: returned, optim.SGD(mlp().parameters(), lr=0.1))
    expected = "expected the function to return the loss, or a tuple of Tensors with the loss first"
    with pytest.raises(ArgumentError, match=f"^compiled step: {expected}, got {got}$"):
        step(np.ones((3, 5), np.float32))


@pytest.mark.parametrize("name", ["leaf", "result"])
def test_an_argument_that_needs_a_gradient_is_refused_and_changes_nothing(name):
    model, encoder = mlp(), nn.Dense(3, 5, rng=2)
    X = mf.tensor(np.ones((2, 5)), np.float32, requires_grad=True) if name == "leaf" else encoder(np.ones((2, 3), "f4"))
    step, before = mf.compile(lambda X: np.mean(model(X)), optim.SGD(model.parameters(), lr=0.1)), values(model)
    for _ in range(2):
        with pytest.raises(
            GraphError, match=r"^compiled step: .* compute it in the function, .* or pass x\.detach\(\)$"
        ):
            step(X)
        assert_same(before, values(model))
        for _ in range(3):
            step(X.detach())
        before = values(model)
    assert step.replays


def test_large_logits_take_the_ops_other_branch():
    twins = Twins()
    twins.both(lambda model, _: setattr(model.layers[2].bias, "data", np.array([90, -90, 0, 0])))
    twins.go()
    twins.both(lambda model, _: setattr(model.layers[2].bias, "data", np.zeros(4)))
    twins.go()


def test_a_branch_that_comes_late_still_has_the_ops_inputs():
    @mf.op(vjp=lambda g: 2 * g, name="late_branch")
    def late(x):
        """Twice x, and 1 more or less."""
        doubled = x * 2.0
        return doubled + 1.0 if doubled.sum() > 0 else doubled - 1.0

    twins = Twins(lambda: mlp(nn.Lambda(late)), steps=3)
    for value in (-9, 9, -9):
        bias = np.full(4, value, np.float32)
        twins.both(lambda model, _, bias=bias: setattr(model.layers[2].bias, "data", bias))
        twins.go(3)
    assert "late_branch as" not in twins.step.explain()


def test_gradients_that_are_not_finite_change_nothing():
    twins = Twins(loss=nn.CrossEntropyLoss())
    X, y = next(twins.batches)
    before = values(twins.model)
    with pytest.raises(NonFiniteError), np.errstate(all="ignore"):
        twins.step(X * np.float32(np.nan), y)
    assert_same(before, values(twins.model))
    twins.go()


class Interrupted:
    """Raises in a replayed step before one of its lines."""

    def __init__(self, line):
        self.line, self.lines = line, 0

    def __enter__(self):
        sys.settrace(self.trace)

    def __exit__(self, *exc):
        sys.settrace(None)

    def trace(self, frame, event, argument):
        if frame.f_code.co_filename != "<plan>":
            return None
        self.lines += event == "line"
        if self.lines == self.line:
            sys.settrace(None)
            raise KeyboardInterrupt
        return self.trace


@pytest.mark.parametrize("kind", [optim.SGD, pytest.param(optim.Adam, marks=pytest.mark.slow)])
def test_an_interrupt_before_any_line_of_a_step(kind):
    """What it leaves is a step not taken, the step, or an update that continues from there, as without replay."""
    X, y = drawn(1, labels, seed=5)[0]
    ended, before_update = 0, 0
    for line in range(1, 200):
        twins = Twins(kind=kind, lr=0.01)
        before, interrupted = values(twins.model), Interrupted(line)
        try:
            with interrupted:
                twins.step(X, y)
            ended = line
            break
        except KeyboardInterrupt:
            pass
        after = values(twins.model)
        if all(p.grad is None for p in twins.model.parameters()):
            assert_same(before, after)
            before_update = line
            twins.go()
    assert ended > before_update > 30


def test_graphs_that_need_old_parameters_notice_a_replayed_step():
    twins = Twins()
    X, y = drawn(1, labels, seed=7)[0]
    loss = twins.loss(twins.model(mf.Tensor(X)), y)
    twins.step(X, y)
    with pytest.raises(MicrofwError, match="was written to"):
        loss.backward()


def test_under_an_observer_a_compiled_step_runs_eagerly():
    class Count(Observer):
        seen = 0

        def forward(self, *args):
            self.seen += 1

    twins, count = Twins(), Count()
    with mode(observer=count):
        twins.go(1)
    assert count.seen >= 4
    twins.go(1)


def test_threads():
    """Each has its own model; then two share one, whose plan only one of them can be in."""
    found = []

    def work():
        twins = Twins()
        twins.go(20)
        found.append(twins)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 3
    twins = found[0]
    replay = next(iter(twins.step.replays.values()))
    with replay.lock:
        twins.go(2)  # eagerly, with the same bits


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork():
    twins = Twins()
    child = os.fork()
    if child == 0:
        try:
            twins.go(4)
            os._exit(0)
        except BaseException:
            os._exit(1)
    twins.go(4)
    assert os.waitpid(child, 0)[1] == 0


def test_what_compile_refuses():
    model = mlp()
    with pytest.raises(ArgumentError, match="^compile: expected a function"):
        mf.compile(3, optim.SGD(model.parameters(), lr=0.1))
    for wrong in (None, optim.LBFGS(model.parameters())):
        with pytest.raises(ArgumentError, match="^compile: expected an optimizer"):
            mf.compile(lambda X: X, wrong)
    with pytest.raises(MicrofwError, match="numbers"):
        mf.compile(lambda X: X, optim.SGD(model.parameters(), lr=0.1))(np.array(["a"]))


def test_results_are_copies_and_leave_no_graph():
    (_, model), (_, optimizer) = pair(mlp)
    loss = nn.CrossEntropyLoss()

    def both(X, y):
        outputs = model(X)
        return loss(outputs, y), outputs

    step = mf.compile(both, optimizer)
    kept = [step(X, y) for X, y in drawn(6, labels)]
    outputs = [o.data.copy() for _, o in kept]
    for X, y in drawn(3, labels, seed=3):
        step(X, y)
    assert_same(outputs, [o.data for _, o in kept])
    assert not kept[-1][0].requires_grad


def test_print_and_explain():
    twins = Twins()
    text = repr(twins.step)
    assert "replayed" in twins.step.explain() and "bytes for results" in text
    assert "linear" in text and "maximum" in text and "CrossEntropyLoss" in text
    model = mlp()
    assert mf.compile(lambda X: X, optim.SGD(model.parameters(), lr=0.1)).explain() == "no step yet"


def memory(steps):
    twins = Twins()
    X, y = next(twins.batches)
    for _ in range(70):  # past the check at replay 64
        twins.step(X, y)
    tracemalloc.start()
    try:
        for _ in range(10):
            twins.step(X, y)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(steps):
            twins.step(X, y)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2000
    return peak - before


def test_a_replayed_step_allocates_nothing():
    assert memory(170) < 4000  # the result, and a few Python objects: no array of the batch's size


@pytest.mark.slow
def test_memory_does_not_grow():
    assert memory(100_000) < 16_000  # a check copies parameters, gradients and state


def test_a_compiled_step_is_copied_without_its_plans():
    model = nn.Sequential(nn.Dense(5, 8, rng=0), nn.ReLU(), nn.Dense(8, 3, rng=0))
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), metrics=["accuracy"])
    rng = np.random.default_rng(0)
    data = rng.normal(size=(160, 5)).astype(np.float32), rng.integers(0, 3, 160)
    trainer.fit(data, 40, 16, rng=0, progress=False)
    for again in (pickle.loads(pickle.dumps(trainer)), copy.deepcopy(trainer)):
        assert again.evaluate(data) == trainer.evaluate(data)
        again.fit(data, 1, 16, rng=0, progress=False)
