"""A fit that is interrupted, looked at, saved and resumed, also with wrong arguments."""

from __future__ import annotations

import time

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError, CheckpointError, DataError
from microfw.training import EarlyStopping, Hook, totals
from tests.helpers.errors import raises
from tests.helpers.training import values

X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
Y = np.arange(20) % 3
STEPS = 4  # of an epoch


class Call(Hook):
    """Calls a function in an event, with the state."""

    def __init__(self, event, function):
        setattr(self, event, function)


class Raises(Hook):
    """Raises in an event, in an epoch and at a step of it."""

    def __init__(self, epoch, step=STEPS, event="on_gradients", error=KeyboardInterrupt):
        self.at, self.error = (epoch, step), error
        setattr(self, event, self.check)

    def check(self, state):
        if (state.epoch, state.step) == self.at:
            raise self.error


def make(*hooks, **options):
    model = nn.Sequential(nn.Dense(4, 3, rng=0), nn.Dropout(0.1, rng=1))
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return mf.Trainer(model, nn.CrossEntropyLoss(), optimizer, hooks=hooks, **options)


def fit(trainer, epochs, **options):
    return trainer.fit((X, Y), epochs, batch_size=5, progress=False, **{"rng": 0, **options})


def interrupted(epoch, step=STEPS, *hooks):
    """Return a trainer that was interrupted in an epoch, and the error."""
    trainer = make(Raises(epoch, step), *hooks)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(trainer, 6)
    trainer.hooks = list(hooks)
    return trainer, caught.value


def same_rows(a, b):
    return [{**row, "seconds": 0} for row in a] == [{**row, "seconds": 0} for row in b]


# Errors before the start


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def of_another_run(path):
    trainer = make(EarlyStopping("loss"))
    fit(trainer, 1)
    trainer.save(path)


def with_generators_shared(path):
    rng = np.random.default_rng(0)
    trainer = make()
    trainer.model[1].rng = rng
    fit(trainer, 1, rng=rng)
    trainer.save(path)


@pytest.mark.parametrize(("make_file", "options", "error", "text"), [
    (None, {"resume": True}, CheckpointError, "fit"),
    (None, {"resume": "none.npz"}, CheckpointError, "a file that can be read, got FileNotFoundError"),
    (damage, {}, CheckpointError, "resuming from"),
    (of_another_run, {}, CheckpointError, r"hooks \['EarlyStopping'\] as it was saved, got \[\]"),
    (with_generators_shared, {}, CheckpointError, "share Generators between layers and fit as they were shared"),
    (None, {"epochs": 1}, ArgumentError, "epochs to be at least the 3 that the saved run has begun, got 1"),
    (None, {"validation": (X[:, :2], Y)}, mf.errors.ShapeError, "expected x of shape"),
    (None, {"rng": "a"}, ArgumentError, "^Trainer.fit: expected rng to be an integer of at least 0, a numpy.*, got 'a'$"),
    (None, {"train": (X[:0], Y[:0])}, DataError, "expected"),
])  # fmt: skip
def test_an_error_before_the_start_keeps_the_run_before(tmp_path, make_file, options, error, text):
    trainer, _ = interrupted(3, 2)
    other = tmp_path / "other.npz"
    trainer.save(other)
    if make_file is not None:
        make_file(other)
    history, before = trainer.history, values(trainer)
    optimizer = repr(trainer.optimizer.state_dict())
    given = {"train": (X, Y), "epochs": 9, "resume": other, "batch_size": 5, "rng": 0, **options}
    with pytest.raises(error, match=text):
        trainer.fit(given.pop("train"), progress=False, **given)
    assert trainer.history is history and len(history) == 2
    assert (values(trainer), repr(trainer.optimizer.state_dict())) == (before, optimizer)
    trainer.save(tmp_path / "mine.npz")
    assert same_rows(fit(make(), 6, resume=tmp_path / "mine.npz"), fit(make(), 6))


