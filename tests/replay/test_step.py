"""A replayed step is the step: the same bits, for every layer, loss and optimizer, and never a stale one."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import microfw as mf
from microfw import nn, optim
from microfw.autograd.mode import MODE, mode
from microfw.autograd.observer import Observer
from microfw.autograd.state_discovery import iter_reachable
from microfw.errors import ArgumentError, DataError, MicrofwError, NonFiniteError
from microfw.replay.plan import CHUNK
from tests.cases.layers import LAYERS
from tests.cases.optimizers import CASES as OPTIMIZERS
from tests.helpers.thinning import thinned


class Scale(nn.Module):
    """Has a parameter, so that layers without any can be trained through."""

    def __init__(self, features):
        self.factor = nn.Parameter(np.ones(features))

    def forward(self, x):
        return x * self.factor


def values(model):
    return [t.data.copy() for _, t in model._walk() if isinstance(t, mf.Tensor)]


def assert_same(a, b):
    for u, v in zip(a, b, strict=True):
        assert u.dtype == v.dtype and u.tobytes() == v.tobytes()


def pair(make, options=None, kind=optim.SGD):
    """Return two equal models with their optimizers, the second one compiled."""
    models = make(), make()
    return models, [kind(m.parameters(), **(options or {"lr": 1e-3, "momentum": 0.9})) for m in models]


def race(make, loss, batches, options=None, kind=optim.SGD, replayed=True):
    """Train two equal models, eagerly and by replay, and compare all bits at every step."""
    (eager, compiled), (one, two) = pair(make, options, kind)
    step = mf.compile(lambda X, *y: loss(compiled(X), *y), two)
    for X, *y in batches:
        one.zero_grad()
        expected = loss(eager(mf.Tensor(X)), *y)
        expected.backward()
        one.step()
        got = step(X, *y)
        assert_same([expected.data], [got.data])
        assert_same([one.flat.gradients], [two.flat.gradients])
        assert_same(values(eager), values(compiled))
    assert not replayed or "run every time" not in step.explain(), step.explain()
    assert not replayed or step.replays
    return step


def squares(y):
    return np.mean(np.square(y))


def noisy(x, steps, seed=0):
    rng = np.random.default_rng(seed)
    return [((x + 0.1 * rng.normal(size=x.shape)).astype(np.float32),) for _ in range(steps)]


def layer_rows():
    for case in LAYERS:
        x = next((x for x in case.inputs() if x.size and x.ndim > 1), None)
        if x is not None:
            for training in (True, False):
                yield pytest.param(case, x, training, id=f"{case.name} {'train' if training else 'eval'}")


def train_layer(case, x, training, steps):
    def make():
        layer = case.make().astype(np.float32).train(training)
        return nn.Sequential(Scale(x.shape[-1]), layer)

    race(make, squares, noisy(x, steps), {"lr": 1e-4, "momentum": 0.9})


@pytest.mark.parametrize(("case", "x", "training"), list(layer_rows()))
def test_layers(case, x, training):
    train_layer(case, x, training, 6)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "x", "training"), list(layer_rows()))
def test_layers_for_a_thousand_steps(case, x, training):
    train_layer(case, x, training, 1000)


def mlp(*extra):
    return nn.Sequential(nn.Dense(5, 8, rng=0), nn.ReLU(), nn.Dense(8, 4, rng=1), *extra)


def drawn(steps, target, rows=12, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(rows, 5)).astype(np.float32), target(rng, rows)) for _ in range(steps)]


def labels(rng, rows):
    return rng.integers(0, 4, rows)


def floats(rng, rows):
    return rng.normal(size=(rows, 4)).astype(np.float32)


def signs(rng, rows):
    return (2 * rng.integers(0, 2, (rows, 4)) - 1).astype(np.float32)


def shares(rng, rows):
    return rng.random((rows, 4)).astype(np.float32)


def bits(rng, rows):
    return rng.integers(0, 2, (rows, 4))


def distributions(rng, rows):
    p = rng.random((rows, 4))
    return (p / p.sum(1, keepdims=True)).astype(np.float32)


def counts(rng, rows):
    return rng.integers(0, 5, (rows, 4)).astype(np.float32)


LOSSES = {
    "cross-entropy": (nn.CrossEntropyLoss, labels),
    "weighted": (lambda: nn.CrossEntropyLoss([1, 2, 0, 0.5]), labels),
    "smoothed": (lambda: nn.CrossEntropyLoss(label_smoothing=0.1), labels),
    "ignoring": (lambda: nn.CrossEntropyLoss(ignore_index=2), labels),
    "summed": (lambda: nn.CrossEntropyLoss(reduction="sum"), labels),
    "nll": (nn.NLLLoss, labels),
    "nll weighted": (lambda: nn.NLLLoss([1, 2, 0, 0.5], ignore_index=1), labels),
    "mse": (nn.MSELoss, floats),
    "mse of integers": (nn.MSELoss, bits),
    "l1": (nn.L1Loss, floats),
    "huber": (nn.HuberLoss, floats),
    "hinge": (nn.HingeLoss, signs),
    "bce": (nn.BCEWithLogitsLoss, shares),
    "bce weighted": (lambda: nn.BCEWithLogitsLoss([1, 2, 3, 4], 2.0), bits),
    "kl": (nn.KLDivLoss, distributions),
    "kl of logarithms": (lambda: nn.KLDivLoss(log_target=True), lambda rng, n: np.log(distributions(rng, n))),
    "poisson": (lambda: nn.PoissonNLLLoss(full=True), counts),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name):
    loss, target = LOSSES[name]
    last = [nn.LogSoftmax()] if name.startswith(("nll", "kl")) else []
    race(lambda: mlp(*last), loss(), drawn(8, target))


def optimizer_rows():
    for name, row in OPTIMIZERS.items():
        if row.reference is not None:
            for variant, options in row.variants.items():
                yield pytest.param(getattr(optim, name), options, id=f"{name} {variant}")


@pytest.mark.parametrize(("kind", "options"), list(optimizer_rows()))
def test_optimizers(kind, options):
    race(mlp, nn.CrossEntropyLoss(), drawn(12, labels), options | {"lr": 0.01}, kind)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "options"), list(optimizer_rows()))
def test_optimizers_for_a_thousand_steps(kind, options):
    race(mlp, nn.CrossEntropyLoss(), drawn(1000, labels), options | {"lr": 0.01}, kind)


def random_layer(draw, width):
    kind = draw(st.sampled_from(["dense", "relu", "tanh", "norm", "batch", "dropout", "residual", "softplus", "prelu"]))
    seed = draw(st.integers(0, 9))
    if kind == "dense":
        after = draw(st.integers(1, 6))
        bias = draw(st.booleans())
        return lambda: nn.Dense(width, after, bias=bias, rng=seed), after
    if kind == "residual":
        inner, _ = random_layer(draw, width)
        return lambda: nn.Residual(nn.Sequential(inner(), nn.Dense(inner_width(inner, width), width, rng=seed))), width
    made = {
        "relu": nn.ReLU,
        "tanh": nn.Tanh,
        "norm": lambda: nn.LayerNorm(width),
        "batch": lambda: nn.BatchNorm1D(width),
        "dropout": lambda: nn.Dropout(0.4, rng=seed),
        "softplus": nn.Softplus,
        "prelu": nn.PReLU,
    }[kind]
    return made, width


def inner_width(make, width):
    return np.shape(make().eval()(np.zeros((2, width), np.float32)))[1]


@st.composite
def experiments(draw):
    width, layers = 5, []
    for _ in range(draw(st.integers(1, 5))):
        make, width = random_layer(draw, width)
        layers.append(make)
    toggles = draw(st.lists(st.sampled_from(["", "", "eval", "train", "lr", "rows", "freeze", "thaw"]), max_size=10))
    return layers, width, toggles, draw(st.integers(0, 99))


def one_model(layers, width):
    return nn.Sequential(nn.Dense(5, 5, rng=9), *(make() for make in layers), nn.Dense(width, 4, rng=8))


def run_toggles(layers, width, toggles, seed):
    (eager, compiled), (one, two) = pair(lambda: one_model(layers, width))
    loss = nn.CrossEntropyLoss()
    step = mf.compile(lambda X, y: loss(compiled(X), y), two)
    rng, rows = np.random.default_rng(seed), 6
    for toggle in [*["", "", ""], *toggles, *["", "", ""]]:
        rows = rng.integers(2, 7) if toggle == "rows" else rows
        for model, optimizer in ((eager, one), (compiled, two)):
            if toggle in ("eval", "train"):
                getattr(model, toggle)()
            elif toggle == "lr":
                optimizer.lr *= 0.5
            elif toggle in ("freeze", "thaw"):
                model.layers[0].requires_grad_(toggle == "thaw")
        X, y = rng.normal(size=(rows, 5)).astype(np.float32), rng.integers(0, 4, rows)
        one.zero_grad()
        expected = loss(eager(mf.Tensor(X)), mf.Tensor(y))
        expected.backward()
        one.step()
        assert_same([expected.data], [step(X, y).data])
        assert_same(values(eager), values(compiled))
        assert [p.grad is None for p in eager.parameters()] == [p.grad is None for p in compiled.parameters()]


@settings(max_examples=12, deadline=None)
@given(experiments())
def test_random_models_with_random_toggles(experiment):
    run_toggles(*experiment)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(experiments())
def test_many_random_models_with_random_toggles(experiment):
    run_toggles(*experiment)


# What invalidates a plan


class Twins:
    """Two equal models, one trained eagerly and one by replay."""

    def __init__(self, make=mlp, loss=None, steps=4, kind=optim.SGD, **options):
        self.loss = nn.CrossEntropyLoss() if loss is None else loss
        (self.eager, self.model), (self.one, self.optimizer) = pair(make, options or None, kind)
        self.extra = 1.0
        self.step = mf.compile(self.forward(self.model), self.optimizer)
        self.plain = self.forward(self.eager)
        self.batches = iter(drawn(1000, labels))
        self.go(steps)
        assert self.replays() == (steps > 0)

    def forward(self, model):
        loss = self.loss
        return lambda X, y: loss(model(X), y)

    def both(self, change):
        change(self.eager, self.one)
        change(self.model, self.optimizer)

    def go(self, steps=4, rows=12):
        for _ in range(steps):
            X, y = next(self.batches)
            X, y = X[:rows], y[:rows]
            self.one.zero_grad()
            expected = self.plain(mf.Tensor(X), mf.Tensor(y))
            expected.backward()
            self.one.step()
            assert_same([expected.data], [self.step(X, y).data])
            assert_same(values(self.eager), values(self.model))

    def replays(self):
        return len(self.step.replays)


def test_a_new_shape_has_a_plan_of_its_own():
    twins = Twins()
    twins.go(rows=5)
    assert twins.replays() == 2
    twins.go(2)
    assert twins.step.explain().count("replayed") == 2


def test_a_new_dtype_or_layout_of_the_arguments():
    twins = Twins()
    X, y = next(twins.batches)
    first = twins.step(X, y.astype(np.int32))
    assert first.dtype == np.float32
    twins = Twins()
    for _ in range(4):
        X, y = next(twins.batches)
        twins.one.zero_grad()
        expected = twins.plain(mf.Tensor(np.asfortranarray(X)), mf.Tensor(y))
        expected.backward()
        twins.one.step()
        assert_same([expected.data], [twins.step(np.asfortranarray(X), y).data])


def test_an_argument_that_is_repeated_for_every_row_is_read_at_every_step():
    (eager, model), (one, optimizer) = pair(mlp)
    step = mf.compile(lambda X, row: (model(X) * row).sum(), optimizer)
    rng = np.random.default_rng(0)
    for _ in range(5):
        X, row = rng.standard_normal((12, 5)).astype(np.float32), rng.standard_normal(4).astype(np.float32)
        one.zero_grad()
        expected = (eager(X) * row).sum()
        expected.backward()
        one.step()
        assert_same([expected.data], [step(X, row).data])
        assert_same(values(eager), values(model))
    assert step.replays, step.explain()


def test_train_and_eval():
    twins = Twins(lambda: mlp(nn.Dropout(0.5, rng=3), nn.BatchNorm1D(4)))
    for change in (nn.Module.eval, nn.Module.train):
        twins.both(lambda model, _, change=change: change(model))
        twins.go()


def test_settings_of_layers():
    twins = Twins(lambda: mlp(nn.LeakyReLU(0.1)))
    twins.both(lambda model, _: setattr(model.layers[-1], "slope", 0.5))
    twins.go()


def test_a_replaced_parameter_or_layer():
    twins = Twins()
    twins.both(lambda model, _: setattr(model.layers[0], "weight", nn.Parameter(np.ones((5, 8)))))
    twins.go()
    assert twins.replays() == 1  # the new weight's gradient adds up, as in the eager step
    twins = Twins()
    twins.both(lambda model, _: setattr(model, "layers", (*model.layers[:-1], nn.Tanh(), model.layers[-1])))
    twins.go()
    assert "tanh" in repr(twins.step)


def test_a_shared_parameter():
    def tied():
        model = nn.Sequential(nn.Dense(5, 5, rng=0), nn.ReLU(), nn.Dense(5, 5, rng=1), nn.Dense(5, 4, rng=2))
        model.layers[2].weight = model.layers[0].weight
        return model

    Twins(tied).go()


def test_a_parameter_frozen_and_thawed():
    twins = Twins()
    for flag in (False, True):
        twins.both(lambda model, _, flag=flag: model.layers[0].requires_grad_(flag))
        twins.go()


def test_a_hook_on_a_parameter_is_called_and_named():
    twins, seen = Twins(), []
    handles = [m.layers[0].weight.register_hook(lambda g: seen.append(1)) for m in (twins.eager, twins.model)]
    twins.go()
    assert len(seen) == 8 and "0.weight has a hook" in twins.step.explain()
    for handle in handles:
        handle.remove()
    twins.go()
    assert len(seen) == 8 and "replayed" in twins.step.explain()


def test_a_value_read_is_refused_by_name():
    class Branch(nn.Module):
        def forward(self, x):
            return x * 2 if x.sum().item() > 0 else x

    step = race(lambda: mlp(Branch()), nn.CrossEntropyLoss(), drawn(6, labels), replayed=False)
    assert not step.replays and "3 reads the values of a Tensor" in step.explain()


def test_arrays_that_differ_from_step_to_step_are_refused():
    rng, model = np.random.default_rng(0), mlp()
    optimizer, loss = optim.SGD(model.parameters(), lr=0.01), nn.CrossEntropyLoss()
    step = mf.compile(lambda X, y: loss(model(X + rng.normal(size=X.shape).astype(np.float32)), y), optimizer)
    for X, y in drawn(4, labels):
        step(X, y)
    assert "not the same at every step" in step.explain() and not step.replays


def test_a_variable_that_the_function_names():
    twins = Twins()
    factor = 1.0
    loss, eager, model = twins.loss, twins.eager, twins.model
    twins.plain = lambda X, y: loss(eager(X), y) * factor
    twins.step = mf.compile(lambda X, y: loss(model(X), y) * factor, twins.optimizer)
    twins.go()
    factor = 0.25
    twins.go()
    assert twins.replays() == 1


def test_a_function_that_changes_what_it_depends_on_is_refused():
    class Alternates(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return x * 2 if self.calls % 4 == 0 else x

    step = race(lambda: mlp(Alternates()), nn.CrossEntropyLoss(), drawn(8, labels), replayed=False)
    assert not step.replays and "changes compiled.layers[3].calls" in step.explain()


def test_more_shapes_than_there_may_be_plans():
    twins = Twins(steps=2)
    twins.step.replays.update(dict.fromkeys(range(40)))
    twins.go(3, rows=5)
    explained = twins.step.reasons
    assert any("plans for other shapes" in why for why in explained.values())


def test_warnings_are_those_of_the_step():
    loss = nn.BCEWithLogitsLoss()
    model = nn.Sequential(nn.Dense(2, 1, rng=0))
    step = mf.compile(lambda X, y: loss(model(X), y), optim.SGD(model.parameters(), lr=1e-9))
    X, y = np.full((3, 2), 1e38, np.float32), np.ones((3, 1), np.float32)
    with np.errstate(all="ignore"):
        for _ in range(3):
            step(X * np.float32(1e-38), y)
    with np.errstate(over="ignore", invalid="raise", divide="raise"):
        step(X * np.float32(1e-38), y)
    assert "sets how NumPy reacts to errors" in step.explain()


def test_the_learning_rate_changes_without_a_new_capture():
    twins = Twins()
    captures = twins.step.captures
    for _ in range(5):
        twins.both(lambda _, optimizer: setattr(optimizer, "lr", optimizer.lr * 0.5))
        twins.go(2)
    assert twins.step.captures == captures


@pytest.mark.parametrize(("kind", "options"), list(optimizer_rows()))
def test_settings_change_without_a_new_capture(kind, options):
    """Some moves are left out where a setting is 0; a replayed update must not go on without them, or with them."""
    twins = Twins(kind=kind, **options | {"lr": 0.01})
    captures = twins.step.captures
    for name, value in list(twins.one.settings.items()):
        for changed in (0.25, 0.0, 0.125, value) if type(value) is float else ():
            try:
                twins.both(lambda _, optimizer, name=name, changed=changed: setattr(optimizer, name, changed))
                twins.go(2)
                for replay in twins.step.replays.values():  # the step is written anew, for the same plan
                    replay.programs_by_mode.clear()
                    replay.programs.clear()
                twins.go(2)
            except ArgumentError:
                twins.both(lambda _, optimizer, name=name, value=value: setattr(optimizer, name, value))
    assert twins.step.captures == captures


@pytest.mark.parametrize(("kind", "options"), thinned(optimizer_rows(), 4))
def test_long_plans_are_updated_and_followed(kind, options):
    def deep():
        layers = [layer for k in range(40) for layer in (nn.Dense(5, 5, rng=k), nn.Tanh())]
        return nn.Sequential(*layers, nn.Dense(5, 4, rng=0))

    twins = Twins(deep, kind=kind, **options | {"lr": 0.01})
    (replay,) = twins.step.replays.values()
    assert len(replay.plan.calls) > CHUNK
    before = values(twins.model)
    twins.go(2)
    assert (before[-1] != values(twins.model)[-1]).any()
    with mf.Profiler(twins.model, every=2) as profiler:
        for X, y in drawn(6, labels):
            twins.step(X, y)
    epoch = profiler.session.epochs[0]
    assert (epoch.steps, epoch.observed, epoch.replayed) == (6, 3, 5)
    assert {row.rules for row in epoch.rows if row.op in ("linear", "tanh")} == {3}


def test_a_rate_that_is_set_at_every_step_is_replayed_with_the_update():
    twins = Twins(steps=0)
    for k in range(8):
        twins.both(lambda _, optimizer, k=k: setattr(optimizer, "lr", 0.1 / (k + 1)))
        twins.go(1)
    assert "update" in f"{twins.step}"


def test_evaluation_between_steps_needs_no_new_capture():
    twins = Twins()
    captures = twins.step.captures
    (replay,) = twins.step.replays.values()
    programs = list(replay.programs.values())
    for _ in range(2):
        twins.both(lambda model, _: model.eval().train())
        twins.go(2)
        assert list(replay.programs.values()) == programs
    assert twins.step.captures == captures and twins.replays() == 1


EVERYTHING = []


class Holder:
    """Holds the step whose function reads what it holds, and a profiler, as scripts do."""

    def __init__(self):
        self.model = nn.Sequential(nn.Dense(5, 8, rng=0), nn.ReLU(), nn.Dense(8, 4, rng=1))
        self.loss = nn.CrossEntropyLoss()
        self.profiler = mf.Profiler(self.model)
        optimizer = optim.SGD(self.model.parameters(), lr=0.1)
        self.step = mf.compile(lambda X, y: self.loss(self.model(X), y), optimizer)


def test_what_a_step_keeps_of_itself_is_not_what_it_depends_on():
    """The plan knows the module that the function is of, and that whatever else is in there."""
    holder = Holder()
    (X, y), *_ = drawn(1, labels)
    for k in range(60):
        with holder.profiler if k == 30 else contextlib.nullcontext():
            holder.step(X, y)
        holder.model.eval().train()
        EVERYTHING.append(nn.Dense(2, 2))
    assert holder.step.captures == 1
    names = {type(x).__name__ for x in iter_reachable(holder.step.f)}
    assert {"Dense", "CrossEntropyLoss", "SGD"} <= names and not {"Named", "Plan", "Epoch", "Row"} & names


def test_a_model_that_only_a_profiler_holds_is_seen():
    def make():
        return nn.Sequential(nn.Dense(5, 8, rng=0), nn.BatchNorm1D(8), nn.Dropout(0.5, rng=3), nn.Dense(8, 4, rng=1))

    one, two = make(), make()
    profiler, loss = mf.Profiler(one), nn.CrossEntropyLoss()
    optimizers = [optim.SGD(m.parameters(), lr=0.1) for m in (one, two)]
    step = mf.compile(lambda X, y: loss(profiler.model(X), y), optimizers[0])
    (X, y), *_ = drawn(1, labels)
    for k in range(12):
        if k == 6:
            one.eval(), two.eval()
        optimizers[1].zero_grad()
        expected = loss(two(mf.Tensor(X)), y)
        expected.backward()
        optimizers[1].step()
        assert step(X, y).item() == expected.item()
        assert_same(values(one), values(two))
    assert step.explain().endswith("replayed")


def test_a_loss_that_nobody_asks_for_stops_no_replay():
    model, loss = nn.Sequential(nn.Dense(5, 8, rng=0), nn.ReLU(), nn.Dense(8, 4, rng=1)), nn.CrossEntropyLoss()

    def f(X, y):
        logits = model(X)
        loss(logits * 2, y)
        return loss(logits, y)

    step = mf.compile(f, optim.SGD(model.parameters(), lr=0.1))
    (X, y), *_ = drawn(1, labels)
    for _ in range(4):
        step(X, y)
    assert step.explain().endswith("replayed")


def test_a_step_that_trains_another_model_is_not_replayed():
    one, two = (nn.Sequential(nn.Dense(5, 8, rng=k), nn.Dense(8, 4, rng=1)) for k in range(2))
    loss, other = nn.CrossEntropyLoss(), optim.SGD(two.parameters(), lr=0.1)

    def f(X, y):
        other.zero_grad()
        loss(two(X), y).backward()
        other.step()
        return loss(one(X), y)

    step = mf.compile(f, optim.SGD(one.parameters(), lr=0.1))
    (X, y), *_ = drawn(1, labels)
    for _ in range(5):
        before = values(two)
        step(X, y)
        assert (before[0] != values(two)[0]).any()
    assert "it changes parameters, as an optimizer's step does" in step.explain()


def test_many_modes_share_a_program():
    twins = Twins()
    (replay,) = twins.step.replays.values()
    run = replay.program_for(MODE.get())
    for _ in range(9):
        with mode(recording=True):
            twins.go(1)
            assert replay.program_for(MODE.get()) is run
    assert len(replay.programs_by_mode) <= 4


def test_loaded_states():
    twins = Twins()
    state, settings = twins.eager.state_dict(), twins.one.state_dict()
    twins.go(3)
    twins.both(lambda model, _: model.load_state_dict(state))
    twins.both(lambda _, optimizer: optimizer.load_state_dict(settings))
    twins.go()


def test_parameters_assigned():
    twins = Twins()
    twins.both(lambda model, _: setattr(model.layers[0].weight, "data", np.ones((5, 8))))
    twins.go()


def test_another_optimizer_takes_over():
    twins = Twins()
    optim.SGD(twins.model.parameters(), lr=0.1)
    for _ in range(4):
        with pytest.raises(MicrofwError, match="taken over"):
            twins.step(*next(twins.batches))


def test_wrong_data_is_refused_in_the_layers_words_and_changes_nothing():
    twins = Twins(lambda: mlp(nn.Dropout(0.5, rng=0), nn.BatchNorm1D(4)))
    X, y = next(twins.batches)
    before = values(twins.model)
    for wrong in (y - 9, y + 9):
        with pytest.raises(DataError, match="^CrossEntropyLoss: expected labels from 0 to 3"):
            twins.step(X, wrong)
    assert_same(before[:4], values(twins.model)[:4])
    assert all(p.grad is None for p in twins.model.parameters())


def test_large_logits_take_the_ops_other_branch():
    twins = Twins()
    twins.both(lambda model, _: setattr(model.layers[2].bias, "data", np.array([90, -90, 0, 0])))
    twins.go()
    twins.both(lambda model, _: setattr(model.layers[2].bias, "data", np.zeros(4)))
    twins.go()


def test_a_branch_that_comes_late_still_has_the_ops_inputs():
    @mf.op(vjp=lambda g: 2 * g, name="late_branch")
    def late(x):
        """Twice x, and 1 more or less."""
        doubled = x * 2.0
        return doubled + 1.0 if doubled.sum() > 0 else doubled - 1.0

    twins = Twins(lambda: mlp(nn.Lambda(late)), steps=3)
    for value in (-9, 9, -9):
        bias = np.full(4, value, np.float32)
        twins.both(lambda model, _, bias=bias: setattr(model.layers[2].bias, "data", bias))
        twins.go(3)
    assert "late_branch as" not in twins.step.explain()


def test_gradients_that_are_not_finite_change_nothing():
    twins = Twins(loss=nn.CrossEntropyLoss())
    X, y = next(twins.batches)
    before = values(twins.model)
    with pytest.raises(NonFiniteError), np.errstate(all="ignore"):
        twins.step(X * np.float32(np.nan), y)
    assert_same(before, values(twins.model))
    twins.go()


class Interrupted:
    """Raises in a replayed step before one of its lines."""

    def __init__(self, line):
        self.line, self.lines = line, 0

    def __enter__(self):
        sys.settrace(self.trace)

    def __exit__(self, *exc):
        sys.settrace(None)

    def trace(self, frame, event, argument):
        if frame.f_code.co_filename != "<plan>":
            return None
        self.lines += event == "line"
        if self.lines == self.line:
            sys.settrace(None)
            raise KeyboardInterrupt
        return self.trace


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam])
def test_an_interrupt_before_any_line_of_a_step(kind):
    """What it leaves is a step not taken, the step, or an update that goes on where it was, as without replay."""
    X, y = drawn(1, labels, seed=5)[0]
    ended, before_update = 0, 0
    for line in range(1, 200):
        twins = Twins(kind=kind, lr=0.01)
        before, interrupted = values(twins.model), Interrupted(line)
        try:
            with interrupted:
                twins.step(X, y)
            ended = line
            break
        except KeyboardInterrupt:
            pass
        after = values(twins.model)
        if all(p.grad is None for p in twins.model.parameters()):
            assert_same(before, after)
            before_update = line
            twins.go()
    assert ended > before_update > 30


def test_graphs_that_need_old_parameters_notice_a_replayed_step():
    twins = Twins()
    X, y = drawn(1, labels, seed=7)[0]
    loss = twins.loss(twins.model(mf.Tensor(X)), y)
    twins.step(X, y)
    with pytest.raises(MicrofwError, match="was written to"):
        loss.backward()


def test_under_an_observer_it_runs_as_ever():
    class Count(Observer):
        seen = 0

        def forward(self, *args):
            self.seen += 1

    twins, count = Twins(), Count()
    with mode(observer=count):
        twins.go(1)
    assert count.seen >= 4
    twins.go(1)


def test_threads():
    """Each has its own model; then two share one, whose plan only one of them can be in."""
    found = []

    def work():
        twins = Twins()
        twins.go(20)
        found.append(twins)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 3
    twins = found[0]
    replay = next(iter(twins.step.replays.values()))
    with replay.lock:
        twins.go(2)  # eagerly, with the same bits


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork():
    twins = Twins()
    child = os.fork()
    if child == 0:
        try:
            twins.go(4)
            os._exit(0)
        except BaseException:
            os._exit(1)
    twins.go(4)
    assert os.waitpid(child, 0)[1] == 0


def test_what_compile_refuses():
    model = mlp()
    with pytest.raises(ArgumentError, match="^compile: expected a function"):
        mf.compile(3, optim.SGD(model.parameters(), lr=0.1))
    for wrong in (None, optim.LBFGS(model.parameters())):
        with pytest.raises(ArgumentError, match="^compile: expected an optimizer"):
            mf.compile(lambda X: X, wrong)
    with pytest.raises(MicrofwError, match="numbers"):
        mf.compile(lambda X: X, optim.SGD(model.parameters(), lr=0.1))(np.array(["a"]))


def test_results_are_copies_and_leave_no_graph():
    (_, model), (_, optimizer) = pair(mlp)
    loss = nn.CrossEntropyLoss()

    def both(X, y):
        outputs = model(X)
        return loss(outputs, y), outputs

    step = mf.compile(both, optimizer)
    kept = [step(X, y) for X, y in drawn(6, labels)]
    outputs = [o.data.copy() for _, o in kept]
    for X, y in drawn(3, labels, seed=3):
        step(X, y)
    assert_same(outputs, [o.data for _, o in kept])
    assert not kept[-1][0].requires_grad


def test_print_and_explain():
    twins = Twins()
    text = repr(twins.step)
    assert "replayed" in twins.step.explain() and "bytes for results" in text
    assert "linear" in text and "maximum" in text and "CrossEntropyLoss" in text
    model = mlp()
    assert mf.compile(lambda X: X, optim.SGD(model.parameters(), lr=0.1)).explain() == "no step yet"


def memory(steps):
    twins = Twins()
    X, y = next(twins.batches)
    for _ in range(70):  # past the check at replay 64
        twins.step(X, y)
    tracemalloc.start()
    try:
        for _ in range(10):
            twins.step(X, y)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(steps):
            twins.step(X, y)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2000
    return peak - before


def test_a_replayed_step_allocates_nothing():
    assert memory(170) < 4000  # the result, and a few Python objects: no array of the batch's size


@pytest.mark.slow
def test_memory_does_not_grow():
    assert memory(100_000) < 16_000  # a check copies parameters, gradients and state


# Trainer


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
        assert [key[0][1] for key in trainer._run.replay_policy.step.replays] == shapes


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


# Profiler


def profiled(compile):
    train, _ = mf.data.load("digits", rng=0)
    model = nn.Sequential(nn.Dense(64, 16, rng=0), nn.ReLU(), nn.Dropout(0.2, rng=3), nn.Dense(16, 10, rng=1))
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    profiler = mf.Profiler()
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optimizer, hooks=[profiler], compile=compile)
    trainer.fit(train, 3, rng=0, progress=False)
    return profiler


def test_a_profile_of_replayed_steps_has_the_same_counts_and_conserves_time():
    eager, replayed = profiled(False), profiled(True)
    for one, two in zip(eager.session.epochs, replayed.session.epochs, strict=True):
        assert (one.steps, one.observed, one.parameters, one.parameter_tensors) == (
            two.steps, two.observed, two.parameters, two.parameter_tensors,
        )  # fmt: skip
        for a, b in zip(one.rows, two.rows, strict=True):
            a, b = ({k: v for k, v in vars(row).items() if not k.endswith("_ns")} for row in (a, b))
            assert a == b
        assert two.untagged_forward_ns >= 0 and two.untagged_backward_ns >= 0
        assert all(row.forward_ns > 0 for row in two.rows)
    last = replayed.session.epochs[-1]
    assert last.replayed >= last.steps - 1 and not eager.session.epochs[-1].replayed
    assert "replayed" in replayed.report() and "replayed" not in eager.report()


def test_a_profiler_in_a_loop_of_ones_own_follows_replays():
    twins = Twins()
    with mf.Profiler(twins.model) as profiler:
        for X, y in drawn(6, labels):
            twins.step(X, y)
    epoch = profiler.session.epochs[0]
    assert (epoch.steps, epoch.observed, epoch.replayed) == (6, 6, 5)  # it looks at one that is run
    assert epoch.sum().nodes == 6 * 4
    before = mf.Profiler(twins.model, every=3)
    with before:
        for X, y in drawn(6, labels):
            twins.step(X, y)
    assert before.session.epochs[0].steps == 6
    twins.batches = iter(drawn(9, labels, seed=9))
    twins.step(*next(twins.batches))


def test_a_long_epoch_of_replayed_steps_keeps_few_losses():
    twins, (X, y) = Twins(lr=1e-6), drawn(1, labels)[0]
    with mf.Profiler(twins.model) as profiler:
        losses = []
        for _ in range(9000):
            losses.append(twins.step(X, y).item())
            assert len(profiler._recorder.losses) < 5000
    epoch = profiler.session.epochs[0]
    assert (epoch.steps, epoch.replayed) == (9000, 8994)
    assert epoch.loss == pytest.approx(np.mean(losses, dtype=float), rel=1e-12)


def test_a_trace_of_replayed_steps_has_an_event_for_each_node():
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Dense(6, 5, rng=0), nn.ReLU(), nn.Dense(5, 3, rng=1))
    loss = nn.CrossEntropyLoss()
    step = mf.compile(lambda X, y: loss(model(X), y), optim.SGD(model.parameters(), lr=0.1))
    X, y = rng.random((8, 6), np.float32), rng.integers(0, 3, 8)
    for _ in range(3):
        step(X, y)
    assert "replayed" in step.explain()
    with mf.Profiler(model, trace=7) as profiler:
        for _ in range(7):
            step(X, y)
        profiler.end_epoch()
    epoch, trace = profiler.session.epochs[0], profiler.session.trace
    assert epoch.replayed >= 5
    assert trace.steps == 7
    nodes = [event for event in trace.events if event[1] >= 0]
    assert [sum(event[0] == phase for event in nodes) for phase in (0, 1)] == [
        28,
        22,
    ]  # the loss has no call of its own in a replayed backward pass
    spans = [event for event in trace.events if event[1] < 0]
    for phase, _, began, ended in nodes:
        assert any(s[0] == phase and s[2] <= began <= ended <= s[3] for s in spans)
    for phase, name in enumerate(("forward_ns", "backward_ns")):
        assert sum(e[3] - e[2] for e in nodes if e[0] == phase) <= sum(getattr(row, name) for row in epoch.rows) * 1.5


def test_an_op_whose_dtype_depends_on_the_data_is_not_rounded():
    """Captured where it gave an integer, it then gives a fraction."""
    name = "whole_or_not"
    counted = mf.op(lambda x: (x > 0).sum() if x.min() < 0 else x.sum(), name=name)
    w = mf.tensor(np.array([-0.02, 0.45]), requires_grad=True)
    step = mf.compile(lambda X, y: w.sum() + counted(w * 1.0), optim.SGD([w], lr=1e-9))
    X, y = np.ones((2, 2)), np.ones(2)
    for _ in range(4):
        step(X, y)
    w.data = np.array([0.3, 0.45])
    assert step(X, y).item() == pytest.approx(1.5)


def test_a_compiled_step_is_copied_without_its_plans():
    model = nn.Sequential(nn.Dense(5, 8, rng=0), nn.ReLU(), nn.Dense(8, 3, rng=0))
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), metrics=["accuracy"])
    rng = np.random.default_rng(0)
    data = rng.normal(size=(160, 5)).astype(np.float32), rng.integers(0, 3, 160)
    trainer.fit(data, 40, 16, rng=0, progress=False)
    for again in (pickle.loads(pickle.dumps(trainer)), copy.deepcopy(trainer)):
        assert again.evaluate(data) == trainer.evaluate(data)
        again.fit(data, 1, 16, rng=0, progress=False)


class Scaled(nn.Module):
    def __init__(self):
        self.scale = nn.Parameter(np.ones(4, np.float32))


def positives(x):
    return np.sum(x[x > 0])


def summed(x):
    y = x * 1
    y[x > 2] = x[x > 2].sum()
    return np.sum(y)


def sorted_sum(x):
    y = np.zeros_like(x) * x
    y[np.argsort(x)] = x[np.argmax(x, keepdims=True)]
    return y[np.argmin(x, keepdims=True)].sum() + np.sum(y)


@pytest.mark.parametrize(("value", "traced"), [(positives, False), (summed, False), (sorted_sum, True)])
def test_entries_at_indices_that_depend_on_the_data(value, traced):
    """As many as a mask has may be another number at the next step, which NumPy would repeat."""
    op = mf.op(vjp=lambda g, x: g * np.ones_like(x))(value)
    model = Scaled()
    optimizer = optim.SGD(model.parameters(), lr=1e-3)
    step = mf.compile(lambda x: op(model.scale * x), optimizer)
    for x in ([3, 4, 5, -1], [4, 3, 5, -1], [5, 3, 4, -1], [5, -1, -1, -1], [-1, -1, -1, -1], [1, 2, 3, 4]):
        x = np.array(x, np.float32)
        expected = value(model.scale.data * x)
        assert step(x).item() == expected
    assert ("as one call" in step.explain()) is not traced and "replayed" in step.explain()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, np.int64])
def test_labels_of_any_integer_type_are_replayed_call_by_call(dtype):
    model = nn.Dense(6, 3, rng=0)
    loss = nn.CrossEntropyLoss()
    step = mf.compile(lambda X, y: loss(model(X), y), optim.SGD(model.parameters(), lr=0.1))
    rng = np.random.default_rng(0)
    for _ in range(4):
        X, y = rng.random((300, 6), np.float32), rng.integers(0, 3, 300).astype(dtype)
        expected = loss(model(X), y.astype(np.int64)).item()
        assert step(X, y).item() == expected
    assert step.explain() == f"float32 (300, 6), {np.dtype(dtype)} (300,): replayed"
    for wrong in (3, np.iinfo(dtype).max):
        y = np.array([0, 1, wrong] * 100, dtype)
        with pytest.raises(mf.errors.DataError, match=f"expected labels from 0 to 2, got {wrong} at row 2"):
            step(X, y)


class Aside(mf.Hook):
    """Trains another model between the epochs, and counts on being told after the profiler."""

    def __init__(self, when, steps):
        model = nn.Sequential(nn.Dense(4, 8, rng=0), nn.Tanh(), nn.Dense(8, 3, rng=1))
        loss = nn.CrossEntropyLoss()
        self.step = mf.compile(lambda X, y: loss(model(X), y), optim.SGD(model.parameters(), lr=0.1))
        self.steps = steps
        setattr(self, when, self.train)

    def on_epoch_start(self, state):
        pass

    def on_epoch_end(self, state):
        pass

    def train(self, state):
        rng = np.random.default_rng(0)
        for _ in range(self.steps):
            self.step(rng.random((32, 4), np.float32), rng.integers(0, 3, 32))


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("steps", [5, 700])
@pytest.mark.parametrize("when", ["on_epoch_start", "on_epoch_end"])
def test_what_hooks_train_between_epochs_is_in_no_epoch(tmp_path, when, steps, every):
    X, y = np.random.default_rng(0).random((160, 4), np.float32), np.arange(160) % 3

    class Save(mf.Hook):
        last = True

        def on_epoch_end(self, state):
            state.save(tmp_path / "a.npz")

    model = nn.Sequential(nn.Dense(4, 8, rng=0), nn.ReLU(), nn.Dense(8, 3, rng=1))
    profiler = mf.Profiler(every=every)
    aside = Aside(when, steps)
    hooks = [profiler, aside, Save()] if when == "on_epoch_end" else [aside, profiler, Save()]
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), hooks=hooks)
    trainer.fit((X, y), 4, batch_size=16, rng=0, progress=False)
    for k, epoch in enumerate(profiler.session.epochs):
        assert (epoch.epoch, epoch.steps) == (k + 1, 10)
        total = epoch.sum()
        assert total.nodes == total.rules == 4 * epoch.observed
        assert total.forward_ns <= epoch.forward_ns
        assert epoch.replayed <= 10
        assert epoch.forward_ns + epoch.backward_ns + epoch.update_ns + epoch.data_ns <= epoch.total_ns
    assert len(profiler.session.epochs) == 4


def test_patterns_that_make_room_are_counted_once():
    from microfw.profiler.recorder import recorder

    twins = Twins()
    loss, model, optimizer = twins.loss, twins.model, twins.optimizer
    with mf.Profiler(model) as profiler:
        for _ in range(10):
            twins.step(*next(twins.batches))
        for n in range(100, 106 + recorder.MAX_GRAPHS):
            optimizer.zero_grad()
            loss(model(np.ones((n, 5), np.float32)), np.zeros(n, int)).backward()
            optimizer.step()
        for _ in range(10):
            twins.step(*next(twins.batches))
    total = profiler.session.total()
    assert total.steps == 26 + recorder.MAX_GRAPHS
    assert total.sum().nodes == total.sum().rules == 4 * total.steps
