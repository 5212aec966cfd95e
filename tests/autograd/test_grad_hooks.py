"""Hooks on gradients: on leaves and on results, looking and replacing, and leaving nothing behind."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.autograd.grad_hooks import Handle
from microfw.autograd.scope import path
from microfw.errors import DTypeError, GraphError, ShapeError

X = np.array([1.0, 2.0, 3.0])


def leaf(dtype=np.float64):
    return mf.tensor(X, dtype, requires_grad=True)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_results_hook_sees_all_of_its_gradient_once(when):
    x, seen = leaf(), []
    y = x * 2.0
    if when == "before":
        y.register_hook(seen.append)
    z = np.sum(y * y) + np.sum(3.0 * y)
    if when == "after":  # what has used it already sends its gradient past the hook all the same
        y.register_hook(seen.append)
    z.backward()
    np.testing.assert_array_equal(seen, [4 * X + 3])
    np.testing.assert_array_equal(x.grad, 2 * (4 * X + 3))


def test_a_leafs_hook_sees_all_of_its_gradient_once():
    x, seen = leaf(), []
    x.register_hook(seen.append)
    (np.sum(x * x) + np.sum(x)).backward()
    np.testing.assert_array_equal(seen, [2 * X + 1])
    np.sum(x).backward()
    np.testing.assert_array_equal(seen[1], np.ones(3))  # what this backward brought, not the sum
    np.testing.assert_array_equal(x.grad, 2 * X + 2)


@pytest.mark.parametrize("owned", [False, True])
def test_a_parameters_hook_replaces(owned):
    layer = nn.Dense(3, 2, rng=0)
    p = layer.weight
    optimizer = optim.SGD(layer.parameters(), lr=1.0) if owned else None
    before = p.data.copy()
    p.register_hook(lambda g: np.clip(g, -0.5, 0.5))
    np.sum(layer(X[None].astype(np.float32))).backward()
    np.testing.assert_array_equal(p.grad, np.full((3, 2), 0.5))
    np.testing.assert_array_equal(layer.bias.grad, np.ones(2))
    if owned:
        optimizer.step()
        np.testing.assert_allclose(p.data, before - 0.5)


def test_replacements_go_on_in_order():
    x = leaf()
    y = np.sin(x)
    y.register_hook(lambda g: g + 1)
    y.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: -g)
    np.sum(y * 2.0).backward()
    np.testing.assert_allclose(x.grad, -30 * np.cos(X))


def test_a_removed_hook_is_silent():
    x, seen = leaf(), []
    y = x * 2.0
    handles = [x.register_hook(seen.append), y.register_hook(seen.append), y.register_hook(lambda g: g * 7)]
    assert all(isinstance(h, Handle) for h in handles)
    for handle in handles:
        handle.remove()
        handle.remove()
    np.sum(y).backward()
    assert not seen
    np.testing.assert_array_equal(x.grad, [2, 2, 2])


def test_a_hook_that_removes_itself():
    x, seen = leaf(), []

    def once(g):
        seen.append(g)
        handle.remove()

    handle = x.register_hook(once)
    np.sum(x).backward()
    np.sum(x).backward()
    assert len(seen) == 1


@pytest.mark.parametrize("make", [lambda x: x, lambda x: x * 2.0], ids=["leaf", "result"])
def test_what_a_hook_gets_is_its_own_and_read_only(make):
    x, seen = leaf(), []
    t = make(x)
    t.register_hook(seen.append)
    np.sum(t).backward()
    kept = seen[0].copy()
    assert type(seen[0]) is np.ndarray
    with pytest.raises(ValueError, match="read-only"):
        seen[0][...] = 9
    x.grad[...] = 9
    np.testing.assert_array_equal(seen[0], kept)


def test_what_a_hook_returned_may_be_written_to_later():
    x, given = leaf(), np.array([1.0, 1.0, 1.0])
    x.register_hook(lambda g: given)
    np.sum(x * 5.0).backward()
    given[...] = 77
    np.testing.assert_array_equal(x.grad, [1, 1, 1])


@pytest.mark.parametrize("make", [lambda x: x, lambda x: x * 2.0], ids=["leaf", "result"])
def test_a_replacement_must_fit(make):
    for new, error, text in (
        (lambda g: g[:2], ShapeError, r"^hook: expected a gradient of shape \(3,\) or None, got \(2,\)"),
        (lambda g: 1.0, ShapeError, r"got \(\)"),
        (lambda g: g.astype(np.float32), DTypeError, "expected a gradient of float64 or None, got float32; cast"),
        (lambda g: g > 0, DTypeError, "got bool"),
    ):
        x = leaf()
        t = make(x)
        t.register_hook(new)
        with pytest.raises(error, match=text):
            np.sum(t).backward()
        assert x.grad is None


def test_a_tensor_as_replacement_counts_as_its_values():
    x = leaf()
    x.register_hook(lambda g: mf.tensor(g) * 2.0)
    np.sum(x).backward()
    np.testing.assert_array_equal(x.grad, [2, 2, 2])


def test_float32_and_scalars():
    x = mf.tensor(2.0, np.float32, requires_grad=True)
    y, seen = x * x, []
    y.register_hook(seen.append)
    (y * 3.0).backward()
    assert seen[0].dtype == np.float32 and seen[0].shape == ()
    assert x.grad == 12


def test_an_exception_passes_through_and_backward_can_be_called_again():
    x = leaf()
    y = x * 2.0

    def stop(g):
        raise KeyError("stop")

    handle = x.register_hook(stop)
    with pytest.raises(KeyError):
        np.sum(y).backward()
    assert x.grad is None
    handle.remove()
    np.sum(x * 2.0).backward()
    np.testing.assert_array_equal(x.grad, [2, 2, 2])


def test_retained_graphs_call_hooks_each_time():
    x, seen = leaf(), []
    y = x * 2.0
    y.register_hook(seen.append)
    z = np.sum(y)
    z.backward(retain_graph=True)
    z.backward()
    assert len(seen) == 2


def test_where_there_is_no_gradient_a_hook_is_refused():
    x = leaf()
    y = x * 2.0
    np.sum(y * 1.0).backward()
    with pytest.raises(GraphError, match=r"^multiply: expected a hook before backward, got one after"):
        y.register_hook(print)
    with mf.no_grad():
        z = x * 2.0
    for t in (z, mf.tensor(X), x.detach()):
        with pytest.raises(GraphError, match=r"^Tensor.register_hook: expected a Tensor that a gradient flows to"):
            t.register_hook(print)


# Derivative functions


def test_derivative_functions_pass_results_hooks_and_leave_leaves_alone():
    seen, w = [], leaf()
    w.register_hook(seen.append)

    def f(x):
        y = np.sin(x)
        y.register_hook(lambda g: g * 2)
        return np.sum(y * w)

    with mf.no_grad():
        np.testing.assert_allclose(mf.grad(f)(X), 2 * np.cos(X) * X)
        assert not seen
        value, tangent = mf.jvp(f, (X,), (np.ones(3),))  # forward mode has no gradients to hook
        np.testing.assert_allclose(tangent, np.sum(np.cos(X) * X))


@pytest.mark.parametrize("argument", [np.ones(2), mf.tensor(np.ones(2), requires_grad=True)], ids=["array", "leaf"])
def test_hooks_that_the_function_registers_on_its_argument_are_called(argument):
    def f(v):
        v.register_hook(lambda g: g * 10)
        return np.sum(v * v)

    with mf.no_grad():
        np.testing.assert_array_equal(mf.grad(f)(argument), [20, 20])
        np.testing.assert_array_equal(mf.vjp(f, argument)[1](2.0)[0], [40, 40])


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("on", ["argument", "result"])
def test_jacobians_of_any_shape_have_the_hooks(on, outputs):
    def f(v):
        y = v * v
        (v if on == "argument" else y).register_hook(lambda g: g * 10)
        return np.concatenate([y] * outputs)

    np.testing.assert_array_equal(mf.jacobian(f)(np.ones(2)), np.tile(20 * np.eye(2), (outputs, 1)))
    np.testing.assert_array_equal(mf.jacobian(f, mode="forward")(np.ones(2)), np.tile(2 * np.eye(2), (outputs, 1)))


def test_derivative_functions_do_not_call_the_hooks_of_parameters():
    layer, seen = nn.Dense(3, 2, rng=0), []
    layer.weight.register_hook(seen.append)
    mf.grad(lambda m: np.sum(m(X[None])))(layer)
    mf.jacobian(lambda m: m(X[None]))(layer)
    assert not seen


def test_where_derivatives_nest_hooks_look_and_may_not_replace():
    seen = []

    def f(x, hook):
        y = np.sin(x)
        y.register_hook(hook)
        return np.sum(y * y)

    plain = mf.hessian(lambda x: np.sum(np.sin(x) ** 2))(X)
    np.testing.assert_allclose(mf.hessian(lambda x: f(x, seen.append))(X), plain, rtol=1e-12, atol=1e-14)
    assert all(type(g) is np.ndarray for g in seen)
    np.testing.assert_allclose(seen[0], 2 * np.sin(X))
    with pytest.raises(GraphError, match="^hook: expected None inside of another derivative, got a replacement"):
        mf.hessian(lambda x: f(x, lambda g: g * 2))(X)


def test_a_hooked_result_keeps_its_values_versions_and_scope(watcher):
    layer = nn.Sequential(nn.Dense(3, 2, rng=0))
    with watcher.on():
        y = layer(X[None])
        y.register_hook(lambda g: None)
        np.sum(y).backward()
    assert [n.op.name for n in watcher.visited] == ["sum", "linear"]
    assert path(watcher.visited[1].scope) == "0"
    p = leaf()
    z = p * p
    z.register_hook(lambda g: None)
    p.data = X * 2
    with pytest.raises(GraphError, match="was written to"):
        np.sum(z).backward()


# Nothing is left behind


def test_hooks_make_no_cycles_and_go_with_their_tensors():
    class Spy:
        def __call__(self, g):
            return None

    gc.collect()
    gc.disable()
    try:
        spies = []
        for k in range(3):
            x, spy = leaf(), Spy()
            y = x * 2.0
            (x if k == 0 else y).register_hook(spy)
            z = np.sum(y * y)
            if k < 2:
                z.backward()
            spies.append(weakref.ref(spy))
            del x, y, z, spy
        assert [s() for s in spies] == [None] * 3
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_backward_frees_a_results_hooks():
    class Spy:
        def __call__(self, g):
            return None

    spy, x = Spy(), leaf()
    y = x * 2.0
    y.register_hook(spy)
    z = np.sum(y)
    z.backward()
    gone = weakref.ref(spy)
    del spy
    assert gone() is None and z.requires_grad


def test_copies_have_no_hooks():
    x, seen = leaf(), []
    x.register_hook(seen.append)
    for other in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        np.sum(other).backward()
    assert not seen
