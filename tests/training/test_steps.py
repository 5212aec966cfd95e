"""A Trainer's step: accumulated and clipped gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError, NonFiniteError
from microfw.training import (
    WeightAveraging,
)
from tests.helpers.training import Do, arrays, make, same


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_accumulated_steps_are_those_of_the_joined_batch(iris, reduction):
    def run(accumulate, batch_size):
        loss = nn.CrossEntropyLoss(reduction=reduction)
        lr = 0.1 if reduction == "mean" else 0.001
        trainer = make(loss=loss, accumulate=accumulate, dtype=np.float64, metrics=["accuracy"], lr=lr)
        rows = trainer.fit(iris[0], 3, batch_size, rng=0, progress=False)
        return arrays(trainer), [{k: v for k, v in row.items() if k != "seconds"} for row in rows]

    whole, rows = run(1, 30)  # 112 rows: the last step has fewer, and the last batch of it too
    for accumulate, batch_size in ((3, 10), (30, 1)):
        parts, others = run(accumulate, batch_size)
        same(parts, whole, rtol=1e-10, atol=1e-13)
        for row, other in zip(rows, others, strict=True):
            assert other == pytest.approx(row, rel=1e-9)


def test_accumulation_never_holds_more_than_a_batch(iris):
    sizes = []

    class Spy(nn.Module):
        def forward(self, x):
            if self.training:
                sizes.append(len(x))
            return x

    trainer = make(extra=[Spy()], accumulate=4)
    steps = []
    trainer.hooks = [Do("on_step_end", lambda state: steps.append(len(sizes)))]
    trainer.fit(iris[0], 1, 16, rng=0, progress=False)
    assert sizes == [16] * 7
    assert steps == [4, 7]


def test_accumulation_is_profiled(iris):
    profiler = mf.Profiler()
    make(accumulate=4, hooks=[profiler]).fit(iris[0], 2, 16, rng=0, progress=False)
    assert [epoch.steps for epoch in profiler.session.epochs] == [2, 2]


def test_a_loss_that_is_not_finite_in_a_later_part_changes_nothing(line):
    class Bad(nn.Module):
        calls = 0

        def forward(self, x):
            if not self.training:
                return x
            Bad.calls += 1
            return x * (np.inf if Bad.calls >= 3 else 1)

    trainer = make(1, 1, 1e-3, nn.MSELoss(), extra=[Bad()], accumulate=4)
    before = arrays(trainer)
    with pytest.raises(NonFiniteError, match="^Trainer.fit, epoch 1, step 1: expected a finite loss, got (nan|inf)"):
        trainer.fit(line, 1, 16, rng=0, progress=False)
    same(arrays(trainer), before)


@pytest.mark.parametrize(
    "options", [{"clip_norm": 0.05}, {"clip_value": 0.01}, {"clip_norm": 0.05, "clip_value": 0.02}]
)
def test_clipped_steps_are_those_of_the_loop(iris, options):
    trainer, other = make(**options), make()
    history = trainer.fit(iris[0], 2, 20, rng=3, progress=False)
    rng, norms = np.random.default_rng(3), []
    for _ in range(2):
        for X, y in mf.data.batches(iris[0], 20, rng=rng):
            other.optimizer.zero_grad()
            other.loss(other.model(X), y).backward()
            if "clip_value" in options:
                optim.clip_grad_value(other.optimizer, options["clip_value"])
            if "clip_norm" in options:
                optim.clip_grad_norm(other.optimizer, options["clip_norm"])
            other.optimizer.step()
            norms.append(other.optimizer.gradient_norm)
    same(arrays(trainer), arrays(other))
    assert history[1]["gradient_norm"] == pytest.approx(np.sqrt(np.mean(np.square(norms[6:]))))
    assert history.column("clipped") == [1.0, 1.0]
    loose = make(clip_norm=1e3, clip_value=1e3)
    assert loose.fit(iris[0], 1, rng=0, progress=False).column("clipped") == [0.0]


def test_a_step_without_accumulation_and_clipping_equals_the_plain_loop(iris):
    a, b = make(), make(clip_norm=1e6)
    a.fit(iris[0], 2, rng=0, progress=False)
    b.fit(iris[0], 2, rng=0, progress=False)
    same(arrays(a), arrays(b))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"accumulate": 0}, "accumulate to be a positive integer, got 0"),
        ({"accumulate": 1.5}, "accumulate to be a positive integer, got 1.5"),
        ({"accumulate": True}, "accumulate to be a positive integer, got True"),
        ({"clip_norm": 0}, "clip_norm above 0, finite, got 0"),
        ({"clip_norm": math.nan}, "clip_norm above 0, finite, got nan"),
        ({"clip_value": "1"}, "clip_value above 0, finite, got '1'"),
        ({"clip_norm": 1.0, "optimizer": optim.LBFGS}, "no clip_norm with LBFGS, got 1.0; its line search needs the true gradients"),
    ],
)  # fmt: skip
def test_steps_that_make_no_sense(options, text):
    with pytest.raises(ArgumentError) as info:
        make(**options)
    assert str(info.value) == f"Trainer: expected {text}"


class Plain:
    """An optimizer that is none of ours: it has no buffers."""

    lr = 0.1

    def __init__(self, parameters):
        self.parameters = list(parameters)

    def zero_grad(self):
        for p in self.parameters:
            p.grad = None

    def step(self):
        for p in self.parameters:
            p.data = p.data - np.float32(0.1) * p.grad


def test_an_optimizer_of_another_library_is_clipped_but_not_averaged(iris):
    trainer = make(optimizer=Plain, clip_norm=0.5, accumulate=2)
    history = trainer.fit(iris[0], 3, 8, rng=0, progress=False)
    assert list(history[0]) == ["epoch", "loss", "seconds", "clipped"]
    assert history[0]["clipped"] > 0
    other = make(clip_norm=0.5, accumulate=2, optimizer=lambda p: optim.SGD(p, lr=0.1))
    other.fit(iris[0], 3, 8, rng=0, progress=False)
    same(arrays(trainer), arrays(other), rtol=1e-4, atol=1e-6)
    trainer.hooks = [WeightAveraging()]
    with pytest.raises(ArgumentError, match="^Average: expected an optimizer, got Plain"):
        trainer.fit(iris[0], 1, progress=False)
