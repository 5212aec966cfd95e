"""Lines of the engine and of the ops that nothing else reaches."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import ops
from microfw.autograd.registry import OPS


def test_an_op_shows_its_name_and_the_function_that_was_written_for_it():
    assert repr(OPS["exp"]) == "<op exp>"
    assert "def _apply(x):" in OPS["exp"].source
    assert "def _apply(x0, x1, axis=_default_axis):" in OPS["concatenate"].source


def test_a_list_times_a_tensor_is_a_product_of_matrices():
    x = mf.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    y = [1.0, 10.0] @ x
    np.testing.assert_array_equal(y.data, [31, 42])
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [[1, 1], [10, 10]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_relu_of_a_large_array(dtype):
    x = np.linspace(-1, 1, (1 << 18) + 3, dtype=dtype)
    t = mf.tensor(x, requires_grad=True)
    ops.elementwise.relu(t).backward(np.full(x.shape, 2, dtype))
    np.testing.assert_array_equal(t.grad, np.where(x > 0, 2, 0))


def test_backward_from_one_entry_that_has_axes():
    x = mf.tensor([[3.0]], requires_grad=True)
    (x * x).backward()
    np.testing.assert_array_equal(x.grad, [[6]])


def test_one_result_returned_twice_gets_both_gradients():
    def twice(x):
        y = x * x
        return y, y

    value, pull = mf.vjp(twice, np.array([1.0, 3.0]))
    np.testing.assert_array_equal(value[0], value[1])
    np.testing.assert_array_equal(pull((np.array([1.0, 0.0]), np.array([10.0, 1.0])))[0], [22, 6])


def test_a_result_that_is_another_leaf_gives_no_gradient():
    w = mf.tensor([5.0], requires_grad=True)
    value, pull = mf.vjp(lambda x: w, np.array([1.0, 2.0]))
    np.testing.assert_array_equal(value.numpy(), [5])  # tied to w, as all that depends on it
    np.testing.assert_array_equal(mf.tensor(pull(np.array([1.0]))[0]).numpy(), [0, 0])
    assert w.grad is None


def test_a_result_that_is_the_argument_twice_gets_both_gradients():
    value, pull = mf.vjp(lambda x: (x, x), np.array([1.0]))
    np.testing.assert_array_equal(pull((np.array([2.0]), np.array([3.0])))[0], [5])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_binary_loss_of_a_number_for_many_targets(dtype):
    """It takes the precision of the targets, as any op with a number does."""
    t = np.array([0.0, 1.0, 0.5], dtype)
    for given in (t, mf.tensor(t)):
        y = ops.loss.bce_with_logits(2.0, given)
        assert y.dtype == dtype
        np.testing.assert_allclose(y.data, ops.loss.bce_with_logits(np.full(3, 2, dtype), t).data, rtol=1e-6)
    assert ops.loss.bce_with_logits(2, mf.tensor([True, False])).dtype == np.float64


@pytest.mark.parametrize("shape", [(2, 5, 0), (0,), (4, 0), (2, 0, 3)])
def test_linear_of_nothing(shape):
    x, w, b = (mf.tensor(np.ones(s), requires_grad=True) for s in (shape, (shape[-1], 2), (2,)))
    y = ops.linalg.linear(x, w, b)
    np.testing.assert_array_equal(y.data, np.ones((*shape[:-1], 2)))
    y.backward(np.ones(y.shape))
    assert x.grad.shape == shape and w.grad.shape == w.shape
    np.testing.assert_array_equal(w.grad, 0)
    np.testing.assert_array_equal(b.grad, y.size / 2)
