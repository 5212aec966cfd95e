"""Early stopping and averages of weights."""

from __future__ import annotations

import math

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.data import load
from microfw.errors import ArgumentError
from microfw.estimators import NeuralClassifier
from microfw.training import (
    Checkpoint,
    EarlyStopping,
    History,
    Hook,
    TrainState,
    WeightAveraging,
    lr_range_test,
)
from microfw.training.history import direction
from tests.helpers.training import Do, arrays, make, same

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
    same(arrays(trainer), feed.seen[(best or epochs) - 1])
    again = trainer.fit(iris[0], len(metrics), rng=0, progress=False)
    assert len(again) == epochs, "a new run starts from the beginning"


def test_early_stopping_brings_buffers_back_too_and_can_leave_the_last(iris):
    feed = Feed([1, 2, 3, 4])
    trainer = make(hooks=[feed, EarlyStopping(patience=1, restore=False)])
    trainer.fit(iris[0], 4, rng=0, progress=False)
    same(arrays(trainer), feed.seen[2])


def test_early_stopping_restores_when_training_is_interrupted(iris):
    feed = Feed([1, 2, 3, 4])

    def interrupt(state):
        if state.steps == 10:
            raise KeyboardInterrupt

    trainer = make(hooks=[feed, EarlyStopping(), Do("on_step_end", interrupt)])
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(iris[0], 4, rng=0, progress=False)
    same(arrays(trainer), feed.seen[0])


def test_early_stopping_goes_on_from_its_state(iris):
    a, b = EarlyStopping(patience=2), EarlyStopping(patience=2)
    make(hooks=[Feed([1, 2, 3]), a]).fit(iris[0], 2, rng=0, progress=False)
    b.load_state_dict(a.state_dict())
    assert (b.best, b.best_epoch) == (1, 1)
    same(b.weights, a.weights)
    state = TrainState(make().model, None, None, epoch=2, history=History([{"epoch": 3, "val_loss": 4}]))
    b.on_fit_start(state)  # a run that continues
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
        (
            {"metric": "val_acc"},
            "a mode for a metric of this name, got 'val_acc'; did you mean val_accuracy? Else pass mode='min' or 'max'",
        ),
    ):
        with pytest.raises(ArgumentError) as info:
            EarlyStopping(**options)
        assert str(info.value) == f"EarlyStopping: expected {text}"
    trainer = make(hooks=[EarlyStopping("val_loss")])
    with pytest.raises(
        ArgumentError, match="^EarlyStopping: expected one of epoch, loss, .*got 'val_loss'; pass validation"
    ):
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


def test_the_name_of_a_head_or_a_part_has_no_direction():
    assert [direction(name, "test") for name in ("val_loss/score", "loss/accuracy", "val_accuracy/error")] == [
        "min",
        "min",
        "max",
    ]


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
    same(arrays(kept), arrays(plain))


def test_averages_with_early_stopping(iris):
    stopping = EarlyStopping("val_loss", patience=2)
    trainer = make(lr=0.5, hooks=[stopping, WeightAveraging(0.8, keep=False)])
    history = trainer.fit(iris[0], 60, validation=iris[1], rng=0, progress=False)
    assert len(history) < 60
    assert trainer.evaluate(iris[1])["loss"] == min(history.column("val_loss"))


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("best", ["early stopping", "checkpoint"])
def test_the_best_model_is_the_average_that_was_validated(best, order, keep, iris, tmp_path):
    path = tmp_path / "best.npz"
    keeper = EarlyStopping("val_loss", patience=3) if best == "early stopping" else Checkpoint(path, best="val_loss")
    trainer = make(lr=2.0, hooks=[keeper, WeightAveraging(0.95, keep=keep)][::order])
    history = trainer.fit(iris[0], 12, validation=iris[1], rng=0, progress=False)
    assert history.column("val_loss").index(min(history.column("val_loss"))) < len(history) - 1
    if best == "checkpoint":
        trainer.model.load_state_dict(mf.load(path).state_dict())
    assert trainer.evaluate(iris[1])["loss"] == min(history.column("val_loss"))


@pytest.mark.parametrize("keep", [True, False])
def test_the_last_epoch_may_be_the_best_average(keep, iris):
    trainer = make(lr=0.01, hooks=[stopping := EarlyStopping("val_loss"), WeightAveraging(0.5, keep=keep)])
    history = trainer.fit(iris[0], 3, validation=iris[1], rng=0, progress=False)
    assert stopping.best_epoch == len(history)
    assert trainer.evaluate(iris[1])["loss"] == stopping.best


