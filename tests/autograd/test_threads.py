"""Many threads, and tasks within them: each records for itself, and trains bit for bit as if it were alone."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.autograd.mode import MODE
from microfw.autograd.scope import THREAD_SCOPE
from tests.helpers.threads import together


def test_tasks_in_threads_record_each_for_itself():
    """Threads with an event loop each, whose tasks take turns in recording and not."""
    x = mf.tensor([1.0, 2.0], requires_grad=True)

    async def task(quiet):
        for _ in range(20):
            if quiet:
                with mf.no_grad():
                    await asyncio.sleep(0)
                    assert not (x * 2.0).requires_grad
            await asyncio.sleep(0)
            y = (x * x).sum()
            assert y.requires_grad
            await asyncio.sleep(0)
            np.testing.assert_array_equal(mf.grad(lambda t: (t * t).sum())(x).data, [2.0, 4.0])
        return True

    async def main():
        return await asyncio.gather(*(task(k % 2) for k in range(6)))

    mode = MODE.get()
    assert together([lambda: asyncio.run(main())] * 6) == [[True] * 6] * 6
    assert MODE.get() is mode
    assert THREAD_SCOPE.scope is None


def trained(seed, steps, replayed):
    """Return all that training a model of its own leaves behind, as bytes."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(8, 4)).astype(np.float32), rng.integers(0, 3, 8)
    model = nn.Sequential(
        nn.Dense(4, 6, rng=seed), nn.BatchNorm1D(6), nn.ReLU(), nn.Dropout(0.3, rng=seed), nn.Dense(6, 3, rng=seed + 1)
    )
    loss_fn, optimizer = nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def loss(x, y):
        return loss_fn(model(x), y)

    if replayed:
        step = mf.compile(loss, optimizer)
    else:

        def step(x, y):
            optimizer.zero_grad()
            made = loss(mf.Tensor(x), mf.Tensor(y))
            made.backward()
            optimizer.step()
            return made

    losses = np.array([step(x, y).data for _ in range(steps)])
    return b"".join([losses.tobytes(), *(value.tobytes() for value in model.state_dict().values())])


def same_as_serial(count, steps, replayed):
    serial = [trained(seed, steps, replayed) for seed in range(count)]
    assert len(set(serial)) == count
    assert together([lambda s=seed: trained(s, steps, replayed) for seed in range(count)]) == serial


ways = pytest.mark.parametrize("replayed", [False, True], ids=["eager", "replayed"])


@ways
def test_eight_threads_train_as_one_after_the_other(replayed):
    same_as_serial(8, 50, replayed)


@pytest.mark.slow
@ways
def test_sixty_four_threads_train_as_one_after_the_other(replayed):
    same_as_serial(64, 120, replayed)


def test_replayed_steps_are_the_eager_ones():
    assert trained(3, 30, True) == trained(3, 30, False)
