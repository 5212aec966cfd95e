"""checkpoint: the gradients of the plain function, with its graph not kept, its random draws the same."""

from __future__ import annotations

import functools
import gc
import threading
import tracemalloc

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.autograd.scope import path
from microfw.autograd.state_discovery import find_state
from microfw.errors import DTypeError, GraphError

X = np.array([[0.3, -0.7, 1.1], [0.2, 0.9, -0.4]])


def curved(x):
    return np.tanh(x * x) * x + np.sum(np.exp(x), 0)


def gradients(function, *arrays):
    leaves = [mf.tensor(a, requires_grad=True) for a in arrays]
    y = function(*leaves)
    np.sum(y * y).backward()
    return [y.data] + [t.grad for t in leaves]


def same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def network(rng=0):
    return nn.Sequential(nn.Dense(3, 8, rng=0), nn.Tanh(), nn.Dropout(0.5, rng=rng), nn.Dense(8, 3, rng=1)).astype(
        np.float64
    )


def test_value_and_gradients_are_the_plain_functions():
    same(gradients(lambda x: mf.checkpoint(curved, x), X), gradients(curved, X))
    same(gradients(lambda x: mf.checkpoint(curved, np.sin(x)), X), gradients(lambda x: curved(np.sin(x)), X))
    two = lambda a, b: a * np.sin(b) + a  # noqa: E731
    same(
        gradients(lambda a, b: mf.checkpoint(two, a * 2.0, b), X, X + 1),
        gradients(lambda a, b: two(a * 2.0, b), X, X + 1),
    )
    same(gradients(lambda x: mf.checkpoint(lambda x: x, x), X), gradients(lambda x: x, X))


def test_one_node_is_kept_and_the_function_runs_twice(watcher):
    runs = []
    x = mf.tensor(X, requires_grad=True)
    with watcher.on():
        y = mf.checkpoint(lambda x: runs.append(1) or curved(x), x)
        assert y._node.op.name == "checkpoint" and [e[0] for e in y._node.edges] == [x._node]
        assert len(runs) == 1
        np.sum(y).backward()
    assert len(runs) == 2
    assert watcher.rules["tanh"] == watcher.rules["checkpoint"] == 1
    ran = [op.name for op, *_ in watcher.ran]
    assert ran.count("tanh") == 2 and ran.count("sum") == 3  # observers are notified of both runs


def test_each_layer_or_all_of_them_give_the_models_gradients():
    def by_layer(model, x):
        for layer in model:
            x = mf.checkpoint(layer, x)
        return x

    found = []
    for forward in (lambda m, x: m(x), lambda m, x: mf.checkpoint(m, x), by_layer):
        model = network()
        np.sum(np.square(forward(model, X))).backward()
        found.append([p.grad for p in model.parameters()] + [np.array(model[2].rng.random())])
    same(found[0], found[1])
    same(found[0], found[2])


def test_scopes_are_those_of_the_forward_pass(watcher):
    class Deep(nn.Module):
        def __init__(self):
            self.body = nn.Sequential(nn.Dense(3, 3, rng=0), nn.Tanh())

        def forward(self, x):
            return mf.checkpoint(self.body, x)

    model = nn.Sequential(Deep())
    with watcher.on():
        np.sum(model(X)).backward()
    scopes = {node.op.name: path(node.scope) for node in watcher.visited if node.scope}
    assert scopes == {"linear": "0.body.0", "tanh": "0.body.1", "checkpoint": "0"}
    assert watcher.phases == ["forward", "backward"]


def test_frozen_parameters_and_inputs_without_a_gradient():
    model = network()
    model[0].requires_grad_(False)
    np.sum(mf.checkpoint(model, X)).backward()
    assert model[0].weight.grad is None and model[3].weight.grad is not None
    model.requires_grad_(False)
    assert not mf.checkpoint(model, X).requires_grad
    with mf.no_grad():
        assert not mf.checkpoint(curved, mf.tensor(X, requires_grad=True)).requires_grad


def test_containers_come_in_and_go_out():
    def f(p, arrays):
        return {"a": p["x"] * arrays[0], "b": (np.sum(p["y"][0]), p["y"][0] * p["x"])}

    def total(out):
        return np.sum(out["a"]) + out["b"][0] * 2.0 + np.sum(np.square(out["b"][1]))

    found = []
    for call in (f, functools.partial(mf.checkpoint, f)):
        x, y = (mf.tensor(a, requires_grad=True) for a in (X, X + 1))
        out = call({"x": x * 1.0, "y": [y]}, [X])
        assert list(out) == ["a", "b"] and out["b"][0].shape == ()
        total(out).backward()
        found.append([x.grad, y.grad])
    same(*found)


