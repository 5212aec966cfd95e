"""What backward leaves behind, and how deep a graph may be."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
import textwrap
import weakref

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.autograd.registry import OPS
from microfw.errors import GraphError
from tests.helpers.models import batch, classifier, leaf
from tests.helpers.paths import ROOT

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


def test_backward_from_a_gradient_that_an_optimizer_holds():
    rng = np.random.default_rng(0)
    w, b = leaf(*rng.normal(size=(3, 3))), leaf(0.0, 0.0, 0.0)
    x, optimizer = rng.normal(size=(3, 3)), mf.optim.SGD([w, b], lr=0.1)
    np.sum(mf.ops.linear(x, w, b) ** 2).backward()
    held = w.grad  # a view of the buffer that the next backward writes to
    seed = held.copy()
    optimizer.zero_grad()
    mf.ops.linear(x, w, b).backward(held)
    np.testing.assert_allclose(w.grad, x.T @ seed)
    np.testing.assert_allclose(b.grad, seed.sum(axis=0))


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
    """A million ops forward, backward and released, walked or not, in 30 s under a recursion limit of 100."""
    done = subprocess.run([sys.executable, "-c", DEEP, str(n)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    print(f"{n} ops: {done.stdout}")
    assert float(done.stdout.splitlines()[-1]) <= 30 * max(n / 1_000_000, 0.3)  # 5 s on a free core


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
