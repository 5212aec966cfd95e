"""Training: what fit does and keeps, what it tells, and how it ends when something goes wrong."""

from __future__ import annotations

import inspect
import io
import json
import pickle
import re
import signal
import sys
import threading

import numpy as np
import pandas as pd
import pytest

from microfw import nn, optim
from microfw.autograd.mode import MODE, Mode, mode
from microfw.data import Dataset, load
from microfw.errors import ArgumentError, DataError, DTypeError, NonFiniteError, ShapeError
from microfw.training import History, Hook, Trainer, metrics
from microfw.training.hooks import EVENTS
from microfw.training.run import Run, take_steps
from microfw.training.stepper import Stepper


def raises(kind, text):
    return pytest.raises(kind, match=f"^{re.escape(text)}$")


def make(inputs=4, outputs=3, lr=0.1, loss=None, extra=(), momentum=0.9, **options):
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Dense(inputs, 8, rng=rng), nn.ReLU(), *extra, nn.Dense(8, outputs, rng=rng))
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    return Trainer(model, loss or nn.CrossEntropyLoss(), optimizer, **options)


def values(trainer):
    return {name: array.tobytes() for name, array in trainer.model.state_dict().items()}


@pytest.fixture(scope="module")
def iris():
    return load("iris", rng=0)


@pytest.fixture
def line():
    X = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    return Dataset(X, 2 * X)


# What fit does


def test_fit_equals_the_loop_written_out(iris):
    from microfw.data import batches

    trainer, other = make(), make()
    history = trainer.fit(iris[0], epochs=3, batch_size=10, rng=7, progress=False)
    rng, losses = np.random.default_rng(7), []
    for _ in range(3):
        total = 0.0
        for X, y in batches(iris[0], 10, rng=rng):
            other.optimizer.zero_grad()
            loss = other.loss(other.model(X), y)
            loss.backward()
            other.optimizer.step()
            total += loss.item() * len(y)
        losses.append(total / len(iris[0]))
    assert values(trainer) == values(other)
    assert history.column("loss") == losses


def test_the_same_seed_gives_the_same_bits(iris):
    def run(rng):
        trainer = make(extra=[nn.Dropout(0.3, rng=1)])
        rows = trainer.fit(iris[0], 3, rng=rng, progress=False)
        return values(trainer), rows.column("loss")

    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert run(3) == run(3) == run(np.random.default_rng(3))
    assert run(3) != run(4)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_history_has_a_row_for_each_epoch_of_plain_numbers(iris):
    trainer = make(metrics=["accuracy", "f1_macro"])
    history = trainer.fit(iris[0], 4, validation=iris[1], rng=0, progress=False)
    assert isinstance(history, History)
    assert list(history[0]) == [
        "epoch", "loss", "accuracy", "f1_macro", "val_loss", "val_accuracy", "val_f1_macro", "seconds",
        "lr", "gradient_norm",
    ]  # fmt: skip
    assert history.column("epoch") == [1, 2, 3, 4]
    assert json.loads(json.dumps(history)) == history
    assert {type(v) for row in history for v in row.values()} == {int, float}
    assert history[-1]["loss"] < history[0]["loss"]
    assert all(seconds > 0 for seconds in history.column("seconds"))
    last = trainer.evaluate(iris[1])
    assert {f"val_{k}": v for k, v in last.items()}.items() <= history[-1].items()
    assert len(pd.DataFrame(history)) == 4
    lines = repr(history).splitlines()
    assert len(lines) == 5
    assert lines[0].split() == list(history[0])
    assert repr(History()) == "History(no epochs)"
    with raises(ArgumentError, "History.column: expected one of epoch, loss, got 'los'"):
        History([{"epoch": 1, "loss": 0.5}]).column("los")


