"""Trainers of small networks, and what tests compare."""

from __future__ import annotations

import io

import numpy as np

from microfw import nn, optim
from microfw.training import (
    Hook,
    Trainer,
)


def make(inputs=4, outputs=3, lr=0.1, loss=None, extra=(), momentum=0.9, optimizer=None, dtype=np.float32, **options):
    """Return a Trainer of a small network; `optimizer` makes another optimizer than SGD."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Dense(inputs, 8, rng=rng), nn.ReLU(), *extra, nn.Dense(8, outputs, rng=rng)).astype(dtype)
    made = optimizer(model.parameters()) if optimizer else optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    return Trainer(model, loss or nn.CrossEntropyLoss(), made, **options)


def values(trainer):
    return {name: array.tobytes() for name, array in trainer.model.state_dict().items()}


class Told(Hook):
    def __init__(self, name, log):
        self.name, self.log = name, log

    def on_fit_start(self, state):
        self.log.append(f"{self.name} start")

    def on_epoch_start(self, state):
        self.log.append(f"{self.name} epoch {state.epoch}")

    def on_gradients(self, state):
        assert state.optimizer.flat.leaves[0].grad is not None
        self.log.append(f"{self.name} gradients {state.step}/{state.steps}")

    def on_step_end(self, state):
        self.log.append(f"{self.name} step {state.step}/{state.steps}")

    def on_validation_start(self, state):
        self.log.append(f"{self.name} validation")

    def on_epoch_end(self, state):
        self.log.append(f"{self.name} row {state.history[-1]['epoch']}")

    def on_fit_end(self, state):
        self.log.append(f"{self.name} end")


class At(Hook):
    """Remembers the parameters after each step, and does something after one of them."""

    def __init__(self, step=0, act=None):
        self.step, self.act, self.seen, self.ended = step, act, [], 0

    def on_step_end(self, state):
        self.seen.append({name: array.tobytes() for name, array in state.model.state_dict().items()})
        if state.steps == self.step:
            self.act(state)

    def on_fit_end(self, state):
        self.ended += 1


class Root(nn.Module):
    def forward(self, x):
        return np.sqrt(x * 0)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def arrays(trainer):
    return {name: array.copy() for name, array in trainer.model.state_dict().items()}


def same(a, b, **tolerance):
    for name in a:
        if tolerance:
            np.testing.assert_allclose(a[name], b[name], **tolerance)
        else:
            np.testing.assert_array_equal(a[name], b[name])


class Do(Hook):
    """Calls a function at a moment."""

    def __init__(self, moment, act):
        setattr(self, moment, act)
