"""Programs that take gradients of functions: logistic regression and a net of autograd's examples, and a physics net."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def jax():
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        yield jax


INPUTS = np.array([[0.52, 1.12, 0.77], [0.88, -1.08, 0.15], [0.52, 0.06, -1.30], [0.74, -2.49, 1.39]])
TARGETS = np.array([True, True, False, True])


def test_logistic_regression_by_hand(jax):
    def losses_with(np, grad, weights, inputs, targets):
        def sigmoid(x):
            return 0.5 * (np.tanh(x / 2.0) + 1)

        def training_loss(weights):
            preds = sigmoid(np.dot(inputs, weights))
            label_probabilities = preds * targets + (1 - preds) * (1 - targets)
            return -np.sum(np.log(label_probabilities))

        gradient, losses = grad(training_loss), []
        for _ in range(60):
            losses.append(float(training_loss(weights)))
            weights = weights - gradient(weights) * 0.1
        return losses

    jnp = jax.numpy
    expected = losses_with(jnp, jax.grad, jnp.zeros(3), jnp.array(INPUTS), jnp.array(TARGETS).astype(float))
    losses = losses_with(np, mf.grad, np.zeros(3), INPUTS, TARGETS.astype(float))
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert losses[-1] < 0.5 * losses[0]


def test_logistic_regression_of_labels_that_are_true_or_false(jax):
    jnp = jax.numpy

    def their_loss(weights):
        z = jnp.array(INPUTS) @ weights
        return jnp.sum(jnp.logaddexp(0.0, z) - z * jnp.array(TARGETS)) + 0.1 * weights @ weights

    weights, expected = jnp.zeros(3), []
    for _ in range(40):
        expected.append(float(their_loss(weights)))
        weights -= 0.1 * jax.grad(their_loss)(weights)

    def our_loss(weights):
        z = INPUTS @ weights
        return np.sum(np.logaddexp(0.0, z) - z * TARGETS) + 0.1 * weights @ weights

    weights, losses = np.zeros(3), []
    for _ in range(40):
        losses.append(float(our_loss(weights)))
        weights -= 0.1 * mf.grad(our_loss)(weights)

    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert losses[-1] < losses[0]


def test_net_of_nested_parameters(jax):
    rng = np.random.default_rng(0)
    start = [(0.5 * rng.normal(size=(a, b)), 0.1 * rng.normal(size=b)) for a, b in ((4, 8), (8, 3))]
    X, y = rng.normal(size=(30, 4)), np.eye(3)[rng.integers(0, 3, 30)]
    jnp = jax.numpy

    def their_loss(parameters):
        x = X
        for W, b in parameters:
            outputs = x @ W + b
            x = jnp.tanh(outputs)
        log_probs = outputs - jax.scipy.special.logsumexp(outputs, axis=1, keepdims=True)
        log_prior = -0.01 * sum(jnp.sum(W**2) + jnp.sum(b**2) for W, b in parameters)
        return -log_prior - jnp.mean(jnp.sum(y * log_probs, axis=1))

    parameters, expected = [(jnp.array(W), jnp.array(b)) for W, b in start], []
    for _ in range(40):
        value, gradients = jax.value_and_grad(their_loss)(parameters)
        parameters = jax.tree.map(lambda p, g: p - 0.5 * g, parameters, gradients)
        expected.append(float(value))

    def our_loss(parameters):
        x = X
        for W, b in parameters:
            outputs = x @ W + b
            x = np.tanh(outputs)
        log_probs = outputs - mf.ops.logsumexp(outputs, axis=1, keepdims=True)
        log_prior = -0.01 * sum(np.sum(W**2) + np.sum(b**2) for W, b in parameters)
        return -log_prior - np.mean(np.sum(y * log_probs, axis=1))

    parameters, losses = [(W, b) for W, b in start], []
    for _ in range(40):
        value, gradients = mf.value_and_grad(our_loss)(parameters)
        parameters = [(W - 0.5 * dW, b - 0.5 * db) for (W, b), (dW, db) in zip(parameters, gradients, strict=True)]
        losses.append(float(value))
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert losses[-1] < 0.8 * losses[0]

    parameters, losses = [tuple(mf.tensor(p, requires_grad=True) for p in pair) for pair in start], []
    optimizer = optim.SGD([p for pair in parameters for p in pair], lr=0.5)
    for _ in range(40):
        value, gradients = mf.value_and_grad(our_loss)(parameters)
        optimizer.step(gradients)
        losses.append(float(value))
    np.testing.assert_allclose(losses, expected, rtol=1e-9)


@pytest.mark.parametrize("compiled", [False, True])
def test_physics_of_a_damped_oscillator(compiled):
    mu, k = 4.0, 400.0 / 4
    boundary, inside = np.zeros((1, 1)), np.linspace(0, 1, 30)[:, None]
    theirs = torch.nn.Sequential(
        torch.nn.Linear(1, 16), torch.nn.Tanh(), torch.nn.Linear(16, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)
    ).double()
    ours = nn.Sequential(nn.Dense(1, 16), nn.Tanh(), nn.Dense(16, 16), nn.Tanh(), nn.Dense(16, 1)).astype("float64")
    mf.import_torch(ours, theirs.state_dict())

    def slope(u, t):
        return torch.autograd.grad(u, t, torch.ones_like(u), create_graph=True)[0]

    start, t = torch.tensor(boundary, requires_grad=True), torch.tensor(inside, requires_grad=True)
    optimizer, expected = torch.optim.Adam(theirs.parameters(), lr=1e-3), []
    for _ in range(40):
        optimizer.zero_grad()
        u = theirs(start)
        loss = (u.squeeze() - 1) ** 2 + 1e-1 * slope(u, start).squeeze() ** 2
        u = theirs(t)
        dudt = slope(u, t)
        loss = loss + 1e-4 * torch.mean((slope(dudt, t) + mu * dudt + k * u) ** 2)
        loss.backward()
        optimizer.step()
        expected.append(loss.item())

    dudt = mf.grad(lambda t: ours(t).sum())
    d2udt2 = mf.grad(lambda t: dudt(t).sum())
    optimizer = optim.Adam(ours.parameters(), lr=1e-3)

    def objective(boundary, inside):
        loss = (ours(boundary).squeeze() - 1) ** 2 + 1e-1 * dudt(boundary).squeeze() ** 2
        return loss + 1e-4 * np.mean((d2udt2(inside) + mu * dudt(inside) + k * ours(inside)) ** 2)

    def step(*places):
        optimizer.zero_grad()
        loss = objective(*places)
        loss.backward()
        optimizer.step()
        return loss

    if compiled:
        step = mf.compile(objective, optimizer)
    losses = [step(boundary, inside).item() for _ in range(40)]

    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert losses[-1] < losses[0]
    if compiled:
        assert "replayed" in str(step.explain())
