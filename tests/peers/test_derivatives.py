"""Losses with derivatives in them, trained from the same weights, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

from tests.derivatives.test_in_training_steps import TASKS, WAYS, network

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]


def run(p, x):
    return torch.tanh(x @ p[0] + p[1]) @ p[2] + p[3]


def slope(p, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(run(p, x).sum(), x, create_graph=True)[0], x


def pinn(p):
    x = torch.linspace(-1.0, 1.0, 12, dtype=torch.float64)[:, None]
    first, at = slope(p, x)
    second = torch.autograd.grad(first.sum(), at, create_graph=True)[0]
    ends = run(p, torch.tensor([[-1.0], [1.0]], dtype=torch.float64))
    return ((second + np.pi**2 * torch.sin(np.pi * x)) ** 2).mean() + (ends**2).mean()


def penalty(p):
    rng = np.random.default_rng(3)
    real, fake = (torch.tensor(rng.normal(m, 1.0, (8, 1))) for m in (1.0, -1.0))
    size = torch.linalg.norm(slope(p, torch.tensor(rng.normal(size=(8, 1))))[0], dim=1)
    return run(p, fake).mean() - run(p, real).mean() + 10.0 * ((size - 1.0) ** 2).mean()


def maml(p):
    rng = np.random.default_rng(4)
    support, query = (torch.tensor(rng.normal(size=(8, 1))) for _ in range(2))
    g = torch.autograd.grad(((run(p, support) - torch.sin(support)) ** 2).mean(), p, create_graph=True)
    fast = [x - 0.1 * slope for x, slope in zip(p, g, strict=True)]
    return ((run(fast, query) - torch.sin(query)) ** 2).mean()


IN_TORCH = {"pinn": pinn, "penalty": penalty, "maml": maml}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("task", TASKS)
def test_losses_with_derivatives_in_them_train_as_in_torch(task, way):
    model = network()
    p = [torch.tensor(x.data.copy(), requires_grad=True) for x in model.parameters()]
    optimizer, expected = torch.optim.SGD(p, lr=0.01), []
    for _ in range(20):
        optimizer.zero_grad()
        loss = IN_TORCH[task](p)
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    np.testing.assert_allclose(WAYS[way](TASKS[task](), model, 20), expected, rtol=1e-9)
    for a, b in zip(model.parameters(), p, strict=True):
        np.testing.assert_allclose(a.data, b.detach().numpy(), rtol=1e-9, atol=1e-11)
