"""Sampling continues through fits, blocks, evaluations, errors and interrupts, and counts every step."""

from __future__ import annotations

import contextvars
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import microfw as mf
from microfw import nn, optim
from microfw.autograd.mode import mode
from microfw.errors import MicrofwError, NonFiniteError
from microfw.profiler import Session
from microfw.profiler.epoch import INTERRUPTED
from microfw.profiler.recorder import sampling
from microfw.profiler.recorder.log import Log
from tests.helpers.sampled_loop import Loop, X, Y, check


@pytest.mark.parametrize("compile", [None, False])
def test_fits_inside_a_profile_do_not_disturb_sampling(compile):
    model = nn.Sequential(nn.Dense(12, 8, rng=0), nn.ReLU(), nn.Dense(8, 4, rng=1))
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), compile=compile)
    epochs = [1, 2, 3, 1, 2, 40]
    with mf.Profiler(model, every=4) as profiler:
        for k in epochs:
            trainer.fit((X, Y), k, batch_size=8, rng=0, progress=False)
            profiler.end_epoch()
    for k, epoch in zip(epochs, profiler.session.epochs, strict=True):
        check(epoch, 6 * k, epoch.observed)
        assert abs(epoch.observed - 6 * k / 4) <= 1.5
        assert epoch.replayed <= epoch.steps


def test_an_anomaly_block_does_not_disturb_sampling():
    loop = Loop()
    with mf.Profiler(loop.model, every=4) as profiler:
        for steps in (3, 2, 9, 1, 1, 6):
            with mf.detect_anomaly():
                for _ in range(steps):
                    loop.step()
            loop.step()
        profiler.end_epoch()
        for _ in range(16):
            loop.step()
    first, second = profiler.session.epochs
    check(first, 28, first.observed)
    assert 4 <= first.observed <= 14
    check(second, 16, 4)


def test_a_context_that_outlives_the_profile_runs_on():
    loop = Loop()
    with mf.Profiler(loop.model, every=3) as profiler:
        context = contextvars.copy_context()
        loop.step()
        later = contextvars.copy_context()
    for left in (context, later):
        for _ in range(9):
            left.run(loop.step)
    assert [(e.steps, e.observed) for e in profiler.session.epochs] == [(1, 1)]
    with mf.Profiler(loop.model) as profiler:
        loop.step()
    assert [(e.steps, e.observed) for e in profiler.session.epochs] == [(1, 1)]


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_sampling_goes_on_across_short_fits_and_blocks(first, compile):
    """The mode is set in a block that then ends, each time: still one step in four is observed, no more and no less."""
    loop = Loop(compile)
    trainer = mf.Trainer(loop.model, loop.loss, loop.optimizer, compile=False)
    for _ in range(3):
        loop.step()
    with mf.Profiler(loop.model, every=4) as profiler:
        if first:
            loop.step()
        for _ in range(20):
            trainer.fit((X[:16], Y[:16]), 1, batch_size=16, rng=0, progress=False)
        profiler.end_epoch()
        for _ in range(20):
            with mode():
                loop.step()
        profiler.end_epoch()
        for _ in range(20):
            loop.optimizer.zero_grad()
            loop.loss(loop.model(X), Y).backward()
            with mf.no_grad():
                loop.optimizer.step()
    for epoch, steps in zip(profiler.session.epochs, (20 + first, 20, 20), strict=True):
        check(epoch, steps, epoch.observed)
        assert abs(epoch.observed - steps / 4) <= 1


def test_evaluations_and_many_modes_leave_replay_going():
    loop, other = Loop(compile=True), Loop()
    trainer = mf.Trainer(other.model, other.loss, other.optimizer)
    for _ in range(3):
        loop.step()
    with mf.Profiler(loop.model, every=4):
        for _ in range(7):
            loop.step()
        trainer.fit((X, Y), 1, batch_size=16, progress=False)
        for _ in range(3):
            loop.step()
    with mf.Profiler(loop.model, every=4) as profiler:
        for _ in range(5):
            for _ in range(20):
                loop.step()
            profiler.end_epoch()
            loop.model.eval()(X)
            loop.model.train()
    assert [e.replayed for e in profiler.session.epochs] == [
        18,
        20,
        19,
        20,
        20,
    ]  # steps that hold the plan against the eager step are eager