def test_an_error_in_on_fit_start_keeps_the_run_before():
    trainer = make()
    history = fit(trainer, 2)
    seen = []

    def fail(state):
        seen.append(trainer.history is state.history)
        with raises(CheckpointError, "saving a.npz: expected a run that has started, got one whose hooks are called "
                    "for on_fit_start; save in a later event"):  # fmt: skip
            trainer.save("a.npz")
        raise ZeroDivisionError

    trainer.hooks = [Call("on_fit_start", fail)]
    with pytest.raises(ZeroDivisionError):
        fit(trainer, 3)
    assert seen == [True]
    assert trainer.history is history


# Epochs


def test_epochs_counts_those_of_the_saved_run(tmp_path):
    path = tmp_path / "run.npz"
    trainer, _ = interrupted(5, 2)
    trainer.save(path)
    whole = fit(make(), 6)
    again = make()
    before = values(again)
    for epochs in (3, 4):  # of the fifth, two steps are done
        text = f"Trainer.fit: expected epochs to be at least the 5 that the saved run has begun, got {epochs}; "
        with raises(ArgumentError, text + f"epochs counts these, too: for {epochs} more pass epochs={4 + epochs}"):
            fit(again, epochs, resume=path)
        assert values(again) == before and again.history == []
    assert same_rows(fit(again, 5, resume=path), whole[:5])
    again.save(path)
    assert same_rows(fit(make(), 5, resume=path), whole[:5])  # nothing is left to train
    assert same_rows(fit(make(), 6, resume=path), whole)
    assert same_rows(fit(trainer, 6, resume=path), whole)  # the interrupted trainer itself


# Seconds


@pytest.fixture
def clock(monkeypatch):
    """Return the seconds, in a list, by which the clock of a run is ahead."""
    ahead = [0.0]
    monkeypatch.setattr(totals, "perf_counter", lambda: time.perf_counter() + ahead[0])
    return ahead


def test_seconds_of_an_interrupted_epoch_are_those_of_its_steps(tmp_path, clock):
    def slow(state):
        clock[0] += 1000.0 if state.epoch == 3 else 0.0

    trainer, _ = interrupted(3, 3, Call("on_step_end", slow))
    clock[0] += 50_000.0  # a pause
    trainer.save(tmp_path / "run.npz")
    clock[0] = 0.0
    rows = fit(make(Call("on_step_end", slow)), 3, resume=tmp_path / "run.npz")
    assert 4000 <= rows[2]["seconds"] < 4900
    assert all(0 < row["seconds"] < 900 for row in rows[:2])


def test_seconds_of_an_epoch_interrupted_in_its_validation_are_those_of_its_steps(tmp_path, clock):
    armed = [False]  # no attribute of the layer, which would be that of the file again

    class Pausing(nn.Module):
        def forward(self, x):
            if armed[0] and not self.training:
                clock[0] += 50_000.0
                raise KeyboardInterrupt
            return x

    trainer = make(Call("on_step_end", lambda state: armed.__setitem__(0, state.epoch == 2)))
    trainer.model = nn.Sequential(*trainer.model, Pausing())
    with pytest.raises(KeyboardInterrupt):
        fit(trainer, 3, validation=(X, Y))
    trainer.save(tmp_path / "run.npz")
    clock[0], armed[0], trainer.hooks = 0.0, False, []
    rows = fit(trainer, 3, validation=(X, Y), resume=tmp_path / "run.npz")
    assert len(rows) == 3 and all(0 < row["seconds"] < 900 for row in rows)


# What the errors say


