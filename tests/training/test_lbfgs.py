"""L-BFGS in a Trainer."""

from __future__ import annotations

import signal

import numpy as np
import pytest

from microfw import nn, optim
from microfw.errors import NonFiniteError
from tests.helpers.training import Do, arrays, make, same


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
    trainer.hooks = [Do("on_step_end", lambda state: seen.append(arrays(trainer)))]
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(line, 50, batch_size=len(line) // accumulate, rng=0, progress=False)
    assert seen
    same(arrays(trainer), seen[-1])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_lbfgs_with_a_loss_that_is_not_finite(line):
    class Root(nn.Module):
        def forward(self, x):
            return np.sqrt(x * 0)

    trainer = make(1, 1, loss=nn.MSELoss(), optimizer=optim.LBFGS, extra=[Root()])
    before = arrays(trainer)
    with pytest.raises(
        NonFiniteError, match=r"^Trainer.fit, epoch 1, step 1: expected finite .* the derivative of 2 Root: sqrt"
    ):
        trainer.fit(line, 1, len(line), rng=0, progress=False)
    same(arrays(trainer), before)
