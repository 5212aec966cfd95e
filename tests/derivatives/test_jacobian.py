"""jacobian, hessian, hvp and gradgradcheck: shapes, modes, containers, Modules, nesting."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.autograd.functional import Linearization
from microfw.errors import ArgumentError, DTypeError, GradientError, GraphError, ShapeError

X = np.array([0.3, -0.7, 1.1])
A = np.array([[1.0, 2.0, -1.0], [0.5, -0.3, 0.7]])


def curved(x):
    return np.sum(np.sin(x) * np.exp(x[::-1])) + x[0] ** 3


def curved_hessian(x):
    e, s, c = np.exp(x), np.sin(x), np.cos(x)
    h = np.diag(-s * e[::-1] + s[::-1] * e)
    h += np.fliplr(np.diag(c * e[::-1] + c[::-1] * e))
    h[0, 0] += 6 * x[0]
    return h


MODES = ["auto", "forward", "reverse"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 2), (0,), (2, 0)])
@pytest.mark.parametrize("out", [(), (2,), (3, 1), (0,)])
def test_jacobian_of_a_linear_map_is_its_matrix(mode, shape, out):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape)
    matrix = rng.standard_normal((*out, *shape))
    flat = matrix.reshape(int(np.prod(out)), x.size)
    got = mf.jacobian(lambda x: np.matmul(flat, x.reshape(x.size)).reshape(out), mode=mode)(x)
    assert got.shape == (*out, *shape) and type(got) is np.ndarray
    np.testing.assert_allclose(got, matrix, rtol=1e-14)


@pytest.mark.parametrize("mode", MODES)
def test_jacobian_of_containers_by_several_arguments(mode):
    def f(p, q):
        return {"product": p["a"] * p["b"], "sum": np.sum(q) * p["b"]}

    J = mf.jacobian(f, (0, 1), mode)({"a": X, "b": np.array(2.0)}, A)
    assert list(J) == ["product", "sum"]
    by_p, by_q = J["product"]
    np.testing.assert_array_equal(by_p["a"], 2 * np.eye(3))
    np.testing.assert_array_equal(by_p["b"], X)
    np.testing.assert_array_equal(by_q, np.zeros((3, 2, 3)))
    by_p, by_q = J["sum"]
    assert by_p["a"].shape == (3,) and by_p["b"].shape == ()
    np.testing.assert_array_equal(by_q, np.full((2, 3), 2.0))


@pytest.mark.parametrize("mode", MODES)
def test_jacobian_by_a_modules_parameters(mode):
    model = nn.Sequential(nn.Dense(3, 2, rng=0), nn.Tanh()).astype(np.float64)
    J = mf.jacobian(lambda m: m(A), mode=mode)(model)
    assert {k: v.shape for k, v in J.items()} == {"0.weight": (2, 2, 3, 2), "0.bias": (2, 2, 2)}
    slope = 1 - model(A).data ** 2
    for n in range(2):
        for o in range(2):
            expected = np.zeros((3, 2))
            expected[:, o] = A[n] * slope[n, o]
            np.testing.assert_allclose(J["0.weight"][n, o], expected, rtol=1e-13)
    assert all(p.grad is None for p in model.parameters())


def test_the_cheaper_mode_is_taken(monkeypatch):
    told = []
    for name in ("vjp", "jvp_from"):
        method = getattr(Linearization, name)
        monkeypatch.setattr(
            Linearization, name, lambda self, *a, m=method, n=name, **k: told.append(n) or m(self, *a, **k)
        )
    mf.jacobian(lambda x: np.matmul(A, x))(X)
    assert told == ["vjp", "vjp"]  # 2 outputs, 3 inputs
    told.clear()
    mf.jacobian(lambda x: np.matmul(A.T, x))(X[:2])
    assert told == ["jvp_from", "jvp_from"]
    told.clear()
    mf.hessian(curved)(X)
    assert told.count("jvp_from") == 0 and told.count("vjp") == 4  # the gradient, and 3 rows


def test_the_function_runs_once():
    runs = []
    mf.jacobian(lambda x: runs.append(1) or np.matmul(A, x))(X)
    mf.hessian(lambda x: runs.append(1) or np.sum(x**3))(X)
    mf.hvp(lambda x: runs.append(1) or np.sum(x**3), (X,), (X,))
    assert len(runs) == 3


@pytest.mark.parametrize("mode", MODES)
def test_jacobians_nest(mode):
    def total(x):
        return np.sum(np.square(mf.jacobian(lambda x: np.sin(x) * x[0], mode=mode)(x)))

    assert mf.gradcheck(total, X) <= 1e-6
    third = mf.jacobian(mf.hessian(lambda x: np.sum(x**4)), mode=mode)(X)
    expected = np.zeros((3, 3, 3))
    expected[range(3), range(3), range(3)] = 24 * X
    np.testing.assert_allclose(third, expected, rtol=1e-12, atol=1e-12)


def test_hessian():
    np.testing.assert_allclose(mf.hessian(curved)(X), curved_hessian(X), rtol=1e-12, atol=1e-14)
    assert mf.hessian(curved)(X.astype(np.float32)).dtype == np.float32
    np.testing.assert_array_equal(mf.hessian(lambda x: np.sum(2.0 * x))(X), np.zeros((3, 3)))
    assert mf.hessian(lambda x: x**3)(2.0) == 12


def test_hessian_of_several_arguments_has_all_blocks():
    b = np.array([2.0, 5.0])
    H = mf.hessian(lambda x, y: np.sum(np.matmul(A, x) * y * y), (0, 1))(X, b)
    np.testing.assert_allclose(H[0][0], np.zeros((3, 3)), atol=1e-15)
    np.testing.assert_allclose(H[0][1], (2 * b[:, None] * A).T)
    np.testing.assert_allclose(H[1][0], H[0][1].T)
    np.testing.assert_allclose(H[1][1], np.diag(2 * (A @ X)))


def test_hessian_of_a_model():
    model = nn.Sequential(nn.Dense(3, 2, rng=0), nn.Tanh(), nn.Dense(2, 1, rng=1)).astype(np.float64)
    H = mf.hessian(lambda m: np.mean(np.square(m(A))))(model)
    assert list(H) == list(H["0.bias"]) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    for a in H:
        for b in H:
            shape = H[a][b].shape
            half = H[a][a].ndim // 2
            assert shape[:half] == H[a][a].shape[:half]
            np.testing.assert_allclose(
                H[a][b], np.moveaxis(H[b][a], range(-half, 0), range(half)), rtol=1e-10, atol=1e-12
            )
    direction = {k: np.random.default_rng(2).standard_normal(p.shape) for k, p in model.named_parameters()}
    (product,) = mf.hvp(lambda m: np.mean(np.square(m(A))), (model,), (direction,))
    for a in H:
        expected = sum(np.tensordot(H[a][b], direction[b], direction[b].ndim) for b in H)
        np.testing.assert_allclose(product[a], expected, rtol=1e-9, atol=1e-12)


def test_hvp():
    v = np.array([1.0, -2.0, 0.5])
    (product,) = mf.hvp(curved, (X,), (v,))
    np.testing.assert_allclose(product, curved_hessian(X) @ v, rtol=1e-12)
    by_x, by_y = mf.hvp(lambda x, y: np.sum(x * y), (X, X), (v, 2 * v))
    np.testing.assert_array_equal(by_x, 2 * v)
    np.testing.assert_array_equal(by_y, v)
    tree = {"a": X, "b": [1.0, 2.0]}
    (product,) = mf.hvp(lambda t: np.sum(t["a"] ** 3) * np.sum(t["b"]), (tree,), ({"a": v, "b": [0.0, 0.0]},))
    np.testing.assert_allclose(product["a"], 6 * X * v * 3)
    np.testing.assert_allclose(product["b"], np.full(2, np.sum(3 * X**2 * v)))
    assert mf.gradcheck(lambda x: mf.hvp(curved, (x,), (v,))[0], X) <= 1e-6


def test_errors():
    with pytest.raises(ArgumentError, match=r"^jacobian: expected mode to be 'auto', 'forward' or 'reverse', got 'up'"):
        mf.jacobian(curved, mode="up")
    with pytest.raises(GraphError, match="^jacobian: expected the function to return Tensors, got float64"):
        mf.jacobian(lambda x: x.data[0])(X)
    for derivative in (mf.hessian(np.sin), lambda x: mf.hvp(np.sin, (x,), (x,))):
        with pytest.raises(GraphError, match=r"expected a function with one scalar output, got shape \(3,\)"):
            derivative(X)
    with pytest.raises(ShapeError, match=r"^hvp: expected argument 0 to get an array of shape \(3,\), got \(2,\)"):
        mf.hvp(curved, (X,), (X[:2],))


# gradgradcheck


def test_gradgradcheck_passes_and_fails():
    assert mf.gradgradcheck(lambda t: {"y": np.sin(t[0]) * t[1], "z": np.sum(t[1])}, [X, X + 1]) <= 1e-6
    halfway = mf.op(
        lambda x: x * x, vjp=lambda g, x: 2 * g * x.detach() if isinstance(x, mf.Tensor) else 2 * g * x, name="halfway"
    )
    assert mf.gradcheck(halfway, X) <= 1e-6
    with pytest.raises(GradientError, match=r"^gradgradcheck: argument 0: expected the backward derivative to be"):
        mf.gradgradcheck(halfway, X)


def test_gradgradcheck_sees_a_rule_that_is_not_linear_in_its_gradient():
    bent = mf.op(
        lambda x: x * 1.0,
        vjp=lambda g: g * g / g.data if isinstance(g, mf.Tensor) else g * 1.0,
        jvp="linear",
        name="bent",
    )
    assert mf.gradcheck(bent, X) <= 1e-6
    with pytest.raises(GradientError, match=r"^gradgradcheck: argument 1: "):
        mf.gradgradcheck(bent, X)


def test_gradgradcheck_wants_float64():
    with pytest.raises(DTypeError, match="^gradgradcheck: expected argument 0 to be float64"):
        mf.gradgradcheck(np.sin, X.astype(np.float32))
    with pytest.raises(ArgumentError, match="^gradgradcheck: expected projections to be at least 1"):
        mf.gradgradcheck(np.sin, X, projections=0)


def _twice(f):
    return lambda: mf.grad(lambda x: np.sum(mf.grad(lambda v: np.sum(f(v)))(x) ** 2))(np.array([0.5, 1.5, 2.0]))


SECOND = {
    "grad of grad": _twice(lambda x: x**3),
    "an op that saves more": _twice(lambda x: mf.ops.conv1d(x.reshape(1, 1, 3), x.reshape(1, 1, 3), padding=1)),
    "an op of any number of inputs": _twice(lambda x: np.concatenate([x, x * x]) ** 2),
    "a checkpoint": _twice(lambda x: mf.checkpoint(lambda v: np.sin(v) * v, x)),
    "hessian": lambda: mf.hessian(lambda x: np.sum(x**3))(np.ones(2)),
    "hvp": lambda: mf.hvp(lambda x: np.sum(np.sin(x)), (np.ones(2),), (np.ones(2),)),
    "jvp of grad": lambda: mf.jvp(mf.grad(lambda x: np.sum(np.exp(x))), (np.ones(2),), (np.ones(2),)),
    "jacobians": lambda: [mf.jacobian(np.sin, 0, mode)(np.ones(2)) for mode in ("forward", "reverse")],
}


@pytest.mark.parametrize("case", SECOND)
def test_derivatives_of_derivatives_leave_no_cycles(case):
    call = SECOND[case]
    call()  # ops are written when they are first called
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            call()
        assert gc.collect() == 0
    finally:
        gc.enable()
