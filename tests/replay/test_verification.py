"""A plan is held against the eager step again and again, and is dropped where it gives something else."""

import warnings

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ReplayError, ReplayWarning

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


class Shifted(nn.Module):
    """A layer that adds an array that it makes at each step."""

    def __init__(self):
        self.inner = nn.Dense(3, 2, rng=0)

    def forward(self, x):
        return self.inner(x) + np.full(2, 0.5, np.float32)


def spoil(step, change=1.0):
    (replay,) = step.replays.values()
    found = [
        c.fixed for c in replay.plan.step.captured_by_id.values() if c.fixed is not None and np.all(c.fixed == 0.5)
    ]
    (constant,) = found
    constant.setflags(write=True)
    constant += np.float32(change)


def run(step, times):
    for _ in range(times):
        step(X)


def made(kind=optim.SGD, **options):
    model = Shifted()
    return model, mf.compile(lambda x: np.mean(model(x) ** 2), kind(model.parameters(), lr=0.01, **options))


def test_a_plan_that_is_spoilt_is_found_at_the_next_check_and_dropped():
    model, step = made()
    for _ in range(10):
        step(X)
    assert step.replays
    spoil(step)
    with pytest.warns(ReplayWarning, match="the loss") as caught:
        run(step, 30)
    assert len(caught) == 1
    assert "updates since replay 1 may be wrong" in str(caught[0].message)
    assert not step.replays and "a replay gave another value for the loss" in step.explain()
    eager = model(X).numpy()
    np.testing.assert_array_equal(step(X).numpy(), np.mean(eager**2))


def test_a_trainer_raises_before_the_step_is_taken():
    model = Shifted()

    class Spoil(mf.Hook):
        def on_step_end(self, state):
            if state.steps == 10:
                spoil(trainer._run.stepper.replay_policy.step)
            self.before = model.inner.weight.data.copy()

    hook = Spoil()
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    trainer = mf.Trainer(model, nn.MSELoss(), optimizer, hooks=[hook], compile=True)
    with pytest.raises(ReplayError, match=r"train with compile=False"):
        trainer.fit((np.tile(X, (10, 1)), np.zeros((80, 2))), epochs=10, batch_size=8, rng=0, progress=False)
    np.testing.assert_array_equal(model.inner.weight.data, hook.before)


def test_a_difference_of_rounding_drops_the_plan_without_a_warning():
    _, step = made()
    for _ in range(10):
        step(X)
    spoil(step, 1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(30):
            step(X)
    assert not step.replays and "other last digits" in step.explain()


@pytest.mark.parametrize(
    ("kind", "options"), [(optim.SGD, {"momentum": 0.9}), (optim.Adam, {}), (optim.AdamW, {}), (optim.RMSprop, {})]
)
def test_checks_change_nothing(kind, options):
    found = []
    for compiled in (False, True):
        model, step = made(kind, **options)
        losses = []
        for _ in range(300):
            if compiled:
                losses.append(step(X).item())
            else:
                step.optimizer.zero_grad()
                loss = step.f(X)
                loss.backward()
                step.optimizer.step()
                losses.append(loss.item())
        if compiled:
            (replay,) = step.replays.values()
            assert replay.checked == 256
        found.append((losses, model.inner.weight.data.tobytes(), repr(step.optimizer.state_dict())))
    assert found[0] == found[1]


def test_gradients_of_another_optimizers_parameters_add_up():
    found = []
    for compiled in (False, True):
        body, head = nn.Dense(3, 4, rng=0), nn.Dense(4, 1, rng=1)
        model = nn.Sequential(body, nn.Tanh(), head)
        other, own = optim.SGD(body.parameters(), lr=0.1), optim.SGD(head.parameters(), lr=0.1)
        step = mf.compile(lambda x, model=model: np.mean(model(x) ** 2), own)
        gradients = []
        for k in range(40):
            if compiled:
                step(X)
            else:
                own.zero_grad()
                step.f(X).backward()
                own.step()
            gradients.append(body.weight.grad.tobytes())
            if k % 7 == 6:
                other.step()
                other.zero_grad()
        found.append(gradients)
        assert not compiled or step.replays
    assert found[0] == found[1]


def test_a_branch_that_is_left_fills_all_results_of_the_op():
    """The results of one call must not share memory, even if one of them is not needed after the op."""
    found = []
    for compiled in (False, True):
        model = nn.GroupNorm(1, 1)
        optimizer = optim.SGD(model.parameters(), lr=0.01)
        step = mf.compile(lambda x, model=model: np.mean((model(x) - 1.0) ** 2), optimizer)
        losses = []
        for k in range(10):  # one entry a group: its mean is many deviations away from 0 where it is large
            x = np.linspace(0.1, 0.4, 4, dtype=np.float32)[:, None] * (1 if k < 5 else 9)
            if compiled:
                losses.append(step(x).item())
            else:
                optimizer.zero_grad()
                loss = step.f(x)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        assert not compiled or step.replays
        found.append(losses)
    assert found[0] == found[1]


def test_values_that_only_the_other_branch_reads_are_computed():
    @mf.op(vjp=(lambda g: g, None))
    def add_if_large(a, b):
        return a + 0 if a.max().item() < 10 else a + b

    model = nn.Dense(3, 2, rng=0)
    step = mf.compile(
        lambda x: np.mean(add_if_large(model(x), np.tanh(x[:, :1]))), optim.SGD(model.parameters(), lr=0.1)
    )
    run(step, 3)
    assert "replayed" in step.explain()
    large = 50 * np.abs(X)
    expected, without = step.f(mf.tensor(large)).item(), np.mean(model(large).numpy())
    assert step(large).item() == expected != without


def test_an_argument_that_is_joined_with_what_layers_make_of_it_is_read_at_each_step():
    rng = np.random.default_rng(0)
    first, second = nn.Dense(3, 2, rng=0), nn.Dense(5, 1, rng=1)
    optimizer = optim.SGD([*first.parameters(), *second.parameters()], lr=0.1)
    step = mf.compile(lambda x: np.mean(second(np.concatenate([first(x), x], axis=1)) ** 2), optimizer)
    for _ in range(6):
        x = rng.normal(size=(4, 3)).astype(np.float32)
        with mf.no_grad():
            expected = step.f(x).item()
        assert step(x).item() == expected
    assert step.replays


def noisy_by(rng):
    @mf.op(vjp=(lambda g, x: g,))
    def noisy(x):
        return x + rng.normal(size=x.shape).astype(np.float32)

    return noisy


def test_capturing_an_op_that_draws_moves_its_generator_no_further():
    found = []
    for compiled in (False, True):
        noisy, model = noisy_by(np.random.default_rng(0)), nn.Dense(3, 2, rng=0)
        optimizer = optim.SGD(model.parameters(), lr=0.01)
        step = mf.compile(lambda x, model=model, noisy=noisy: np.mean(noisy(model(x)) ** 2), optimizer)
        for _ in range(8):
            if compiled:
                found.append(step(X).item())
                continue
            optimizer.zero_grad()
            loss = step.f(mf.Tensor(X))
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    assert found[:8] == found[8:]


def test_numpys_global_generator_may_have_any_bit_generator():
    before = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(0))
    try:
        run(step := made()[1], 10)
    finally:
        np.random.set_bit_generator(before)
    assert step.replays