def test_the_metrics_of_an_epoch_are_those_of_its_own_outputs(iris):
    seen = []

    class Spy(nn.CrossEntropyLoss):
        def forward(self, logits, labels):
            if MODE.get().recording:
                seen.append((logits.data.argmax(1), labels))
            return super().forward(logits, labels)

    history = make(loss=Spy(), metrics=["accuracy"]).fit(iris[0], 1, rng=0, progress=False)
    right = np.concatenate([a == b for a, b in seen])
    assert len(right) == len(iris[0])
    assert history[0]["accuracy"] == right.mean()


def test_losses_are_means_over_rows_whatever_the_batches_and_the_reduction(iris):
    trainer = make(metrics=["accuracy"])
    whole = trainer.evaluate(iris[0])
    assert trainer.evaluate(iris[0], batch_size=7) == pytest.approx(whole, rel=1e-5)
    trainer.loss = nn.CrossEntropyLoss(reduction="sum")
    assert trainer.evaluate(iris[0]) == pytest.approx(whole, rel=1e-5)
    small = make(loss=nn.CrossEntropyLoss(reduction="sum"), lr=1e-30).fit(iris[0], 1, rng=0, progress=False)
    assert small[0]["loss"] == pytest.approx(whole["loss"], rel=1e-5)


def test_digits_are_learnt():
    train, test = load("digits")
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Dense(64, 64, rng=rng), nn.ReLU(), nn.Dense(64, 10, rng=rng))
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1, momentum=0.9), "accuracy")
    trainer.fit(train, 20, rng=rng, progress=False)
    assert trainer.evaluate(test)["accuracy"] >= 0.97


def test_frames_and_pairs_are_data_too(line):
    frame = pd.DataFrame({"x": line.X[:, 0].astype("f8")})
    trainer = make(1, 1, 0.05, nn.MSELoss(), metrics=["r2"])
    history = trainer.fit((frame, pd.Series(line.y[:, 0])), 30, validation=(line.X, line.y), rng=0, progress=False)
    assert history[-1]["val_r2"] > 0.99
    np.testing.assert_array_equal(trainer.predict(frame), trainer.predict(line))
    np.testing.assert_array_equal(trainer.predict(line.X.tolist()), trainer.predict(line.X))


def test_prediction_is_in_evaluation_mode_and_records_nothing(iris):
    trainer = make(extra=[nn.Dropout(0.5, rng=0)])
    first = trainer.predict(iris[1])
    assert type(first) is np.ndarray
    assert first.shape == (38, 3)
    np.testing.assert_allclose(trainer.predict(iris[1].X, batch_size=5), first, rtol=1e-5)
    assert trainer.model.training
    assert trainer.predict_classes(iris[1]).tolist() == first.argmax(1).tolist()
    assert trainer.predict(iris[1].X[:0]).shape == (0, 3)


def test_modes_of_modules_come_back_each(iris):
    frozen = nn.Dropout(0.5, rng=0)
    trainer = make(extra=[frozen])
    seen = []

    class Spy(Hook):
        def on_step_end(self, state):
            seen.append(frozen.training)

    trainer.hooks = [Spy()]
    frozen.training = False
    trainer.fit(iris[0], 1, validation=iris[1], rng=0, progress=False)
    assert set(seen) == {True}
    assert (trainer.model.training, frozen.training) == (True, False)
    trainer.model.eval()
    trainer.fit(iris[0], 1, rng=0, progress=False)
    trainer.evaluate(iris[1])
    assert not trainer.model.training


def test_no_epochs_is_a_run_of_none(iris):
    trainer = make()
    before = values(trainer)
    assert trainer.fit(iris[0], 0, progress=True) == []
    assert values(trainer) == before


def test_fit_epoch_and_step_stay_readable():
    for function in (Trainer.fit, Run.epoch, take_steps, Stepper.step, Stepper.accumulate):
        lines = inspect.getsource(function).split('"""')[-1].strip().splitlines()
        assert len(lines) < 30, function.__name__


