"""Training: accumulation, clipping, rates, early stopping, averages, L-BFGS, and the History's pictures."""

from __future__ import annotations

import builtins
import math
import signal

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.data import Dataset, load
from microfw.errors import ArgumentError, NonFiniteError
from microfw.optim import schedules
from microfw.training import (
    EarlyStopping,
    History,
    Hook,
    LearningRate,
    Trainer,
    TrainState,
    WeightAveraging,
    lr_range_test,
)
from microfw.training.stopping import direction


def make(inputs=4, outputs=3, lr=0.1, loss=None, extra=(), optimizer=None, dtype=np.float32, **options):
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Dense(inputs, 8, rng=rng), nn.ReLU(), *extra, nn.Dense(8, outputs, rng=rng)).astype(dtype)
    made = optimizer(model.parameters()) if optimizer else optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return Trainer(model, loss or nn.CrossEntropyLoss(), made, **options)


def values(trainer):
    return {name: array.copy() for name, array in trainer.model.state_dict().items()}


def same(a, b, **tolerance):
    for name in a:
        if tolerance:
            np.testing.assert_allclose(a[name], b[name], **tolerance)
        else:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.fixture(scope="module")
def iris():
    return load("iris", rng=0)


@pytest.fixture(scope="module")
def line():
    X = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    return Dataset(X, 2 * X)


class Do(Hook):
    """Calls a function at a moment."""

    def __init__(self, moment, act):
        setattr(self, moment, act)


# Gradients of several batches, clipped


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_accumulated_steps_are_those_of_the_joined_batch(iris, reduction):
    def run(accumulate, batch_size):
        loss = nn.CrossEntropyLoss(reduction=reduction)
        lr = 0.1 if reduction == "mean" else 0.001
        trainer = make(loss=loss, accumulate=accumulate, dtype=np.float64, metrics=["accuracy"], lr=lr)
        rows = trainer.fit(iris[0], 3, batch_size, rng=0, progress=False)
        return values(trainer), [{k: v for k, v in row.items() if k != "seconds"} for row in rows]

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
    before = values(trainer)
    with pytest.raises(NonFiniteError, match="^Trainer.fit, epoch 1, step 1: expected a finite loss, got (nan|inf)"):
        trainer.fit(line, 1, 16, rng=0, progress=False)
    same(values(trainer), before)


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
    same(values(trainer), values(other))
    assert history[1]["gradient_norm"] == pytest.approx(np.sqrt(np.mean(np.square(norms[6:]))))
    assert history.column("clipped") == [1.0, 1.0]
    loose = make(clip_norm=1e3, clip_value=1e3)
    assert loose.fit(iris[0], 1, rng=0, progress=False).column("clipped") == [0.0]


def test_a_step_without_accumulation_and_clipping_is_as_ever(iris):
    a, b = make(), make(clip_norm=1e6)
    a.fit(iris[0], 2, rng=0, progress=False)
    b.fit(iris[0], 2, rng=0, progress=False)
    same(values(a), values(b))


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


def test_an_optimizer_from_elsewhere_is_clipped_and_averaged_not(iris):
    trainer = make(optimizer=Plain, clip_norm=0.5, accumulate=2)
    history = trainer.fit(iris[0], 3, 8, rng=0, progress=False)
    assert list(history[0]) == ["epoch", "loss", "seconds", "clipped"]
    assert history[0]["clipped"] > 0
    other = make(clip_norm=0.5, accumulate=2, optimizer=lambda p: optim.SGD(p, lr=0.1))
    other.fit(iris[0], 3, 8, rng=0, progress=False)
    same(values(trainer), values(other), rtol=1e-4, atol=1e-6)
    trainer.hooks = [WeightAveraging()]
    with pytest.raises(ArgumentError, match="^Average: expected an optimizer, got Plain"):
        trainer.fit(iris[0], 1, progress=False)


# L-BFGS