@pytest.mark.parametrize("options", [{}, {"best": "val_loss"}])
def test_a_run_with_averages_is_resumed_with_the_parameters(options, iris, tmp_path):
    def fit(epochs, *hooks, resume=None):
        trainer = make(lr=2.0, hooks=[WeightAveraging(0.95, keep=False), *hooks])
        history = trainer.fit(iris[0], epochs, validation=iris[1], rng=0, progress=False, resume=resume)
        return trainer, history.column("val_loss")

    path = tmp_path / "run.npz"
    whole, losses = fit(8)
    fit(5, Checkpoint(path, **options))
    again, resumed = fit(8, resume=path)
    same(arrays(again), arrays(whole))
    assert resumed == losses


def test_an_estimator_keeps_the_best_average():
    X, y = np.random.default_rng(0).normal(size=(200, 4)), np.arange(200) % 2
    y = np.where(X[:, 0] > 0, 1, y)
    options = {"early_stopping": True, "n_iter_no_change": 4, "scoring": "loss", "random_state": 0, "optimizer": "sgd"}
    hooks = [Do("on_epoch_end", lambda state: seen.append(state.model.state_dict())), WeightAveraging(0.95)]
    seen = []
    made = NeuralClassifier((8,), learning_rate=2.0, hooks=hooks, **options).fit(X, y)
    best = int(np.argmax(made.validation_scores_))
    assert best < len(seen) - 1
    for name, array in made.module_.state_dict().items():
        np.testing.assert_array_equal(array, seen[best][name])


def test_averages_go_back_when_validation_fails(iris):
    def boom(state):
        raise RuntimeError

    trainer, plain = make(hooks=[WeightAveraging(0.9, keep=False), Do("on_validation_start", boom)]), make()
    with pytest.raises(RuntimeError):
        trainer.fit(iris[0], 3, validation=iris[1], rng=0, progress=False)
    plain.fit(iris[0], 1, rng=0, progress=False)
    same(arrays(trainer), arrays(plain))
    with pytest.raises(ArgumentError, match="^WeightAveraging: expected decay from 0 to below 1, got 1"):
        WeightAveraging(1)


@pytest.mark.parametrize("event", ["on_validation_start", "on_epoch_end"])
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_hook_that_changes_an_average_in_the_model_is_refused(iris, event, epochs):
    def halve(state):
        for p in state.model.parameters():
            p.data = p.data / 2

    trainer = make(hooks=[WeightAveraging(0.9), Do(event, halve)])
    text = "^WeightAveraging: expected the average to stay in the model from the validation to the next epoch, got"
    with pytest.raises(ArgumentError, match=text):
        trainer.fit(iris[0], epochs, validation=iris[1], rng=0, progress=False)
    trainer.fit(iris[0], epochs, rng=0, progress=False) if event == "on_epoch_end" else None
    trainer.hooks = [WeightAveraging(0.9), Do("on_epoch_start", halve), Do("on_step_end", halve)]
    trainer.fit(iris[0], epochs, validation=iris[1], rng=0, progress=False)


class Scaled(nn.Module):
    """A loss with a parameter."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(np.ones(1, np.float32))

    def forward(self, z, y):
        return nn.CrossEntropyLoss()(z * self.scale, y)


def with_scaled_loss(*hooks):
    model, loss = nn.Sequential(nn.Dense(4, 8, rng=0), nn.Tanh(), nn.Dense(8, 3, rng=1)), Scaled()
    optimizer = optim.SGD([*model.parameters(), *loss.parameters()], lr=3.0)
    return mf.Trainer(model, loss, optimizer, hooks=hooks)


def test_parameters_of_a_loss_are_restored_too(tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(64, 4)), rng.integers(0, 3, 64)
    trainer = with_scaled_loss()
    before = trainer.evaluate((X, y))
    lr_range_test(trainer, (X, y), rng=0, steps=20)
    assert trainer.evaluate((X, y)) == before and trainer.loss.scale.item() == 1

    def fit(*hooks, resume=None):
        trainer = with_scaled_loss(EarlyStopping("val_loss", patience=2), *hooks)
        trainer.fit((X, y), 40, validation=(X[:30], y[:30]), rng=0, progress=False, resume=resume)
        stopping = trainer.hooks[0]
        assert stopping.best_epoch < 6 < len(trainer.history)
        assert trainer.evaluate((X[:30], y[:30]))["loss"] == stopping.best
        return stopping.best

    class SaveWithin(Hook):
        last = True

        def on_epoch_end(self, state):
            if state.epoch == 6:
                state.save(path)

    path = tmp_path / "run.npz"
    assert fit(SaveWithin()) == fit(resume=path)
