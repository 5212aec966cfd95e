"""Derivatives inside a training step: tied to the parameters that they depend on, eager, replayed and in the Trainer."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import GraphError


def leaf(value):
    return mf.tensor(np.array(value, float), requires_grad=True)


# What is tied


def _closed(w):
    h = w * 6.0
    return mf.grad(lambda x: h * x**2)(np.array(2.0))


SQUARE = mf.vjp(lambda x: x**2, 2.0)[1]

STEPS = {
    "grad": (lambda w: mf.grad(lambda x: w * x**2)(np.array(2.0)), 4),
    "value and grad": (lambda w: sum(mf.value_and_grad(lambda x: w * x**2)(np.array(2.0))), 8),
    "grad of grad": (lambda w: mf.grad(mf.grad(lambda x: w * x**3))(2.0), 12),
    "hessian": (lambda w: mf.hessian(lambda x: w * x**3)(2.0), 12),
    "jacobian, reverse": (lambda w: np.sum(mf.jacobian(lambda x: w * x**2, mode="reverse")(np.array([2.0, 1.0]))), 6),
    "jacobian, forward": (lambda w: np.sum(mf.jacobian(lambda x: w * x**2, mode="forward")(np.array([2.0, 1.0]))), 6),
    "jvp": (lambda w: sum(mf.jvp(lambda x: w * x**2, (2.0,), (3.0,))), 16),
    "vjp": (lambda w: mf.vjp(lambda x: w * x**2, np.array(2.0))[1](np.array(3.0))[0], 12),
    "hvp": (lambda w: mf.hvp(lambda x: w * x**3, (2.0,), (2.0,))[0], 24),
    "an argument that depends on it": (lambda w: mf.grad(lambda x: x**3)(w * 2.0), 72),
    "an argument that is it": (lambda w: mf.grad(lambda x: x**3)(w), 18),
    "a closure over what it gave": (_closed, 24),
    "a tangent": (lambda w: mf.jvp(lambda x: x**2, (2.0,), (w,))[1], 4),
    "a seed of a vjp made before": (lambda w: SQUARE(w)[0], 4),
    "a direction": (lambda w: mf.hvp(lambda x: x**3, (2.0,), (w,))[0], 12),
    "containers": (lambda w: mf.grad(lambda t: w * t["a"] * t["b"])({"a": 2.0, "b": 5.0})["a"], 5),
    "a checkpoint": (lambda w: mf.checkpoint(lambda: mf.grad(lambda x: w * x**2)(np.array(2.0))), 4),
    "within a checkpoint": (lambda w: mf.grad(lambda x: mf.checkpoint(lambda t: w * t**2, x))(np.array(2.0)), 4),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_derivative_inside_a_step_is_tied_to_its_parameters(name):
    step, slope = STEPS[name]
    w = leaf(3.0)
    y = step(w)
    assert isinstance(y, mf.Tensor) and y.requires_grad
    (w + y).backward()
    np.testing.assert_allclose(w.grad, 1 + slope, rtol=1e-12)
    with mf.no_grad():
        assert isinstance(step(w), np.ndarray | np.generic)


def test_the_argument_of_a_derivative_is_not_what_a_closure_holds():
    w = leaf(3.0)
    assert mf.grad(lambda x: w * x)(w).item() == 3
    assert mf.grad(lambda x: mf.grad(lambda y: x * y)(x))(2.0) == 1


def test_derivatives_of_plain_arrays_and_of_modules_are_arrays():
    model = nn.Dense(3, 1, rng=0)
    x = np.ones((2, 3), np.float32)
    results = [
        mf.grad(lambda t: np.sum(t**2))(np.ones(3)),
        mf.value_and_grad(lambda t: np.sum(t**2))(np.ones(3))[0],
        mf.jvp(np.sin, (1.0,), (1.0,))[1],
        mf.vjp(np.sin, np.ones(3))[1](mf.tensor(np.ones(3)))[0],
        mf.hessian(lambda t: np.sum(t**3))(np.ones(2)),
        mf.grad(lambda m: np.sum(m(x)))(model)["weight"],
        mf.hessian(lambda m: np.sum(m(x) ** 2))(model)["bias"]["bias"],
    ]
    assert all(type(r) is np.ndarray for r in results)


def test_a_derivative_under_no_grad_within_another_is_a_constant():
    def f(x):
        with mf.no_grad():
            slope = mf.grad(lambda y: y**3)(x)
        return x * slope

    assert mf.grad(f)(2.0) == 12


def test_no_gradient_is_kept_for_the_arguments():
    w = leaf(3.0)
    slope = mf.grad(lambda x: np.sum(w * x**2))(np.ones(3))
    np.sum(slope).backward()
    assert w.grad == 6
    with pytest.raises(GraphError, match="already run through this graph"):
        np.sum(slope).backward()


def test_the_profile_counts_the_parameters_alone():
    model = nn.Sequential(nn.Dense(1, 4, rng=0), nn.Tanh(), nn.Dense(4, 1, rng=1))
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    x = np.linspace(-1, 1, 8, dtype=np.float32)[:, None]
    with mf.Profiler(model) as profiler:
        for _ in range(3):
            optimizer.zero_grad()
            np.mean(mf.grad(lambda t: np.sum(model(t)))(x) ** 2).backward()
            optimizer.step()
    epoch = profiler.session.epochs[0]
    assert epoch.steps == 3
    assert epoch.parameters == 13 - 1  # the last bias has no influence on the slope
    assert sum(row.nodes for row in epoch.rows) > 0


# Three ways to use it: a physics-informed net, a gradient penalty, a meta-learner


def pinn():
    """u'' = f on a line, u = 0 at its ends."""
    x = np.linspace(-1.0, 1.0, 12)[:, None]
    f = -(np.pi**2) * np.sin(np.pi * x)

    def loss(model):
        slope = mf.grad(lambda t: np.sum(model(t)))
        curvature = mf.grad(lambda t: np.sum(slope(t)))(x)
        return np.mean((curvature - f) ** 2) + np.mean(model(np.array([[-1.0], [1.0]])) ** 2)

    return loss


def penalty():
    """The critic of a Wasserstein GAN, its slope held near 1."""
    rng = np.random.default_rng(3)
    real, fake, between = rng.normal(1.0, 1.0, (8, 1)), rng.normal(-1.0, 1.0, (8, 1)), rng.normal(size=(8, 1))

    def loss(model):
        g = mf.grad(lambda t: np.sum(model(t)))(between)
        return np.mean(model(fake)) - np.mean(model(real)) + 10.0 * np.mean((np.linalg.norm(g, axis=1) - 1.0) ** 2)

    return loss


def maml():
    """One step on one task, and the loss of what it gives on another."""
    rng = np.random.default_rng(4)
    support, query = rng.normal(size=(8, 1)), rng.normal(size=(8, 1))

    def run(p, x):
        return np.matmul(np.tanh(np.matmul(x, p["0.weight"]) + p["0.bias"]), p["2.weight"]) + p["2.bias"]

    def loss(model):
        parameters = dict(model.named_parameters())
        g = mf.grad(lambda p: np.mean((run(p, support) - np.sin(support)) ** 2))(parameters)
        fast = {name: p - 0.1 * g[name] for name, p in parameters.items()}
        return np.mean((run(fast, query) - np.sin(query)) ** 2)

    return loss


TASKS = {"pinn": pinn, "penalty": penalty, "maml": maml}


def network():
    model = nn.Sequential(nn.Dense(1, 6), nn.Tanh(), nn.Dense(6, 1)).astype(np.float64)
    rng = np.random.default_rng(7)
    for p in model.parameters():
        p.data = rng.normal(size=p.shape) * 0.7
    return model


def in_a_loop(loss, model, steps):
    optimizer, losses = optim.SGD(model.parameters(), lr=0.01), []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(model)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


def compiled(loss, model, steps):
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    step = mf.compile(lambda: loss(model), optimizer)
    losses = [step().item() for _ in range(steps)]
    assert "replayed" in step.explain()
    return losses


def in_a_trainer(compile):
    def run(loss, model, steps):
        options = {} if compile is None else {"compile": compile}
        trainer = mf.Trainer(
            model, lambda outputs, targets: loss(model) + 0.0 * np.mean(outputs - targets),
            optim.SGD(model.parameters(), lr=0.01), **options,
        )  # fmt: skip
        history = trainer.fit((np.ones((4, 1)), np.ones((4, 1))), epochs=steps, batch_size=4, progress=False)
        return [row["loss"] for row in history]

    return run


WAYS = {
    "a loop": in_a_loop,
    "compile": compiled,
    "Trainer, eager": in_a_trainer(False),
    "Trainer, replayed": in_a_trainer(True),
    "Trainer": in_a_trainer(None),
}


@pytest.mark.parametrize("task", TASKS)
def test_each_way_to_train_gives_the_same_bits(task):
    loss = TASKS[task]()
    found = {way: (network(), run) for way, run in WAYS.items()}
    losses = {way: run(loss, model, 8) for way, (model, run) in found.items()}
    values = {way: [p.data for p in model.parameters()] for way, (model, _) in found.items()}
    for group in (["a loop", "compile"], ["Trainer, eager", "Trainer, replayed", "Trainer"]):
        for way in group[1:]:
            assert losses[way] == losses[group[0]], way
            for a, b in zip(values[way], values[group[0]], strict=True):
                np.testing.assert_array_equal(a, b)
    # which adds 0 times its own loss
    np.testing.assert_allclose(losses["Trainer"], losses["a loop"], rtol=1e-12)


# The same in NumPy: formulas for the derivatives, and the gradient by complex steps


def network_in_numpy(p, x):
    """Return the output and its first two derivatives by ``x``."""
    w, b, v, c = p
    h = np.tanh(x * w[0] + b)
    d = 1 - h * h
    return h @ v + c, (d * w[0]) @ v, (-2 * h * d * w[0] ** 2) @ v


def pinn_in_numpy(p):
    x = np.linspace(-1.0, 1.0, 12)[:, None]
    ends = network_in_numpy(p, np.array([[-1.0], [1.0]]))[0]
    return np.mean((network_in_numpy(p, x)[2] + np.pi**2 * np.sin(np.pi * x)) ** 2) + np.mean(ends**2)


def penalty_in_numpy(p):
    rng = np.random.default_rng(3)
    real, fake, between = rng.normal(1.0, 1.0, (8, 1)), rng.normal(-1.0, 1.0, (8, 1)), rng.normal(size=(8, 1))
    size = np.sqrt(network_in_numpy(p, between)[1] ** 2)
    means = np.mean(network_in_numpy(p, fake)[0]) - np.mean(network_in_numpy(p, real)[0])
    return means + 10.0 * np.mean((size - 1.0) ** 2)


def maml_in_numpy(p):
    rng = np.random.default_rng(4)
    support, query = rng.normal(size=(8, 1)), rng.normal(size=(8, 1))
    w, b, v, c = p
    h = np.tanh(support * w[0] + b)
    r = 2 * (h @ v + c - np.sin(support)) / 8
    back = (r @ v.T) * (1 - h * h)
    g = support.T @ back, back.sum(axis=0), h.T @ r, r.sum(axis=0)
    fast = [x - 0.1 * slope for x, slope in zip(p, g, strict=True)]
    return np.mean((network_in_numpy(fast, query)[0] - np.sin(query)) ** 2)


IN_NUMPY = {"pinn": pinn_in_numpy, "penalty": penalty_in_numpy, "maml": maml_in_numpy}


def trained_in_numpy(loss, p, steps):
    losses = []
    for _ in range(steps):
        losses.append(float(loss(p).real))
        slopes = []
        for k, x in enumerate(p):
            slope = np.zeros_like(x)
            for at in np.ndindex(x.shape):
                moved = x.astype(complex)
                moved[at] += 1e-30j
                slope[at] = loss([*p[:k], moved, *p[k + 1 :]]).imag / 1e-30
            slopes.append(slope)
        p = [x - 0.01 * slope for x, slope in zip(p, slopes, strict=True)]
    return losses, p


@pytest.mark.parametrize("task", TASKS)
def test_losses_with_derivatives_in_them_train_as_their_formulas_do(task):
    model = network()
    losses, p = trained_in_numpy(IN_NUMPY[task], [x.data.copy() for x in model.parameters()], 20)
    assert losses[-1] < losses[0]
    got = in_a_loop(TASKS[task](), model, 20)
    np.testing.assert_allclose(got, losses, rtol=1e-9)
    for a, b in zip(model.parameters(), p, strict=True):
        np.testing.assert_allclose(a.data, b, rtol=1e-9, atol=1e-11)
