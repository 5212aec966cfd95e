"""Arrays handed to derivatives, to backward and to ops belong to the caller; copies are apart."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import microfw as mf
from microfw.autograd.registry import OPS
from microfw.errors import GraphError
from tests.helpers.arrays import SUBJECTS, Model, W, X, right, used


class Subclass(np.ndarray):
    """An array of another type."""

    def __new__(cls, array):
        return np.asarray(array).view(cls)


# Arrays handed to derivatives, to backward, and to ops as parameters


def test_gradients_and_tangents_handed_in_may_change():
    def through_vjp(x):
        _, pull = mf.vjp(np.sin, x)
        g = np.ones(3)
        (out,) = pull(g)
        g[...] = 99
        return np.sum(out * x)

    def through_jvp(x):
        v = np.ones(3)
        out = mf.jvp(np.sin, (x,), (v,))[1]
        v[...] = 99
        return np.sum(out * x)

    x = np.array([0.1, 0.2, 0.3])
    for f in (through_vjp, through_jvp):
        np.testing.assert_allclose(mf.grad(f)(x), np.cos(x) - x * np.sin(x), rtol=1e-13)


def test_what_derivatives_return_is_the_callers():
    _, pull = mf.vjp(lambda x: x * 2.0, W)
    g = np.ones_like(W)
    (first,) = pull(g)
    first[...] = 99
    np.testing.assert_array_equal(g, 1)
    np.testing.assert_array_equal(pull(g)[0], 2)
    value, tangent = mf.jvp(lambda x: x, (W,), (g,))
    value[...] = tangent[...] = 99
    np.testing.assert_array_equal(W, np.arange(6.0).reshape(3, 2) + 1)
    np.testing.assert_array_equal(g, 1)


def test_a_gradient_given_to_backward_stays_the_callers():
    x, g = mf.tensor(W, requires_grad=True), np.ones_like(W)
    y = x + 0.0
    y.backward(g, retain_graph=True)
    x.grad[...] = 99
    np.testing.assert_array_equal(g, 1)
    x.zero_grad()
    y.backward(g)
    g[...] = 99
    np.testing.assert_array_equal(x.grad, 1)


def test_an_index_may_change():
    for key in (np.array([0, 2]), np.array([True, False, True]), [0, 2], (np.array([0, 2]), slice(None))):
        x = mf.tensor(W, requires_grad=True)
        y = np.sum(x[key])
        if isinstance(key, tuple):
            key[0][...] = 1
        else:
            key[:] = [False] * 3 if len(key) == 3 else [1, 1]
        y.backward()
        np.testing.assert_array_equal(x.grad, [[1, 1], [0, 0], [1, 1]])


@pytest.mark.parametrize("make", [list, tuple, np.ma.masked_array, memoryview, Subclass])
def test_arrays_given_to_an_op_are_copied(make):
    source = X.copy()
    given = make(source.tolist()) if make in (list, tuple) else make(source)
    w = mf.tensor(W, requires_grad=True)
    y = np.sum(OPS["matmul"].call(given, w))
    source[...] = 99
    if make is list:
        given[0][:] = [99] * 3
    y.backward()
    np.testing.assert_array_equal(w.grad, np.repeat(X.sum(0)[:, None], 2, 1))


# Copies, pickles, threads


@pytest.mark.filterwarnings("ignore:copying a Tensor that needs a gradient")
@pytest.mark.parametrize(
    "duplicate",
    [
        copy.copy,
        copy.deepcopy,
        lambda t: pickle.loads(pickle.dumps(t)),
        lambda t: pickle.loads(pickle.dumps(t, 5, buffer_callback=(k := []).append), buffers=k),
    ],
    ids=["copy", "deepcopy", "pickle", "pickle, out of band"],
)
@pytest.mark.parametrize("subject", ["leaf", "parameter", "owned parameter", "constant", "result"])
def test_copies_share_no_memory(duplicate, subject):
    t = SUBJECTS[subject]()
    before = np.array(t.data)
    other, y = used(t)
    made = duplicate(t)
    made.data = made.data * 0
    assert not np.shares_memory(made.data, t.data)
    y.backward()
    np.testing.assert_array_equal(other.grad, before**2)


def test_a_copy_of_a_module_shares_its_parameters_or_has_its_own():
    model = Model()
    loss = model(X)
    copy.deepcopy(model).second.data = np.zeros((2, 3))
    pickle.loads(pickle.dumps(model)).second.data = np.zeros((2, 3))
    loss.backward(retain_graph=True)
    for p, g in zip(model.parameters(), right(), strict=True):
        np.testing.assert_array_equal(p.grad, g)
    copy.copy(model).second.data = np.zeros((2, 3))  # the same parameters
    with pytest.raises(GraphError, match="was written to"):
        loss.backward()
