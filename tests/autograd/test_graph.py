"""The graph and its one walk: what is visited, what is freed, what never leaks, and how deep it may be."""

from __future__ import annotations

import asyncio
import gc
import platform
import subprocess
import sys
import textwrap
import threading
import tracemalloc
import weakref
from collections import Counter

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.autograd.graph import Node
from microfw.autograd.mode import MODE
from microfw.autograd.registry import OPS
from microfw.autograd.scope import THREAD_SCOPE, path
from microfw.errors import ArgumentError, GraphError, ShapeError
from tests.helpers.paths import ROOT


def leaf(*values, dtype=np.float64):
    return mf.tensor(np.array(values, dtype), requires_grad=True)


def reachable(y):
    """All nodes that y depends on."""
    found, stack = {}, [y._node]
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and node not in found:
            found[node] = None
            stack.extend(parent for parent, _, _ in node.edges)
    return list(found)


def classifier(rng=0, widths=(6, 8, 5, 3)):
    rng = np.random.default_rng(rng)
    layers = []
    for k, (a, b) in enumerate(zip(widths, widths[1:], strict=False)):
        layers += ([nn.ReLU()] if k else []) + [nn.Dense(a, b, rng=rng)]
    return nn.Sequential(*layers)


def batch(n=16, features=6, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, features)).astype(np.float32), rng.integers(0, classes, n)


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


# What is left behind


def test_only_leaves_get_a_grad():
    x = leaf(1.0, 2.0)
    y = x * x
    y.sum().backward()
    assert y.grad is None and x.grad is not None
    with pytest.raises(GraphError, match="keeps no gradient"):
        y.grad = np.ones(2)


def test_each_leaf_owns_its_grad():
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    g = np.ones(2)
    (a + b).backward(g)
    assert not np.shares_memory(a.grad, b.grad) and not np.shares_memory(a.grad, g)
    a.grad[0] = 9
    np.testing.assert_array_equal(b.grad, [1, 1])


@pytest.mark.parametrize("name", ["identity", "reshape", "transpose", "getitem", "broadcast_to"])
def test_a_grad_is_no_view_of_the_seed(name):
    params = {"reshape": {"shape": (2, 1)}, "getitem": {"key": slice(None)}, "broadcast_to": {"to": (2,)}}
    x = leaf(1.0, 2.0)
    y = OPS[name].call(x, **params.get(name, {}))
    g = np.ones(y.shape)
    y.backward(g)
    g[...] = 7
    np.testing.assert_array_equal(x.grad, [1, 1])


def test_gradients_add_up_until_forgotten():
    x = leaf(1.0)
    for total in (2, 4, 6):
        (x * 2.0).sum().backward()
        np.testing.assert_array_equal(x.grad, [total])
    x.zero_grad()
    assert x.grad is None


def test_backward_from_a_leaf():
    x = mf.tensor(2.0, requires_grad=True)
    x.backward()
    assert x.grad == 1


def test_the_walked_graph_is_freed_at_once():
    x = leaf(1.0, 2.0)
    middle = x * 2.0
    array = weakref.ref(middle._array.base if middle._array.base is not None else middle._array)
    y = np.exp(middle).sum()
    node = y._node
    del middle
    gc.disable()
    try:
        y.backward()
        assert node.edges is None
        assert array() is None
    finally:
        gc.enable()


def test_no_cycle_is_made():
    gc.collect()
    gc.disable()
    try:
        model, loss_fn = classifier(), nn.CrossEntropyLoss()
        x, y = batch()
        for _ in range(20):
            loss = loss_fn(model(x), y)
            loss.backward()
            loss = loss_fn(model(x), y)  # recorded, never walked
            loss.backward(retain_graph=True)
        del loss
        for _ in range(5):
            mf.grad(lambda m: loss_fn(m(x), y))(model)
        assert gc.collect() == 0
    finally:
        gc.enable()


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


