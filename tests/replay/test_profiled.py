"""Profiles of replayed steps have the counts of eager steps, and their times add up."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from tests.helpers.replay import Twins, drawn, labels
from tests.helpers.sampled_loop import observed_steps


class DetachedScale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = mf.tensor(np.ones(10), np.float32)

    def forward(self, x):
        return x * self.scale.detach()


def profiled(compile):
    train, _ = mf.data.load("digits", rng=0)
    model = nn.Sequential(nn.Dense(64, 16, rng=0), nn.ReLU(), nn.Dropout(0.2, rng=3), nn.Dense(16, 10, rng=1))
    model.append(DetachedScale())
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    profiler = mf.Profiler()
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optimizer, hooks=[profiler], compile=compile)
    trainer.fit(train, 3, rng=0, progress=False)
    return profiler


def test_a_profile_of_replayed_steps_has_the_same_counts_and_conserves_time():
    eager, replayed = profiled(False), profiled(True)
    for one, two in zip(eager.session.epochs, replayed.session.epochs, strict=True):
        assert (one.steps, one.observed, one.parameters, one.parameter_tensors) == (
            two.steps, two.observed, two.parameters, two.parameter_tensors,
        )  # fmt: skip
        for a, b in zip(one.rows, two.rows, strict=True):
            a, b = ({k: v for k, v in vars(row).items() if not k.endswith("_ns")} for row in (a, b))
            assert a == b
        assert two.untagged_forward_ns >= 0 and two.untagged_backward_ns >= 0
        assert all(row.forward_ns > 0 for row in two.rows)
    last = replayed.session.epochs[-1]
    assert last.replayed >= last.steps - 1 and not eager.session.epochs[-1].replayed
    assert "replayed" in replayed.report(full=True) and "replayed" not in eager.report(full=True)


def test_a_profiler_in_a_loop_of_ones_own_follows_replays():
    twins = Twins()
    with mf.Profiler(twins.model) as profiler:
        for X, y in drawn(6, labels):
            twins.step(X, y)
    epoch = profiler.session.epochs[0]
    assert (epoch.steps, epoch.observed, epoch.replayed) == (6, 6, 5)  # it looks at one that is run
    assert epoch.sum().nodes == 6 * 4
    before = mf.Profiler(twins.model, every=3)
    with before:
        for X, y in drawn(6, labels):
            twins.step(X, y)
    epoch = before.session.epochs[0]
    assert (epoch.steps, epoch.observed) == (6, len(observed_steps(6, 3)))
    twins.batches = iter(drawn(9, labels, seed=9))
    twins.step(*next(twins.batches))


def test_a_long_epoch_of_replayed_steps_keeps_few_losses():
    twins, (X, y) = Twins(lr=1e-6), drawn(1, labels)[0]
    with mf.Profiler(twins.model) as profiler:
        losses = []
        for _ in range(9000):
            losses.append(twins.step(X, y).item())
            assert len(profiler._recorder.losses) < 5000
    epoch = profiler.session.epochs[0]
    assert (epoch.steps, epoch.replayed) == (9000, 8994)
    assert epoch.loss == pytest.approx(np.mean(losses, dtype=float), rel=1e-12)


def test_a_trace_of_replayed_steps_has_an_event_for_each_node():
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Dense(6, 5, rng=0), nn.ReLU(), nn.Dense(5, 3, rng=1))
    loss = nn.CrossEntropyLoss()
    step = mf.compile(lambda X, y: loss(model(X), y), optim.SGD(model.parameters(), lr=0.1))
    X, y = rng.random((8, 6), np.float32), rng.integers(0, 3, 8)
    for _ in range(3):
        step(X, y)
    assert "replayed" in step.explain()
    with mf.Profiler(model, trace=7) as profiler:
        for _ in range(7):
            step(X, y)
        profiler.end_epoch()
    epoch, trace = profiler.session.epochs[0], profiler.session.trace
    assert epoch.replayed >= 5
    assert trace.steps == 7
    nodes = [event for event in trace.events if event[1] >= 0]
    assert [sum(event[0] == phase for event in nodes) for phase in (0, 1)] == [
        28,
        22,
    ]  # the loss has no call of its own in a replayed backward pass
    spans = [event for event in trace.events if event[1] < 0]
    for phase, _, began, ended in nodes:
        assert any(s[0] == phase and s[2] <= began <= ended <= s[3] for s in spans)
    for phase, name in enumerate(("forward_ns", "backward_ns")):
        assert sum(e[3] - e[2] for e in nodes if e[0] == phase) <= sum(getattr(row, name) for row in epoch.rows) * 1.5


class Aside(mf.Hook):
    """Trains another model between the epochs, and counts on being told after the profiler."""

    def __init__(self, when, steps):
        model = nn.Sequential(nn.Dense(4, 8, rng=0), nn.Tanh(), nn.Dense(8, 3, rng=1))
        loss = nn.CrossEntropyLoss()
        self.step = mf.compile(lambda X, y: loss(model(X), y), optim.SGD(model.parameters(), lr=0.1))
        self.steps = steps
        setattr(self, when, self.train)

    def on_epoch_start(self, state):
        pass

    def on_epoch_end(self, state):
        pass

    def train(self, state):
        rng = np.random.default_rng(0)
        for _ in range(self.steps):
            self.step(rng.random((32, 4), np.float32), rng.integers(0, 3, 32))


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("steps", [5, 700])
@pytest.mark.parametrize("when", ["on_epoch_start", "on_epoch_end"])
def test_what_hooks_train_between_epochs_is_in_no_epoch(tmp_path, when, steps, every):
    X, y = np.random.default_rng(0).random((160, 4), np.float32), np.arange(160) % 3

    class Save(mf.Hook):
        last = True

        def on_epoch_end(self, state):
            state.save(tmp_path / "a.npz")

    model = nn.Sequential(nn.Dense(4, 8, rng=0), nn.ReLU(), nn.Dense(8, 3, rng=1))
    profiler = mf.Profiler(every=every)
    aside = Aside(when, steps)
    hooks = [profiler, aside, Save()] if when == "on_epoch_end" else [aside, profiler, Save()]
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), hooks=hooks)
    trainer.fit((X, y), 4, batch_size=16, rng=0, progress=False)
    for k, epoch in enumerate(profiler.session.epochs):
        assert (epoch.epoch, epoch.steps) == (k + 1, 10)
        total = epoch.sum()
        assert total.nodes == total.rules == 4 * epoch.observed
        assert total.forward_ns <= epoch.forward_ns
        assert epoch.replayed <= 10
        assert epoch.forward_ns + epoch.backward_ns + epoch.update_ns + epoch.data_ns <= epoch.total_ns
    assert len(profiler.session.epochs) == 4


def test_patterns_that_make_room_are_counted_once():
    from microfw.profiler.recorder import recorder

    twins = Twins()
    loss, model, optimizer = twins.loss, twins.model, twins.optimizer
    with mf.Profiler(model) as profiler:
        for _ in range(10):
            twins.step(*next(twins.batches))
        for n in range(100, 106 + recorder.MAX_GRAPHS):
            optimizer.zero_grad()
            loss(model(np.ones((n, 5), np.float32)), np.zeros(n, int)).backward()
            optimizer.step()
        for _ in range(10):
            twins.step(*next(twins.batches))
    total = profiler.session.total()
    assert total.steps == 26 + recorder.MAX_GRAPHS
    assert total.sum().nodes == total.sum().rules == 4 * total.steps


CHANGES = {
    "freeze": lambda dense, norm: dense.requires_grad_(False),
    "eval": lambda dense, norm: norm.eval(),
    "setting": lambda dense, norm: setattr(norm, "eps", 0.5),
}


def losses_of(change, before, every=0):
    """Return the losses of a replayed step, three of them after the change, and the weights after it."""
    dense, norm, loss = nn.Dense(4, 5, rng=0), nn.BatchNorm1D(5), nn.CrossEntropyLoss()
    model = nn.Sequential(dense, norm, nn.Dense(5, 2, rng=1))
    step = mf.compile(lambda X, y: loss(model(X), y), optim.SGD(model.parameters(), lr=0.1))
    X, y = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32), np.arange(8) % 2
    with mf.Profiler(model, every=every) if every else nullcontext():
        losses = [step(X, y).item() for _ in range(before)]
        CHANGES[change](dense, norm)
        losses += [step(X, y).item() for _ in range(3)]
    assert step.replays
    return [*losses, *dense.weight.numpy().ravel()]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_model_is_seen_by_the_next_step_however_steps_are_sampled(change):
    for before in range(1, 21):
        expected = losses_of(change, before)
        for every in range(1, 6):
            if before <= 4 * every:
                assert losses_of(change, before, every) == expected, (before, every)
