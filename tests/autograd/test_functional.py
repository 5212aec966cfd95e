"""grad, value_and_grad, vjp and jvp: containers, modules, and derivatives of derivatives."""

from __future__ import annotations

import runpy
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import microfw as mf
from microfw import nn
from microfw.autograd.registry import OPS
from microfw.errors import ArgumentError, DTypeError, GraphError, ShapeError
from microfw.ops.elementwise import sigmoid
from tests.helpers.functions import X


def f(x):
    return np.sum(np.sin(x) * np.exp(x * 0.5) + x**3)


def f1(x):
    return np.cos(x) * np.exp(x / 2) + np.sin(x) * np.exp(x / 2) / 2 + 3 * x**2


def f2(x):
    return (-np.sin(x) + np.cos(x) - 0.25 * -np.sin(x)) * np.exp(x / 2) + 6 * x


# Values


def test_grad_and_value():
    value, gradient = mf.value_and_grad(f)(X)
    np.testing.assert_allclose(value, np.sum(np.sin(X) * np.exp(X / 2) + X**3))
    np.testing.assert_allclose(gradient, f1(X), rtol=1e-13)
    np.testing.assert_array_equal(mf.grad(f)(X), gradient)
    assert type(gradient) is np.ndarray and type(value) is np.ndarray


def test_numbers_come_back_as_numbers_do():
    assert mf.grad(np.square)(3) == 6
    assert mf.grad(np.square)(3.0).shape == ()


def test_lists_of_numbers_are_arrays():
    np.testing.assert_array_equal(mf.grad(lambda x: np.sum(x * x))([1, 2]), [2, 4])


def test_the_callers_arrays_are_left_alone():
    x = X.copy()
    gradient = mf.grad(f)(x)
    gradient[...] = 0
    np.testing.assert_array_equal(x, X)
    assert x.flags.writeable


def test_float32_stays():
    assert mf.grad(f)(X.astype(np.float32)).dtype == np.float32
    value, tangent = mf.jvp(f, (X.astype(np.float32),), (X.astype(np.float32),))
    assert value.dtype == tangent.dtype == np.float32


Point = namedtuple("Point", "x y")


def test_nested_containers():
    tree = {"a": X, "b": [np.array(2.0), (X * 2, {"c": np.array([[1.0, 2.0]])})], "p": Point(np.array(3.0), X)}

    def g(t):
        a, b, p = t["a"], t["b"], t["p"]
        return np.sum(a * a) * b[0] + np.sum(b[1][0]) + np.sum(b[1][1]["c"] ** 2) + p.x * np.sum(p.y)

    gradient = mf.grad(g)(tree)
    assert type(gradient["b"]) is list and type(gradient["b"][1]) is tuple and type(gradient["p"]) is Point
    assert list(gradient) == ["a", "b", "p"]
    np.testing.assert_allclose(gradient["a"], 4 * X)
    np.testing.assert_allclose(gradient["b"][0], np.sum(X * X))
    np.testing.assert_allclose(gradient["b"][1][0], np.ones(3))
    np.testing.assert_allclose(gradient["b"][1][1]["c"], [[2, 4]])
    np.testing.assert_allclose(gradient["p"].x, np.sum(X))
    np.testing.assert_allclose(gradient["p"].y, np.full(3, 3.0))
    assert mf.gradcheck(g, tree) <= 1e-6


def test_argnums():
    def g(a, b, c):
        return np.sum(a * b * b * c)

    a, b, c = X, X + 1, X + 2
    np.testing.assert_allclose(mf.grad(g, 1)(a, b, c), 2 * a * b * c)
    first, last = mf.grad(g, (0, 2))(a, b, c)
    np.testing.assert_allclose(first, b * b * c)
    np.testing.assert_allclose(last, a * b * b)
    assert isinstance(mf.grad(g, [0])(a, b, c), tuple)


def test_vjp_can_be_pulled_again():
    value, pull = mf.vjp(lambda a, b: {"sum": a + b, "product": a * b}, X, X + 1)
    np.testing.assert_array_equal(value["product"], X * (X + 1))
    for g in (1.0, 2.0):
        a, b = pull({"sum": np.full(3, g), "product": np.zeros(3)})
        np.testing.assert_array_equal(a, np.full(3, g))
        np.testing.assert_array_equal(b, np.full(3, g))
    a, b = pull({"sum": np.zeros(3), "product": np.ones(3)})
    np.testing.assert_array_equal(a, X + 1)
    np.testing.assert_array_equal(b, X)


def test_jvp_of_containers():
    value, tangent = mf.jvp(
        lambda t: [t["a"] * t["b"], np.sum(t["a"])], ({"a": X, "b": X + 1},), ({"a": X * 0 + 1, "b": X * 0},)
    )
    np.testing.assert_array_equal(value[0], X * (X + 1))
    np.testing.assert_array_equal(tangent[0], X + 1)
    assert tangent[1] == 3


