"""L-BFGS and its line search."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.autograd.phases import OTHER, UPDATE
from microfw.errors import ArgumentError, NonFiniteError
from microfw.optim.linesearch import Point, search
from tests.helpers.optimizers import rosenbrock


class Problem:
    """A function of one parameter array, whose evaluations are counted."""

    def __init__(self, function, start, **options):
        self.function, self.count, self.losses = function, 0, []
        self.p = mf.tensor(start, requires_grad=True)
        self.optimizer = optim.LBFGS([self.p], **options)

    def closure(self):
        self.count += 1
        self.optimizer.zero_grad()
        loss = self.function(self.p)
        loss.backward()
        self.losses.append(loss.item())
        return loss

    def step(self):
        return self.optimizer.step(self.closure)


def test_lbfgs_minimises_rosenbrock_in_ten_dimensions():
    problem = Problem(rosenbrock, np.array([-1.2, 1.0] * 5), gradient_tolerance=1e-10, change_tolerance=0)
    first = [problem.step() for _ in range(4)]
    assert first[0] == problem.losses[0]
    assert first == sorted(first, reverse=True)
    np.testing.assert_allclose(problem.p.data, 1, atol=1e-8)
    from scipy.optimize import minimize, rosen, rosen_der

    peer = minimize(rosen, [-1.2, 1.0], jac=rosen_der, method="L-BFGS-B", options={"gtol": 1e-8})
    assert problem.count < 3 * peer.nfev, "about as many evaluations as SciPy takes"


def test_lbfgs_solves_a_quadratic_in_as_many_iterations_as_it_has_dimensions():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((6, 6))
    A = A @ A.T + np.eye(6)
    problem = Problem(lambda p: 0.5 * (p @ A @ p) - p.sum(), np.zeros(6), iterations=20, change_tolerance=0)
    problem.step()
    np.testing.assert_allclose(problem.p.data, np.linalg.solve(A, np.ones(6)), atol=1e-6)
    assert problem.count < 25


def test_lbfgs_trains_a_network_in_float32():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 3)).astype(np.float32)
    y = np.sin(x.sum(axis=1, keepdims=True))
    model = nn.Sequential(nn.Dense(3, 16, rng=rng), nn.Tanh(), nn.Dense(16, 1, rng=rng))
    optimizer = optim.LBFGS(model.parameters(), iterations=100)

    def closure():
        optimizer.zero_grad()
        loss = nn.MSELoss()(model(x), y)
        loss.backward()
        return loss

    before = optimizer.step(closure)
    assert closure().item() < before / 100
    assert model[0].weight.dtype == np.float32


@pytest.mark.parametrize("failing", [1, 2, 5, 9])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_lbfgs_is_before_a_step_that_failed(failing, error):
    problem = Problem(rosenbrock, np.array([-1.2, 1.0]))
    problem.optimizer.iterations = 3
    problem.step()
    before = problem.optimizer.state_dict(), problem.p.data.copy()
    calls = 0

    def closure():
        nonlocal calls
        calls += 1
        if calls == failing:
            raise error
        return problem.closure()

    problem.optimizer.iterations = 20
    with pytest.raises(error):
        problem.optimizer.step(closure)
    problem.optimizer.iterations = 3
    np.testing.assert_array_equal(problem.p.data, before[1])
    np.testing.assert_equal(problem.optimizer.state_dict(), before[0])


def test_lbfgs_refuses():
    problem = Problem(lambda p: np.log(p).sum(), np.array([-1.0]))
    with pytest.raises(ArgumentError, match=r"^LBFGS.step: expected a closure, got none; pass a function that"):
        problem.optimizer.step()
    with pytest.raises(ArgumentError, match=r"expected a closure that returns the loss, got None; end it with `return"):
        problem.optimizer.step(lambda: None)
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match="^LBFGS.step: expected (a )?finite"):
        problem.step()
    assert problem.p.data == -1
    with pytest.raises(ArgumentError, match="^LBFGS: expected parameters, without groups, got groups"):
        optim.LBFGS([{"params": [problem.p]}])
    diverging = Problem(lambda p: np.exp(p * p).sum(), np.array([5.0]), lr=1e6, line_search=False)
    with pytest.raises(NonFiniteError, match="expected a finite loss, got .* at length .*; lower lr, or use the line"):
        diverging.step()
    assert diverging.p.data == 5


def test_lbfgs_line_search_turns_back_where_the_loss_is_not_finite():
    problem = Problem(lambda p: (p - np.log(p)).sum(), np.array([0.01, 5.0]), lr=1e3)
    with np.errstate(all="ignore"):
        problem.step()
    assert not all(math.isfinite(f) for f in problem.losses)
    np.testing.assert_allclose(problem.p.data, 1, atol=1e-4)


def test_lbfgs_leaves_a_frozen_parameter_alone():
    a, b = (mf.tensor([3.0], requires_grad=True) for _ in range(2))
    optimizer = optim.LBFGS([a, b], iterations=2)

    def closure():
        optimizer.zero_grad()
        loss = ((a * b - 2.0) ** 2 + (a - b) ** 2 * 0.5).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert optimizer.pairs
    frozen = a.data.copy()
    a.requires_grad = False
    for _ in range(5):
        optimizer.step(closure)
    assert a.data == frozen
    best = (2 * frozen + 0.5 * frozen) / (frozen**2 + 0.5)
    np.testing.assert_allclose(b.data, best, rtol=1e-5)


def test_lbfgs_goes_on_from_its_state_bitwise():
    a, b = (Problem(rosenbrock, np.array([-1.2, 1.0]), iterations=4) for _ in range(2))
    a.step()
    b.optimizer.load_state_dict(pickle.loads(pickle.dumps(a.optimizer.state_dict())))
    b.p.data = a.p.data
    c = pickle.loads(pickle.dumps((a.p, a.optimizer)))
    for problem in (a, b):
        problem.step()
    np.testing.assert_array_equal(a.p.data, b.p.data)
    a.p, a.optimizer = c
    a.step()
    np.testing.assert_array_equal(a.p.data, b.p.data)


def test_lbfgs_keeps_the_closures_time_apart(watcher, monkeypatch):
    problem = Problem(rosenbrock, np.array([-1.2, 1.0]), iterations=3)
    monkeypatch.setattr(watcher, "switch", watcher.phases.append)
    with watcher.on():
        problem.step()
    assert watcher.phases == [UPDATE, *[OTHER, "backward", UPDATE] * problem.count, "update"]


@pytest.mark.parametrize("first", [1e-6, 0.1, 1.0, 100.0])
@pytest.mark.parametrize(
    "f", [lambda t: (t - 1) ** 2, lambda t: -t / (t * t + 2), lambda t: (t + 0.004) ** 5 - 2 * (t + 0.004) ** 4]
)
def test_the_line_search_finds_strong_wolfe_points(f, first):
    """The second and third functions are those of Moré and Thuente, 1994."""

    def evaluate(t):
        x = mf.tensor(t, requires_grad=True)
        value, slope = mf.value_and_grad(f)(x)
        return float(value.item()), np.array([slope.item()])

    value, g = evaluate(0.0)
    start = Point(0.0, value, g, float(g[0]))
    found = search(evaluate, np.ones(1), start, first)
    assert found.f <= value + 1e-4 * found.t * g[0]
    assert abs(found.slope) <= 0.9 * abs(g[0])


def test_a_line_without_a_lower_point():
    start = Point(0.0, 0.0, np.array([-1.0]), -1.0)
    assert search(lambda t: (1.0, np.array([1.0])), np.ones(1), start, 1.0) is None


def test_a_closure_returns_one_number():
    p = mf.tensor([1.0, 2.0], requires_grad=True)

    def closure():
        loss = p * p
        loss.sum().backward()
        return loss

    with pytest.raises(ArgumentError, match=r"a closure that returns a loss of one number, got one of shape \(2,\); "):
        optim.LBFGS([p]).step(closure)
    assert p.tolist() == [1.0, 2.0]