def test_binary_losses_with_metrics():
    X = np.linspace(-1, 1, 40, dtype=np.float32)[:, None]
    for loss, low in ((nn.BCEWithLogitsLoss(), 0.0), (nn.HingeLoss(), -1.0)):
        data = Dataset(X, np.where(X > 0, 1.0, low))
        trainer = make(1, 1, 0.1, loss, metrics=["accuracy", "roc_auc"])
        trainer.fit(data, 60, rng=0, progress=False)
        assert trainer.evaluate(data)["accuracy"] > 0.9
        assert trainer.evaluate(data)["roc_auc"] > 0.9
        assert set(np.unique(trainer.predict_classes(data)).tolist()) == {low, 1.0}


# Metrics


def test_built_in_metrics_agree_with_scikit_learn():
    from sklearn.metrics import accuracy_score, r2_score

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 3, (2, 50))
    assert metrics.accuracy(a, b) == accuracy_score(a, b)
    y, p = rng.normal(size=(2, 30, 3))
    assert metrics.r2(y, p) == pytest.approx(r2_score(y, p), rel=1e-12)
    assert metrics.r2([1.0, 1.0], [1.0, 1.0]) == r2_score([1.0, 1.0], [1.0, 1.0])
    assert metrics.r2([1.0, 1.0], [1.0, 2.0]) == r2_score([1.0, 1.0], [1.0, 2.0])


def test_scikit_learns_metrics_by_name(iris):
    from sklearn import metrics as theirs

    trainer = make(metrics=["f1_macro", "neg_log_loss", "roc_auc_ovr", "balanced_accuracy_score", theirs.hamming_loss])
    got = trainer.evaluate(iris[1])
    logits = trainer.predict(iris[1]).astype("f8")
    p, y = np.exp(logits) / np.exp(logits).sum(1, keepdims=True), iris[1].y
    assert got["neg_log_loss"] == pytest.approx(-got["loss"], rel=1e-5)
    assert got["f1_macro"] == theirs.f1_score(y, p.argmax(1), average="macro")
    assert got["roc_auc_ovr"] == pytest.approx(theirs.roc_auc_score(y, p, multi_class="ovr"))
    assert got["balanced_accuracy_score"] == theirs.balanced_accuracy_score(y, p.argmax(1))
    assert got["hamming_loss"] == pytest.approx((p.argmax(1) != y).mean())


def test_regression_metrics_by_name(line):
    trainer = make(1, 1, loss=nn.MSELoss(), metrics=["neg_mean_squared_error", "mean_absolute_error", "r2"])
    got = trainer.evaluate(line)
    assert got["neg_mean_squared_error"] == pytest.approx(-got["loss"], rel=1e-5)
    assert got["mean_absolute_error"] == pytest.approx(np.abs(trainer.predict(line) - line.y).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("acuracy", "did you mean 'accuracy'?"),
        ("mean_absolut_error", "did you mean 'mean_absolute_error'?"),
        ("zzzzzz", "or pass a function f(y_true, y_pred)"),
    ],
)
def test_unknown_metric(name, fix):
    with raises(ArgumentError, f"metrics: expected accuracy, r2, or a name of sklearn.metrics, got {name!r}; {fix}"):
        make(metrics=[name])


def test_bad_metrics(iris, line):
    with raises(ArgumentError, "metrics: expected names and functions f(y_true, y_pred), got 3"):
        make(metrics=[3])
    with raises(ArgumentError, "metrics: expected different names, got 'r2' twice; rename one of them"):
        make(metrics=["r2", "r2"])
    with raises(ArgumentError, "accuracy: expected labels, got real numbers; use r2 for regression"):
        make(1, 1, loss=nn.MSELoss(), metrics=["accuracy"]).evaluate(line)
    with pytest.raises(ArgumentError, match=r"^metric 'f1': expected targets .* average='binary'[^\n]*$"):
        make(metrics=["f1"]).evaluate(iris[1])
    with raises(ShapeError, "r2: expected targets and predictions of one shape, got (3,) and (3, 1)"):
        metrics.r2(np.zeros(3), np.zeros((3, 1)))