def test_forward_and_reverse_agree():
    v, u = np.array([1.0, -2.0, 0.5]), np.array([0.2, 0.4, -1.0])

    def g(x):
        return np.tanh(x[::-1] * x) / (1 + np.max(x)) - np.mean(np.exp(x))

    forward = mf.jvp(g, (X,), (v,))[1]
    (back,) = mf.vjp(g, X)[1](u)
    np.testing.assert_allclose(np.dot(u, forward), np.dot(back, v), rtol=1e-13)


# Modules


def network(dtype=np.float64):
    return nn.Sequential(nn.Dense(3, 4, rng=0), nn.Tanh(), nn.Dense(4, 2, rng=1)).astype(dtype)


def test_a_modules_gradient_is_by_name():
    model, x = network(), np.array([X, X * 2])
    gradient = mf.grad(lambda m: np.sum(np.square(m(x))))(model)
    assert list(gradient) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    np.sum(np.square(model(x))).backward()
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(gradient[name], p.grad)


def test_a_modules_own_grad_is_left_alone():
    model = network()
    mf.grad(lambda m: np.sum(m(np.array([X]))))(model)
    assert all(p.grad is None for p in model.parameters())


def test_frozen_parameters_have_no_gradient():
    model = network()
    model[0].requires_grad_(False)
    assert list(mf.grad(lambda m: np.sum(m(np.array([X]))))(model)) == ["2.weight", "2.bias"]


def test_module_and_array_together():
    model = network()
    by_model, by_x = mf.grad(lambda m, x: np.sum(m(x)), (0, 1))(model, X[None])
    assert by_x.shape == (1, 3) and by_model["0.weight"].shape == (3, 4)


def test_second_derivative_of_a_model_by_its_input():
    model = network()

    def slope(x):
        return mf.grad(lambda z: np.sum(np.square(model(z))))(x)

    assert mf.gradcheck(slope, X[None]) <= 1e-6


def test_gradient_penalty_reaches_the_parameters():
    model = network()

    def penalty(m, x):
        return np.sum(np.square(mf.grad(lambda z: np.sum(np.square(m(z))))(x)))

    gradient = mf.grad(penalty)(model, X[None])["0.weight"]
    weight = model[0].weight
    before = weight.data.copy()
    direction = np.random.default_rng(0).standard_normal(before.shape)

    def at(h):
        weight.data = before + h * direction
        return penalty_value().item()

    def penalty_value():
        g = mf.grad(lambda z: np.sum(np.square(model(z))))(X[None])
        return np.sum(np.square(g))

    slope = (8 * (at(1e-5) - at(-1e-5)) - (at(2e-5) - at(-2e-5))) / 12e-5
    np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-6)


# Nesting


def test_second_order_reverse_over_reverse():
    hess = mf.grad(lambda x: np.sum(mf.grad(f)(x)))(X)
    np.testing.assert_allclose(hess, f2(X), rtol=1e-12)


def test_second_order_forward_over_reverse():
    for k in range(3):
        v = np.eye(3)[k]
        column = mf.jvp(mf.grad(f), (X,), (v,))[1]
        np.testing.assert_allclose(column, f2(X) * v, rtol=1e-12, atol=1e-15)


def test_second_order_reverse_over_forward():
    v = np.array([1.0, 2.0, 3.0])
    got = mf.grad(lambda x: mf.jvp(f, (x,), (v,))[1])(X)
    np.testing.assert_allclose(got, f2(X) * v, rtol=1e-12)


def test_second_order_forward_over_forward():
    v = np.array([1.0, 2.0, 3.0])
    got = mf.jvp(lambda x: mf.jvp(f, (x,), (v,))[1], (X,), (v,))[1]
    np.testing.assert_allclose(got, np.sum(f2(X) * v * v), rtol=1e-12)


def test_higher_orders():
    g = np.sin
    for expected in (np.cos(0.4), -np.sin(0.4), -np.cos(0.4), np.sin(0.4), np.cos(0.4)):
        g = mf.grad(g)
        np.testing.assert_allclose(g(0.4), expected, rtol=1e-13)
    np.testing.assert_allclose(mf.grad(mf.grad(mf.grad(sigmoid)))(0.0), -0.125, rtol=1e-12)


def test_third_order_mixed():
    got = mf.jvp(mf.grad(mf.grad(lambda x: x**4)), (2.0,), (1.0,))[1]
    np.testing.assert_allclose(got, 48)


