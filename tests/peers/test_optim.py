"""Optimizers, schedules and clipping against PyTorch's, in float64."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import optim
from microfw.optim import schedules
from tests.cases.optimizers import CASES, make
from tests.helpers.optimizers import rosenbrock

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

SHAPES = [(3, 2), (2,), (), (2, 2, 2)]


def pair():
    """Return the same parameters twice."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in SHAPES]
    ours = [mf.tensor(a, requires_grad=True) for a in arrays]
    return ours, [torch.tensor(a, requires_grad=True) for a in arrays]


def equal(ours, theirs, rtol=1e-12):
    for p, t in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.data, t.detach().numpy(), rtol=rtol, atol=rtol)


def give(ours, theirs, rng, skip=()):
    for k, (p, t) in enumerate(zip(ours, theirs, strict=True)):
        g = rng.standard_normal(p.shape)
        p.grad, t.grad = (None, None) if k in skip else (g, torch.tensor(g))


VARIANTS = [(n, v) for n, row in CASES.items() for v in row.variants if row.reference]


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_optimizers(name, variant):
    options, row = CASES[name].variants[variant], CASES[name]
    ours, theirs = pair()
    decay = {"weight_decay": 0.3}
    first = [{"params": ours[:2], **decay}, {"params": ours[2:], "lr": 0.02}]
    second = [{"params": theirs[:2], **decay}, {"params": theirs[2:], "lr": 0.02}]
    optimizer = make(name, first, **options)
    other = getattr(torch.optim, name)(second, **row.peer(options))
    rng = np.random.default_rng(1)
    for step in range(50):
        give(ours, theirs, rng, skip=(step % 4,) if step > 20 else ())
        optimizer.step()
        other.step()
    equal(ours, theirs)


@pytest.mark.parametrize("memory", [2, 10])
def test_lbfgs_without_a_line_search(memory):
    start = np.array([-1.2, 1.0, 0.3, 0.5])
    p, t = mf.tensor(start, requires_grad=True), torch.tensor(start, requires_grad=True)
    options = {"lr": 0.1, "iterations": 5, "memory": memory}
    optimizer = optim.LBFGS([p], **options, line_search=False)
    other = torch.optim.LBFGS([t], **CASES["LBFGS"].peer(options))

    def closures(parameter, which):
        def closure():
            which.zero_grad()
            loss = rosenbrock(parameter)
            loss.backward()
            return loss

        return closure

    for _ in range(6):
        optimizer.step(closures(p, optimizer))
        other.step(closures(t, other))
        np.testing.assert_allclose(p.data, t.detach().numpy(), rtol=1e-10)


SCHEDULES = {
    "StepDecay": (schedules.StepDecay(0.1, 3), lambda o: torch.optim.lr_scheduler.StepLR(o, 3)),
    "Exponential": (schedules.Exponential(0.1, 0.9), lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9)),
    "Cosine": (
        schedules.Cosine(0.1, 30, end=1e-4),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 30, eta_min=1e-4),
    ),
    "OneCycle": (
        schedules.OneCycle(0.1, 30),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, 30, cycle_momentum=False),
    ),
    "WarmUp": (
        schedules.WarmUp(schedules.Exponential(0.1, 0.9), 5, start=0.2),
        lambda o: torch.optim.lr_scheduler.SequentialLR(
            o,
            [
                torch.optim.lr_scheduler.LinearLR(o, 0.2, total_iters=5),
                torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
            ],
            milestones=[5],
        ),
    ),
}


def test_every_schedule_has_a_peer():
    assert {*SCHEDULES, "ReduceOnPlateau"} == set(schedules.__all__)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    schedule, peer = SCHEDULES[name]
    other = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = peer(other)
    for step in range(30):
        assert schedule(step) == pytest.approx(other.param_groups[0]["lr"], rel=1e-12)
        other.step()
        if step < 29:
            scheduler.step()


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("cooldown", [0, 3])
def test_plateau(mode, cooldown):
    other = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    options = {"mode": mode, "factor": 0.5, "patience": 2, "cooldown": cooldown, "threshold": 0.01}
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(other, **options, eps=0.0)
    plateau = schedules.ReduceOnPlateau(0.1, **options)
    rng = np.random.default_rng(0)
    for step in range(100):
        metric = 1 / (1 + step) + 0.2 * rng.random()
        scheduler.step(metric)
        assert plateau(metric) == other.param_groups[0]["lr"]
    assert plateau.lr < 0.1


def test_clipping():
    ours, theirs = pair()
    give(ours, theirs, np.random.default_rng(0))
    norm = optim.clip_grad_norm(ours, 1.0)
    assert norm == pytest.approx(torch.nn.utils.clip_grad_norm_(theirs, 1.0).item(), rel=1e-14)
    for p, t in zip(ours, theirs, strict=True):  # PyTorch adds 1e-6 to the norm that it divides by
        np.testing.assert_allclose(p.grad * (norm / (norm + 1e-6)), t.grad.numpy(), rtol=1e-13)
    give(ours, theirs, np.random.default_rng(0))
    optim.clip_grad_value(ours, 0.5)
    torch.nn.utils.clip_grad_value_(theirs, 0.5)
    for p, t in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(p.grad, t.grad.numpy())
