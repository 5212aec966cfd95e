"""Arguments of derivative functions: tangents belong to the entries of their names, and argnums name arguments."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import ArgumentError, DTypeError, ShapeError

X = np.array([0.3, -1.2, 2.0])
P = {"a": np.ones(2), "b": np.ones(2)}
ALONG_A = {"b": np.zeros(2), "a": np.ones(2)}


def powers(p):
    return (p["a"] ** 2).sum() + (p["b"] ** 3).sum()


def test_the_order_of_names_does_not_count():
    assert mf.jvp(powers, (P,), (ALONG_A,))[1] == 4
    (product,) = mf.hvp(powers, (P,), (ALONG_A,))
    np.testing.assert_array_equal(product["a"], [2, 2])
    np.testing.assert_array_equal(product["b"], [0, 0])
    assert mf.vjp(lambda x: {"u": 2 * x, "v": 3 * x}, 1.0)[1]({"v": 0.0, "u": 1.0}) == (2,)


def test_directions_of_a_module_may_have_any_order():
    model = nn.Sequential(nn.Dense(2, 2, bias=False, rng=0), nn.Dense(2, 2, bias=False, rng=1))

    def f(m):
        return (m(np.ones((3, 2), np.float32)) ** 2).sum()

    g = mf.grad(f)(model)
    along = mf.jvp(f, (model,), (g,))[1]
    np.testing.assert_allclose(along, sum((v**2).sum() for v in g.values()), rtol=1e-5)
    assert mf.jvp(f, (model,), (dict(reversed(g.items())),))[1] == along
    assert mf.jvp(f, (model,), (model,))[1] == mf.jvp(f, (model,), (dict(model.named_parameters()),))[1]


@pytest.mark.parametrize(
    ("tangent", "text"),
    [
        ({"x": np.zeros(2), "y": np.ones(2)}, "expected argument 0 to get a dict of 'a', 'b', got 'x', 'y'"),
        ({"a": np.zeros(2)}, "expected argument 0 to get a dict of 'a', 'b', got 'a'"),
        ([np.zeros(2), np.ones(2)], "expected argument 0 to get a dict of 'a', 'b', got list of 2"),
        (
            {"a": np.zeros(2), "b": np.ones(3)},
            r"expected argument 0\['b'\] to get an array of shape \(2,\), got \(3,\)",
        ),
        ({"a": np.zeros(2), "b": {"c": np.ones(2)}}, r"expected argument 0\['b'\] to get one array, got 'c'"),
    ],
)
def test_a_tangent_of_other_names_is_refused(tangent, text):
    for call in (lambda: mf.jvp(powers, (P,), (tangent,)), lambda: mf.hvp(powers, (P,), (tangent,))):
        with pytest.raises(ShapeError, match=text):
            call()


def test_lists_have_as_many_entries_as_the_argument():
    f, args = lambda p: p[0] * p[1]["c"], ([np.ones(2), {"c": [1.0, 2.0]}],)
    np.testing.assert_array_equal(mf.jvp(f, args, ((np.ones(2), {"c": [0.0, 0.0]}),))[1], [1, 2])
    with pytest.raises(ShapeError, match="expected argument 0 to get a tuple or list of 2, got list of 1"):
        mf.jvp(f, args, ([np.ones(2)],))
    pull = mf.vjp(lambda x: (x.sum(), {"u": x}), np.ones(2))[1]
    np.testing.assert_array_equal(pull([1.0, {"u": [1.0, 2.0]}])[0], [2, 3])
    with pytest.raises(ShapeError, match="expected output 1 to get a dict of 'u', got ndarray"):
        pull((1.0, np.ones(2)))


def test_gradients_of_several_numbers_may_be_a_plain_list():
    assert mf.vjp(lambda x: (2 * x, 3 * x), 1.0)[1]((1.0, 10.0)) == (32,)


@pytest.mark.parametrize("tangent", [np.array(["1", "2"]), np.array([1j, 2])])
def test_tangents_and_gradients_are_real_numbers(tangent):
    with pytest.raises(DTypeError, match="^jvp: expected argument 0 to get real numbers, got "):
        mf.jvp(np.sin, (np.ones(2),), (tangent,))
    with pytest.raises(DTypeError, match="^backward: expected a gradient of real numbers, got "):
        mf.tensor(np.ones(2), requires_grad=True).backward(tangent)


def test_a_tensor_as_gradient_has_the_dtype_of_the_output():
    pull = mf.vjp(lambda a: a * 2, np.ones(2, np.float32))[1]
    assert pull(np.ones(2))[0].dtype == pull(mf.tensor(np.ones(2, np.float32)))[0].dtype == np.float32
    with pytest.raises(
        DTypeError, match=r"^vjp: expected output 0 to get a Tensor of float32, got float64; cast it with"
    ):
        pull(mf.tensor(np.ones(2)))


def test_argnums_are_integers_and_name_each_argument_once():
    def f(a, b):
        return np.sum(a * a * b)

    assert mf.grad(f, np.int64(1))(3.0, 2.0) == 9
    assert mf.grad(f, np.array([1]))(3.0, 2.0) == (9,)
    for argnums in ("a", 1.0, (), (0, 1.0)):
        with pytest.raises(ArgumentError, match="^grad: expected argnums as an integer or a tuple of integers, got "):
            mf.grad(f, argnums)
    for derivative in (mf.grad, mf.hessian, mf.jacobian):
        for argnums in ((0, 0), (0, -2)):
            with pytest.raises(ArgumentError, match=r"expected argnums that name each argument once, got \(0, "):
                derivative(f, argnums)(3.0, 2.0)


def test_keywords_are_constants():
    def f(x, power=1):
        return np.sum(x**power)

    np.testing.assert_array_equal(mf.grad(f)(X, power=2), 2 * X)
    np.testing.assert_array_equal(mf.jacobian(f)(X, power=2), 2 * X)
    np.testing.assert_array_equal(mf.hessian(f)(X, power=2), 2 * np.eye(3))
    assert mf.value_and_grad(f)(X, power=2)[0] == np.sum(X**2)


def test_a_module_in_a_container_is_refused():
    with pytest.raises(ArgumentError, match="^grad: expected each Module as an argument by itself, got Dense in a"):
        mf.grad(lambda p: np.sum(p["m"][0](X[None])))({"m": [nn.Dense(3, 2, rng=0)]})


def test_tangents_of_a_module_that_is_two_arguments_are_refused():
    model = nn.Dense(3, 2, rng=0)
    zero = {name: np.zeros(p.shape) for name, p in model.named_parameters()}
    with pytest.raises(ArgumentError, match="^jvp: expected each parameter in one argument, got one that is in two"):
        mf.jvp(lambda a, b: np.sum(a(X[None]) * b(X[None])), (model, model), (zero, zero))