def test_inner_variable_is_not_confused_with_the_outer():
    # d/dx [x * d/dy (x + y)] at y = 1 is 1, not 2.
    assert mf.grad(lambda x: x * mf.grad(lambda y: x + y)(1.0))(1.0) == 1
    assert mf.jvp(lambda x: x * mf.jvp(lambda y: x + y, (1.0,), (1.0,))[1], (1.0,), (1.0,))[1] == 1
    assert mf.grad(lambda x: x * mf.jvp(lambda y: x * y, (1.0,), (1.0,))[1])(3.0) == 6
    assert mf.jvp(lambda x: x * mf.grad(lambda y: x * y)(1.0), (3.0,), (1.0,))[1] == 6


def test_values_inside_another_derivative_are_tensors():
    def outer(x):
        value, slope = mf.value_and_grad(lambda y: y**3)(x)
        assert isinstance(value, mf.Tensor) and isinstance(slope, mf.Tensor)
        return value + slope

    assert mf.grad(outer)(2.0) == 12 + 12


# Closures


def test_closure_over_a_tensor_recorded_outside():
    w = mf.tensor(2.0, requires_grad=True)
    h = w * 3.0
    assert mf.grad(lambda x: x * x * h)(2.0) == 24
    assert w.grad is None
    h.backward()
    assert w.grad == 3


def test_the_variable_itself_may_be_a_recorded_tensor():
    w = mf.tensor(2.0, requires_grad=True)
    h = w * 3.0
    assert mf.grad(lambda x: x * x)(h) == 12
    assert mf.grad(np.square)(w) == 4
    assert w.grad is None


def test_under_no_grad():
    with mf.no_grad():
        assert mf.grad(np.square)(3.0) == 6
        assert mf.jvp(np.square, (3.0,), (1.0,))[1] == 6
        assert mf.grad(mf.grad(lambda x: x**3))(2.0) == 12
        assert mf.grad(lambda m: np.sum(m(X[None])))(network())["2.bias"].tolist() == [1, 1]


def test_no_grad_inside():
    def g(x):
        with mf.no_grad():
            c = np.exp(x)
        return np.sum(x * c)

    np.testing.assert_allclose(mf.grad(g)(X), np.exp(X))


def test_unused_inputs_have_zero_gradients():
    a, b = mf.grad(lambda a, b: np.sum(a * a), (0, 1))(X, np.ones((2, 2), np.float32))
    np.testing.assert_array_equal(b, np.zeros((2, 2)))
    assert b.dtype == np.float32
    value, tangent = mf.jvp(lambda x: mf.tensor([1.0]), (X,), (X,))
    np.testing.assert_array_equal(tangent, [0])
    np.testing.assert_array_equal(mf.grad(lambda x: mf.tensor(1.0))(X), np.zeros(3))


def test_identity_as_a_function():
    assert mf.grad(lambda x: x)(2.0) == 1
    np.testing.assert_array_equal(mf.jvp(lambda x: x, (X,), (X,))[1], X)
    assert mf.grad(mf.grad(lambda x: x))(2.0) == 0
    a, b = mf.vjp(lambda a, b: [a, a, b], X, X)[1]([X, X, X])
    np.testing.assert_array_equal(a, 2 * X)
    np.testing.assert_array_equal(b, X)


def test_results_of_earlier_calls_do_not_change():
    x = X.copy()
    _, pull = mf.vjp(np.exp, x)
    x[...] = 0
    np.testing.assert_allclose(pull(np.ones(3))[0], np.exp(X))


# Errors


def test_errors_say_what_was_expected():
    with pytest.raises(
        GraphError, match=r"^grad: expected a function with one scalar output, got shape \(3,\); use mf.vjp"
    ):
        mf.grad(np.exp)(X)
    with pytest.raises(GraphError, match=r"^grad: expected the function to return Tensors, got float64"):
        mf.grad(lambda x: np.sum(x.data))(X)
    with pytest.raises(GraphError, match="got list|one scalar output"):
        mf.grad(lambda x: [x, x])(1.0)
    with pytest.raises(DTypeError, match=r"^grad: expected arrays of floats to differentiate by, got str"):
        mf.grad(lambda x: x)("text")
    with pytest.raises(ShapeError, match=r"^vjp: expected output 0 to get an array of shape \(3,\), got \(2,\)"):
        mf.vjp(np.exp, X)[1](np.ones(2))
    with pytest.raises(ShapeError, match=r"^jvp: expected argument 0 to get an array of shape \(3,\), got \(2,\)"):
        mf.jvp(np.exp, (X,), (np.ones(2),))
    with pytest.raises(ShapeError, match="expected one array for each argument, 1 in all, got 2"):
        mf.jvp(np.exp, (X,), (X, X))


# A custom op