# Hooks


class Told(Hook):
    def __init__(self, name, log):
        self.name, self.log = name, log

    def on_fit_start(self, state):
        self.log.append(f"{self.name} start")

    def on_epoch_start(self, state):
        self.log.append(f"{self.name} epoch {state.epoch}")

    def on_gradients(self, state):
        assert state.optimizer.flat.leaves[0].grad is not None
        self.log.append(f"{self.name} gradients {state.step}/{state.steps}")

    def on_step_end(self, state):
        self.log.append(f"{self.name} step {state.step}/{state.steps}")

    def on_validation_start(self, state):
        self.log.append(f"{self.name} validation")

    def on_epoch_end(self, state):
        self.log.append(f"{self.name} row {state.history[-1]['epoch']}")

    def on_fit_end(self, state):
        self.log.append(f"{self.name} end")


def test_hooks_are_told_in_the_order_of_the_list(iris):
    log = []
    hooks = [Told("a", log), Told("b", log)]
    make(hooks=hooks).fit(iris[0], 2, batch_size=64, validation=iris[1], rng=0, progress=False)
    first = ["epoch 1", "gradients 1/0", "step 1/1", "gradients 2/1", "step 2/2", "validation", "row 1"]
    second = ["epoch 2", "gradients 1/2", "step 1/3", "gradients 2/3", "step 2/4", "validation", "row 2"]
    moments = ["start", *first, *second, "end"]
    assert log == [f"{name} {event}" for event in moments for name in "ab"]


def test_a_moment_that_is_not_overridden_is_not_called(iris, monkeypatch):
    def never(self, state):
        raise AssertionError

    for event in EVENTS:
        monkeypatch.setattr(Hook, event, never)
    make(hooks=[Hook()]).fit(iris[0], 1, rng=0, progress=False)


def test_the_state_is_what_it_says(iris):
    states = []

    class Spy(Hook):
        def on_step_end(self, state):
            states.append((state.loss, state.model, state.optimizer, state.loss_function, state.epochs))

    trainer = make(hooks=[Spy()])
    trainer.fit(iris[0], 1, batch_size=200, rng=0, progress=False)
    trainer.hooks = []
    assert states == [(states[0][0], trainer.model, trainer.optimizer, trainer.loss, 1)]
    assert type(states[0][0]) is float


@pytest.mark.parametrize(("event", "epochs", "steps"), [("on_epoch_end", 1, 4), ("on_step_end", 1, 1)])
def test_a_hook_can_stop(iris, event, epochs, steps):
    class Stop(Hook):
        pass

    states = []

    def stop(self, state):
        state.stop = True
        states.append(state)

    setattr(Stop, event, stop)
    history = make(hooks=[Stop()]).fit(iris[0], 9, rng=0, progress=False)
    assert len(history) == epochs
    assert states[0].steps == steps


@pytest.mark.parametrize("event", EVENTS)
def test_the_end_is_told_to_all_even_if_a_hook_raises(iris, event):
    log = []
    bad = Told("bad", log)

    def boom(state):
        raise RuntimeError("boom")

    setattr(bad, event, boom)
    with pytest.raises(RuntimeError, match="boom"):
        make(hooks=[Told("a", log), bad, Told("c", log)]).fit(iris[0], 1, rng=0, validation=iris[1], progress=False)
    expected = ["a end", "bad end", "c end"]
    if event == "on_fit_start":
        expected = ["a end", "bad end"]  # c was never told of the start
    if event == "on_fit_end":
        expected = ["a end", "c end"]
    assert log[-len(expected) :] == expected
    assert log.count("a end") == 1