def test_nested():
    def inner(x):
        return mf.checkpoint(np.tanh, x * x) * x

    def outer(x):
        return mf.checkpoint(inner, x) + mf.checkpoint(lambda x: np.sum(np.exp(x), 0), x)

    for a, b in zip(gradients(outer, X), gradients(curved, X), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)


def test_derivatives_of_derivatives():
    def kept(x):
        return np.sum(np.square(mf.checkpoint(curved, np.sin(x))))

    def plain(x):
        return np.sum(np.square(curved(np.sin(x))))

    np.testing.assert_allclose(mf.hessian(kept)(X), mf.hessian(plain)(X), rtol=1e-12, atol=1e-13)
    assert mf.gradcheck(kept, X) <= 1e-6 and mf.gradgradcheck(kept, X) <= 1e-6
    np.testing.assert_allclose(
        mf.jacobian(lambda x: mf.checkpoint(curved, x), mode="forward")(X), mf.jacobian(curved)(X)
    )
    third = [mf.grad(mf.grad(mf.grad(f)))(0.4) for f in (lambda x: mf.checkpoint(np.tanh, x), np.tanh)]
    np.testing.assert_allclose(*third, rtol=1e-12)
    model = network()
    model.eval()
    penalty = [
        mf.grad(lambda m: np.sum(np.square(mf.grad(lambda x: np.sum(f(m, x)))(X))))(model)["0.weight"]  # noqa: B023
        for f in (lambda m, x: m(x), lambda m, x: mf.checkpoint(m, x))
    ]
    np.testing.assert_allclose(*penalty, rtol=1e-12)


def test_a_derivative_inside_is_what_it_was():
    """A constant in a plain step, also if the step is differentiated later; and differentiable where derivatives nest."""

    def f(x):
        return x * mf.grad(lambda y: np.sum(y**3))(x)

    same(gradients(lambda x: mf.checkpoint(f, x), X), gradients(f, X))
    np.testing.assert_allclose(mf.grad(lambda x: np.sum(mf.checkpoint(f, x)))(X), mf.grad(lambda x: np.sum(f(x)))(X))


def test_retained_graphs_run_again_each_time():
    runs, x = [], mf.tensor(X, requires_grad=True)
    w = mf.tensor(X + 2, requires_grad=True)
    y = np.sum(mf.checkpoint(lambda x: runs.append(1) or curved(x) * w, x))
    for _ in range(3):
        x.zero_grad()
        w.zero_grad()
        y.backward(retain_graph=True)
        found = [x.grad.copy(), w.grad.copy()]
    assert len(runs) == 4
    same(found, gradients_of_product())
    x.grad[...] = 0
    value, pull = mf.vjp(lambda x: mf.checkpoint(lambda x: curved(x) * w, x), X)  # by one of the parents only
    for scale in (1.0, 2.0):
        np.testing.assert_allclose(pull(np.full(X.shape, scale))[0].numpy(), scale * found[0])


def gradients_of_product():
    x, w = mf.tensor(X, requires_grad=True), mf.tensor(X + 2, requires_grad=True)
    np.sum(curved(x) * w).backward()
    return [x.grad, w.grad]


def test_a_second_backward_is_refused():
    y = np.sum(mf.checkpoint(curved, mf.tensor(X, requires_grad=True)))
    y.backward()
    with pytest.raises(GraphError, match="already run through this graph"):
        y.backward()


# Random draws, buffers


RNG = np.random.default_rng(5)


class Holder:
    __slots__ = ("inner",)

    def __init__(self, rng):
        self.inner = {"deep": [rng]}

    def noise(self, x):
        return x * self.inner["deep"][0].random(x.shape)


class Static:
    @staticmethod
    def noise(x):
        return x * RNG.random(x.shape)

    @property
    def factor(self):
        return RNG.random()

    def times(self, x):
        return x * self.factor


STATIC = Static()


class Noisy(nn.Module):
    def forward(self, x):
        return x * RNG.random(x.shape)


def helper(x):
    return x * RNG.random(x.shape)


