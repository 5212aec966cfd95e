"""A training loop with a slow layer, and the checks of its sampled profile."""

from __future__ import annotations

import time

import numpy as np

import microfw as mf
from microfw import nn, optim
from microfw.profiler.recorder.sampling import every_nth

RNG = np.random.default_rng(0)
X = RNG.random((48, 12)).astype(np.float32)
Y = RNG.integers(0, 4, 48)
LONG = 0.1  # seconds, which a busy machine does not take for a few small steps


class Slow(nn.Module):
    """Sleeps in chosen steps."""

    sleeps = False

    def forward(self, x):
        if self.sleeps:
            time.sleep(LONG)
        return x


class Loop:
    """Steps of a loop by hand, or of a step that is replayed."""

    def __init__(self, compile=False):
        self.slow = Slow()
        layers = [nn.Dense(12, 8, rng=0), nn.ReLU(), nn.Dense(8, 4, rng=1)]
        self.model = nn.Sequential(*layers) if compile else nn.Sequential(self.slow, *layers)
        self.loss = nn.CrossEntropyLoss()
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.compiled = mf.compile(lambda x, y: self.loss(self.model(x), y), self.optimizer) if compile else None
        self.nodes = 4

    def step(self, rows=16):
        if self.compiled is not None:
            return self.compiled(X[:rows], Y[:rows])
        self.optimizer.zero_grad()
        loss = self.loss(self.model(X[:rows]), Y[:rows])
        loss.backward()
        self.optimizer.step()
        return loss


def observed_steps(steps, every):
    """Return the numbers of the observed steps of a run."""
    schedule = every_nth(every)
    return [step for step in range(steps) if schedule is None or schedule(step)]


def check(epoch, steps, observed, nodes=4):
    assert (epoch.steps, epoch.observed) == (steps, observed)
    assert epoch.sum().nodes == epoch.sum().rules == nodes * observed
    assert epoch.untagged_forward_ns >= 0 and epoch.untagged_backward_ns >= 0
    assert epoch.forward_ns + epoch.backward_ns + epoch.update_ns + epoch.data_ns <= epoch.total_ns
    assert (epoch.update_ns > 0) == (epoch.backward_ns > 0) == (observed > 0)
