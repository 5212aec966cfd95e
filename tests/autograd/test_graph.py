"""The graph and its one backward pass: which nodes are visited, and what a step costs."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.autograd.graph import Node
from microfw.autograd.scope import path
from microfw.errors import ShapeError
from tests.helpers.models import batch, classifier, leaf


def reachable(y):
    """All nodes that y depends on."""
    found, stack = {}, [y._node]
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and node not in found:
            found[node] = None
            stack.extend(parent for parent, _, _ in node.edges)
    return list(found)


class Residual(nn.Module):
    def __init__(self):
        self.body = nn.Dense(4, 4, rng=0)

    def forward(self, x):
        x = x + nn.Tanh()(self.body(x))
        return x + self.body(x) * x


class Shared(nn.Module):
    def __init__(self):
        self.first = nn.Dense(4, 4, rng=0)
        self.second = nn.Dense(4, 4, rng=1)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(np.tanh(self.first(x)))


# One walk


def test_a_diamond_calls_two_rules_and_gives_four(watcher):
    a = leaf(1.0)
    with watcher.on():
        b = a + a
        c = b + b
        c.sum().backward()
    assert watcher.rules == {"add": 2, "sum": 1}
    np.testing.assert_array_equal(a.grad, [4])


def test_a_bare_diamond_of_scalars(watcher):
    a = mf.tensor(3.0, requires_grad=True)
    with watcher.on():
        b = a + a
        c = b + b
        c.backward()
    assert len(watcher.visited) == len(watcher.recorded) == 2
    assert a.grad == 4


def test_many_paths_are_one_visit_each(watcher):
    a = mf.tensor(1.0, requires_grad=True)
    y = a
    with watcher.on():
        for _ in range(60):
            y = y + y  # 2**60 paths
        y.backward()
    assert len(watcher.visited) == 60
    assert a.grad == 2.0**60


MODELS = {
    "classifier": (classifier, lambda m: m(batch()[0])),
    "residual": (Residual, lambda m: m(np.ones((3, 4), np.float32))),
    "shared weights": (Shared, lambda m: m(np.ones((3, 4), np.float32))),
    "shared layer": (
        lambda: nn.Sequential(*[nn.Dense(4, 4, rng=0), nn.Tanh()] * 3),
        lambda m: m(np.ones((3, 4), np.float32)),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_rules_called_are_the_nodes_reachable_each_once(name, watcher):
    make, run = MODELS[name]
    model = make()
    with watcher.on():
        y = np.sum(np.square(run(model)))
        nodes = reachable(y)
        np.exp(model.parameters()[0])  # recorded, but not needed
        y.backward()
    assert len(watcher.visited) == len(nodes) == len(watcher.recorded) - 1
    assert set(watcher.visited) == set(nodes)
    assert max(Counter(watcher.visited).values()) == 1


def test_nodes_are_walked_newest_first(watcher):
    with watcher.on():
        np.sum(Residual()(np.ones((3, 4), np.float32))).backward()
    orders = [node.order for node in watcher.visited]
    assert orders == sorted(orders, reverse=True)


@pytest.mark.parametrize("name", MODELS)
def test_whole_models_pass_gradcheck(name):
    make, run = MODELS[name]
    model = make().astype(np.float64)
    parameters = model.parameters()
    run(model).sum().backward()
    x = [np.array(p.data) for p in parameters]
    directions = [np.random.default_rng(1).standard_normal(a.shape) for a in x]

    def value(h):
        for p, a, d in zip(parameters, x, directions, strict=True):
            p.data = a + h * d
        return run(model).sum().item()

    slope = (8 * (value(1e-5) - value(-1e-5)) - (value(2e-5) - value(-2e-5))) / 12e-5
    got = sum(float(np.sum(p.grad * d)) for p, d in zip(parameters, directions, strict=True))
    assert abs(slope - got) <= 1e-6 * max(1, abs(slope))


def test_only_what_needs_a_gradient_is_recorded(watcher):
    a, b = mf.tensor([1.0]), leaf(2.0)
    with watcher.on():
        a * a
        (a * a) * b
    assert [node.op.name for node in watcher.recorded] == ["multiply"]
    assert [len(node.edges) for node in watcher.recorded] == [1]


def test_a_rule_of_the_wrong_shape_is_named():
    bad = mf.op(lambda x: x * 2.0, vjp=lambda g: g[:1], name="bad_shape")
    x = leaf(1.0, 2.0, 3.0)
    with pytest.raises(ShapeError, match=r"^bad_shape: the derivative rule gave shape \(1,\) for an input of shape"):
        bad(x).sum().backward()


def test_partials_that_a_caller_keeps_are_not_changed_by_accumulation():
    a = leaf(1.0, 2.0)
    y = (a + a) + (a + a)
    g = np.ones(2)
    y.backward(g)
    np.testing.assert_array_equal(g, [1, 1])
    np.testing.assert_array_equal(a.grad, [4, 4])


def train(steps):
    """Train in place; return the objects the collector finds, and the bytes that stay."""
    model, loss_fn = classifier(), nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x, y = batch()

    def some(n):
        for _ in range(n):
            optimizer.zero_grad()
            loss_fn(model(x), y).backward()
            optimizer.step()

    some(50)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        some(steps)
        growth = tracemalloc.get_traced_memory()[0] - before
        return gc.collect(), growth
    finally:
        tracemalloc.stop()
        gc.enable()


# N, P, E and the cost of a step


def edges_of(watcher):
    return sum(len(node.metadata) for node in watcher.recorded)


def step(model, watcher, x, y, loss_fn=None):
    with watcher.on():
        (loss_fn or nn.CrossEntropyLoss())(model(x), y).backward()


@pytest.mark.parametrize("widths", [(6, 3), (6, 8, 3), (6, 8, 5, 3), (64, 64, 64, 10)])
@pytest.mark.parametrize("rows", [1, 16])
def test_products_of_a_step_are_three_forwards_less_the_first_layers(widths, rows, watcher):
    model = classifier(widths=widths)
    x, y = batch(rows, widths[0], widths[-1])
    step(model, watcher, x, y)
    forward, backward = watcher.costs()
    predicted = [2 * rows * a * b for a, b in zip(widths, widths[1:], strict=False)]
    assert forward == sum(predicted)
    assert forward + backward == 3 * sum(predicted) - predicted[0]


def test_freezing_a_layer_lowers_p_e_and_the_cost_as_predicted(watcher):
    x, y = batch()
    model = classifier()
    step(model, watcher, x, y)
    full = watcher.costs()[1], edges_of(watcher), len(watcher.recorded)
    model.zero_grad()
    model[0].requires_grad_(False)
    again = type(watcher)()
    step(model, again, x, y)
    layers = [2 * 16 * a * b for a, b in ((6, 8), (8, 5), (5, 3))]
    # Without the first layer's weight product, neither is the gradient of its output needed.
    assert full[0] == 2 * sum(layers) - layers[0]
    assert again.costs()[1] == full[0] - layers[0] - layers[1]
    # Its weight and bias, the ReLU behind it, and the second layer's data.
    assert edges_of(again) == full[1] - 4
    assert len(again.recorded) == full[2] - 2
    trainable = sum(p.size for p in model.parameters() if p.requires_grad)
    assert trainable == sum(p.size for p in model.parameters()) - (6 * 8 + 8)
    assert model[0].weight.grad is None


def test_freezing_a_middle_layer_keeps_the_way_through_it(watcher):
    x, y = batch()
    model = classifier()
    model[2].requires_grad_(False)
    step(model, watcher, x, y)
    layers = [2 * 16 * a * b for a, b in ((6, 8), (8, 5), (5, 3))]
    assert watcher.costs()[1] == layers[0] + layers[1] + 2 * layers[2]
    assert model[0].weight.grad is not None and model[2].weight.grad is None


def test_phases_start_and_end_in_pairs(watcher):
    model, (x, y) = classifier(), batch()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with watcher.on():
        nn.CrossEntropyLoss()(model(x), y).backward()
        optimizer.step()
    phases = ["forward", "forward", "backward", "update"]
    assert watcher.phases == phases


def test_nodes_carry_the_name_of_their_layer(watcher):
    model, (x, y) = nn.Sequential(nn.Sequential(nn.Dense(6, 4, rng=0), nn.ReLU()), nn.Dense(4, 3, rng=0)), batch()
    step(model, watcher, x, y)
    assert [path(node.scope) for node in watcher.recorded] == ["0.0", "0.1", "1", "CrossEntropyLoss"]


# Observers


def test_an_observer_sees_evaluation_too(watcher):
    with watcher.on(), mf.no_grad():
        classifier()(batch()[0])
    assert len(watcher.ran) == 5 and not watcher.recorded


def test_the_observer_does_not_change_the_result(watcher):
    plain = mf.grad(lambda m: nn.CrossEntropyLoss()(m(batch()[0]), batch()[1]))(classifier())
    with watcher.on():
        watched = mf.grad(lambda m: nn.CrossEntropyLoss()(m(batch()[0]), batch()[1]))(classifier())
    for name in plain:
        np.testing.assert_array_equal(plain[name], watched[name])


def test_observers_get_one_partial_for_each_edge(watcher):
    model, (x, y) = classifier(), batch()
    optim.SGD(model.parameters(), lr=0.1)
    step(model, watcher, x, y)
    assert [len(s) for s in watcher.shares] == [len(node.metadata) for node in watcher.visited]


def test_a_node_says_where_it_is():
    assert (leaf(1.0) * 2.0)._node.where == "multiply"


def test_backward_from_one_entry_that_has_axes():
    x = mf.tensor([[3.0]], requires_grad=True)
    (x * x).backward()
    np.testing.assert_array_equal(x.grad, [[6]])
