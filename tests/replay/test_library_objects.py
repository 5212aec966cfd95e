"""Objects of this library that a step uses besides its arguments: optimizers, gradients, buffers."""

import contextvars

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from tests.helpers.replay import losses

X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
Y = np.zeros((8, 2), np.float32)
DATA = np.random.default_rng(0).normal(size=(2000, 4)), np.random.default_rng(1).normal(size=(2000, 2))


def changed(factor, change):
    """Return whether a compiled step sees a change as an eager one does, and the compiled step."""
    change(1.0)
    expected, _ = losses(factor, change, False)
    change(1.0)
    got, step = losses(factor, change, True)
    assert expected[5] != expected[6]
    return got == expected, step


def test_a_value_of_a_group_is_compared():
    p = mf.tensor([1.0], requires_grad=True)
    group = optim.SGD([{"params": [p], "lr": 0.1}], lr=0.1).groups[0]
    for factor in (lambda: group["lr"], lambda: group.all()["lr"]):
        same, step = changed(factor, lambda value: group.__setitem__("lr", 0.1 * value))
        assert same and step.replays


def test_a_schedule_with_a_state_that_is_called_is_called_at_each_step():
    found = []
    for compiled in (False, True):
        schedule = optim.schedules.ReduceOnPlateau(1.0, patience=3)
        found.append(losses(lambda schedule=schedule: schedule(5.0), lambda value: None, compiled)[0])
    assert found[0] == found[1] and found[0][0] > 5 * found[0][-1]


def test_content_of_a_context_variables_default_is_compared():
    held = {"value": 1.0}
    variable = contextvars.ContextVar("variable", default=held)
    same, step = changed(lambda: variable.get()["value"], lambda value: variable.get().update(value=value))
    assert same and step.replays
    unset = contextvars.ContextVar("unset")
    same, step = changed(lambda: unset.get(1.0), unset.set)
    assert same and step.replays


def test_types_of_equal_keys_and_elements_are_compared():
    for held, add in ((set(), set.add), ({}, dict.setdefault)):

        def change(value, held=held, add=add):
            held.clear()
            add(held, 1 if value == 1 else 1.0)

        same, _ = changed(lambda held=held: 2.0 if isinstance(next(iter(held)), float) else 1.0, change)
        assert same


def test_a_step_that_reads_a_gradient_runs_every_time():
    p = mf.tensor(np.ones(2, np.float32), requires_grad=True)
    same, step = changed(
        lambda: float(np.abs(p.grad).sum()), lambda value: setattr(p, "grad", np.full(2, value, np.float32))
    )
    assert same and "run every time: the function reads the values of a Tensor" in step.explain()


def test_a_step_that_assigns_a_buffer_runs_every_time():
    buffer = mf.tensor(np.zeros(2, np.float32))

    def factor():
        buffer.data = np.ones(2, np.float32)
        return buffer.sum()

    found = []
    for compiled in (False, True):
        model = nn.Dense(4, 2, rng=0)
        optimizer = optim.SGD(model.parameters(), lr=0.01)

        def f(x, y, model=model):
            return ((model(x) - y) ** 2).mean() * factor()

        step, values = mf.compile(f, optimizer), []
        for k in range(6):
            if k == 4:
                buffer.data = np.full(2, 9, np.float32)  # left there by other code
            if compiled:
                loss = step(X, Y)
            else:
                optimizer.zero_grad()
                loss = f(mf.tensor(X), Y)
                loss.backward()
                optimizer.step()
            values.append(loss.item())
        found.append(values)
    assert found[0] == found[1]
    assert "run every time: the function assigns the values of a Tensor" in step.explain()


class ClippedUpdate(optim.SGD):
    def update_all(self):
        optim.clip_grad_norm(self, 0.1)
        return super().update_all()


class ClippedStep(optim.SGD):
    def step(self):
        optim.clip_grad_norm(self, 0.1)
        super().step()


def wrapped(parameters, lr):
    optimizer = optim.SGD(parameters, lr=lr)
    step = optimizer.step

    def clipped():
        optim.clip_grad_norm(optimizer, 0.1)
        step()

    optimizer.step = clipped
    return optimizer


class EverySecond(optim.SGD):
    """Adds up the gradients of two steps."""

    steps = 0

    def zero_grad(self):
        if self.steps % 2 == 0:
            super().zero_grad()
        self.steps += 1


@pytest.mark.parametrize("make", [ClippedUpdate, ClippedStep, wrapped, EverySecond])
def test_methods_of_an_optimizer_of_ones_own_are_called(make):
    rows = []
    for compile in (False, True, None):
        model = nn.Sequential(nn.Dense(4, 2, rng=0))
        trainer = mf.Trainer(model, nn.MSELoss(), make(model.parameters(), lr=0.1), compile=compile)
        trainer.fit(DATA, epochs=1, batch_size=10, rng=0, progress=False)
        rows.append((trainer.history[0]["loss"], model[0].weight.data.tolist()))
    assert rows[0] == rows[1] == rows[2]


@pytest.mark.parametrize("name", ["step", "update_all", "_update"])
def test_a_wrapped_method_is_called_once_a_step(name):
    """So averages, schedules and counts in the wrapper are those of eager training."""
    found = []
    for compile in (False, None, True):
        model, calls = nn.Sequential(nn.Dense(4, 2, rng=0)), []
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        method = getattr(optimizer, name)

        def own(*arguments, method=method, optimizer=optimizer, calls=calls):
            calls.append(optimizer.lr)
            optimizer.lr = 0.1 / (1 + 0.01 * len(calls))
            return method(*arguments)

        setattr(optimizer, name, own)
        trainer = mf.Trainer(model, nn.MSELoss(), optimizer, compile=compile)
        trainer.fit((DATA[0][:80], DATA[1][:80]), epochs=40, batch_size=10, rng=0, progress=False)
        found.append((calls, trainer.history[-1]["loss"], model[0].weight.data.tolist()))
    assert len(found[0][0]) >= 320
    assert found[0] == found[1] == found[2]


def test_a_step_that_is_wrapped_later_is_called():
    model = nn.Dense(4, 2, rng=0)
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    step = mf.compile(lambda x, y: ((model(x) - y) ** 2).mean(), optimizer)
    for _ in range(4):
        step(X, Y)
    assert step.replays
    calls, plain = [], optimizer.step
    optimizer.step = lambda: calls.append(plain())
    step(X, Y)
    assert calls == [None]
    del optimizer.step
    step(X, Y)
    assert calls == [None]
    optimizer.zero_grad = lambda: calls.append("zero_grad") or optim.SGD.zero_grad(optimizer)
    step(X, Y)
    assert calls == [None, "zero_grad"] and "a zero_grad of its own, which a replay would not call" in step.explain()


def test_a_step_with_a_backward_pass_of_its_own_runs_every_time():
    found = []
    for compiled in (False, True):
        model = nn.Dense(4, 2, rng=0)
        optimizer = optim.SGD(model.parameters(), lr=0.01)

        def part(x, y, model=model):
            ((model(x) - y) ** 2).mean().backward()
            return (model(x) ** 2).mean() * 0.5

        step = mf.compile(part, optimizer)
        gradients = []
        for _ in range(4):
            if compiled:
                step(X, Y)
            else:
                optimizer.zero_grad()
                part(mf.tensor(X), mf.tensor(Y)).backward()
                optimizer.step()
            gradients.append(model.weight.grad.tolist())
        found.append(gradients)
    assert found[0] == found[1]
    assert "run every time: it runs a backward pass of its own; return the sum of the losses" in step.explain()
