"""A run that a hook stopped: resuming it takes more epochs, or raises an error that names the reason."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import CheckpointError
from microfw.training import Checkpoint, EarlyStopping

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