def test_lbfgs_in_a_trainer(line):
    trainer = make(1, 1, loss=nn.MSELoss(), optimizer=optim.LBFGS, metrics=["r2"])
    history = trainer.fit(line, 5, batch_size=len(line), validation=line, rng=0, progress=False)
    assert history[-1]["val_r2"] > 0.9999
    assert history.column("loss")[1:] == pytest.approx(history.column("val_loss")[:-1], rel=1e-3, abs=1e-9)
    assert history[0]["gradient_norm"] > history[-1]["gradient_norm"]
    assert history[0]["lr"] == 1.0


def test_lbfgs_sees_one_loss_in_a_step(line):
    """Dropout draws the same numbers at each evaluation of a step, and others in the next step."""
    dropout = nn.Dropout(0.5, rng=7)
    losses = []

    class Spy(optim.LBFGS):
        def step(self, closure):
            losses.append((closure(), closure()))
            return super().step(closure)

    trainer = make(1, 1, loss=nn.MSELoss(), optimizer=Spy, extra=[dropout])
    trainer.fit(line, 3, batch_size=len(line), rng=0, progress=False)
    assert all(a == b for a, b in losses)
    assert len({a for a, _ in losses}) == 3


@pytest.mark.parametrize("accumulate", [1, 4])
def test_lbfgs_interrupted_is_as_before_the_step(line, accumulate):
    class Interrupting(nn.Module):
        calls = 0

        def forward(self, x):
            if self.training:
                self.calls += 1
                if self.calls == 30:
                    signal.raise_signal(signal.SIGINT)
            return x

    layer, seen = Interrupting(), []
    trainer = make(1, 1, loss=nn.MSELoss(), optimizer=lambda p: optim.LBFGS(p, iterations=3), extra=[layer])
    trainer.accumulate = accumulate
    trainer.hooks = [Do("on_step_end", lambda state: seen.append(values(trainer)))]
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(line, 50, batch_size=len(line) // accumulate, rng=0, progress=False)
    assert seen
    same(values(trainer), seen[-1])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_lbfgs_with_a_loss_that_is_not_finite(line):
    class Root(nn.Module):
        def forward(self, x):
            return np.sqrt(x * 0)

    trainer = make(1, 1, loss=nn.MSELoss(), optimizer=optim.LBFGS, extra=[Root()])
    before = values(trainer)
    with pytest.raises(
        NonFiniteError, match=r"^Trainer.fit, epoch 1, step 1: expected finite .* the derivative of 2: sqrt"
    ):
        trainer.fit(line, 1, len(line), rng=0, progress=False)
    same(values(trainer), before)


# Rates


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
    before, state, random = values(trainer), trainer.optimizer.state_dict(), trainer.model[2].rng.bit_generator.state
    called.clear()
    found = lr_range_test(trainer, iris[0], rng=0)
    assert called == []
    same(values(trainer), before)
    np.testing.assert_equal(trainer.optimizer.state_dict(), state)
    assert trainer.model[2].rng.bit_generator.state == random
    assert len(found.rates) == len(found.losses) <= 100
    assert found.rates[0] == pytest.approx(1e-5)
    assert found.rates[1] / found.rates[0] == pytest.approx(10 ** (6 / 99))
    assert found.suggestion in found.rates
    assert lr_range_test(trainer, iris[0], rng=0) == found


def test_range_test_finds_the_rate_of_a_quadratic(line):
    model = nn.Dense(1, 1, rng=0)
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1))
    bent = Dataset(line.X, np.sin(3 * line.X))  # which a line cannot fit, so that the loss stays above 0
    found = lr_range_test(trainer, bent, batch_size=64, high=100.0, steps=200, rng=0)
    assert found.rates[-1] < 50, "the loss exploded before"
    assert 0.02 < found.suggestion < 1.5


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
    with pytest.raises(ArgumentError, match="expected an optimizer that takes single steps, got LBFGS"):
        lr_range_test(make(optimizer=optim.LBFGS), iris[0])