def test_an_op_in_ten_lines():
    @mf.op(vjp=lambda g, x: g * (sigmoid(x) * (1 + x * (1 - sigmoid(x)))))
    def swish(x):
        """``x * sigmoid(x)``."""
        return x / (1 + np.exp(-x))

    assert mf.gradcheck(swish, X) <= 1e-6
    assert mf.gradcheck(lambda x: mf.grad(lambda y: np.sum(swish(y)))(x), X) <= 1e-6
    x = mf.tensor(X, requires_grad=True)
    swish(x).sum().backward()
    np.testing.assert_allclose(x.grad, mf.grad(lambda y: np.sum(y * sigmoid(y)))(X))
    assert swish.__doc__ == "``x * sigmoid(x)``."


def test_an_op_that_asks_for_what_it_has_not_is_refused():
    with pytest.raises(
        ArgumentError, match=r"op odd: expected a derivative's arguments after g to be among x, y, shape, got 'z'"
    ):
        mf.op(lambda x: x, vjp=lambda g, z: g, name="odd")
    with pytest.raises(ArgumentError, match="expected one vjp for each of the inputs"):
        mf.op(lambda a, b: a, vjp=(lambda g: g,), name="odd")
    with pytest.raises(ArgumentError, match="op add: expected a new name, got one that is taken"):
        mf.op(lambda a, b: a, name="add")
    assert "odd" not in OPS


def test_a_file_that_is_loaded_under_two_names_declares_its_ops_again(tmp_path):
    text = "import microfw as mf\n@mf.op(vjp=lambda g: 2 * g)\ndef twice(x):\n    return 2 * x\n"
    made = []
    for name in ("first", "second"):
        (tmp_path / "mine.py").write_text(text)
        made.append(runpy.run_path(str(tmp_path / "mine.py"), run_name=name)["twice"])
    assert mf.grad(lambda x: made[0](x) + made[1](x))(1.0) == 4
    (tmp_path / "another.py").write_text(text)
    with pytest.raises(ArgumentError, match="op twice: expected a new name, got one that is taken"):
        runpy.run_path(str(tmp_path / "another.py"), run_name="third")


# Random programs


UNARY = [
    np.sin,
    np.tanh,
    np.exp,
    np.square,
    sigmoid,
    lambda x: x.T,
    lambda x: x[::-1],
    lambda x: np.sum(x, 0, keepdims=True),
]
BINARY = [np.add, np.multiply, np.subtract, np.matmul, lambda x, y: x / (2 + np.square(y))]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99)), min_size=2, max_size=10))
def test_random_programs(steps):
    """Of values that stay within -1 and 1 and slopes that stay moderate, so that differences are exact enough."""

    def program(a, b):
        values = [a, b]
        for pick, i, j in steps:
            x, y = 0.5 * values[i % len(values)], 0.5 * values[j % len(values)]
            if pick % 2:
                new = UNARY[pick // 2 % 8](x)
            else:
                new = BINARY[pick // 2 % 5](x, y) if fits(x, y, BINARY[pick // 2 % 5]) else x
            values.append(np.sin(new))
        return np.sum(values[-1]) + np.sum(np.square(values[-2]))

    rng = np.random.default_rng(0)
    a, b = np.tanh(rng.standard_normal((3, 3))), np.tanh(rng.standard_normal((3, 3)))
    assert mf.gradcheck(program, a, b, projections=1) <= 1e-6
    assert mf.gradcheck(mf.grad(program, (0, 1)), a, b, projections=1) <= 1e-6


def fits(x, y, function):
    return function is not np.matmul or x.shape[-1] == y.shape[0]


def test_argnums_count_from_the_end_too():
    def f(a, b):
        return a * np.sum(b * b)

    for last in (1, -1):
        np.testing.assert_array_equal(mf.grad(f, last)(1.0, [1.0, 2.0]), [2.0, 4.0])
        np.testing.assert_array_equal(mf.jacobian(f, last)(1.0, [1.0, 2.0]), [2.0, 4.0])
    for argnums in (2, -3, (0, 5)):
        with pytest.raises(ArgumentError, match=r"^grad: expected argnums among 2 positional arguments, got \("):
            mf.grad(f, argnums)(1.0, [1.0, 2.0])


def test_arguments_come_as_a_sequence_of_them():
    x = np.ones(2)
    with pytest.raises(DTypeError, match=r"^jvp: expected args as a tuple, .* got ndarray; write \(arg,\) for"):
        mf.jvp(np.sin, x, x)
    with pytest.raises(DTypeError, match=r"^jvp: expected tangents as a tuple, .* got ndarray; write \(tangent,\)"):
        mf.jvp(np.sin, (x,), x)
    with pytest.raises(DTypeError, match=r"^hvp: expected directions as a tuple, .* got ndarray; write \(direction,\)"):
        mf.hvp(lambda v: np.sum(v**3), (x,), x)


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