def test_all_moments_are_of_one_context_and_no_timer_outlives_fit(iris, watcher):

    class Attach(Hook):
        def on_fit_start(self, state):
            self.token = MODE.set(Mode(timer=watcher))

        def on_step_end(self, state):
            raise RuntimeError

        def on_fit_end(self, state):
            MODE.reset(self.token)

    class Careless(Attach):
        def on_fit_end(self, state):
            pass

    for hook in (Attach(), Careless()):
        watcher.phases.clear()
        with pytest.raises(RuntimeError):
            make(hooks=[hook]).fit(iris[0], 1, rng=0, progress=False)
        assert MODE.get().timer is None
        assert watcher.phases == ["forward", "forward", "backward", "update"]


def test_looking_for_the_op_is_hidden_from_timers(line, watcher):
    trainer = make(1, 1, 1e-3, nn.MSELoss(), extra=[Root()])
    with mode(timer=watcher), pytest.raises(NonFiniteError):
        trainer.fit(line, 1, rng=0, progress=False)
    assert watcher.phases == ["forward", "forward", "backward", "update"]


def test_bad_hooks():
    with raises(ArgumentError, "Trainer: expected hooks with some of a Hook's methods, got int; pass an instance"):
        make(hooks=[3])
    with raises(
        ArgumentError, "Trainer: expected hooks with some of a Hook's methods, got the class Hook; pass an instance"
    ):
        make(hooks=[Hook])

    class Misspelt(Hook):
        def on_epoch_ends(self, state):
            pass

    class Also(Hook):  # follows other libraries' moments, too
        def on_validation_epoch_start(self, *args):
            pass

        def on_init_end(self, *args):
            pass

        on_train_epoch_end = on_substep_end = on_init_end

    make(hooks=[Also()])
    known = ", ".join(EVENTS)
    text = f"Trainer: expected hooks with methods among {known}, got Misspelt.on_epoch_ends; name it on_epoch_end"
    with raises(ArgumentError, text):
        make(hooks=[Misspelt()])


def test_a_trainer_with_metrics_pickles():
    trainer = make(metrics=["accuracy", "f1_macro", "mean_absolute_error"])
    again = pickle.loads(pickle.dumps(trainer))
    targets, outputs = np.array([0, 1, 1]), np.eye(2)[[0, 1, 0]]
    for name, measure in trainer.metrics.items():
        assert again.metrics[name](targets, outputs, outputs.argmax(1)) == measure(targets, outputs, outputs.argmax(1))


# What does not fit together is told before anything is trained


def cases():
    iris, line = load("iris")[0], Dataset(np.ones((4, 4)), np.ones(4))
    real = "for MSELoss, got integer labels; use nn.CrossEntropyLoss, or mf.data.Dataset(X, y, task='regression')"
    fit = "Trainer.fit: expected"
    yield make(3), (iris,), ShapeError, "0 Dense: expected x of shape (N, 3), got (2, 4); pass that many features"
    yield (
        make(outputs=2),
        ((iris.X, np.sort(iris.y)),),
        DataError,
        f"{fit} labels from 0 to 1, as the model's outputs, got 2 at row 74; give the model's last layer 3 outputs",
    )
    yield make(loss=nn.MSELoss()), (iris,), DataError, f"{fit} real targets of shape (N, k) {real}"
    yield (
        make(),
        (line,),
        DataError,
        f"{fit} integer labels for CrossEntropyLoss, got targets of shape (4, 1); "
        "pass integer labels, or use nn.MSELoss for regression",
    )
    yield (
        make(loss=nn.MSELoss()),
        (line,),
        ShapeError,
        f"{fit} outputs of shape (N, 1), as the targets, got (N, 3); give the model's last layer 1 output",
    )
    yield (
        make(outputs=1, loss=nn.MSELoss(), extra=[]),
        (line, -1),
        ArgumentError,
        f"{fit} epochs to be an integer of at least 0, got -1",
    )
    yield make(), (iris, 1.5), ArgumentError, f"{fit} epochs to be an integer of at least 0, got 1.5"
    yield (make(), (iris, 1, 0), ArgumentError, f"{fit} batch_size to be a positive integer, got 0; 32 is a good start")
    yield (
        make(),
        (iris, 1, 32, line),
        DataError,
        "Trainer.fit, validation: expected integer labels for CrossEntropyLoss, got targets of shape (4, 1); "
        "pass integer labels, or use nn.MSELoss for regression",
    )
    yield (
        make(),
        (iris.X,),
        ArgumentError,
        f"{fit} a Dataset or a pair (X, y), got ndarray; wrap it in mf.data.Dataset",
    )
    yield (
        make(),
        ((iris.X[:0], iris.y[:0]),),
        DataError,
        "Dataset: expected at least one row, got X of shape (0, 4); look at the filter that made it",
    )
    yield (make(outputs=1, loss=nn.MSELoss(reduction="none")), (line,), ArgumentError,
           f"{fit} a loss of one number, got shape (2, 1); use reduction='mean'")  # fmt: skip