def test_range_test_where_nothing_works(line):
    class Root(nn.Module):
        def forward(self, x):
            return np.sqrt(x * 0)

    with pytest.raises(NonFiniteError):
        lr_range_test(make(1, 1, loss=nn.MSELoss(), extra=[Root()]), line)


# Early stopping


class Feed(Hook):
    """Puts a metric into the History, and remembers the parameters of each epoch."""

    def __init__(self, metrics, name="val_loss"):
        self.metrics, self.name, self.seen = metrics, name, []

    def on_epoch_end(self, state):
        state.history[-1][self.name] = self.metrics[state.epoch - 1]
        self.seen.append({name: array.copy() for name, array in state.model.state_dict().items()})


@pytest.mark.parametrize(
    ("metrics", "options", "epochs", "best"),
    [
        ([3, 2, 1, 1, 1, 0.5, 9, 9, 9, 9], {"patience": 2}, 9, 6),
        ([3, 2, 1, 1, 1, 1, 0.5], {"patience": 2}, 6, 3),
        ([3, 2.95, 2.9, 2.85, 2, 2, 2], {"patience": 1, "min_delta": 0.5}, 3, 1),
        ([1, 2, 3, 3, 2], {"patience": 0, "mode": "max"}, 4, 3),
        ([math.nan, math.nan, 3, 2, math.nan, math.nan], {"patience": 1}, 2, 0),
        ([math.nan, 3, 2, math.nan, math.nan, math.nan], {"patience": 1}, 5, 3),
        ([3, 2, 1], {"patience": 5}, 3, 3),
    ],
)
def test_early_stopping(iris, metrics, options, epochs, best):
    feed, stopping = Feed(metrics), EarlyStopping(**options)
    trainer = make(hooks=[feed, stopping])
    history = trainer.fit(iris[0], len(metrics), rng=0, progress=False)
    assert (len(history), stopping.best_epoch) == (epochs, best)
    same(values(trainer), feed.seen[(best or epochs) - 1])
    again = trainer.fit(iris[0], len(metrics), rng=0, progress=False)
    assert len(again) == epochs, "a new run starts anew"


def test_early_stopping_brings_buffers_back_too_and_can_leave_the_last(iris):
    feed = Feed([1, 2, 3, 4])
    trainer = make(hooks=[feed, EarlyStopping(patience=1, restore=False)])
    trainer.fit(iris[0], 4, rng=0, progress=False)
    same(values(trainer), feed.seen[2])


def test_early_stopping_restores_when_training_is_interrupted(iris):
    feed = Feed([1, 2, 3, 4])

    def interrupt(state):
        if state.steps == 10:
            raise KeyboardInterrupt

    trainer = make(hooks=[feed, EarlyStopping(), Do("on_step_end", interrupt)])
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(iris[0], 4, rng=0, progress=False)
    same(values(trainer), feed.seen[0])


def test_early_stopping_goes_on_from_its_state(iris):
    a, b = EarlyStopping(patience=2), EarlyStopping(patience=2)
    make(hooks=[Feed([1, 2, 3]), a]).fit(iris[0], 2, rng=0, progress=False)
    b.load_state_dict(a.state_dict())
    assert (b.best, b.best_epoch) == (1, 1)
    same(b.weights, a.weights)
    state = TrainState(make().model, None, None, epoch=2, history=History([{"epoch": 3, "val_loss": 4}]))
    b.on_fit_start(state)  # a run that goes on
    state.epoch = 4
    b.on_epoch_end(state)
    assert state.stop
    b.on_fit_end(state)
    same(state.model.state_dict(), a.weights)
    state.epoch = 0
    b.on_fit_start(state)
    assert b.weights is None


def test_early_stopping_refuses():
    for options, text in (
        ({"patience": -1}, "patience to be an integer of at least 0, got -1"),
        ({"min_delta": math.nan}, "min_delta at least 0, finite, got nan"),
        ({"mode": "up"}, "mode 'min' or 'max', got 'up'"),
        ({"metric": "val_mine"}, "a mode for a metric of this name, got 'val_mine'; pass mode='min' or 'max'"),
    ):
        with pytest.raises(ArgumentError) as info:
            EarlyStopping(**options)
        assert str(info.value) == f"EarlyStopping: expected {text}"
    trainer = make(hooks=[EarlyStopping("val_loss")])
    with pytest.raises(ArgumentError, match="^History.column: expected one of epoch, loss, .*got 'val_loss'"):
        trainer.fit(load("iris", rng=0)[0], 2, progress=False)


