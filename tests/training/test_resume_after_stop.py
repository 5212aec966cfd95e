"""A run that a hook stopped: resuming it takes more epochs, or raises an error that names the reason."""

from __future__ import annotations

import signal

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import CheckpointError
from microfw.training import Checkpoint, EarlyStopping, WeightAveraging

X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
Y = np.arange(20) % 3


class Stop(mf.Hook):
    """Ends training after an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, state):
        state.stop = state.epoch == self.epoch


def trainer(*hooks):
    model = nn.Dense(4, 3, rng=0)
    return mf.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), hooks=hooks)


def run(path, *hooks, epochs=5):
    checkpoint = Checkpoint(path)
    trainer(*hooks, checkpoint).fit((X, Y), epochs=epochs, batch_size=5, rng=0, progress=False)


def test_resuming_a_stopped_run_names_the_reason(tmp_path):
    run(tmp_path / "c.npz", Stop(2))
    t = trainer()
    before = t.model.weight.data.copy()
    text = r"ended after epoch 2 with state.stop, and epochs=5; pass epochs above 5 to continue"
    with pytest.raises(CheckpointError, match=text):
        t.fit((X, Y), epochs=5, batch_size=5, resume=tmp_path / "c.npz", progress=False)
    np.testing.assert_array_equal(t.model.weight.data, before)


def test_a_stopped_run_resumes_with_more_epochs(tmp_path):
    run(tmp_path / "c.npz", Stop(2))
    t = trainer()
    history = t.fit((X, Y), epochs=6, batch_size=5, resume=tmp_path / "c.npz", progress=False)
    assert history.column("epoch") == [1, 2, 3, 4, 5, 6]
    whole = trainer()
    whole.fit((X, Y), epochs=6, batch_size=5, rng=0, progress=False)
    np.testing.assert_array_equal(t.model.weight.data, whole.model.weight.data)


def test_a_run_stopped_early_refuses_the_same_number_of_epochs(tmp_path):
    stopping = EarlyStopping("loss", patience=0, min_delta=10.0, restore=False)
    run(tmp_path / "c.npz", stopping)
    again = EarlyStopping("loss", patience=0, min_delta=10.0, restore=False)
    with pytest.raises(CheckpointError, match="state.stop"):
        trainer(again).fit((X, Y), epochs=5, batch_size=5, resume=tmp_path / "c.npz", progress=False)


def test_a_run_that_ended_resumes(tmp_path):
    run(tmp_path / "c.npz", epochs=3)
    history = trainer().fit((X, Y), epochs=5, batch_size=5, resume=tmp_path / "c.npz", progress=False)
    assert len(history) == 5


class Interrupt(mf.Hook):
    """Interrupts training in a step of an epoch, or at the epoch's end."""

    def __init__(self, epoch, step):
        self.at = epoch, step

    def on_step_end(self, state):
        if (state.epoch, state.step) == self.at:
            signal.raise_signal(signal.SIGINT)  # as the stop button of a notebook does

    def on_epoch_end(self, state):
        if (state.epoch, None) == self.at:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("at", [(3, 1), (6, 3), (8, None)], ids=str)
@pytest.mark.parametrize(
    "hooks",
    [
        lambda: [EarlyStopping("val_loss", patience=50)],
        lambda: [WeightAveraging(0.9)],
        lambda: [EarlyStopping("val_loss", patience=50), WeightAveraging(0.9)],
        lambda: [WeightAveraging(0.9, keep=False), EarlyStopping("val_loss", patience=50)],
    ],
    ids=["stopping", "averaging", "both", "both without the average"],
)
def test_a_run_saved_after_hooks_have_changed_the_model_resumes_with_the_same_bits(tmp_path, hooks, at):
    def fit(*more, **options):
        model = nn.Sequential(nn.Dense(4, 6, rng=0), nn.Tanh(), nn.Dropout(0.2, rng=3), nn.Dense(6, 3, rng=1))
        optimizer = optim.Adam(model.parameters(), lr=0.05)
        t = mf.Trainer(model, nn.CrossEntropyLoss(), optimizer, hooks=[*hooks(), *more])
        validation = X[::-1] * 0.9, Y
        try:
            t.fit((X, Y), epochs=10, batch_size=5, validation=validation, progress=False, **options)
        except KeyboardInterrupt:
            assert more
        return t, [{k: v for k, v in row.items() if k != "seconds"} for row in t.history]

    whole, expected = fit(rng=0)
    stopped, rows = fit(Interrupt(*at), rng=0)
    stopped.save(tmp_path / "run.npz")
    loaded = mf.load(tmp_path / "run.npz")
    resumed, history = fit(resume=tmp_path / "run.npz")
    assert history == expected and history[: len(rows)] == rows
    for p, q in ((loaded, stopped.model), (resumed.model, whole.model)):  # the file has the model as it was left, too
        for name, array in p.state_dict().items():
            assert array.tobytes() == q.state_dict()[name].tobytes()


def test_a_run_with_validation_is_not_resumed_without(tmp_path):
    t = trainer()
    t.fit((X, Y), epochs=2, batch_size=5, validation=(X, Y), rng=0, progress=False)
    t.save(tmp_path / "run.npz")
    text = "expected validation data, which the saved run had, got none; pass validation"
    with pytest.raises(CheckpointError, match=text):
        trainer().fit((X, Y), epochs=3, batch_size=5, resume=tmp_path / "run.npz", progress=False)


@pytest.mark.parametrize("form", [lambda x, y: (x, y), lambda x, y: (x, y, y + 1.0), lambda x, y: mf.data.stream(x, y)])
def test_a_run_is_resumed_with_the_same_validation_data_only(form, tmp_path):
    def fit(epochs, x, **options):
        t, data = trainer(), form(x, Y)
        t.fit((X, Y), epochs=epochs, batch_size=5, validation=data, rng=0, progress=False, **options)
        return t

    path = tmp_path / "run.npz"
    fit(2, X * 0.9).save(path)
    with pytest.raises(CheckpointError, match="expected validation data with the checksum '.*' as it was saved, got"):
        fit(3, X * 0.8, resume=path)
    rows = [fit(3, X * 0.9, **options).history.column("val_loss") for options in ({}, {"resume": path})]
    assert rows[0] == rows[1]