@pytest.mark.parametrize("k", range(12))
def test_what_does_not_fit_together(k):
    trainer, arguments, kind, text = list(cases())[k]
    log = []
    trainer.hooks = [Told("a", log)]
    before = values(trainer)
    with raises(kind, text):
        trainer.fit(*arguments, progress=False)
    assert log == []
    assert values(trainer) == before


def test_a_target_column_against_a_flat_output(line):
    class Flat(nn.Module):
        def __init__(self):
            self.layer = nn.Dense(1, 1, rng=0)

        def forward(self, x):
            return self.layer(x).reshape(-1)

    model = Flat()
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1))
    text = "Trainer.fit: expected outputs of shape (N, 1), as the targets, got (N,); keep the last axis"
    with raises(ShapeError, text):
        trainer.fit(line, progress=False)


def test_what_a_model_returns(line):
    class Array(nn.Dense):
        def forward(self, x):
            return super().forward(x).data

    class Sum(nn.Dense):
        def forward(self, x):
            return super().forward(x).sum(axis=0)

    for kind, error, text in (
        (Array, DTypeError, "Trainer.fit: expected the model to return a Tensor, got ndarray"),
        (Sum, ShapeError, "Trainer.fit: expected an output for each row, got shape (1,) for 2 rows"),
    ):
        model = kind(1, 1, rng=0)
        with raises(error, text):
            Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1)).fit(line, progress=False)


def test_bad_parts():
    model = nn.Dense(1, 1, rng=0)
    optimizer, loss = optim.SGD(model.parameters(), lr=0.1), nn.MSELoss()
    with raises(ArgumentError, "Trainer: expected model to be a Module, got int"):
        Trainer(3, loss, optimizer)
    with raises(
        ArgumentError, "Trainer: expected loss to be a loss such as nn.MSELoss(), got the class MSELoss; call it"
    ):
        Trainer(model, nn.MSELoss, optimizer)
    with raises(ArgumentError, "Trainer: expected optimizer to be an optimizer, got float"):
        Trainer(model, loss, 0.1)
    text = "Trainer: expected an optimizer of the model's parameters, got others; make it with model.parameters()"
    with raises(ArgumentError, text):
        Trainer(nn.Dense(1, 1, rng=0), loss, optimizer)


# NaN, infinity, Ctrl-C

FIX = "; parameters are as they were before this step; lower the learning rate, or scale the data"


class At(Hook):
    """Remembers the parameters after each step, and does something after one of them."""

    def __init__(self, step=0, act=None):
        self.step, self.act, self.seen, self.ended = step, act, [], 0

    def on_step_end(self, state):
        self.seen.append({name: array.tobytes() for name, array in state.model.state_dict().items()})
        if state.steps == self.step:
            self.act(state)

    def on_fit_end(self, state):
        self.ended += 1


