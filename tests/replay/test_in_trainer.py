"""A Trainer replays its steps: history, schedules, hooks and errors are those of eager steps."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import NonFiniteError
from tests.helpers.replay import assert_same, mlp, optimizer_rows, values


def trained(compile, epochs=4, **options):
    train, test = mf.data.load("digits", rng=0)
    model = nn.Sequential(
        nn.Dense(64, 16, rng=0), nn.BatchNorm1D(16), nn.ReLU(), nn.Dropout(0.2, rng=3), nn.Dense(16, 10, rng=1)
    )
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optimizer, ["accuracy"], compile=compile, **options)
    history = trainer.fit(train, epochs, validation=test, rng=0, progress=False)
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in history]
    return rows, values(model)


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.5}, {"accumulate": 2}], ids=str)
def test_a_trainer_gives_the_same_history_and_bits(options):
    rows, parameters = trained(False, **options)
    for compile in (True, None):
        again, others = trained(compile, **options)
        assert again == rows
        assert_same(parameters, others)


def test_a_trainer_follows_a_schedule():
    schedule = optim.schedules.Cosine(0.1, steps=100)
    rows, parameters = trained(False, hooks=[mf.training.LearningRate(schedule)], epochs=2)
    again, others = trained(True, hooks=[mf.training.LearningRate(schedule)], epochs=2)
    assert again == rows
    assert_same(parameters, others)


def test_a_trainer_explains_a_loss_that_is_not_finite():
    def fit(compile):
        X = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
        model = nn.Sequential(nn.Dense(5, 4, rng=0), nn.Dropout(0.5, rng=1))
        trainer = mf.Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=1e3), compile=compile)
        with pytest.raises(NonFiniteError) as error:
            trainer.fit((X, X[:, :4]), 50, 8, rng=0, progress=False)
        return str(error.value), values(model), model.layers[1].rng.bit_generator.state

    one, two = fit(False), fit(True)
    assert one[0] == two[0] and one[2] == two[2]
    assert_same(one[1], two[1])


def test_a_step_is_captured_at_once_where_many_are_to_come():
    """Shapes of which few are to come are not, as that of an epoch's last batch."""
    X, y = np.random.default_rng(0).normal(size=(38, 5)).astype(np.float32), np.arange(38) % 4
    for epochs, shapes in ((10, []), (50, [(8, 5)])):
        model = mlp()
        trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1))
        trainer.fit((X, y), epochs, 8, rng=0, progress=False)
        assert [key[0][1] for key in trainer._run.stepper.replay_policy.step.replays] == shapes


def test_a_trainer_leaves_models_with_other_code_alone_unless_told():
    class Own(nn.Module):
        def forward(self, x):
            return x * 1.0

    made = []
    for compile in (None, True):
        model = mlp(Own())
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        made.append(mf.training.replay_policy.ReplayPolicy(model, nn.CrossEntropyLoss(), optimizer, compile).step)
    assert made[0] is None and made[1] is not None


@pytest.mark.parametrize(("kind", "options"), list(optimizer_rows()))
def test_the_first_step_of_layers_of_the_library_is_captured_with_its_update(kind, options):
    X, y = np.random.default_rng(0).normal(size=(400, 5)).astype(np.float32), np.arange(400) % 4

    def fitted(compile):
        model = mlp()
        optimizer = kind(model.parameters(), **{"lr": 0.01} | options)
        trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optimizer, compile=compile)
        trainer.fit((X, y), epochs=2, batch_size=8, rng=0, progress=False)
        return trainer._run.stepper.replay_policy, values(model)

    policy, found = fitted(None)
    (replay,) = policy.step.replays.values()
    assert replay.replays == 99 and replay.plan.step.update
    assert_same(found, fitted(False)[1])