@pytest.mark.parametrize("every", [1, 2])
def test_counting_goes_on_after_an_interrupt(every, monkeypatch):
    interrupts = iter([KeyboardInterrupt])
    add = Log.add_timestamps

    def interrupted(log, timestamps):
        for error in interrupts:
            raise error
        add(log, timestamps)

    monkeypatch.setattr(Log, "add_timestamps", interrupted)
    loop, taken = Loop(), 0
    with mf.Profiler(loop.model, every=every) as profiler:
        while taken < 1500:
            taken += 1
            try:
                loop.step(4)
            except KeyboardInterrupt:
                told = taken
        assert len(profiler._recorder.timestamps) < 8000
    assert told < taken
    check(profiler.session.epochs[0], 1500, 1500 // every)


def test_a_context_that_outlives_the_profile_keeps_nothing():
    loop = Loop()
    with mf.Profiler(loop.model, every=3) as profiler:
        loop.step()
        recorder = profiler._recorder
        context = contextvars.copy_context()
    for _ in range(100):
        context.run(loop.step)
        with mf.no_grad():
            context.run(loop.model, X)
    assert len(recorder.losses) < 3 and len(recorder.timestamps) < 30


def test_a_forward_alone_does_not_disturb_the_next_replay():
    loop = Loop(compile=True)
    for _ in range(3):
        loop.step()
    with mf.Profiler(loop.model) as profiler:
        loop.model(X)
        for _ in range(4):
            loop.step()
    (epoch,) = profiler.session.epochs
    assert (epoch.steps, epoch.observed, epoch.replayed) == (4, 4, 3)
    assert {row.op: row.rules for row in epoch.ops()} == {"linear": 8, "relu": 4, "cross_entropy": 4}
    assert all(row.backward_ns > 0 for row in epoch.rows) and epoch.untagged_backward_ns >= 0


@pytest.mark.parametrize("every", [1, 3])
def test_replays_that_end_in_no_step_are_not_counted(every):
    loop, bad = Loop(compile=True), X.copy()
    bad[0, 0] = np.nan
    for _ in range(3):
        loop.step()
    with mf.Profiler(loop.model, every=every) as profiler:
        for _ in range(6):
            loop.step()
            with pytest.raises(NonFiniteError):
                loop.compiled(bad[:16], Y[:16])
    (epoch,) = profiler.session.epochs
    assert (epoch.steps, epoch.observed, epoch.replayed) == (6, 6 // every, 5)
    assert epoch.loss is None and "NaN" not in profiler.session._repr_html_()
    profiler.state_dict()


@pytest.mark.parametrize("every", [1, 2])
def test_a_search_that_breaks_off_keeps_time_apart(every):
    loop = Loop()
    loop.optimizer = optim.LBFGS(loop.model.parameters(), iterations=2)

    def closure():
        loop.optimizer.zero_grad()
        loop.loss(loop.model(X), Y).backward()
        raise KeyboardInterrupt

    with mf.Profiler(loop.model, every=every) as profiler, pytest.raises(KeyboardInterrupt):
        loop.optimizer.step(closure)
    check(profiler.session.epochs[0], 1, 1)


def test_training_inside_a_forward_is_not_part_of_it():
    loop = Loop()

    class Outer(nn.Module):
        def __init__(self):
            self.inner = loop.model

        def forward(self, x):
            for _ in range(7):
                loop.step()
            return x

    with mf.Profiler(loop.model) as profiler:
        for _ in range(3):
            Outer()(X)
    check(profiler.session.epochs[0], 21, 21)


def test_training_by_replays_inside_a_forward_keeps_time():
    loop = Loop(compile=True)

    class Outer(nn.Module):
        def forward(self, x):
            for _ in range(20):
                loop.step()
            return x

    outer = Outer()
    with mf.Profiler(loop.model) as profiler:
        for _ in range(100):
            outer(X)
    (epoch,) = profiler.session.epochs
    assert (epoch.steps, epoch.replayed) == (2000, 1993)
    assert epoch.data_ns >= 0 and epoch.untagged_forward_ns >= 0 and epoch.untagged_backward_ns >= 0
    assert epoch.forward_ns + epoch.backward_ns + epoch.update_ns + epoch.data_ns <= epoch.total_ns


def test_a_step_is_learnt_while_blocks_end_and_contexts_are_copied():
    loop = Loop()

    def f(x, y):
        with mf.no_grad():
            loop.model(x)
        return loop.loss(loop.model(x), y)

    step = mf.compile(f, loop.optimizer)
    with mf.Profiler(loop.model, every=2) as profiler:
        for k in range(12):
            contextvars.copy_context().run(step, X[: 16 + k // 4], Y[: 16 + k // 4])
        profiler.end_epoch()
        for _ in range(12):
            step(X[:16], Y[:16])
    assert [e.steps for e in profiler.session.epochs] == [12, 12]
    assert profiler.session.epochs[1].observed == 6
    assert step.explain().count("replayed") == 3


@pytest.mark.parametrize(("compile", "every", "steps", "profiles"), [(True, 3, 100, 1), (False, 1, 6, 12)])
def test_threads_that_share_a_profile_train_on(compile, every, steps, profiles):
    loops, errors = [Loop(compile) for _ in range(3)], []
    before, interval = [loop.step().item() for loop in loops], sys.getswitchinterval()

    def train(loop):
        try:
            for _ in range(steps):
                loop.step()
        except Exception as error:
            errors.append(error)

    sys.setswitchinterval(1e-6)
    try:
        for _ in range(profiles):
            with mf.Profiler(every=every):
                contexts = [contextvars.copy_context() for _ in loops]
                threads = [
                    threading.Thread(target=c.run, args=(train, loop)) for c, loop in zip(contexts, loops, strict=True)
                ]
                [thread.start() for thread in threads]
                [thread.join() for thread in threads]
    finally:
        sys.setswitchinterval(interval)
    assert errors == []
    assert all(loop.step().item() < loss for loop, loss in zip(loops, before, strict=True))


def test_an_op_with_fewer_inputs_than_the_expected_one_is_looked_up():
    """Another thread that shares the profile has taken the step to the loss, whose second input is a constant."""
    loop = Loop()
    with mf.Profiler(loop.model) as profiler:
        loop.step()
        recorder = profiler._recorder
        (loss,) = [p for p in recorder.sequences.all if p.stats.op.name == "cross_entropy"]
        for position in [recorder.root, *recorder.sequences.all]:
            position.next = loss
        loop.step()
        assert recorder.lookups > 0
    check(profiler.session.epochs[0], 2, 2)


def test_a_long_run_without_steps_keeps_little_memory(monkeypatch):
    monkeypatch.setattr(sampling, "MAX_TIMESTAMPS", 500)
    loop = Loop()
    with mf.Profiler(loop.model, every=10**6) as profiler:
        losses = [loop.step(4).item() for _ in range(2000)]
        assert len(profiler._recorder.losses) < 1000
    (epoch,) = profiler.session.epochs
    check(epoch, 2000, 1)
    assert epoch.loss == pytest.approx(np.mean(losses))


@pytest.mark.parametrize("saved", [False, True])
def test_a_loss_that_is_not_finite_makes_the_epochs_none(saved):
    loop = Loop()
    with mf.Profiler(loop.model) as profiler:
        for k in range(6):
            loop.optimizer.zero_grad()
            (loop.loss(loop.model(X), Y) * (np.float32("nan") if k == 1 else 1)).backward()
            if k == 1:
                loop.optimizer.zero_grad()
                loop.loss(loop.model(X), Y).backward()
            loop.optimizer.step()
            if k == 2 and saved:
                profiler.state_dict()
    assert profiler.session.epochs[0].loss is None


def interrupted(step, profiler, event="on_step_end", **options):
    """Return a loop and its Trainer, after a fit of epochs of six steps that Ctrl-C has ended."""

    def stop(state):
        if state.steps == step:
            raise KeyboardInterrupt

    loop, hook = Loop(), mf.Hook()
    setattr(hook, event, stop)
    trainer = mf.Trainer(loop.model, loop.loss, loop.optimizer, hooks=[profiler, hook], **options)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit((X, Y), 3, batch_size=8 // trainer.accumulate, rng=0, progress=False)
    return loop, trainer


@pytest.mark.parametrize("step", [2, 8])
def test_the_epoch_in_which_a_fit_was_interrupted_is_kept_with_a_note(step, tmp_path):
    profiler = mf.Profiler()
    interrupted(step, profiler)
    *_, last = profiler.session.epochs
    check(last, 2, 2)
    assert (last.epoch, last.notes) == (1 + step // 6, [INTERRUPTED])
    assert [e.steps for e in profiler.session.epochs] == [6] * (step // 6) + [2]
    text = profiler.report()
    assert "unfinished: it was interrupted" in " ".join(text.split()) and ("Result: loss" in text) == (step > 6)
    profiler.save(tmp_path / "a.json")
    assert Session.load(tmp_path / "a.json") == profiler.session


@pytest.mark.parametrize("options", [{"compile": False}, {"compile": True}, {"accumulate": 2}], ids=str)
def test_an_interrupted_fit_that_is_resumed_has_whole_epochs(tmp_path, options):
    profiler = mf.Profiler()
    _, trainer = interrupted(8, profiler, "on_gradients", **options)
    trainer.save(tmp_path / "run.npz")
    assert [e.steps for e in profiler.session.epochs] == [6, 2]
    trainer.hooks = [profiler]
    rows = 8 // trainer.accumulate
    trainer.fit((X, Y), 3, batch_size=rows, resume=tmp_path / "run.npz", progress=False)
    assert [(e.epoch, e.steps) for e in profiler.session.epochs] == [(1, 6), (2, 6), (3, 6)]
    assert profiler.session.total().notes == []
    # the interrupted step is repeated: its first backward pass is not counted
    first, *others = [(e.sum().nodes, e.sum().rules, e.counts()) for e in profiler.session.epochs]
    assert others == [first, first]


def test_what_an_interrupted_fit_left_is_in_no_epoch_of_a_later_block_or_fit():
    profiler = mf.Profiler()
    loop, trainer = interrupted(2, profiler)
    with profiler:
        pass
    with profiler:
        loop.step()
    assert [e.steps for e in profiler.session.epochs] == [2, 1]
    trainer.hooks = [profiler]
    trainer.fit((X, Y), 1, batch_size=8, progress=False)
    assert [(e.epoch, e.steps) for e in profiler.session.epochs] == [(1, 2), (2, 1), (3, 6)]


EVENTS = ["step"] * 8 + ["short", "evaluate", "error", "anomaly", "block", "fit", "forward", "epoch", "state", "lr"]


@settings(max_examples=25, deadline=None)
@given(
    every=st.sampled_from([1, 2, 3, 5]),
    compile=st.booleans(),
    events=st.lists(st.sampled_from(EVENTS), min_size=5, max_size=60),
)
def test_epoch_counts_are_conserved_under_random_events(every, compile, events):
    loop, taken, steps = Loop(compile), 0, []
    trainer = mf.Trainer(loop.model, loop.loss, loop.optimizer, compile=compile)

    def act(event):
        nonlocal taken
        if event == "forward":
            loop.model(X)
        elif event == "evaluate":
            loop.model.eval()
            with mf.no_grad():
                loop.model(X)
            loop.model.train()
        elif event == "error":
            with pytest.raises(MicrofwError):
                loop.model(X[:, :5])
        elif event == "fit":
            trainer.fit((X, Y), 1, batch_size=16, rng=0, progress=False)
            taken += 3
        elif event == "state":
            profiler.state_dict()
        elif event == "lr":
            loop.optimizer.lr *= 0.5
        else:
            loop.step(16 if event == "step" else 7)
            taken += 1

    with mf.Profiler(loop.model, every=every) as profiler:
        k = 0
        while k < len(events):
            if events[k] == "epoch":
                profiler.end_epoch()
                steps.append(taken)
                taken = 0
            elif events[k] in ("anomaly", "block"):
                with mf.detect_anomaly() if events[k] == "anomaly" else mode():
                    for event in events[k + 1 : k + 4]:
                        act(event if event not in ("epoch", "anomaly", "block", "state") else "step")
                k += 3
            else:
                act(events[k])
            k += 1
    epochs = profiler.session.epochs
    assert sum(e.steps for e in epochs) == sum(steps) + taken
    for epoch in epochs:
        check(epoch, epoch.steps, epoch.observed)
        assert epoch.observed <= epoch.steps and epoch.replayed <= epoch.steps
        if every == 1:
            assert epoch.observed == epoch.steps
