"""A long fit that is not replayed says why, once, with a fix; a short one and a quiet one say nothing."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.training import Hook
from microfw.training.hooks import TrainState
from microfw.training.progress import expected_gain
from tests.helpers.training import Terminal


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Dense(4, 3, rng=0)

    def forward(self, x):
        h = self.inner(x)
        return h * 2.0 if h.numpy().sum() > 0 else h


class Plain(Branch):
    def forward(self, x):
        return self.inner(x)


class Mask(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Dense(4, 3, rng=0)

    def forward(self, x):
        h = self.inner(x)
        return h + h[h > 0].sum()


class StopAfter(Hook):
    def on_epoch_end(self, state):
        state.stop = state.epoch == 4


def own_loss(outputs, targets):
    return nn.CrossEntropyLoss()(outputs, targets)


def said(model, loss=None, epochs=10**6, batch_size=16, progress=True, stream=None, monkeypatch=None, **options):
    stream = stream or io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    rng = np.random.default_rng(0)
    data = rng.normal(size=(70, 4)), rng.integers(0, 3, 70)
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    trainer = mf.Trainer(model, loss or nn.CrossEntropyLoss(), optimizer, hooks=[StopAfter()], **options)
    trainer.fit(data, epochs, batch_size=batch_size, rng=0, progress=progress)
    return [line for line in stream.getvalue().replace("\r", "\n").splitlines() if "not replayed" in line]


START = "Trainer.fit: steps are not replayed: "


@pytest.mark.parametrize(
    ("make", "loss", "options", "why"),
    [
        (Plain, None, {}, "Plain runs code of yours; compile=True replays them too, or explains why not"),
        (lambda: nn.Dense(4, 3), own_loss, {}, "the loss is a function of yours; compile=True"),
        (
            lambda: nn.Sequential(nn.Lambda(np.tanh), nn.Dense(4, 3)),
            None,
            {},
            "Lambda runs code of yours; compile=True",
        ),
        (
            Branch,
            None,
            {"compile": True},
            r"reads the values of a Tensor; choose between values with ops, such as np.where",
        ),
        (
            Mask,
            None,
            {"compile": True},
            r"reads the values of a Tensor; choose between values with ops, such as np.where",
        ),
    ],
)
def test_a_long_fit_says_once_why_it_is_not_replayed(make, loss, options, why, monkeypatch):
    lines = said(make(), loss, monkeypatch=monkeypatch, **options)
    assert len(lines) == 1 and lines[0].startswith(START) and why in lines[0]


def test_a_batch_of_all_rows_counts_as_full(monkeypatch):
    lines = said(Branch(), batch_size=1000, monkeypatch=monkeypatch, compile=True)
    assert len(lines) == 1 and "reads the values of a Tensor" in lines[0]


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (Branch, {"epochs": 4}),
        (Branch, {"compile": False}),
        (Branch, {"progress": False}),
        (lambda: nn.Dense(4, 3), {}),
        (Plain, {"compile": True}),
        (Plain, {"accumulate": 2}),
    ],
)
def test_a_short_a_quiet_and_a_replayed_fit_say_nothing(make, options, monkeypatch):
    assert said(make(), monkeypatch=monkeypatch, **options) == []


def test_on_a_terminal_the_line_is_above_the_bar(monkeypatch):
    lines = said(Plain(), stream=Terminal(), monkeypatch=monkeypatch)
    assert len(lines) == 1 and lines[0].startswith(START)


def test_the_gain_is_half_of_a_short_step_and_at_most_half_a_millisecond():
    state = TrainState(None, None, None, epochs=11, epoch=1, step=100)
    state.history.append({"epoch": 1, "seconds": 0.02})
    assert expected_gain(state) == pytest.approx(0.1)
    state.history.append({"epoch": 1, "seconds": 9.0})
    assert expected_gain(state) == pytest.approx(0.5)
    state.stop = True
    assert expected_gain(state) == 0
