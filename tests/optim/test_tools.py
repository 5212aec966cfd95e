"""L-BFGS, schedules, clipping and averages."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.autograd.phases import OTHER, UPDATE
from microfw.errors import ArgumentError, GraphError, NonFiniteError
from microfw.optim import schedules
from microfw.optim.linesearch import Point, search

# L-BFGS


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


def rosenbrock(p):
    x, y = p[::2], p[1::2]
    return ((1 - x) ** 2 + 100 * (y - x**2) ** 2).sum()


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


# Schedules

ALL = {
    "StepDecay": schedules.StepDecay(0.1, every=3),
    "Exponential": schedules.Exponential(0.1, factor=0.9),
    "Cosine": schedules.Cosine(0.1, steps=10, end=0.001),
    "OneCycle": schedules.OneCycle(0.1, steps=20),
    "WarmUp": schedules.WarmUp(schedules.Cosine(0.1, steps=10), steps=5),
    "ReduceOnPlateau": schedules.ReduceOnPlateau(0.1),
}


def test_every_schedule_is_tested():
    assert set(ALL) == set(schedules.__all__)


@pytest.mark.parametrize("name", ALL)
def test_schedules_are_plain_data(name):
    schedule = pickle.loads(pickle.dumps(ALL[name]))
    assert schedule == ALL[name]
    assert repr(schedule).startswith(f"{name}(")
    if name != "ReduceOnPlateau":
        rates = [schedule(step) for step in range(15)]
        assert all(type(rate) is float and 0 < rate <= 0.1 + 1e-15 for rate in rates)
        assert rates == [schedule(step) for step in range(15)]


def test_schedules_at_their_ends():
    assert schedules.Cosine(0.1, steps=10)(10) == schedules.Cosine(0.1, steps=10)(25) == 0
    assert schedules.Cosine(0.1, steps=10, end=0.01)(25) == 0.01
    cycle = schedules.OneCycle(0.1, steps=20, start=10, end=5)
    assert cycle(0) == pytest.approx(0.01)
    assert cycle(5) == pytest.approx(0.1)
    assert cycle(19) == cycle(50) == pytest.approx(0.002)
    warm = schedules.WarmUp(0.5, steps=4, start=0.2)
    assert [warm(step) for step in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: schedules.StepDecay(0, 3), "StepDecay: expected lr above 0, finite, got 0"),
        (lambda: schedules.StepDecay(0.1, 0), "StepDecay: expected every to be an integer of at least 1, got 0"),
        (lambda: schedules.Exponential(0.1, -1), "Exponential: expected factor above 0, finite, got -1"),
        (lambda: schedules.Cosine(0.1, 10, -1), "Cosine: expected end from 0 to lr (0.1), got -1"),
        (lambda: schedules.Cosine("0.1", 10), "Cosine: expected lr above 0, finite, got '0.1'"),
        (lambda: schedules.OneCycle(0.1, 20, rise=1.0), "OneCycle: expected rise below 1, and more than a step long, got 1.0 of 20 steps"),
        (lambda: schedules.WarmUp(0.1, 0), "WarmUp: expected steps to be an integer of at least 1, got 0"),
        (lambda: schedules.StepDecay(True, 3), "StepDecay: expected lr above 0, finite, got True"),
        (lambda: schedules.StepDecay(0.1, 2.5), "StepDecay: expected every to be an integer of at least 1, got 2.5"),
        (lambda: schedules.StepDecay(0.1, 3, math.nan), "StepDecay: expected factor above 0, finite, got nan"),
        (lambda: schedules.Exponential(math.inf, 0.5), "Exponential: expected lr above 0, finite, got inf"),
        (lambda: schedules.Cosine(0.1, 10.5), "Cosine: expected steps to be an integer of at least 1, got 10.5"),
        (lambda: schedules.Cosine(0.1, 10, 0.2), "Cosine: expected end from 0 to lr (0.1), got 0.2"),
        (lambda: schedules.Cosine(0.1, 10, math.nan), "Cosine: expected end from 0 to lr (0.1), got nan"),
        (lambda: schedules.Cosine(0.1, 10, None), "Cosine: expected end from 0 to lr (0.1), got None"),
        (lambda: schedules.OneCycle(0.1, 20, start=0.5), "OneCycle: expected start at least 1, finite, got 0.5"),
        (lambda: schedules.OneCycle(0.1, 20, start=4.0, end=0.1), "OneCycle: expected end at least 1 / start (0.25), finite, got 0.1"),
        (lambda: schedules.OneCycle(0.1, 20, rise="a"), "OneCycle: expected rise above 0, finite, got 'a'"),
        (lambda: schedules.WarmUp(0.1, 5, start=2), "WarmUp: expected start above 0, at most 1, got 2"),
        (lambda: schedules.WarmUp(-0.1, 5), "WarmUp: expected schedule above 0, finite, got -0.1"),
        (lambda: schedules.WarmUp(schedules.Cosine, 5), "WarmUp: expected a rate, or a schedule that is a function of the step, got a class"),
        (lambda: schedules.WarmUp(schedules.ReduceOnPlateau(0.1), 5), "WarmUp: expected a rate, or a schedule that is a function of the step, got a ReduceOnPlateau, a function of a metric"),
        (lambda: schedules.WarmUp(schedules.Cosine(0.1, 5), 6), "WarmUp: expected steps of at most the 5 of the Cosine that follows, got 6; the two numbers add up to the whole run"),
        (lambda: schedules.ReduceOnPlateau(0.1, patience=-1), "ReduceOnPlateau: expected patience to be an integer of at least 0, got -1"),
        (lambda: schedules.ReduceOnPlateau(0.1, patience=1.5), "ReduceOnPlateau: expected patience to be an integer of at least 0, got 1.5"),
        (lambda: schedules.ReduceOnPlateau(0.1, cooldown=-1), "ReduceOnPlateau: expected cooldown to be an integer of at least 0, got -1"),
        (lambda: schedules.ReduceOnPlateau(0.1, threshold=2), "ReduceOnPlateau: expected threshold from 0 to below 1, got 2"),
        (lambda: schedules.ReduceOnPlateau(0.1, threshold=math.nan), "ReduceOnPlateau: expected threshold from 0 to below 1, got nan"),
        (lambda: schedules.ReduceOnPlateau(0.1, end=0.2), "ReduceOnPlateau: expected end from 0 to lr (0.1), got 0.2"),
        (lambda: schedules.ReduceOnPlateau(0.1, factor=1.0), "ReduceOnPlateau: expected factor below 1, got 1.0"),
        (lambda: schedules.ReduceOnPlateau(0.1, mode="up"), "ReduceOnPlateau: expected mode 'min' or 'max', got 'up'"),
    ],
)  # fmt: skip
def test_schedules_that_make_no_sense(make, text):
    with pytest.raises(ArgumentError) as info:
        make()
    assert str(info.value) == text


def test_plateau_goes_on_from_its_state():
    a, b = (schedules.ReduceOnPlateau(0.1, patience=1, cooldown=2, mode="max") for _ in range(2))
    metrics = [0.1, 0.2, 0.2, 0.2, 0.15, 0.2, math.nan, 0.2, 0.3, 0.3, 0.3, 0.3]
    for metric in metrics[:5]:
        a(metric)
    b.load_state_dict(a.state_dict())
    assert [a(metric) for metric in metrics[5:]] == [b(metric) for metric in metrics[5:]]
    assert a.lr < 0.1
    assert a == b and a == pickle.loads(pickle.dumps(a))


def test_a_plateau_that_has_seen_nothing_equals_its_copy_and_takes_older_states():
    new, old = (schedules.ReduceOnPlateau(0.1, patience=0) for _ in range(2))
    assert new == pickle.loads(pickle.dumps(new)) and math.isinf(new.best)
    old.load_state_dict(old.state_dict() | {"best": math.nan})  # as saved before there was None
    assert [old(2.0), old(1.0), old.best] == [0.1, 0.1, 1.0]


@pytest.mark.parametrize(
    ("mode", "metrics", "rates"),
    [
        ("min", (-1.0, -0.99995, -0.9999, -0.99985, -0.9998), (0.1, 0.1, 0.1, 0.01, 0.01)),
        ("min", (-1.0, -1.00005, -1.00009, -1.00012, -1.2), (0.1, 0.1, 0.1, 0.1, 0.1)),
        ("min", (0.0, 0.0, -1e-12, 1e-12, 0.0, 0.0), (0.1, 0.1, 0.1, 0.1, 0.1, 0.01)),
        ("max", (-1.0, -1.0, -0.99995, -1.0), (0.1, 0.1, 0.1, 0.01)),
        ("max", (-1.0, -0.99, -0.9, -0.5), (0.1, 0.1, 0.1, 0.1)),
        ("min", (math.nan, math.nan, math.nan, math.nan), (0.1, 0.1, 0.01, 0.01)),
        ("min", (math.inf, 5.0, 4.0, 4.0, 4.0, 4.0), (0.1, 0.1, 0.1, 0.1, 0.1, 0.01)),
    ],
)
def test_plateau_counts_as_better_what_is_better_at_any_sign(mode, metrics, rates):
    plateau = schedules.ReduceOnPlateau(0.1, patience=2, mode=mode)
    assert [plateau(metric) for metric in metrics] == pytest.approx(rates)


@pytest.mark.parametrize("metric", ["0.5", None, [1.0, 2.0]])
def test_plateau_refuses_what_is_no_number(metric):
    plateau = schedules.ReduceOnPlateau(0.1)
    with pytest.raises(ArgumentError, match="^ReduceOnPlateau: expected a metric, one number, got"):
        plateau(metric)
    assert plateau == schedules.ReduceOnPlateau(0.1)


def test_plateau_returns_to_its_start():
    plateau = schedules.ReduceOnPlateau(0.1, patience=0, cooldown=3)
    for _ in range(9):
        plateau(1.0)
    assert plateau.lr < 0.1
    plateau.reset()
    assert plateau == schedules.ReduceOnPlateau(0.1, patience=0, cooldown=3)


def test_a_plateau_takes_a_whole_state_or_nothing_and_those_of_older_versions():
    plateau = schedules.ReduceOnPlateau(0.1, patience=0)
    plateau(1.0)
    before = plateau.state_dict()
    for spoilt in ({"patience": -1}, {"lr": math.nan}, {"bad": -1}, {"best": "a"}, {"base_lr": 0}):
        with pytest.raises(ArgumentError, match="ReduceOnPlateau"):
            plateau.load_state_dict(before | {"lr": 0.05} | spoilt)
    with pytest.raises(ArgumentError, match="^ReduceOnPlateau.load_state_dict: expected an entry 'factor', got only"):
        plateau.load_state_dict({"lr": 0.05})
    assert plateau.state_dict() == before
    old = {name: value for name, value in before.items() if name != "base_lr"} | {"lr": 0.01, "best": math.nan}
    plateau.load_state_dict(old)
    assert (plateau.lr, plateau.base_lr, plateau.best) == (0.01, 0.1, math.inf)


# Clipping


def given(values, owned=True):
    """Return parameters with gradients, of which None is none."""
    parameters = [mf.tensor(np.zeros(np.shape(v if v is not None else 0)), requires_grad=True) for v in values]
    optimizer = optim.SGD(parameters, lr=1.0) if owned else None
    for p, v in zip(parameters, values, strict=True):
        p.grad = v
    return parameters, optimizer


@pytest.mark.parametrize("values", [[[3.0, 4.0], 12.0], [[3.0, 4.0], None, 12.0], [None], [[0.0, 0.0]]], ids=str)
@pytest.mark.parametrize("owned", [False, True])
@pytest.mark.parametrize("limit", [6.5, 100.0])
def test_clipping_by_norm_and_by_value(values, owned, limit):
    flat = np.concatenate([np.ravel(v) for v in values if v is not None] or [[]])
    norm, largest = np.linalg.norm(flat), np.abs(flat).max(initial=0)
    for clip, measure, expected in (
        (optim.clip_grad_norm, norm, flat * min(1, limit / norm if norm else 1)),
        (optim.clip_grad_value, largest, np.clip(flat, -limit, limit)),
    ):
        parameters, optimizer = given(values, owned)
        got = clip(optimizer if owned else parameters, limit)
        assert type(got) is float
        assert got == pytest.approx(measure)
        clipped = np.concatenate([np.ravel(p.grad) for p in parameters if p.grad is not None] or [[]])
        np.testing.assert_allclose(clipped, expected, rtol=1e-14)
        assert [p.grad is None for p in parameters] == [v is None for v in values]


def test_clipping_counts_a_shared_parameter_once():
    (p,), _ = given([[3.0, 4.0]])
    assert optim.clip_grad_norm([p, p], 1.0) == 5
    assert optim.clip_grad_norm(p, 0.5) == pytest.approx(1)


def test_clipping_with_an_optimizer_that_lost_its_parameters():
    (p,), first = given([[3.0, 4.0]])
    optim.SGD([p], lr=1.0)
    assert optim.clip_grad_norm(first, 1.0) == 5
    np.testing.assert_allclose(p.grad, [0.6, 0.8])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("clip", [optim.clip_grad_norm, optim.clip_grad_value])
def test_clipping_does_not_hide_what_is_not_finite(clip, bad):
    (p, q), optimizer = given([[3.0, bad], 4.0])
    assert not math.isfinite(clip(optimizer, 1.0))
    np.testing.assert_array_equal(p.grad, [3, bad])
    assert q.grad == 4
    with pytest.raises(NonFiniteError, match=f"got {bad} for parameter number 0"):
        optimizer.step()


def test_clipping_where_only_the_squares_overflow():
    p = mf.tensor(np.zeros(2, np.float32), requires_grad=True)
    p.grad = np.array([3e30, 4e30], np.float32)
    assert optim.clip_grad_norm([p], 1.0) == pytest.approx(5e30, rel=1e-6)
    np.testing.assert_allclose(p.grad, [0.6, 0.8], rtol=1e-6)


def test_clipping_refuses():
    p = given([1.0])[0]
    for limit in (0, -1.0, math.nan, math.inf, "1", True):
        with pytest.raises(ArgumentError, match=r"^clip_grad_norm: expected max_norm above 0, finite, got"):
            optim.clip_grad_norm(p, limit)
        with pytest.raises(ArgumentError, match=r"^clip_grad_value: expected max_value above 0, finite, got"):
            optim.clip_grad_value(p, limit)
    with pytest.raises(
        ArgumentError, match=r"^clip_grad_norm: expected an optimizer, or parameters, got ndarray; pass model"
    ):
        optim.clip_grad_norm([np.ones(2)], 1.0)


def exhausted():
    parameters = iter(given([[3.0, 4.0]])[0])
    assert len(list(parameters)) == 1
    return parameters


CONSUMERS = {
    "clip_grad_norm": lambda parameters: optim.clip_grad_norm(parameters, 1.0),
    "clip_grad_value": lambda parameters: optim.clip_grad_value(parameters, 1.0),
    "SGD": lambda parameters: optim.SGD(parameters, lr=0.1),
    "Adam": optim.Adam,
    "AdamW": optim.AdamW,
    "Adagrad": optim.Adagrad,
    "RMSprop": optim.RMSprop,
    "LBFGS": optim.LBFGS,
    "SGD, group 0": lambda parameters: optim.SGD([{"params": parameters}], lr=0.1),
}


@pytest.mark.parametrize("name", CONSUMERS)
def test_an_iterator_of_parameters_with_nothing_left_is_refused(name):
    for parameters in (exhausted(), (p for p in []), map(id, [])):
        with pytest.raises(
            ArgumentError, match=f"^{name}: expected .*, got an iterator with nothing left; pass model.par"
        ):
            CONSUMERS[name](parameters)
    with pytest.raises(ArgumentError, match=f"^{name}: expected .*, got int; pass model.parameters"):
        CONSUMERS[name](3)
    CONSUMERS[name](iter(given([[3.0, 4.0]])[0]))


def test_clipping_no_parameters_is_clipping_nothing_and_results_have_no_gradients():
    assert optim.clip_grad_norm([], 1.0) == optim.clip_grad_value((), 1.0) == 0.0
    (p,), _ = given([[3.0, 4.0]])
    for clip in (optim.clip_grad_norm, optim.clip_grad_value):
        with pytest.raises(
            ArgumentError, match=f"^{clip.__name__}: expected .*, got the result of an op; pass model.par"
        ):
            clip([p * 2], 1.0)


def test_a_trainer_keeps_the_hooks_of_a_generator():
    model = nn.Dense(2, 2, rng=0)
    parts = model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1)
    hooks = [mf.training.EarlyStopping()]
    assert mf.Trainer(*parts, hooks=(hook for hook in hooks)).hooks == hooks
    for nothing in (iter(()), 3):
        with pytest.raises(ArgumentError, match="^Trainer: expected hooks, got .*; pass a list of them"):
            mf.Trainer(*parts, hooks=nothing)


# Averages


def test_an_average_follows_its_equation_and_swaps():
    model = nn.Dense(2, 2, rng=0)
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    average, expected = optim.Average(optimizer, decay=0.8), optimizer.flat.values.copy()
    for k in range(5):
        for p in model.parameters():
            p.grad = np.full(p.shape, k, np.float32)
        optimizer.step()
        average.update()
        expected = 0.8 * expected + 0.2 * optimizer.flat.values
    np.testing.assert_allclose(average.values, expected, rtol=1e-6)
    before = optimizer.flat.values.copy()
    loss = np.square(model(np.ones((1, 2)))).sum()
    with pytest.raises(ZeroDivisionError), average.swapped():  # noqa: PT012
        np.testing.assert_array_equal(model.weight.data.ravel(), average.values[:4])
        with pytest.raises(ArgumentError, match="^Average.update: expected the parameters in place, got the average"):
            average.update()
        with pytest.raises(GraphError, match="was written to"):
            loss.backward()
        raise ZeroDivisionError
    np.testing.assert_array_equal(optimizer.flat.values, before)
    other = optim.Average(optimizer, decay=0.1)
    other.load_state_dict(average.state_dict())
    assert other.decay == 0.8
    np.testing.assert_array_equal(other.values, average.values)


def test_averages_refuse():
    p = given([1.0])[0]
    with pytest.raises(ArgumentError, match="^Average: expected an optimizer, got list"):
        optim.Average(p)
    optimizer = optim.SGD(p, lr=1.0)
    for decay in (1, -0.1, math.nan, "0.9"):
        with pytest.raises(ArgumentError, match="^Average: expected decay from 0 to below 1, got"):
            optim.Average(optimizer, decay)
    with pytest.raises(ArgumentError, match=r"^Average.load_state_dict: expected shape \(1,\), got \(3,\)"):
        optim.Average(optimizer).load_state_dict({"decay": 0.5, "values": np.ones(3)})