def test_directions_of_scikit_learns_names():
    from sklearn.metrics import get_scorer_names

    for name in get_scorer_names():
        assert direction(f"val_{name}", "test") == "max", name
    for name in (
        "mean_absolute_error",
        "log_loss",
        "max_error",
        "d2_absolute_error_score",
        "hinge_loss",
        "mean_poisson_deviance",
    ):
        assert direction(name, "test") == ("max" if name.endswith("score") else "min")


# Averages


def test_averages_are_validated_and_left_in_the_model(iris):
    trainer, plain = make(hooks=[hook := WeightAveraging(0.9)]), make()
    history = trainer.fit(iris[0], 3, validation=iris[1], rng=0, progress=False)
    plain.fit(iris[0], 3, rng=0, progress=False)
    assert not np.array_equal(plain.optimizer.flat.values, trainer.optimizer.flat.values)
    np.testing.assert_array_equal(trainer.optimizer.flat.values, hook.average.values)
    assert history[-1]["val_loss"] == trainer.evaluate(iris[1])["loss"]
    kept = make(hooks=[WeightAveraging(0.9, keep=False)])
    kept.fit(iris[0], 3, validation=iris[1], rng=0, progress=False)
    same(values(kept), values(plain))


def test_averages_with_early_stopping(iris):
    stopping = EarlyStopping("val_loss", patience=2)
    trainer = make(lr=0.5, hooks=[stopping, WeightAveraging(0.8, keep=False)])
    history = trainer.fit(iris[0], 60, validation=iris[1], rng=0, progress=False)
    assert len(history) < 60
    assert trainer.evaluate(iris[1])["loss"] == min(history.column("val_loss"))


def test_averages_go_back_when_validation_fails(iris):
    def boom(state):
        raise RuntimeError

    trainer, plain = make(hooks=[WeightAveraging(0.9, keep=False), Do("on_validation_start", boom)]), make()
    with pytest.raises(RuntimeError):
        trainer.fit(iris[0], 3, validation=iris[1], rng=0, progress=False)
    plain.fit(iris[0], 1, rng=0, progress=False)
    same(values(trainer), values(plain))
    with pytest.raises(ArgumentError, match="^WeightAveraging: expected decay from 0 to below 1, got 1"):
        WeightAveraging(1)


# History


def test_history_as_a_frame_and_as_a_picture(iris, monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    history = make().fit(iris[0], 3, validation=iris[1], rng=0, progress=False)
    frame = history.to_frame()
    assert list(frame) == ["loss", "val_loss", "seconds", "lr", "gradient_norm"]
    assert frame.index.tolist() == [1, 2, 3]
    assert frame["loss"].tolist() == history.column("loss")
    axes = history.plot()
    assert [line.get_label() for line in axes.lines] == ["loss", "val_loss"]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), history.column("val_loss"))
    assert history.plot("lr", axes=axes) is axes
    assert axes.get_ylabel() == "lr"
    assert len(lr_range_test(make(), iris[0], rng=0).plot().lines) == 2
    plt.close("all")
    with pytest.raises(ArgumentError, match="^History.column: expected one of"):
        history.plot("lost")
    real = builtins.__import__

    def refuse(name, *rest):
        if name.startswith(("pandas", "matplotlib")):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(
        ArgumentError, match="^History.to_frame: expected pandas, got none installed; pip install pandas"
    ):
        history.to_frame()
    with pytest.raises(ArgumentError, match=r'^History.plot: expected Matplotlib, got none installed; pip install "'):
        history.plot()


def test_an_empty_history_has_a_frame():
    assert len(History().to_frame()) == 0
