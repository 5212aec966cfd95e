"""Scalar nodes are counted as the law's scalar graph has them, for each op and for whole models."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.autograd.graph import Leaf, reachable
from microfw.law.scalar_graph import scalar_graph
from microfw.profiler.cost_check import one_step
from microfw.profiler.recorder import stats
from tests.cases.ops import DIFFERENTIABLE, title
from tests.helpers.law_models import recorded_graph
from tests.helpers.thinning import thinned

WHOLE = ("inv", "solve", "det", "slogdet", "cholesky")  # no loop over entries of objects


def small(case, sample):
    arrays = sample.arranged()
    return all(0 < np.size(x) < 300 for x in arrays) and case.op.call(*arrays, **sample.params).size


@pytest.mark.parametrize(("case", "sample"), thinned([pair for pair in DIFFERENTIABLE if small(*pair)], 3), ids=title)
def test_each_op_has_the_nodes_of_its_scalar_graph(case, sample):
    function, inputs = case.call(sample)
    tensors = [mf.tensor(x, requires_grad=True) for x in inputs]
    counts = recorded_graph(lambda: np.sum(np.square(function(*tensors))))
    if case.name in WHOLE:
        assert not all(count.counted for count in counts)
        return
    graph = scalar_graph(lambda: np.sum(np.square(function(*tensors))), tensors)
    nodes = reachable(graph.loss._node)
    assert all(count.counted for count in counts)
    assert sum(count.nodes for count in counts) == len(graph.nodes)
    assert sum(count.rules for count in counts) == len(nodes)
    leaves = sum(isinstance(parent, Leaf) for node in nodes for parent, _, _ in node.edges or ())
    assert sum(count.accumulated for count in counts) == leaves


def test_entries_that_the_loss_does_not_use_are_nodes_but_have_no_rules():
    x = mf.tensor(np.ones((3, 4)), requires_grad=True)
    doubled, picked, total = recorded_graph(lambda: np.sum((x * 2.0)[-1]))
    assert (doubled.nodes, doubled.rules, doubled.accumulated) == (12, 4, 4)
    assert (picked.nodes, total.nodes, total.rules) == (0, 3, 3)


def test_an_array_that_is_written_to_is_followed():
    @mf.op(vjp=lambda g: g, name="written_for_a_test")
    def written(x):
        y = np.zeros_like(x)
        y[:1] = x[:1] * 3.0
        y[1:] += x[1:]
        y *= y
        return y

    x = mf.tensor(np.ones((3, 2)), requires_grad=True)
    (count,) = recorded_graph(lambda: written(x)[0, 0])[:1]
    # a product or a sum, and a square, for each entry
    assert (count.nodes, count.rules, count.accumulated) == (12, 2, 1)


def test_methods_and_generators_among_the_parameters_are_not_used():
    told = []

    @mf.op(vjp=lambda g: g, name="tells_for_a_test")
    def tells(x, *, tell, rng):
        tell(rng.random())
        return x + 1.0

    x, rng = mf.tensor(np.ones((2, 4)), requires_grad=True), np.random.default_rng(3)
    counts = recorded_graph(lambda: np.sum(tells(x, tell=told.append, rng=rng)))
    assert [count.nodes for count in counts] == [8, 7]
    assert told == [np.random.default_rng(3).random()] and rng.random() == np.random.default_rng(3).random(2)[1]


def test_an_op_that_cannot_be_counted_is_marked():
    class Inverted(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter(np.eye(4, dtype=np.float32) + 0.1)

        def forward(self, x):
            return x @ np.linalg.inv(self.weight)

    epoch = one_step(Inverted(), np.ones((2, 4), np.float32))
    assert {row.op: row.scalar_uncounted for row in epoch.rows} == {"inv": 1, "matmul": 0}
    assert [count.kind for count in epoch.counts()] == ["tensors"]


def test_a_loop_until_a_value_is_small_ends():
    @mf.op(vjp=lambda g, y: g / (2 * y), name="root_for_a_test")
    def root(x):
        """Return the square root, by Newton's method."""
        y = x * 1.0
        while np.max(np.abs(y * y - x)) > 1e-9:
            y = (y + x / y) / 2
        return y

    x = mf.tensor(np.array([[2.0, 3.0]]), requires_grad=True)
    counts = recorded_graph(lambda: np.sum(root(x)))
    assert [(count.nodes, count.counted) for count in counts] == [(2, True), (1, True)]  # entry by entry


