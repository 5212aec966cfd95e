"""Assignments to entries, `+=`, `out=` and NumPy's writing functions: refused, or a new Tensor."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw.autograd.registry import NUMPY
from microfw.errors import GraphError
from tests.helpers.arrays import W, X


def test_entries_cannot_be_assigned():
    for t in (mf.tensor([1.0, 2.0], requires_grad=True), mf.tensor([1.0]), mf.tensor([1.0]) * 2.0):
        with pytest.raises(GraphError) as info:
            t[0] = 1.0
        assert str(info.value) == (
            "Tensor: expected no assignment to entries, got t[...] = value; the graph may need the old values: "
            "use np.where, or assign a whole leaf with t.data = values"
        )


def test_plus_equals_makes_a_new_tensor():
    x = mf.tensor([1.0, 2.0], requires_grad=True)
    y = x * x
    z = y
    y += 1.0
    y *= 2.0
    assert y is not z
    np.testing.assert_array_equal(z.data, [1, 4])
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [4, 8])


def test_an_array_plus_equals_a_tensor_is_refused_or_makes_a_tensor():
    array, t = np.array([1.0, 2.0]), mf.tensor([1.0, 2.0], requires_grad=True)
    kept = array
    with pytest.raises(TypeError, match=r"np\.add: expected no out= or where= with a Tensor"):
        array += t
    np.testing.assert_array_equal(kept, [1, 2])


@pytest.mark.parametrize("function", [np.add, np.multiply])
def test_the_argument_out_is_refused(function):
    t, out = mf.tensor([1.0, 2.0]), np.zeros(2)
    with pytest.raises(TypeError, match=f"np.{function.__name__}: expected no out= or where="):
        function(t, t, out=out)
    with pytest.raises(TypeError, match="out="):
        function(out, out, out=t)
    with pytest.raises(TypeError, match=r"np.sum: expected no out="):
        np.sum(t, out=out)


@pytest.mark.parametrize("write", [
    lambda t: np.copyto(t, 0.0), lambda t: np.put(t, [0], 1.0), lambda t: np.fill_diagonal(t, 0.0),
    lambda t: np.add.at(t, 0, 1.0), lambda t: np.place(t, [True, False], 1.0),
    lambda t: np.put_along_axis(t, np.array([0]), 1.0, 0),
])  # fmt: skip
def test_numpys_writing_functions_are_refused(write):
    t = mf.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises((TypeError, GraphError, ValueError)):
        write(t)
    np.testing.assert_array_equal(t.data, [1, 2])


def test_an_op_that_returns_its_input_does_not_lock_or_follow_it():
    same = mf.op(lambda x: x, vjp=lambda g: g, name="same")
    for shape in ((3,), (), (0, 2), (2, 0)):
        array = np.zeros(shape)
        leaf = mf.tensor(array, requires_grad=True)
        same(array)
        same(leaf)
        assert array.flags.writeable, shape
        array[...] = 1
        leaf.data = array
    assert NUMPY


def test_data_of_a_result_cannot_be_assigned():
    y = mf.tensor([1.0], requires_grad=True) * 2.0
    with pytest.raises(GraphError, match=r"^Tensor.data: expected a leaf to assign to, got the result of an op"):
        y.data = np.zeros(1)


def test_a_failed_assignment_changes_nothing():
    p = mf.tensor([1.0, 2.0], requires_grad=True)
    y = (p * p).sum()
    with pytest.raises(mf.errors.ShapeError, match=r"^Tensor.data: expected an array of shape \(2,\), got \(3,\)"):
        p.data = np.zeros(3)
    with pytest.raises(TypeError):
        p.data = np.array([1j, 2j])
    y.backward()
    np.testing.assert_array_equal(p.grad, [2, 4])


def test_what_aux_saved_survives_the_callers_writes():
    logits = X.copy()
    z = mf.tensor(logits, requires_grad=True)
    y = mf.ops.loss.cross_entropy(z * 1.0, np.array([0, 1, 2, 0]))
    expected = mf.grad(lambda t: mf.ops.loss.cross_entropy(t, np.array([0, 1, 2, 0])))(X)
    y.backward(retain_graph=True)
    z.grad[...] = 77
    z.zero_grad()
    y.backward()
    np.testing.assert_allclose(z.grad, expected)


def test_a_grad_that_is_written_does_not_change_the_next_one():
    x = mf.tensor(W, requires_grad=True)
    y = np.sum(x * 2.0)
    y.backward(retain_graph=True)
    x.grad[...] = 77
    x.zero_grad()
    y.backward()
    np.testing.assert_array_equal(x.grad, np.full_like(W, 2))
