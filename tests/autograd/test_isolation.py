"""Mode and scope are restored after errors, and are private to each thread and asyncio task."""

from __future__ import annotations

import asyncio
import sys
import threading

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.autograd.mode import MODE
from microfw.autograd.scope import THREAD_SCOPE
from microfw.errors import ArgumentError, GraphError, ShapeError
from microfw.nn.forward_state import evaluating
from tests.helpers.models import batch, classifier, leaf
from tests.helpers.threads import together


def test_ctrl_c_at_any_line_of_entering_evaluation_restores_mode_and_modules():
    model = nn.Sequential(nn.Dense(2, 2, rng=0), nn.Sequential(nn.Dropout(0.5, rng=0)))
    before, lines, stopped = MODE.get(), 0, []

    def trace(frame, event, argument):
        if event == "line" and frame.f_code.co_filename.endswith(("forward_state.py", "mode.py", "module.py")):
            stopped.append(frame.f_lineno)
            if len(stopped) > lines:
                raise KeyboardInterrupt
        return trace

    entered, outer = False, sys.gettrace()
    while not entered:
        stopped.clear()
        try:
            sys.settrace(trace)
            with evaluating(model, observer=None):
                sys.settrace(outer)
                entered = not MODE.get().recording and not any(m.training for _, m in model.named_modules())
        except KeyboardInterrupt:
            lines += 1
        finally:
            sys.settrace(outer)
        assert MODE.get() is before and all(m.training for _, m in model.named_modules())
    assert lines > 10


def test_a_mode_cannot_be_assigned_to():
    with pytest.raises(AttributeError, match=r"no assignment, got one to recording; use `with mode\(recording="):
        MODE.get().recording = False


def test_exceptions_restore_mode_and_scope(watcher):
    class Fails(nn.Module):
        def forward(self, x):
            raise KeyError("inside")

    before = MODE.get()
    model = nn.Sequential(nn.Dense(6, 6, rng=0), Fails())
    for _ in range(3):
        with pytest.raises(KeyError), watcher.on(), mf.no_grad():
            model(np.ones((2, 6), np.float32))
        assert MODE.get() is before and THREAD_SCOPE.scope is None
    assert watcher.phases == ["evaluation"] * 3
    with pytest.raises(KeyError):
        mf.grad(lambda x: np.sum(model(x)))(np.ones((2, 6), np.float32))
    assert MODE.get() is before and THREAD_SCOPE.scope is None


def test_backward_that_fails_leaves_its_phase(watcher):
    y = (leaf(1.0) * 2.0).sum()
    y.backward()
    with watcher.on(), pytest.raises(GraphError):
        y.backward()
    assert watcher.phases == ["backward"]


def test_no_grad_nests_and_decorates():
    x = leaf(1.0)

    @mf.no_grad()
    def without():
        return x * 2.0

    assert not without().requires_grad
    with mf.no_grad():
        with mf.no_grad():
            pass
        assert not (x * 2.0).requires_grad
    assert (x * 2.0).requires_grad

    @mf.no_grad
    def bare():
        return x * 2.0

    assert not bare().requires_grad and bare.__name__ == "bare"

    async def later():
        pass

    def yields():
        yield x * 2.0

    for wrong in (later, yields, nn.ReLU, 3):
        for decorate in (mf.no_grad, mf.no_grad()):
            with pytest.raises(ArgumentError, match="no_grad: expected a function that computes when it is called"):
                decorate(wrong)
    block = mf.no_grad()
    with block, block:
        pass
    assert MODE.get().recording


def test_no_grad_does_not_leak_into_other_threads():
    x, seen = leaf(1.0), []
    with mf.no_grad():
        thread = threading.Thread(target=lambda: seen.append((x * 2.0).requires_grad))
        thread.start()
        thread.join()
        assert not (x * 2.0).requires_grad
    assert seen == [True]


def test_no_grad_does_not_leak_between_tasks():
    x = leaf(1.0)

    async def quiet():
        with mf.no_grad():
            for _ in range(5):
                await asyncio.sleep(0)
                assert not (x * 2.0).requires_grad

    async def loud():
        for _ in range(5):
            await asyncio.sleep(0)
            assert (x * 2.0).requires_grad

    async def main():
        await asyncio.gather(quiet(), loud(), quiet(), loud())

    asyncio.run(main())


def test_scopes_do_not_leak_between_tasks(watcher):
    async def call(model, width):
        await asyncio.sleep(0)
        with pytest.raises(ShapeError, match=f"^2 Dense: expected x of shape \\(N, {width}\\)"):
            model(np.ones((2, 6), np.float32))
        assert THREAD_SCOPE.scope is None

    async def main():
        models = [(nn.Sequential(nn.Dense(6, 4, rng=0), nn.ReLU(), nn.Dense(w, 2, rng=0)), w) for w in (5, 7)]
        await asyncio.gather(*(call(m, w) for m, w in models))

    asyncio.run(main())


def fitted(seed, steps=60):
    model, loss_fn = classifier(seed), nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for k in range(steps):
        x, y = batch(seed=100 * seed + k)
        optimizer.zero_grad()
        loss_fn(model(x), y).backward()
        optimizer.step()
    return np.concatenate([p.data.ravel() for p in model.parameters()])


def test_eight_threads_train_as_one_does():
    serial = [fitted(seed) for seed in range(8)]
    results = together([lambda seed=seed: fitted(seed) for seed in range(8)], switch=1e-5)
    for a, b in zip(serial, results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_threads_share_a_model_forward():
    """One model called by many threads: each gets its own graph, and names stay its own."""
    model = classifier()
    x, y = batch()
    expected = mf.grad(lambda m: nn.CrossEntropyLoss()(m(x), y))(model)["0.weight"]
    wrong = []

    def work():
        for _ in range(50):
            got = mf.grad(lambda m: nn.CrossEntropyLoss()(m(x), y))(model)["0.weight"]
            if not np.array_equal(got, expected):
                wrong.append(got)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_same_seed_gives_the_same_bits():
    np.testing.assert_array_equal(fitted(3), fitted(3))


def test_numpys_global_state_is_not_touched():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    nn.Sequential(nn.Dense(4, 4), nn.Dropout(0.5))(np.ones((2, 4), np.float32))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