@pytest.mark.parametrize("event", ["on_epoch_start", "on_step_end", "on_validation_start", "on_epoch_end"])
def test_a_run_that_a_hook_ended_is_not_saved_and_names_the_hook(tmp_path, event):
    path = tmp_path / "run.npz"
    trainer = make(Raises(2, STEPS, event, ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        fit(trainer, 3, validation=(X, Y))
    text = f"saving {path}: expected a run at the end of a step, got one that an error ended within Raises.{event}; "
    fix = "resume from an earlier file, such as that of a Checkpoint; mf.save(path, trainer.model) saves the model"
    with raises(CheckpointError, text + fix):
        trainer.save(path)
    mf.save(path, trainer.model)
    assert values(trainer) == {name: a.tobytes() for name, a in mf.load(path).state_dict().items()}


def test_an_error_between_hooks_says_where_it_ended_the_run(tmp_path):
    trainer = make()
    calls = []

    def sampler(n, rng):
        calls.append(n)
        if len(calls) == 3:
            raise ZeroDivisionError
        return rng.permutation(n)

    with pytest.raises(ZeroDivisionError):
        fit(trainer, 5, sampler=sampler)
    with pytest.raises(CheckpointError, match="ended within the start of an epoch, or a validation; resume from"):
        trainer.save(tmp_path / "run.npz")


@pytest.mark.parametrize(("hook", "text"), [
    (Raises(3, 2), "in epoch 3 of 6; trainer.history has 2 epochs, "),
    (Raises(2, 2), "in epoch 2 of 6; trainer.history has 1 epoch, "),
    (Raises(1, 1), "in epoch 1 of 6; trainer.history has 0 epochs, "),
])  # fmt: skip
def test_a_keyboard_interrupt_says_where_it_stopped_and_how_to_continue(tmp_path, hook, text):
    trainer = make(hook)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(trainer, 6)
    keeps = "trainer.save(path) keeps the run, fit(..., resume=path) continues it"
    assert caught.value.__notes__ == [f"Trainer.fit: stopped {text}{keeps}"]
    names = [entry.name for entry in caught.traceback]
    assert "fit" in names and names[-1] == "check"
    trainer.save(tmp_path / "run.npz")
    trainer.hooks = []
    assert same_rows(fit(trainer, 6, resume=tmp_path / "run.npz"), fit(make(), 6))


def test_a_keyboard_interrupt_says_why_the_run_cannot_be_saved():
    trainer = make(Raises(2, STEPS, "on_epoch_end"))
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(trainer, 6)
    begins = (
        "Trainer.fit: stopped after epoch 2 of 6; trainer.history has 2 epochs; trainer.save(path): expected a run "
    )
    assert caught.value.__notes__[0].startswith(f"{begins}at the end of a step, got one that an error ended within Ra")
    trainer.hooks = [Raises(2, 2)]
    with pytest.raises(KeyboardInterrupt) as caught:
        trainer.fit(lambda: iter([(X[:10], Y[:10]), (X[10:], Y[10:])]), 6, progress=False)
    assert "expected a run at the end of an epoch, got one in the middle of it" in caught.value.__notes__[0]


def test_a_keyboard_interrupt_before_the_start_has_no_note():
    trainer = make(Call("on_fit_start", lambda state: (_ for _ in ()).throw(KeyboardInterrupt)))
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(trainer, 6)
    assert not hasattr(caught.value, "__notes__")


# What a resumed run takes from the file


def test_a_resumed_run_has_the_rate_of_the_file_until_a_hook_sets_another(tmp_path):
    path = tmp_path / "run.npz"
    trainer, _ = interrupted(3, 2)
    trainer.save(path)

    def rates(event):
        again = make(Call(event, lambda state: setattr(state.optimizer, "lr", 0.01)))
        again.optimizer.lr = 0.5
        return fit(again, 4, resume=path).column("lr")

    assert rates("on_fit_start") == [0.1] * 4
    assert rates("on_epoch_start") == [0.1, 0.1, 0.1, 0.01]
    assert rates("on_gradients") == [0.1, 0.1, 0.01, 0.01]


def test_a_resumed_run_ignores_rng_and_takes_other_hooks_without_a_state(tmp_path):
    path = tmp_path / "run.npz"
    trainer, _ = interrupted(3, 2, EarlyStopping("loss", patience=9, restore=False))
    trainer.save(path)
    told = []
    again = make(
        Call("on_epoch_end", lambda state: told.append(state.epoch)), EarlyStopping("loss", patience=9, restore=False)
    )
    assert same_rows(fit(again, 6, resume=path, rng=123), fit(make(), 6))
    assert told == [3, 4, 5, 6]