def noisy_functions(rng):
    def by_default(x, rng=rng):
        return x * rng.random(x.shape)

    return {
        "closure": (lambda x: x * rng.random(x.shape),),
        "closure of a closure": (lambda x: (lambda z: z * rng.random(x.shape))(x),),
        "default": (by_default,),
        "global": (helper,),
        "global of a global": (lambda x: helper(x) * 2.0,),
        "object": (Holder(rng).noise,),
        "static method": (lambda x, s=STATIC: s.noise(x),),
        "property": (STATIC.times,),
        "partial": (functools.partial(lambda rng, x: x * rng.random(x.shape), rng),),
        "module": (nn.Dropout(0.3, rng=rng),),
        "method of a module": (Noisy(),),
    }


@pytest.mark.parametrize("name", noisy_functions(RNG))
def test_the_second_run_draws_the_same(name):
    found, after = [], []
    for call in (lambda f, x: f(x), mf.checkpoint):
        global RNG
        RNG = np.random.default_rng(5)
        (f,) = noisy_functions(RNG)[name]
        x = mf.tensor(X, requires_grad=True)
        y = call(f, x * 1.0)
        drawn = RNG.random()  # between forward and backward, which is to change nothing
        np.sum(y * y).backward()
        found.append(x.grad)
        after.append((drawn, RNG.random()))
    np.testing.assert_array_equal(*found)
    assert after[0] == after[1]


def test_a_generator_among_the_inputs():
    x, rng = mf.tensor(X, requires_grad=True), np.random.default_rng(1)
    np.sum(mf.checkpoint(lambda x, rng: x * rng.random(x.shape), x, rng)).backward()
    np.testing.assert_array_equal(x.grad, np.random.default_rng(1).random(X.shape))


def test_draws_that_nothing_can_repeat_are_an_error():
    hidden = iter(np.random.default_rng(0).random(10))
    y = mf.checkpoint(lambda x: x * next(hidden), mf.tensor(X, requires_grad=True))
    with pytest.raises(
        GraphError, match="^checkpoint: expected the same value when its function runs again, got another; give"
    ):
        np.sum(y).backward()


class Averaging(nn.Module):
    """Keeps a running mean, as batch normalization does."""

    def __init__(self):
        self.mean = mf.tensor(np.zeros(3))

    def forward(self, x):
        self.mean.data = 0.9 * self.mean.data + 0.1 * np.mean(x.data, 0)
        return x - np.mean(x, 0)


def test_buffers_count_a_step_once():
    found = []
    for call in (lambda f, x: f(x), mf.checkpoint):
        layer, x = Averaging(), mf.tensor(X, requires_grad=True)
        y = call(layer, x) + call(layer, x * 2.0)
        np.sum(y * y).backward()
        found.append([layer.mean.data, x.grad])
    same(*found)


# What changes between forward and backward


def test_arrays_handed_in_may_change():
    w, x = mf.tensor(np.zeros(3), requires_grad=True), X.copy()
    y = np.sum(mf.checkpoint(lambda x: x * w, x))
    x[...] = 99
    y.backward()
    np.testing.assert_array_equal(w.grad, X.sum(0))


@pytest.mark.parametrize("kind", ["parameter", "frozen parameter", "input", "constant in a closure"])
def test_a_leaf_that_is_written_is_noticed(kind):
    """Even where no rule saved it, and the value happens to stay the same."""
    x, zero = mf.tensor(X, requires_grad=True), mf.tensor(np.zeros(3), requires_grad=True)
    layer = nn.Dense(3, 3, rng=0).astype(np.float64)
    if kind == "frozen parameter":
        layer.requires_grad_(False)
    constant = mf.tensor(X)
    y = np.sum(mf.checkpoint(lambda x: np.tanh(layer(x) + constant) * zero, x))
    changed = {"input": x, "constant in a closure": constant}.get(kind, layer.bias)
    changed.data = changed.data + 1
    with pytest.raises(GraphError, match="was written to"):
        y.backward()


def test_evaluation_mode_in_between_is_noticed():
    model = network()
    y = np.sum(mf.checkpoint(model, mf.tensor(X, requires_grad=True)))
    model.eval()
    with pytest.raises(GraphError, match="expected the same value when its function runs again"):
        y.backward()


def test_results_must_come_in_as_inputs():
    x = mf.tensor(X, requires_grad=True)
    h = np.sin(x)
    with pytest.raises(GraphError) as info:
        mf.checkpoint(lambda y: y * h, x)
    assert str(info.value) == (
        "checkpoint: expected results of ops to come in as inputs, got one of sin that is not among its inputs; pass it too"
    )


def test_what_is_returned_must_be_tensors_of_one_dtype():
    x = mf.tensor(X, requires_grad=True)
    with pytest.raises(GraphError, match="^checkpoint: expected a function that returns Tensors, got ndarray"):
        mf.checkpoint(lambda x: x.data, x)
    with pytest.raises(DTypeError, match="Tensors of one dtype, got float64, float32"):
        mf.checkpoint(lambda x: (x, x.astype(np.float32)), x)


