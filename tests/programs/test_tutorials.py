"""Programs of PyTorch's and autograd's tutorials: a cubic fitted to a sine, LeNet, logistic regression."""

from __future__ import annotations

import random

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim

torch = pytest.importorskip("torch")
F = torch.nn.functional
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

X = np.linspace(-np.pi, np.pi, 500)
Y = np.sin(X)
START = [0.1, -0.3, 0.2, 0.05]


def test_polynomial_with_tensors():
    x, y, expected = torch.tensor(X), torch.tensor(Y), []
    a, b, c, d = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in START)
    for _ in range(60):
        loss = (a + b * x + c * x**2 + d * x**3 - y).pow(2).sum()
        loss.backward()
        with torch.no_grad():
            for p in (a, b, c, d):
                p -= 4e-6 * p.grad
                p.grad = None
        expected.append(loss.item())

    x, y, losses = X, Y, []
    a, b, c, d = (mf.tensor(value, requires_grad=True) for value in START)
    for _ in range(60):
        loss = ((a + b * x + c * x**2 + d * x**3 - y) ** 2).sum()
        loss.backward()
        with mf.no_grad():
            for p in (a, b, c, d):
                p -= 4e-6 * p.grad
                p.grad = None
        losses.append(loss.item())

    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert losses[-1] < 0.6 * losses[0]


def test_polynomial_with_an_op_of_the_user():
    class Legendre(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return 0.5 * (5 * x**3 - 3 * x)

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * 1.5 * (5 * x**2 - 1)

    @mf.op(vjp=lambda g, x: g * 1.5 * (5 * x**2 - 1))
    def legendre(x):
        return 0.5 * (5 * x**3 - 3 * x)

    x, y, expected = torch.tensor(X), torch.tensor(Y), []
    a, b, c, d = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.0, -1.0, 0.0, 0.3))
    for _ in range(60):
        loss = (a + b * Legendre.apply(c + d * x) - y).pow(2).sum()
        loss.backward()
        with torch.no_grad():
            for p in (a, b, c, d):
                p -= 2e-5 * p.grad
                p.grad = None
        expected.append(loss.item())

    x, y, losses = X, Y, []
    a, b, c, d = (mf.tensor(value, requires_grad=True) for value in (0.0, -1.0, 0.0, 0.3))
    for _ in range(60):
        loss = ((a + b * legendre(c + d * x) - y) ** 2).sum()
        loss.backward()
        with mf.no_grad():
            for p in (a, b, c, d):
                p -= 2e-5 * p.grad
                p.grad = None
        losses.append(loss.item())

    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert losses[-1] < 0.6 * losses[0]


def test_polynomial_with_layers_and_an_optimizer():
    powers = X[:, None] ** np.array([1, 2, 3])
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Flatten(0, 1)).double()
    ours = nn.Sequential(nn.Dense(3, 1), nn.Lambda(np.ravel)).astype("float64")
    mf.import_torch(ours, theirs.state_dict())

    loss_fn = torch.nn.MSELoss(reduction="sum")
    optimizer, expected = torch.optim.RMSprop(theirs.parameters(), lr=1e-2), []
    for _ in range(60):
        loss = loss_fn(theirs(torch.tensor(powers)), torch.tensor(Y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())

    loss_fn = nn.MSELoss(reduction="sum")
    optimizer, losses = optim.RMSprop(ours.parameters(), lr=1e-2), []
    for _ in range(60):
        loss = loss_fn(ours(powers), Y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert losses[-1] < 0.5 * losses[0]


def test_polynomial_of_a_degree_that_changes():
    class Their(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d, self.e = (
                torch.nn.Parameter(torch.tensor(value, dtype=torch.float64)) for value in [*START, 0.001]
            )

        def forward(self, x):
            y = self.a + self.b * x + self.c * x**2 + self.d * x**3
            for exp in range(4, random.randint(4, 6)):
                y = y + self.e * x**exp
            return y

    class Our(nn.Module):
        def __init__(self):
            self.a, self.b, self.c, self.d, self.e = (nn.Parameter(value, np.float64) for value in [*START, 0.001])

        def forward(self, x):
            y = self.a + self.b * x + self.c * x**2 + self.d * x**3
            for exp in range(4, random.randint(4, 6)):
                y = y + self.e * x**exp
            return y

    random.seed(0)
    theirs, loss_fn, expected = Their(), torch.nn.MSELoss(reduction="sum"), []
    optimizer = torch.optim.SGD(theirs.parameters(), lr=1e-8, momentum=0.9)
    for _ in range(60):
        loss = loss_fn(theirs(torch.tensor(X)), torch.tensor(Y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())

    random.seed(0)
    ours, loss_fn, losses = Our(), nn.MSELoss(reduction="sum"), []
    optimizer = optim.SGD(ours.parameters(), lr=1e-8, momentum=0.9)
    for _ in range(60):
        loss = loss_fn(ours(X), Y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert losses[-1] < losses[0]


def test_lenet_classifies_images():
    class Their(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = torch.nn.Conv2d(3, 6, 5)
            self.pool = torch.nn.MaxPool2d(2, 2)
            self.conv2 = torch.nn.Conv2d(6, 16, 5)
            self.fc1 = torch.nn.Linear(16 * 5 * 5, 120)
            self.fc2 = torch.nn.Linear(120, 84)
            self.fc3 = torch.nn.Linear(84, 10)

        def forward(self, x):
            x = self.pool(F.relu(self.conv1(x)))
            x = self.pool(F.relu(self.conv2(x)))
            x = torch.flatten(x, 1)
            x = F.relu(self.fc1(x))
            x = F.relu(self.fc2(x))
            return self.fc3(x)

    class Our(nn.Module):
        def __init__(self):
            self.conv1 = nn.Conv2D(3, 6, 5)
            self.pool = nn.MaxPool2D(2, 2)
            self.conv2 = nn.Conv2D(6, 16, 5)
            self.fc1 = nn.Dense(16 * 5 * 5, 120)
            self.fc2 = nn.Dense(120, 84)
            self.fc3 = nn.Dense(84, 10)

        def forward(self, x):
            x = self.pool(mf.ops.relu(self.conv1(x)))
            x = self.pool(mf.ops.relu(self.conv2(x)))
            x = x.reshape(len(x), -1)
            x = mf.ops.relu(self.fc1(x))
            x = mf.ops.relu(self.fc2(x))
            return self.fc3(x)

    rng = np.random.default_rng(0)
    labels = np.arange(40) % 10
    images = rng.normal(size=(10, 3, 32, 32))[labels] + 0.3 * rng.normal(size=(40, 3, 32, 32))
    theirs, ours = Their().double(), Our().astype("float64")
    mf.import_torch(ours, theirs.state_dict())

    criterion = torch.nn.CrossEntropyLoss()
    optimizer, expected = torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=0.9), []
    for _ in range(5):
        for k in range(0, 40, 4):
            optimizer.zero_grad()
            loss = criterion(theirs(torch.tensor(images[k : k + 4])), torch.tensor(labels[k : k + 4]))
            loss.backward()
            optimizer.step()
            expected.append(loss.item())

    criterion = nn.CrossEntropyLoss()
    optimizer, losses = optim.SGD(ours.parameters(), lr=0.01, momentum=0.9), []
    for _ in range(5):
        for inputs, targets in mf.data.batches((images, labels), batch_size=4, shuffle=False):
            optimizer.zero_grad()
            loss = criterion(ours(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())

    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert np.mean(losses[-10:]) < 0.95 * np.mean(losses[:10])