class Exp(nn.Module):
    def forward(self, x):
        return np.exp(self.scale * x) if hasattr(self, "scale") else np.exp(x)


class Root(nn.Module):
    def forward(self, x):
        return np.sqrt(x * 0)


def test_a_loss_that_is_not_finite_names_epoch_step_and_op(line):
    exp = Exp()
    trainer = make(1, 1, 1e-3, nn.MSELoss(), extra=[exp])
    trainer.hooks = [hook := At(5, lambda state: setattr(exp, "scale", 1e4))]
    text = f"Trainer.fit, epoch 2, step 2: expected a finite loss, got nan, first made by 2: exp{FIX}"
    with raises(NonFiniteError, text):
        trainer.fit(line, 5, 16, rng=0, progress=False)
    assert values(trainer) == hook.seen[-1]
    assert len(hook.seen) == 5
    assert hook.ended == 1
    assert all(p.grad is None for p in trainer.model.parameters())


def test_a_derivative_that_is_not_finite_is_named(line):
    trainer = make(1, 1, 1e-3, nn.MSELoss(), extra=[Root()])
    before = values(trainer)
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit(line, 1, 16, rng=0, progress=False)
    assert str(caught.value) == (
        "Trainer.fit, epoch 1, step 1: expected finite gradients, got nan for parameter 0.weight, "
        f"first made by the derivative of 2: sqrt{FIX}"
    )
    assert values(trainer) == before


def test_a_learning_rate_too_high_ends_in_one_message_and_no_warning(line):
    trainer = make(1, 1, 1e3, nn.MSELoss(), hooks=[hook := At()])
    with pytest.raises(
        NonFiniteError, match=r"^Trainer\.fit, epoch \d+, step \d+: expected [^\n]+ first made by [^\n]+$"
    ):
        trainer.fit(line, 50, 16, rng=0, progress=False)
    assert values(trainer) == hook.seen[-1]


def test_a_parameter_that_was_spoilt_is_named(line):
    trainer = make(1, 1, 1e-3, nn.MSELoss())

    def spoil(state):
        trainer.model[2].weight.data = np.full((8, 1), np.nan)

    trainer.hooks = [At(1, spoil)]
    text = (
        "Trainer.fit, epoch 1, step 2: expected finite parameters, got parameter 2.weight that was not finite "
        f"before the step, first made by 2: linear{FIX}"
    )
    with raises(NonFiniteError, text):
        trainer.fit(line, 5, 16, rng=0, progress=False)


class Running(nn.Module):
    """Has a buffer that each forward pass in training changes, draws, and turns infinite at a draw."""

    def __init__(self, rng):
        self.rng = np.random.default_rng(rng)
        self.count = nn.Parameter(np.zeros(1))
        self.count.requires_grad = False
        self.drawn = []

    def forward(self, x):
        if not self.training:
            return x
        self.count.data = self.count.data + 1
        self.drawn.append(self.rng.random())
        return np.exp(x * (1e6 if self.drawn[-1] > 0.8 else 1e-6))


def test_what_a_forward_pass_changes_is_put_back_and_drawn_again(line):
    running = Running(0)
    steps = int(np.argmax(np.random.default_rng(0).random(100) > 0.8))
    trainer = make(1, 1, 1e-6, nn.MSELoss(), extra=[running])
    with pytest.raises(NonFiniteError, match="first made by 2: exp"):
        trainer.fit(line, 50, 16, rng=0, progress=False)
    assert running.count.data.tolist() == [steps]
    assert running.drawn[-1] == running.drawn[-2] == running.rng.random()


class Interrupting(nn.Module):
    armed = False

    def forward(self, x):
        if self.armed and self.training:
            signal.raise_signal(signal.SIGINT)
        return x


