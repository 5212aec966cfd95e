"""detect_anomaly: the op, its layer, its line, and the inputs that were bad already; with other observers, and free when off."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.autograd.anomaly import NonFiniteDetector, user_line
from microfw.autograd.mode import MODE, mode
from microfw.errors import NonFiniteError


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):
        yield


def told(function, **options):
    """Return the text of the error, and the line of this file where the function begins."""
    with mf.detect_anomaly(**options), pytest.raises(NonFiniteError) as info:
        function()
    return str(info.value)


def here(offset=0):
    return f"{__file__}:{inspect.currentframe().f_back.f_lineno + offset}: "


ZERO = mf.tensor([0.0, 1.0], requires_grad=True)


def test_a_forward_value_that_is_not_finite_is_named():
    text = told(lambda: np.log(ZERO))
    line = here(-1)  # not in the assert: its lines differ among releases of pytest
    assert text == (
        "log: expected finite numbers, got -inf at [0] in the value of shape (2,); the inputs: x finite; "
        f"computed at {line}text = told(lambda: np.log(ZERO))"
    )


def test_an_input_that_is_not_finite_is_named():
    bad = np.array([[1.0, np.nan]])
    text = told(lambda: ZERO * bad)
    assert (
        "got nan at [0, 1] in the value of shape (1, 2); the inputs: a finite, b already held nan at [0, 1]; " in text
    )
    text = told(lambda: np.concatenate([ZERO, np.array([np.inf])]))
    assert "the inputs: xs[0] finite, xs[1] already held inf at [0]; " in text


def test_a_gradient_that_is_not_finite_is_named():
    text = told(lambda: np.sum(np.sqrt(ZERO)).backward())
    line = here(-1)
    assert text == (
        "the derivative of sqrt: expected finite numbers as gradients with respect to its inputs, got inf at [0] in "
        "one of shape (2,); the gradient that came in: finite; its value was computed at "
        f"{line}text = told(lambda: np.sum(np.sqrt(ZERO)).backward())"
    )


def test_a_given_gradient_that_is_not_finite_is_named():
    text = told(lambda: (ZERO * 2.0).backward(np.array([np.nan, 1.0])))
    assert text.startswith("the derivative of multiply: expected finite numbers as gradients")
    assert "; the gradient that came in: already held nan at [0]; " in text


def test_the_layer_and_the_line_in_its_forward():
    class Log(nn.Module):
        def forward(self, x):
            return np.log(x - x)

    model = nn.Sequential(nn.Dense(2, 3, rng=0), nn.Sequential(Log()))
    text = told(lambda: model(np.ones((4, 2))))
    assert text.startswith("1.0 Log: log: expected finite numbers, got -inf at [0, 0] in the value of shape (4, 3); ")
    assert text.endswith(f"computed at {here(-5)}return np.log(x - x)")
    with mf.no_grad():
        assert told(lambda: model(np.ones((4, 2)))) == text
    model = nn.Sequential(nn.Dense(2, 3, rng=0))
    model[0].weight.data = np.full((2, 3), np.nan)
    text = told(lambda: model(np.ones((4, 2))))
    assert text.startswith("0 Dense: linear: ") and "w already held nan at [0, 0]" in text
    assert text.endswith(f"computed at {here(-2)}text = told(lambda: model(np.ones((4, 2))))")  # not in this package


def test_infinity_is_allowed_where_it_is_asked_for():
    masked = np.array([-np.inf, 0.0])
    with mf.detect_anomaly(inf=False):
        np.sum(np.exp(ZERO + masked)).backward()
    assert told(lambda: ZERO - ZERO * np.inf, inf=False).startswith("multiply: expected no NaN, got nan at [0]")
    with mf.detect_anomaly(nan=False):
        ZERO + np.array([np.nan, 0.0])
    assert told(lambda: ZERO + masked, nan=False).startswith("add: expected no infinity, got -inf at [0]")
    ZERO.zero_grad()


def test_finite_values_raise_nothing():
    x = mf.tensor([1.0, 2.0], requires_grad=True)
    with mf.detect_anomaly():
        np.sum(np.log(x) * np.array([1, 2]) > 0)
        np.sum(np.log(x) * np.array([1, 2])).backward()
    np.testing.assert_array_equal(x.grad, [1, 1])
    assert MODE.get().observer is None


def test_detect_anomaly_is_a_decorator_and_ends_with_an_exception():
    @mf.detect_anomaly()
    def step():
        np.log(ZERO)

    for _ in range(2):
        with pytest.raises(NonFiniteError):
            step()
        assert MODE.get().observer is None
    np.log(ZERO)


def test_the_same_op_is_reported_each_time():
    with mf.detect_anomaly():
        for _ in range(2):
            with pytest.raises(NonFiniteError, match="^log: "):
                np.log(ZERO)
            with pytest.raises(NonFiniteError, match="derivative of sqrt"):
                np.sum(np.sqrt(ZERO)).backward()


def test_derivatives_of_functions():
    assert told(lambda: mf.grad(lambda x: np.sum(np.sqrt(x)))(np.zeros(2))).startswith("the derivative of sqrt: ")
    text = told(lambda: mf.grad(lambda x: mf.grad(lambda y: y**1.5)(x))(0.0))
    assert text.startswith(
        "the derivative of power: expected finite numbers as gradients with respect to its inputs, got inf"
    )


def test_an_op_inside_a_checkpoint_is_named():
    text = told(lambda: np.sum(mf.checkpoint(lambda x: np.sqrt(x) * 2.0, ZERO)).backward())
    assert text.startswith("the derivative of sqrt: expected finite numbers as gradients") and here(-1) in text


# Beside others


def test_an_observer_is_notified_inside_detect_anomaly(watcher):
    x = mf.tensor([1.0, 2.0], requires_grad=True)
    with watcher.on(), mf.detect_anomaly():
        y = np.sum(np.log(x))
        y.backward()
        with pytest.raises(NonFiniteError):
            np.log(ZERO)
    assert [op.name for op, *_ in watcher.ran] == ["log", "sum", "log"]
    assert [n.op.name for n in watcher.visited] == ["sum", "log"]


def test_an_observer_that_is_attached_later_is_notified_too(watcher):
    x = mf.tensor([1.0, 0.0], requires_grad=True)
    with mf.detect_anomaly():
        y = np.sqrt(x)
        with mode(observer=MODE.get().observer.alongside(watcher)), pytest.raises(NonFiniteError) as info:
            np.sum(y).backward()
        assert here(-3) in str(info.value)  # it knows what came before
    assert [n.op.name for n in watcher.visited] == ["sum", "sqrt"]


def test_a_profiler_counts_inside_detect_anomaly():
    profiles = []
    for watched in (False, True):
        model = nn.Sequential(nn.Dense(3, 4, rng=0), nn.Tanh(), nn.Dense(4, 1, rng=1))
        optimizer = mf.optim.SGD(model.parameters(), lr=0.1)

        def train(model=model, optimizer=optimizer):
            for _ in range(3):
                np.sum(model(np.ones((5, 3)))).backward()
                optimizer.step()
                optimizer.zero_grad()

        with mf.Profiler(model) as profiler:
            if watched:
                with mf.detect_anomaly():
                    train()
            else:
                train()
            if watched:
                model[2].weight.data = np.full((4, 1), np.inf)
                assert told(train).startswith("2 Dense: linear: expected finite numbers")
        profiles.append(profiler.session.epochs[0].sum())
    plain, watched = profiles
    for name in ("nodes", "edges", "flops_forward", "flops_backward", "rules", "accumulated"):
        assert getattr(plain, name) == getattr(watched, name), name
    assert watched.forward_ns > 0


def test_an_observer_can_tell_what_a_checkpoint_runs_again(watcher):
    modes = []
    forward = watcher.forward
    watcher.forward = lambda op, *rest: (modes.append((op.name, MODE.get().recomputing)), forward(op, *rest))
    x = mf.tensor([1.0, 2.0], requires_grad=True)
    with watcher.on(), mf.detect_anomaly():
        np.sum(mf.checkpoint(np.log, x)).backward()
        with pytest.raises(NonFiniteError, match="derivative of sqrt"):
            np.sum(mf.checkpoint(np.sqrt, ZERO)).backward()
    again = [name for name, recomputing in modes if recomputing and name in ("log", "sqrt")]
    assert again == [name for name, recomputing in modes if not recomputing and name in ("log", "sqrt")]
    assert again == ["log", "sqrt"]
    assert watcher.rules["log"] == watcher.rules["sqrt"] == 1


def test_a_trainer_passes_on_what_was_found():
    model = nn.Sequential(nn.Dense(2, 3, rng=0), nn.Dense(3, 1, rng=1))
    trainer = mf.Trainer(model, nn.MSELoss(), mf.optim.SGD(model.parameters(), lr=0.1))
    before = model[0].weight.data.copy()
    with mf.detect_anomaly(), pytest.raises(NonFiniteError) as info:
        trainer.fit((np.ones((8, 2)), np.full((8, 1), 1e30)), epochs=1, batch_size=4, rng=0, progress=False)
    text = str(info.value)
    assert text.startswith(
        "Trainer.fit, epoch 1, step 1: MSELoss: squared_error: expected finite numbers, got inf in the value of"
    )
    assert f"computed at {__file__}:" in text and "trainer.fit(" in text
    assert text.endswith("before this step; lower the learning rate, or scale the data")
    np.testing.assert_array_equal(model[0].weight.data, before)
    assert all(p.grad is None for p in model.parameters())


def test_no_observer_is_attached_outside_of_detect_anomaly():
    assert MODE.get().observer is None
    with mf.detect_anomaly():
        assert isinstance(MODE.get().observer, NonFiniteDetector)


def test_the_number_of_remembered_places_is_bounded(monkeypatch):
    monkeypatch.setattr("microfw.autograd.anomaly.MAX_PLACES", 10)
    with mf.detect_anomaly():
        first = np.sqrt(ZERO)
        for _ in range(9):
            np.sqrt(ZERO)
        with pytest.raises(NonFiniteError, match=__file__):
            np.sum(first).backward()
        first = np.sqrt(ZERO)
        for _ in range(40):
            np.sqrt(ZERO)
        detector = MODE.get().observer
        assert len(detector.places) + len(detector.older) < 25
        with pytest.raises(NonFiniteError, match="computed at an unknown line"):
            np.sum(first).backward()


def test_without_user_code_the_outermost_frame_is_named():
    scope = {"__name__": "microfw.made_up"}
    exec(compile("def run(f):\n    return f()", "<op made up>", "exec"), scope)
    assert scope["run"](user_line)[0] == __file__