def test_steps_of_the_same_shapes_have_the_scalar_nodes_of_the_first():
    model, x = nn.Dense(4, 3, rng=0), np.ones((8, 4), np.float32)

    def count(*steps):
        with mf.Profiler(model) as profiler:
            for rows in steps:
                model(x)[np.array(rows)].sum().backward()
            profiler.end_epoch()
        total = profiler.session.epochs[0].sum()
        return total.scalar_rules + total.scalar_accumulated

    once, thrice = [0, 0, 0], [0, 1, 2]
    assert count(once) < count(thrice)
    assert count(once, thrice) == 2 * count(once) and count(thrice, once) == 2 * count(thrice)


def test_a_graph_too_large_is_not_counted(monkeypatch):
    monkeypatch.setattr("microfw.profiler.scalar_tape.MAX_ENTRIES", 10)
    epoch = one_step(nn.Dense(3, 4, rng=0), np.ones((2, 3)))
    assert epoch.sum().scalar_uncounted == 1 and len(epoch.counts()) == 1


def test_a_checkpoint_has_the_nodes_of_what_it_runs():
    body, x = nn.Sequential(nn.Dense(4, 4, rng=0), nn.Tanh()), np.ones((2, 4), np.float32)

    class Checkpointed(nn.Module):
        def __init__(self):
            self.body = body

        def forward(self, x):
            return mf.checkpoint(self.body, x)

    ways = [one_step(model, x, loss=lambda y, _: y.sum()).sum() for model in (body, Checkpointed())]
    for name in ("scalar_nodes", "scalar_rules", "scalar_accumulated"):
        assert getattr(ways[0], name) == getattr(ways[1], name) > 0


def test_a_graph_walked_twice_has_its_nodes_once():
    w = mf.tensor(np.ones(3), requires_grad=True)
    optimizer = mf.optim.SGD([w], lr=0.1)
    with mf.Profiler(nn.Identity()) as profiler:
        loss = (w * 2.0).sum()
        loss.backward(retain_graph=True)
        loss.backward()
        optimizer.step()
    total = profiler.session.total().sum()
    assert (total.scalar_nodes, total.scalar_rules, total.scalar_accumulated) == (5, 10, 6)


def test_counting_leaves_nothing_behind():
    model = nn.Sequential(nn.Dense(3, 7, rng=0), nn.ReLU())
    one_step(model, np.ones((5, 3), np.float32))
    model = model.astype(np.float64)  # ReLU keeps zeros to compare with, by shape
    X = np.ones((5, 3))
    assert type(model(X).numpy()) is np.ndarray
    assert np.array_equal(model(X).numpy(), np.maximum(model[0](X).numpy(), 0))


def test_an_observed_step_does_not_count(monkeypatch):
    """Each graph is counted once, when the profile is read; steps of a graph that is known describe no op again."""
    calls = {"count_graph": 0, "stand_in": 0}
    for name in calls:
        original = getattr(stats, name)

        def counted(*args, name=name, original=original):
            calls[name] += 1
            return original(*args)

        monkeypatch.setattr(stats, name, counted)
    model, X, y = nn.Dense(3, 2, rng=0), np.ones((4, 3), np.float32), np.zeros(4, int)
    optimizer = mf.optim.SGD(model.parameters(), lr=0.1)
    with mf.Profiler(model) as profiler:
        for _ in range(5):
            optimizer.zero_grad()
            nn.CrossEntropyLoss()(model(X), y).backward()
            optimizer.step()
        assert calls == {"count_graph": 0, "stand_in": 3 + 2}  # the inputs of linear and cross_entropy
    assert profiler.session.total().sum().scalar_nodes == 5 * profiler.session.epochs[0].counts()[1].N
    profiler.session.total()
    assert calls["count_graph"] == 1
