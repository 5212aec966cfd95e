"""Learning rates by step, epoch and metric, and the range test."""

from __future__ import annotations

import signal

import numpy as np
import pytest

from microfw import nn, optim
from microfw.data import Dataset
from microfw.errors import ArgumentError, NonFiniteError
from microfw.optim import schedules
from microfw.training import (
    Hook,
    LearningRate,
    Trainer,
    lr_range_test,
    rates,
)
from tests.helpers.training import Do, arrays, make, same


def test_the_rate_of_each_step_is_the_schedules(iris):
    seen = []
    schedule = schedules.OneCycle(0.1, steps=12)
    trainer = make(hooks=[LearningRate(schedule), Do("on_step_end", lambda state: seen.append(state.optimizer.lr))])
    history = trainer.fit(iris[0], 3, rng=0, progress=False)
    assert seen == [schedule(step) for step in range(12)]
    assert history.column("lr") == [schedule(3), schedule(7), schedule(11)]


def test_rates_by_epoch_and_by_metric(iris):
    trainer = make(hooks=[LearningRate(lambda epoch: 0.1 / (1 + epoch), of="epoch")])
    assert trainer.fit(iris[0], 3, rng=0, progress=False).column("lr") == [0.1, 0.05, 0.1 / 3]
    plateau = schedules.ReduceOnPlateau(0.1, factor=0.5, patience=0, mode="max")
    trainer = make(lr=0.1, hooks=[LearningRate(plateau, of="val_accuracy")], metrics=["accuracy"])
    history = trainer.fit(iris[0], 12, validation=iris[1], rng=0, progress=False)
    other = schedules.ReduceOnPlateau(0.1, factor=0.5, patience=0, mode="max")
    assert history.column("lr") == [0.1, *[other(a) for a in history.column("val_accuracy")[:-1]]]
    assert history[-1]["lr"] < 0.1
    with pytest.raises(ArgumentError, match="^History.column: expected one of epoch, loss, .*got 'val_loss'"):
        make(hooks=[LearningRate(plateau, of="val_loss")]).fit(iris[0], 2, rng=0, progress=False)
    for bad, text in ((0.1, "0.1"), (schedules.Cosine, "the class Cosine")):
        with pytest.raises(
            ArgumentError, match=f"^LearningRate: expected a schedule, a function of a number, got {text}"
        ):
            LearningRate(bad)


def test_a_schedule_that_ends_at_0_ends_training_with_an_error(iris):
    trainer = make(hooks=[LearningRate(schedules.Cosine(0.1, steps=6))])
    with pytest.raises(ArgumentError, match="^SGD: expected lr above 0, finite, got 0"):
        trainer.fit(iris[0], 2, rng=0, progress=False)


def test_range_test_leaves_everything_as_it_was(iris):
    called = []
    trainer = make(extra=[nn.Dropout(0.2, rng=0)], hooks=[Do("on_step_end", called.append)])
    trainer.fit(iris[0], 2, rng=0, progress=False)
    before, state, random = arrays(trainer), trainer.optimizer.state_dict(), trainer.model[2].rng.bit_generator.state
    called.clear()
    found = lr_range_test(trainer, iris[0], rng=0)
    assert called == []
    same(arrays(trainer), before)
    np.testing.assert_equal(trainer.optimizer.state_dict(), state)
    assert trainer.model[2].rng.bit_generator.state == random
    assert len(found.rates) == len(found.losses) <= 100
    assert found.rates[0] == pytest.approx(1e-5)
    assert found.rates[1] / found.rates[0] == pytest.approx(10 ** (6 / 99))
    assert found.suggestion in found.rates
    assert lr_range_test(trainer, iris[0], rng=0) == found


def test_a_range_test_that_ctrl_c_stops_restores_the_model_and_says_so(iris, monkeypatch):
    trainer = make(optimizer=optim.Adam)
    trainer.fit(iris[0], 2, rng=0, progress=False)
    before, state = arrays(trainer), trainer.optimizer.state_dict()
    on_step_end = rates._Rising.on_step_end

    def interrupted(hook, state):
        on_step_end(hook, state)
        if state.steps == 8:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(rates._Rising, "on_step_end", interrupted)
    with pytest.raises(KeyboardInterrupt) as info:
        lr_range_test(trainer, iris[0], rng=0)
    expected = "lr_range_test: stopped after 8 of 100 rates; model and optimizer are as before"
    assert info.value.__notes__ == [expected]
    same(arrays(trainer), before)
    np.testing.assert_equal(trainer.optimizer.state_dict(), state)


def test_ctrl_c_while_a_range_test_restores_waits_for_it(iris, monkeypatch):
    trainer = make()
    before = arrays(trainer)
    load = nn.Sequential.load_state_dict
    monkeypatch.setattr(
        nn.Sequential, "load_state_dict", lambda *args: (signal.raise_signal(signal.SIGINT), load(*args))[1]
    )
    with pytest.raises(KeyboardInterrupt):
        lr_range_test(trainer, iris[0], rng=0)
    same(arrays(trainer), before)
    assert trainer.optimizer.lr == make().optimizer.lr