def test_ctrl_c_in_a_forward_pass_leaves_the_last_complete_step(line):
    layer = Interrupting()
    trainer = make(1, 1, 1e-2, nn.MSELoss(), extra=[layer])
    trainer.hooks = [hook := At(6, lambda state: setattr(layer, "armed", True))]
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(line, 50, 16, rng=0, progress=False)
    assert len(hook.seen) == 6
    assert values(trainer) == hook.seen[-1]
    assert hook.ended == 1
    assert trainer.evaluate(line)["loss"] > 0
    layer.armed = False
    assert len(trainer.fit(line, 1, rng=0, progress=False)) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_while_parameters_move_lets_the_step_end(line):
    class Slow(optim.SGD):
        armed = 3

        def _update(self, *arrays):
            self.armed -= 1
            if not self.armed:
                signal.raise_signal(signal.SIGINT)
            super()._update(*arrays)

    results = []
    for armed in (3, 10**9):
        model = nn.Dense(1, 1, rng=0)
        optimizer = Slow(model.parameters(), lr=0.1, momentum=0.9)
        optimizer.armed = armed
        stop = At(3, lambda state: setattr(state, "stop", True))
        trainer = Trainer(model, nn.MSELoss(), optimizer, hooks=[stop])
        if armed == 3:
            with pytest.raises(KeyboardInterrupt):
                trainer.fit(line, 5, rng=0, progress=False)
        else:
            trainer.fit(line, 5, rng=0, progress=False)
        assert stop.ended == 1
        results.append((values(trainer), optimizer.velocity.tobytes()))
    assert results[0] == results[1]


def test_fit_works_in_a_thread(line):
    trainer, rows = make(1, 1, 1e-2, nn.MSELoss()), []
    thread = threading.Thread(target=lambda: rows.extend(trainer.fit(line, 2, rng=0, progress=False)))
    thread.start()
    thread.join()
    assert len(rows) == 2


# Progress


def test_progress_in_a_file_is_a_line_for_each_tenth(iris, capsys):
    trainer = make(metrics=["accuracy"])
    history = trainer.fit(iris[0], 25, validation=iris[1], rng=0)
    out, err = capsys.readouterr()
    assert out == ""
    assert "\r" not in err
    lines = err.splitlines()
    assert [line.split()[1] for line in lines] == ["3/25", "5/25", "8/25", "10/25", "13/25", "15/25", "18/25", "20/25",
                                                   "23/25", "25/25"]  # fmt: skip
    assert lines[0].startswith("epoch  3/25  loss ")
    last = history[-1]
    assert lines[-1] == (
        f"epoch 25/25  loss {last['loss']:.4g}  accuracy {last['accuracy']:.4g}  "
        f"val_loss {last['val_loss']:.4g}  val_accuracy {last['val_accuracy']:.4g}"
    )


def test_progress_tells_of_an_end_before_time(iris, capsys):
    make(hooks=[At(4 * 7, lambda state: setattr(state, "stop", True))]).fit(iris[0], 100, rng=0)
    assert capsys.readouterr().err.split()[:2] == ["epoch", "7/100"]


def test_progress_can_be_off(iris, capsys):
    make().fit(iris[0], 3, rng=0, progress=False)
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_on_a_terminal_is_one_bar(iris, monkeypatch):
    threads = threading.active_count()
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    history = make(metrics=["accuracy"]).fit(iris[0], 3, rng=0)
    text = terminal.getvalue()
    assert "\r" in text
    assert text.count("\n") == 1
    assert "3/3" in text
    assert f"loss={history[-1]['loss']:.4g}, accuracy={history[-1]['accuracy']:.4g}" in text
    assert threading.active_count() == threads


def test_the_bar_is_closed_when_training_fails(line, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with pytest.raises(NonFiniteError):
        make(1, 1, 1e-3, nn.MSELoss(), extra=[Root()]).fit(line, 3, rng=0)
    assert terminal.getvalue().endswith("\n")