def test_an_exception_in_the_second_run_puts_generators_back():
    rng, runs = np.random.default_rng(0), []

    def f(x):
        runs.append(1)
        if len(runs) > 1:
            raise KeyError
        return x * rng.random(x.shape)

    y = np.sum(mf.checkpoint(f, mf.tensor(X, requires_grad=True)))
    before = rng.bit_generator.state
    with pytest.raises(KeyError):
        y.backward()
    assert rng.bit_generator.state == before


# Memory, threads, what is left behind


def test_memory_is_that_of_one_block():
    blocks = [
        nn.Sequential(*(layer for _ in range(6) for layer in (nn.Dense(32, 32, rng=0), nn.Tanh()))) for _ in range(6)
    ]
    batch = np.random.default_rng(0).standard_normal((512, 32)).astype(np.float32)

    def step(call):
        h = mf.tensor(batch)
        for block in blocks:
            h = call(block, h)
        np.sum(h).backward()

    peaks = []
    for call in (lambda f, x: f(x), mf.checkpoint):
        step(call)
        tracemalloc.start()
        try:
            step(call)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 0.45 * peaks[0], peaks


def test_nothing_is_left_behind():
    model = network()
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            out = mf.checkpoint(lambda x: {"a": model(x), "b": x * 2.0}, mf.tensor(X, requires_grad=True))
            (np.sum(out["a"]) + np.sum(out["b"])).backward()
            del out
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_threads_that_walk_one_graph():
    w = mf.tensor(np.linspace(-1, 1, 9).reshape(3, 3), requires_grad=True)
    value, pull = mf.vjp(lambda x: mf.checkpoint(lambda x: np.tanh(np.matmul(x, w)) * x, x), X)
    expected = [pull(np.full(X.shape, k))[0] for k in range(8)]
    wrong = []

    def walk(k):
        for _ in range(20):
            if not np.array_equal(pull(np.full(X.shape, k))[0], expected[k]):
                wrong.append(k)

    threads = [threading.Thread(target=walk, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_reach_finds_generators_and_tensors_in_closures_and_containers():
    model = network()
    generators, tensors = find_state((model, X, "text", np.exp, mf))
    assert generators == [model[2].rng] and {id(t) for t in tensors} == {id(p) for p in model.parameters()}
    filled = None

    def unfilled():
        return later

    assert find_state(unfilled) == ([], [])
    later = filled
    cyclic = []
    cyclic.append(cyclic)
    assert find_state(cyclic) == ([], [])


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_profiler_continues_after_a_checkpoint(checkpointed):
    model = network()
    optimizer = mf.optim.SGD(model.parameters(), lr=0.1)
    with mf.Profiler(model) as profiler:
        for _ in range(3):
            np.sum(mf.checkpoint(model, X) if checkpointed else model(X)).backward()
            optimizer.step()
            optimizer.zero_grad()
    epoch = profiler.session.epochs[0]
    assert epoch.steps == 3
    assert profiler.report()


def test_a_profile_counts_a_checkpoint_as_what_runs_in_it():
    """N, E, P and the gradients added are those of the same model without; the forward's operations come again."""
    X, y = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32), np.arange(8) % 2

    def count(call):
        model = nn.Sequential(nn.Dense(4, 4, rng=0), nn.Tanh(), nn.Dense(4, 2, rng=1))
        optimizer = mf.optim.SGD(model.parameters(), lr=0.1)
        with mf.Profiler(model) as profiler:
            nn.CrossEntropyLoss()(call(model, X), y).backward()
            optimizer.step()
        return profiler.session.epochs[0].sum()

    plain = count(lambda model, x: model(x))
    loss = 8 * 2 * 10 + 8  # what the loss, which is outside, takes in forward
    assert (plain.nodes, plain.edges, plain.rules, plain.accumulated) == (4, 7, 4, 4)
    for times, call in (
        (1, lambda model, x: mf.checkpoint(model, x)),
        (2, lambda model, x: mf.checkpoint(lambda z: mf.checkpoint(model, z), x)),
    ):
        found = count(call)
        for name in ("nodes", "edges", "rules", "accumulated", "flops_forward"):
            assert getattr(found, name) == getattr(plain, name), (times, name)
        assert found.flops_backward == plain.flops_backward + times * (plain.flops_forward - loss)
        assert found.products_backward == plain.products_backward + times * plain.products_forward