def test_range_test_finds_the_rate_of_a_quadratic(line):
    model = nn.Dense(1, 1, rng=0)
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1))
    bent = Dataset(line.X, np.sin(3 * line.X))  # which a line cannot fit, so that the loss stays above 0
    found = lr_range_test(trainer, bent, batch_size=64, high=100.0, steps=200, rng=0)
    assert found.rates[-1] < 50, "the loss exploded before"
    assert 0.02 < found.suggestion < 1.5


def noisy_line(seed, rows=1000, noise=0.5, **options):
    rng = np.random.default_rng(seed)
    X, model = rng.normal(size=(rows, 4)), nn.Dense(4, 1, rng=seed)
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1))
    return lr_range_test(trainer, (X, X[:, :1] + noise * rng.normal(size=(rows, 1))), rng=seed, **options)


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("rows", [100, 1000])
def test_range_test_does_not_suggest_the_noise_of_batches(rows, noise):
    for seed in range(5):
        assert 0.01 < noisy_line(seed, rows, noise).suggestion < 0.2


def test_range_test_warns_if_the_lowest_rate_is_too_high():
    found = noisy_line(0, low=0.1)
    assert found.suggestion == 0.1 and found.warning.startswith("the lowest rate")


def test_range_test_of_a_loss_below_0(line):
    trainer = make(1, 1, loss=lambda made, wanted: np.square(made - wanted).mean() - 100)
    found = lr_range_test(trainer, line, rng=0)
    assert len(found.rates) > 50 and min(found.losses) < 0


def test_the_steepest_fall_may_be_at_the_ends():
    x = np.linspace(-3, 3, 60)
    assert rates._steepest(x, -np.exp(x), 0.9) == 59 and rates._steepest(x, np.exp(-x), 0.9) == 0
    assert abs(x[rates._steepest(x, -np.tanh(x), 0.9)]) < 0.1
    for few in ([2.0, 1.0], [1.0, 2.0], [3.0, 1.0, 2.0], [1.0] * 5):
        assert 0 <= rates._steepest(x[: len(few)], np.array(few), 0.0) < len(few)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"low": 0}, "0 < low < high, finite, got 0 and 10.0"),
        ({"low": 1, "high": 0.5}, "0 < low < high, finite, got 1 and 0.5"),
        ({"steps": 3}, "steps to be an integer of at least 5, got 3"),
        ({"smooth": 1.0}, "smooth from 0 to below 1, got 1.0"),
    ],
)
def test_range_tests_that_make_no_sense(iris, options, text):
    with pytest.raises(ArgumentError) as info:
        lr_range_test(make(), iris[0], **options)
    assert str(info.value) == f"lr_range_test: expected {text}"
    with pytest.raises(ArgumentError, match="expected an optimizer that takes single steps in one process, got LBFGS"):
        lr_range_test(make(optimizer=optim.LBFGS), iris[0])


def test_range_test_where_nothing_works(line):
    class Root(nn.Module):
        def forward(self, x):
            return np.sqrt(x * 0)

    with pytest.raises(NonFiniteError):
        lr_range_test(make(1, 1, loss=nn.MSELoss(), extra=[Root()]), line)


class HalveAfterStep(Hook):
    """Sets the rate of the next step, as ``scheduler.step()`` after ``optimizer.step()`` does."""

    last = True

    def __init__(self, path):
        self.path, self.used = path, []

    def on_gradients(self, state):
        self.used.append(state.optimizer.lr)

    def on_step_end(self, state):
        state.optimizer.lr *= 0.5
        if state.steps == 6:
            state.save(self.path)


def test_the_rate_in_the_history_is_that_of_the_last_step(iris, tmp_path):
    path = tmp_path / "run.npz"
    hook = HalveAfterStep(path)
    trainer = make()
    trainer.hooks = [hook]
    history = trainer.fit(iris[0], 3, batch_size=40, rng=0, progress=False)
    steps = len(hook.used) // 3
    assert steps * 2 == 6 and history.column("lr") == hook.used[steps - 1 :: steps]
    again = make()
    again.hooks = [HalveAfterStep(path)]
    assert again.fit(iris[0], 3, batch_size=40, progress=False, resume=path).column("lr") == history.column("lr")


def test_a_range_test_restores_the_attributes_of_your_own_modules(iris):
    class Counts(nn.Module):
        def __init__(self):
            self.layer, self.calls, self.seen = nn.Dense(4, 3, rng=0), 0, []

        def forward(self, x):
            self.calls += 1
            self.seen.append(len(x))
            return self.layer(x)

    class Tempered(nn.Module):
        def __init__(self):
            self.scale = 1.0

        def forward(self, z, y):
            self.scale *= 1.01
            return nn.CrossEntropyLoss()(z * self.scale, y)

    model, loss = Counts(), Tempered()
    lr_range_test(Trainer(model, loss, optim.SGD(model.parameters(), lr=0.1)), iris[0], steps=10, rng=0)
    assert (model.calls, model.seen, loss.scale) == (0, [], 1.0)
