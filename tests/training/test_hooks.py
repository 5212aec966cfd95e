"""Hooks are called in order, may stop training, and see the state."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from microfw import nn, optim
from microfw.autograd.mode import MODE, Mode, mode
from microfw.errors import ArgumentError, NonFiniteError
from microfw.training import Hook, LearningRate, Trainer
from microfw.training.hooks import EVENTS
from tests.helpers.errors import raises
from tests.helpers.training import Do, Root, Told, make


def test_hooks_are_called_in_the_order_of_the_list(iris):
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
def test_on_fit_end_is_called_for_all_hooks_even_if_one_raises(iris, event):
    log = []
    bad = Told("bad", log)

    def boom(state):
        raise RuntimeError("boom")

    setattr(bad, event, boom)
    with pytest.raises(RuntimeError, match="boom"):
        make(hooks=[Told("a", log), bad, Told("c", log)]).fit(iris[0], 1, rng=0, validation=iris[1], progress=False)
    expected = ["a end", "bad end", "c end"]
    if event == "on_fit_start":
        expected = ["a end", "bad end"]  # c was not notified of the start
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

        on_epoch_end = on_train_epoch_end = on_substep_end = on_init_end

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


def test_the_text_of_a_trainer_has_no_address():
    class Plain:
        def __call__(self, outputs, targets):
            return np.square(outputs - targets).mean()

    def mine(outputs, targets):
        return np.square(outputs - targets).mean()

    hooks = [LearningRate(lambda step: 0.1), LearningRate(mine, of="epoch")]
    assert [repr(hook) for hook in hooks] == [
        "LearningRate(schedule=<lambda>, of='step')", "LearningRate(schedule=mine, of='epoch')",
    ]  # fmt: skip
    optimizer = optim.Average(optim.SGD(nn.Dense(2, 1, rng=0).parameters(), lr=0.1), 0.9)
    assert repr(optimizer) == f"Average({optimizer.optimizer!r}, decay=0.9)"
    for loss, text in ((mine, "mine"), (Plain(), "Plain()"), (nn.HuberLoss(2.0), "HuberLoss(delta=2.0)")):
        assert repr(make(loss=loss)).split(", ")[1] == text


@pytest.mark.parametrize("event", ["on_epoch_start", "on_step_end", "on_epoch_end"])
def test_a_hook_does_not_set_the_epoch(event):
    class Sets(Hook):
        pass

    setattr(Sets, event, lambda self, state: setattr(state, "epoch", 0))
    model = nn.Dense(2, 1, rng=0)
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1), hooks=[Sets()])
    with pytest.raises(
        ArgumentError, match=rf"^state.epoch: expected the number of the epoch, 1, in {event}, got 0; set"
    ):
        trainer.fit((np.ones((4, 2)), np.ones((4, 1))), 3, progress=False)


@pytest.mark.parametrize("event", ["on_fit_start", "on_epoch_start", "on_step_end", "on_epoch_end"])
@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("epochs", "x", "state.epochs: expected a number of epochs, got str"),
        ("history", [], "state.history: expected a History, got list"),
    ],
)
def test_epochs_and_history_keep_their_type(event, name, value, text, iris):
    trainer = make(hooks=[Do(event, lambda state: setattr(state, name, value))])
    with raises(ArgumentError, text):
        trainer.fit(iris[0], 3, batch_size=64, progress=False)


def test_a_hook_with_methods_of_other_libraries_alone_is_refused():
    class Theirs(Hook):
        def on_batch_end(self, state):
            raise AssertionError

    model = nn.Dense(2, 1, rng=0)
    with pytest.raises(ArgumentError, match="got Theirs with on_batch_end alone; name them as the events"):
        Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1), hooks=[Theirs()])


@pytest.mark.parametrize("event", ["on_fit_start", "on_epoch_start", "on_gradients", "on_step_end", "on_epoch_end"])
@pytest.mark.parametrize("what", ["layer", "weight"])
def test_a_layer_that_a_hook_replaces_is_refused_before_the_next_epoch(iris, event, what):
    def replace(self, state):
        if state.epoch == 1 or event == "on_fit_start":
            if what == "layer":
                state.model.layers = (*state.model.layers[:2], nn.Dense(8, 3, rng=9))
            else:
                state.model[2].weight = nn.Parameter(np.ones((8, 3)))

    trainer = make(hooks=[type("Replace", (Hook,), {event: replace})()])
    text = r"^Trainer: expected an optimizer of 2\.weight.*, got one of other parameters, of shapes \(8, 3\)"
    with pytest.raises(ArgumentError, match=text):
        trainer.fit(iris[0], 3, batch_size=64, rng=0, progress=False)
    assert len(trainer.history) == (event not in ("on_fit_start", "on_epoch_start"))


def test_a_model_that_hooks_change_between_epochs_is_trained_on(iris):
    def change(self, state):
        state.model[0].weight.data = state.model[0].weight.data * 0.5
        state.model[2].requires_grad_(state.epoch != 2)

    trainer = make(hooks=[type("Change", (Hook,), {"on_epoch_start": change})()])
    assert len(trainer.fit(iris[0], 3, batch_size=64, rng=0, progress=False)) == 3