@pytest.mark.parametrize("steps", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_training_leaves_no_garbage_and_does_not_grow(steps):
    code = f"import sys; sys.path.append({str(ROOT)!r}); from tests.autograd.test_graph import train; print(*train({steps}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )  # where nothing else runs
    assert done.returncode == 0, done.stderr
    garbage, growth = map(int, done.stdout.split())
    print(f"{steps} steps: {garbage} objects of garbage, {growth / 2**10:.1f} KiB of growth")
    assert garbage == 0
    assert growth <= 2**20


# Depth

DEEP = """
import sys, time, gc
import numpy as np, microfw as mf
n = int(sys.argv[1])
gc.disable()
sys.setrecursionlimit(100)
x = mf.tensor(1.0, requires_grad=True)
began = time.perf_counter()
y = x
for _ in range(n // 2):
    y = y + 0.5
    y = y * 1.0
middle = time.perf_counter()
y.backward()
walked = time.perf_counter()
del y
freed = time.perf_counter()
assert x.grad == 1.0
y = x
for _ in range(n // 2):
    y = -y
    y = np.negative(y)
unwalked = time.perf_counter()
del y
dropped = time.perf_counter()
print(f"forward {middle - began:.2f} s, backward {walked - middle:.2f} s, release {freed - walked:.2f} s, "
      f"release unwalked {dropped - unwalked:.2f} s")
print(freed - began + (dropped - unwalked))
"""


@pytest.mark.parametrize("n", [50_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_deep_chain_needs_no_recursion(n):
    """A million ops forward, backward and released, walked or not, in 10 s under a recursion limit of 100."""
    done = subprocess.run([sys.executable, "-c", DEEP, str(n)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    print(f"{n} ops: {done.stdout}")
    assert float(done.stdout.splitlines()[-1]) <= 10 * max(n / 1_000_000, 0.3)


@pytest.mark.parametrize("ways", ["nested gradient", "forward mode"])
def test_other_walks_need_no_recursion_either(ways):
    code = """
    import sys
    import numpy as np, microfw as mf
    def f(x):
        for _ in range(3000):
            x = x * 1.0
        return x * x
    one, two = np.array(3.0), np.array(1.0)
    sys.setrecursionlimit(150)
    if sys.argv[1] == "forward mode":
        assert mf.jvp(f, (one,), (two,))[1] == 6
    else:
        assert mf.grad(mf.grad(f))(one) == 2
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), ways], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]


# Errors


def test_backward_twice_says_what_to_do():
    x = leaf(1.0)
    y = (x * 2.0).sum()
    y.backward()
    with pytest.raises(GraphError) as info:
        y.backward()
    assert str(info.value) == (
        "sum: this graph was already walked and its saved values are freed; "
        "call backward(retain_graph=True) the first time, or compute the loss again"
    )
    np.testing.assert_array_equal(x.grad, [2])


def test_backward_twice_names_the_layer():
    model, (x, y) = classifier(), batch()
    loss = nn.CrossEntropyLoss()(model(x), y)
    loss.backward()
    with pytest.raises(GraphError, match="^CrossEntropyLoss: cross_entropy: this graph was already walked"):
        loss.backward()


def test_a_part_that_was_freed_is_noticed_before_any_gradient_changes():
    x, w = leaf(1.0), leaf(5.0)
    part = x * 2.0
    part.sum().backward()
    kept = x.grad.copy()
    with pytest.raises(GraphError, match="^multiply: this graph was already walked"):
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


def test_phases_are_told_in_pairs(watcher):
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


# State never leaks


def test_exceptions_restore_mode_and_scope(watcher):
    class Fails(nn.Module):
        def forward(self, x):
            raise KeyError("inside")

    before = MODE.get()
    model = nn.Sequential(nn.Dense(6, 6, rng=0), Fails())
    for _ in range(3):
        with pytest.raises(KeyError), watcher.on(), mf.no_grad():
            model(np.ones((2, 6), np.float32))
        assert MODE.get() is before and THREAD_SCOPE.scope is None
    assert watcher.phases == ["evaluation"] * 3
    with pytest.raises(KeyError):
        mf.grad(lambda x: np.sum(model(x)))(np.ones((2, 6), np.float32))
    assert MODE.get() is before and THREAD_SCOPE.scope is None


def test_backward_that_fails_leaves_its_phase(watcher):
    y = (leaf(1.0) * 2.0).sum()
    y.backward()
    with watcher.on(), pytest.raises(GraphError):
        y.backward()
    assert watcher.phases == ["backward"]


def test_no_grad_nests_and_decorates():
    x = leaf(1.0)

    @mf.no_grad()
    def without():
        return x * 2.0

    assert not without().requires_grad
    with mf.no_grad():
        with mf.no_grad():
            pass
        assert not (x * 2.0).requires_grad
    assert (x * 2.0).requires_grad

    @mf.no_grad
    def bare():
        return x * 2.0

    assert not bare().requires_grad and bare.__name__ == "bare"

    async def later():
        pass

    def yields():
        yield x * 2.0

    for wrong in (later, yields, nn.ReLU, 3):
        for decorate in (mf.no_grad, mf.no_grad()):
            with pytest.raises(ArgumentError, match="no_grad: expected a function that computes when it is called"):
                decorate(wrong)
    block = mf.no_grad()
    with block, block:
        pass
    assert MODE.get().recording


def test_no_grad_does_not_leak_into_other_threads():
    x, seen = leaf(1.0), []
    with mf.no_grad():
        thread = threading.Thread(target=lambda: seen.append((x * 2.0).requires_grad))
        thread.start()
        thread.join()
        assert not (x * 2.0).requires_grad
    assert seen == [True]


def test_no_grad_does_not_leak_between_tasks():
    x = leaf(1.0)

    async def quiet():
        with mf.no_grad():
            for _ in range(5):
                await asyncio.sleep(0)
                assert not (x * 2.0).requires_grad

    async def loud():
        for _ in range(5):
            await asyncio.sleep(0)
            assert (x * 2.0).requires_grad

    async def main():
        await asyncio.gather(quiet(), loud(), quiet(), loud())

    asyncio.run(main())


def test_scopes_do_not_leak_between_tasks(watcher):
    async def call(model, width):
        await asyncio.sleep(0)
        with pytest.raises(ShapeError, match=f"^2 Dense: expected x of shape \\(N, {width}\\)"):
            model(np.ones((2, 6), np.float32))
        assert THREAD_SCOPE.scope is None

    async def main():
        models = [(nn.Sequential(nn.Dense(6, 4, rng=0), nn.ReLU(), nn.Dense(w, 2, rng=0)), w) for w in (5, 7)]
        await asyncio.gather(*(call(m, w) for m, w in models))

    asyncio.run(main())


def fitted(seed, steps=60):
    model, loss_fn = classifier(seed), nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for k in range(steps):
        x, y = batch(seed=100 * seed + k)
        optimizer.zero_grad()
        loss_fn(model(x), y).backward()
        optimizer.step()
    return np.concatenate([p.data.ravel() for p in model.parameters()])


def test_eight_threads_train_as_one_does():
    serial = [fitted(seed) for seed in range(8)]
    results = [None] * 8
    barrier = threading.Barrier(8)

    def work(seed):
        barrier.wait()
        results[seed] = fitted(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(old)
    for a, b in zip(serial, results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_threads_share_a_model_forward():
    """One model called by many threads: each gets its own graph, and names stay its own."""
    model = classifier()
    x, y = batch()
    expected = mf.grad(lambda m: nn.CrossEntropyLoss()(m(x), y))(model)["0.weight"]
    wrong = []

    def work():
        for _ in range(50):
            got = mf.grad(lambda m: nn.CrossEntropyLoss()(m(x), y))(model)["0.weight"]
            if not np.array_equal(got, expected):
                wrong.append(got)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_same_seed_gives_the_same_bits():
    np.testing.assert_array_equal(fitted(3), fitted(3))


def test_numpys_global_state_is_not_touched():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    nn.Sequential(nn.Dense(4, 4), nn.Dropout(0.5))(np.ones((2, 4), np.float32))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


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


def test_partials_told_are_one_an_edge(watcher):
    model, (x, y) = classifier(), batch()
    optim.SGD(model.parameters(), lr=0.1)
    step(model, watcher, x, y)
    assert [len(s) for s in watcher.shares] == [len(node.metadata) for node in watcher.visited]


def test_a_node_says_where_it_is():
    assert (leaf(1.0) * 2.0)._node.where == "multiply"


def test_mf_grad_does_not_touch_an_optimizers_buffer():
    """Else two threads that take gradients of one model would write into each other's."""
    model, (x, y) = classifier(), batch()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    optimizer.flat.gradients[...] = 7
    mf.grad(lambda m: nn.CrossEntropyLoss()(m(x), y))(model)
    np.testing.assert_array_equal(optimizer.flat.gradients, 7)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="counts page faults, which other C libraries deal with")
def test_steps_take_no_memory_from_the_system():
    """In a process where nothing large was freed before, as a script's is; warm steps have no page fault."""
    code = """if True:
        import resource, numpy as np, microfw as mf
        from microfw import nn, optim
        conv = [nn.Conv2D(1, 8, 3, padding="same", rng=0), nn.ReLU(), nn.MaxPool2D(2),
                nn.Conv2D(8, 16, 3, padding="same", rng=1), nn.ReLU(), nn.Flatten(), nn.Dense(256, 10, rng=2)]
        model = nn.Sequential(*conv)
        loss_fn, optimizer = nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.01)
        X, y = np.ones((64, 1, 8, 8), np.float32), np.arange(64) % 10
        for k in range(60):
            if k == 20:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            optimizer.zero_grad()
            loss_fn(model(X), y).backward()
            optimizer.step()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) < 40
