"""Ops of any number of inputs: written out for a few, a loop for more, and linear in their number."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import ops
from microfw.autograd.apply import Shapes, apply, spec_of
from microfw.autograd.op import MAX_GENERATED
from microfw.autograd.registry import OPS
from microfw.errors import DTypeError, GraphError


def _others(g, xs, index):
    product = g
    for k, x in enumerate(xs):
        if k != index:
            product = product * x
    return product


def multiplied(*xs, scale=1.0):
    y = xs[0] * scale
    for x in xs[1:]:
        y = y * x
    return y


@pytest.fixture
def product():
    yield mf.op(multiplied, vjp=lambda g, xs, index, scale: _others(g, xs, index) * scale, name="multiplied")
    OPS.pop("multiplied", None)


JOINED = {"concatenate": ops.joining.concatenate, "stack": ops.joining.stack}


def looped(op, *inputs, **params):
    return apply(op.op, inputs, params)


def inputs(n, shape=(2, 3)):
    rng = np.random.default_rng(n)
    return [rng.normal(size=shape) for _ in range(n)]


@pytest.mark.parametrize("name", JOINED)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_the_loop_is_what_is_written_out(name, axis, product):
    op, arrays = JOINED[name], inputs(5)
    results = []
    for call in (op, lambda *xs, **params: looped(op, *xs, **params)):
        xs = [mf.tensor(a, requires_grad=k != 2) for k, a in enumerate(arrays)]
        y = call(*xs[:4], arrays[4], axis=axis)
        (y * y * 0.5).sum().backward()
        node = y._node
        results.append([y.numpy(), *(x.grad for x in xs if x.requires_grad)])
        assert node.op is op.op and node.shape == y.shape and node.params == {"axis": axis}
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", JOINED)
@pytest.mark.parametrize("n", [1, 2, MAX_GENERATED, MAX_GENERATED + 1, 30])
def test_derivatives_of_any_number_of_inputs(name, n):
    function = np.concatenate if name == "concatenate" else np.stack
    arrays = inputs(n)
    assert mf.gradcheck(lambda *xs: np.sin(function(xs, axis=1)), *arrays, projections=1) < 1e-6
    assert mf.gradgradcheck(lambda *xs: np.sin(function(xs, axis=-1)), *arrays[:10], projections=1) < 1e-6


@pytest.mark.parametrize("n", [3, MAX_GENERATED + 2])
def test_a_users_op_that_needs_its_inputs(product, n):
    arrays = inputs(n)
    assert mf.gradcheck(lambda *xs: product(*xs, scale=0.5), *arrays, projections=1) < 1e-6
    assert mf.gradgradcheck(lambda *xs: product(*xs), *arrays, projections=1) < 1e-6
    leaves = [mf.tensor(a, requires_grad=True) for a in arrays]
    y = product(*leaves)
    leaves[0].data = arrays[0] * 2
    with pytest.raises(GraphError, match="was written to"):
        y.sum().backward()


def test_many_inputs_are_checked_as_few_are(product):
    many = [mf.tensor(np.ones(2), requires_grad=True) for _ in range(MAX_GENERATED + 1)]
    with pytest.raises(DTypeError, match="^concatenate: expected Tensors of one dtype, got float64 and float32"):
        np.concatenate([*many, mf.tensor(np.ones(2, np.float32))])
    with pytest.raises(TypeError, match="^multiplied: expected parameters among scale, got size$"):
        product(*many, size=1)
    with mf.no_grad():
        assert not np.concatenate(many).requires_grad
    kept = np.concatenate([*many, np.zeros(1)])
    assert kept.shape == (2 * MAX_GENERATED + 3,)


def test_joining_thousands_takes_time_in_proportion_and_keeps_nothing():
    counted = {}
    for n in (500, 1000):
        rules = []
        w = mf.tensor(np.ones(n), requires_grad=True)
        parts = [w[k : k + 1] for k in range(n)]
        y = np.concatenate(parts)
        shapes = next(v for v in y._node.saved if isinstance(v, Shapes))
        y.sum().backward()
        np.testing.assert_array_equal(w.grad, np.ones(n))
        rules.append(len(shapes.__dict__["_starts"]))
        counted[n] = rules
    assert counted[500] == counted[1000] == [1]  # where inputs start is summed up once
    for n in range(MAX_GENERATED + 1, MAX_GENERATED + 100):
        np.concatenate([mf.tensor(np.ones(1), requires_grad=True)] * n)
    assert spec_of.cache_info().currsize <= 32


def test_a_replayed_step_joins_many():
    model = mf.nn.Dense(3, 2, rng=0)
    optimizer = mf.optim.SGD(model.parameters(), lr=0.1)

    def loss(x):
        return np.mean(np.square(np.concatenate([model(x) * float(k) for k in range(12)], axis=1) - 1.0))

    step = mf.compile(loss, optimizer)
    other = mf.nn.Dense(3, 2, rng=0)
    again = mf.optim.SGD(other.parameters(), lr=0.1)
    for k in range(5):
        x = np.random.default_rng(k).normal(size=(4, 3)).astype(np.float32)
        replayed = step(x).item()
        again.zero_grad()
        eager = np.mean(np.square(np.concatenate([other(mf.tensor(x)) * float(k) for k in range(12)], axis=1) - 1.0))
        eager.backward()
        again.step()
        assert replayed == eager.item()
    assert "replayed" in step.explain()
