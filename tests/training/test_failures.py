"""Training that meets NaN, infinity or Ctrl-C: parameters stay those of the last complete step."""

from __future__ import annotations

import re
import signal
import threading

import numpy as np
import pytest

from microfw import nn, optim
from microfw.errors import NonFiniteError
from microfw.estimators import NeuralClassifier
from microfw.training import Hook, Trainer
from tests.helpers.errors import raises
from tests.helpers.training import At, Root, make, values

FIX = "; parameters are as they were before this step; lower the learning rate, or scale the data"

NEW = "; start again from finite parameters, with a lower learning rate or scaled data"


class Exp(nn.Module):
    def forward(self, x):
        return np.exp(self.scale * x) if hasattr(self, "scale") else np.exp(x)


def test_a_loss_that_is_not_finite_names_epoch_step_and_op(line):
    exp = Exp()
    trainer = make(1, 1, 1e-3, nn.MSELoss(), extra=[exp])
    trainer.hooks = [hook := At(5, lambda state: setattr(exp, "scale", 1e4))]
    text = f"Trainer.fit, epoch 2, step 2: expected a finite loss, got nan, first made by 2 Exp: exp{FIX}"
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
        f"first made by the derivative of 2 Root: sqrt{FIX}"
    )
    assert values(trainer) == before


def test_gradients_whose_squares_are_not_finite_are_called_so():
    X = np.array([[1.0], [2.0]])
    trainer = make(1, 1, loss=nn.L1Loss(), dtype=np.float64, optimizer=optim.Adam)
    trainer.model[2].weight.data = trainer.model[2].weight.data * 1e160
    text = (
        r"^Trainer.fit, epoch 1, step 1: expected gradients below 1.3e\+154, whose squares are finite, "
        r"got \S+ for parameter 0.weight; parameters are as"
    )
    with pytest.raises(NonFiniteError, match=text):
        trainer.fit((X, X[:, 0]), 1, progress=False)


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
        f"before the step, first made by 2 Dense: linear{NEW}"
    )
    with raises(NonFiniteError, text):
        trainer.fit(line, 5, 16, rng=0, progress=False)


@pytest.mark.parametrize("compile", [True, False])
def test_a_last_update_that_makes_parameters_infinite_is_an_error(line, compile):
    trainer = make(1, 1, 1e-3, nn.MSELoss(), compile=compile)

    class Scale(Hook):
        def on_gradients(self, state):
            state.optimizer.lr = 1e38 if state.steps == 7 else 1e-3

    trainer.hooks = [Scale()]
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit(line, 2, 16, rng=0, progress=False)
    text = r"Trainer.fit, epoch 2, step 4: expected finite parameters after the update, got -?inf at .* of parameter "
    assert re.fullmatch(f"{text}0.weight{NEW}", str(caught.value))
    assert len(trainer.history) == 1


def test_an_estimator_keeps_finite_parameters():
    X, y = np.arange(8.0).reshape(4, 2) * 1e3, np.array([0, 1, 2, 0])
    for n in (1, 4):
        e = NeuralClassifier((), optimizer="sgd", learning_rate=0.1, random_state=0, batch_size=n)
        e.partial_fit(X, y, [0, 1, 2])
        before = e.predict_proba(X)
        e.set_params(learning_rate=1e306)
        with pytest.raises(NonFiniteError, match="^NeuralClassifier, epoch 2, step 1: expected finite parameters"):
            e.partial_fit(X[:n], y[:n])
        np.testing.assert_array_equal(e.predict_proba(X), before)
        e.set_params(learning_rate=0.1).partial_fit(X, y)
        with pytest.raises(NonFiniteError, match="expected finite parameters after the update"):
            e.set_params(learning_rate=1e306, max_iter=1, batch_size=4).fit(X, y)


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
    with pytest.raises(NonFiniteError, match="first made by 2 Running: exp"):
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


def test_a_frozen_parameter_may_be_infinite():
    class Masked(nn.Module):
        def __init__(self):
            self.dense, self.mask = nn.Dense(3, 2, rng=0), nn.Parameter([0.0, -np.inf])
            self.mask.requires_grad = False

        def forward(self, x):
            return self.dense(x) + self.mask

    model = Masked()
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1))
    history = trainer.fit((np.ones((8, 3)), np.zeros(8, int)), 2, 4, progress=False)
    assert history[-1]["loss"] == 0.0
