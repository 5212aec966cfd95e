"""What `Trainer.fit` does and keeps, and what it refuses before training."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pandas as pd
import pytest

from microfw import nn, optim
from microfw.autograd.mode import MODE
from microfw.data import Dataset, load
from microfw.errors import ArgumentError, DataError, DTypeError, ShapeError
from microfw.training import History, Hook, Trainer
from microfw.training.run import Run, take_steps
from microfw.training.stepper import Stepper
from tests.helpers.errors import raises
from tests.helpers.training import Do, Told, make, values

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
    with raises(ArgumentError, "History.column: expected one of epoch, loss, got 'los'; did you mean loss?"):
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


# Arguments that do not fit together raise before anything is trained


def cases():
    iris, line = load("iris")[0], Dataset(np.ones((4, 4)), np.ones(4))
    real = "for MSELoss, got integer labels; use nn.CrossEntropyLoss, or mf.data.Dataset(X, y, task='regression')"
    fit = "Trainer.fit: expected"
    forms = "(X, y), (X, y, sample_weight), a stream, or batches from a function or a loader"
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
        f"{fit} a Dataset, {forms}, got ndarray; pass (X, y)",
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


@pytest.mark.parametrize("name", ["progress", "drop_last"])
def test_flags_of_fit_are_true_or_false(name, iris):
    with raises(ArgumentError, f"Trainer.fit: expected {name} to be True or False, got 'no'"):
        make().fit(iris[0], 1, **{name: "no"})


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


def test_a_pair_to_predict_says_that_features_are_expected(iris):
    with pytest.raises(DTypeError, match=r"^0 Dense: expected x to be one Tensor or array, .* or X of \(X, y\)$"):
        make().predict((iris[0].X, iris[0].y))


def test_bad_parts():
    model = nn.Dense(1, 1, rng=0)
    optimizer, loss = optim.SGD(model.parameters(), lr=0.1), nn.MSELoss()
    with raises(ArgumentError, "Trainer: expected model to be a Module, got int"):
        Trainer(3, loss, optimizer)
    text = "Trainer: expected loss to be a loss such as nn.MSELoss(), got the class MSELoss; call it: MSELoss()"
    with raises(ArgumentError, text):
        Trainer(model, nn.MSELoss, optimizer)
    text = "Trainer: expected optimizer to be an optimizer, got"
    with raises(ArgumentError, f"{text} float; pass optim.SGD(model.parameters(), lr=0.1)"):
        Trainer(model, loss, 0.1)
    with raises(ArgumentError, f"{text} the class Adam; call it: Adam(model.parameters())"):
        Trainer(model, loss, optim.Adam)
    text = "Trainer: expected an optimizer of the model's parameters, got others; make it with model.parameters()"
    with raises(ArgumentError, text):
        Trainer(nn.Dense(1, 1, rng=0), loss, optimizer)


def test_arguments_of_fit_in_the_place_of_others(iris):
    train, test = iris
    for arguments, options, error, text in (
        ((test,), {}, ArgumentError, f"epochs to be an integer of at least 0, got {test}; pass it as validation"),
        ((1,), {"seed": 3}, TypeError, "known keywords, got seed; did you mean rng?"),
        ((1,), {"random_state": 3}, TypeError, "known keywords, got random_state; did you mean rng?"),
    ):
        with raises(error, f"Trainer.fit: expected {text}"):
            make().fit(train, *arguments, **options)
    kinds = "a Dataset, (X, y), (X, y, sample_weight), a stream, or batches from a function or a loader"
    with raises(ArgumentError, f"Trainer.fit, validation: expected {kinds}, got float; pass rows that are set aside"):
        make().fit(train, 1, validation=0.2)


def test_settings_that_are_set_later_are_used(iris):
    def fitted(**options):
        trainer = make(**options)
        return trainer, trainer.fit(iris[0], 2, validation=iris[1], rng=0, progress=False)

    later = make()
    later.clip_norm, later.metrics, later.accumulate, later.hooks = 1e-3, ["accuracy"], 2, (hook := Hook(),)
    history = later.fit(iris[0], 2, validation=iris[1], rng=0, progress=False)
    other, expected = fitted(clip_norm=1e-3, metrics=["accuracy"], accumulate=2)
    assert history[-1]["clipped"] == 1.0 and later.hooks == [hook]
    for name in ("loss", "accuracy", "val_accuracy"):
        assert history.column(name) == expected.column(name)
    other.clip_norm = None
    assert "clipped" not in other.fit(iris[0], 1, rng=0, progress=False)[0]
    later.metrics = later.metrics
    assert list(later.evaluate(iris[1])) == ["loss", "accuracy"]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("accumulate", 0, "accumulate to be a positive integer, got 0"),
        ("accumulate", 2.5, "accumulate to be a positive integer, got 2.5"),
        ("clip_norm", -1, "clip_norm above 0, finite, got -1"),
        ("clip_value", "a", "clip_value above 0, finite, got 'a'"),
        ("hooks", Hook(), "hooks, got Hook; pass a list of them"),
        ("hooks", [3], "hooks with some of a Hook's methods, got int; pass an instance"),
        ("compile", "no", "compile to be True, False or None, got 'no'"),
    ],
)
def test_settings_are_checked_whenever_they_are_set(name, value, text, iris):
    with raises(ArgumentError, f"Trainer: expected {text}"):
        make(**{name: value})
    trainer = make()
    setattr(trainer, name, value)
    with raises(ArgumentError, f"Trainer: expected {text}"):
        trainer.fit(iris[0], 1, progress=False)


@pytest.mark.parametrize("event", ["on_fit_start", "on_epoch_start", "on_gradients", "on_step_end", "on_epoch_end"])
@pytest.mark.parametrize("part", ["model", "loss_function", "optimizer"])
def test_the_parts_of_a_run_stay(part, event, iris):
    trainer, other = make(), make()
    new = {"model": other.model, "loss_function": nn.NLLLoss(), "optimizer": other.optimizer}[part]
    trainer.hooks = [Do(event, lambda state: setattr(state, part, new))]
    before = {"model": trainer.model, "loss_function": trainer.loss, "optimizer": trainer.optimizer}[part]
    names = [type(x).__name__ for x in (before, new)]
    with raises(
        ArgumentError,
        f"state.{part}: expected the {names[0]} of the run, got another one, {names[1]}; "
        "set it on the Trainer before fit",
    ):
        trainer.fit(iris[0], 2, progress=False)
    assert trainer._run is None or getattr(trainer._run.state, part) is before


def test_an_optimizer_from_before_a_layer_was_replaced_is_refused():
    model = nn.Sequential(nn.Dense(4, 8, rng=0), nn.ReLU(), nn.Dense(8, 3, rng=1))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer)
    model.layers = (*model.layers[:2], nn.Dense(8, 2, rng=2))
    text = "Trainer: expected an optimizer of 2.weight, 2.bias, got one of other parameters, of shapes (8, 3), (3,); "
    with raises(ArgumentError, text + "make it after the model is changed"):
        trainer.fit((np.ones((8, 4), "f4"), np.zeros(8, int)), epochs=1, progress=False)


def test_an_optimizer_may_have_the_parameters_of_the_loss_and_of_other_models_too():
    model, other, loss = nn.Dense(4, 3, rng=0), nn.Dense(2, 2, rng=0), nn.MSELoss()
    loss.scale = nn.Parameter(1.0)
    Trainer(model, loss, optim.SGD([model.weight, loss.scale], lr=0.1))
    Trainer(model, loss, optim.SGD([*model.parameters(), *other.parameters()], lr=0.1))


@pytest.mark.parametrize("call", [{"epochs": np.arange(3)}, {"epochs": [0, 1, 2]}], ids=["array", "list"])
def test_targets_as_a_second_argument_say_how_to_pass_them(call):
    text = (
        r"^Trainer.fit: expected epochs to be .*, got values of shape \(3,\); pass the data as one argument, \(X, y\)$"
    )
    with pytest.raises(ArgumentError, match=text):
        make().fit(np.ones((3, 4)), **call)


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((np.arange(3),), {"epochs": 2}, "epochs once, got two values; pass the data as one argument, (X, y)"),
        ((), {"epoch": 2}, "known keywords, got epoch; did you mean epochs?"),
        ((), {"validation_data": 2}, "known keywords, got validation_data; did you mean validation?"),
    ],
    ids=["twice", "close", "of another library"],
)
def test_a_wrong_keyword_is_explained(arguments, options, text):
    with raises(TypeError, f"Trainer.fit: expected {text}"):
        make().fit(np.ones((3, 4)), *arguments, **options)


def test_a_hook_that_is_there_twice_is_refused():
    hook = Hook()
    with pytest.raises(
        ArgumentError, match=r"^Trainer: expected each hook once, got the same Hook twice; leave one out$"
    ):
        make(hooks=[hook, Hook(), hook])


def test_the_beginning_of_a_metrics_name_suggests_the_metric():
    with pytest.raises(ArgumentError, match="got 'acc'; did you mean 'accuracy'"):
        make(metrics=["acc"])
