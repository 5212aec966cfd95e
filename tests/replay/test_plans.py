"""A plan is used, changed or made again as the step's settings, shapes and parameters change."""

from __future__ import annotations

import contextlib
import copy

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.autograd.mode import MODE, mode
from microfw.autograd.state_discovery import iter_reachable
from microfw.errors import ArgumentError, MicrofwError
from microfw.replay.plan import CHUNK
from tests.helpers.replay import Twins, assert_same, drawn, labels, mlp, optimizer_rows, pair, race, values
from tests.helpers.thinning import thinned


def test_each_shape_has_its_own_plan():
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


def test_numbers_and_rows_have_the_bits_of_an_eager_step():
    row = np.arange(4, dtype=np.float32).reshape(1, 4) / 7

    def loss(x, y):
        z = row - 1 / (2 - np.minimum(x, 0.3)) * -0.0 + (0.0 + x) / 3
        return (row * np.maximum(z, 0.1) ** 2 - (z > 0.2) * x).sum()

    Twins(loss=loss)


def test_train_and_eval():
    twins = Twins(lambda: mlp(nn.Dropout(0.5, rng=3), nn.BatchNorm1D(4)))
    for change in (nn.Module.eval, nn.Module.train):
        twins.both(lambda model, _, change=change: change(model))
        twins.go()


def test_replaced_running_statistics():
    twins = Twins(lambda: mlp(nn.BatchNorm1D(4)))
    for value in (0.0, 3.0):  # the first as they were made
        twins.both(lambda model, _, v=value: setattr(model.layers[-1], "running_mean", mf.Tensor(np.full(4, v, "f"))))
        leaf = twins.model.layers[-1].running_mean._leaf
        before = leaf.version
        twins.go()
        one, other = (model.layers[-1].running_mean for model in (twins.eager, twins.model))
        assert one.data.tobytes() == other.data.tobytes() and leaf.version >= before + 4
    assert "replayed" in twins.step.explain()


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


def test_steps_that_train_different_parameters_of_an_optimizer_in_turn():
    (eager, model), (one, optimizer) = pair(mlp)
    losses = (lambda m, X: m(X).sum()), (lambda m, X: m.layers[0](X).mean())
    steps = [mf.compile(lambda X, loss=loss: loss(model, X), optimizer) for loss in losses]
    for X, _ in drawn(16, labels):
        for step, loss in zip(steps, losses, strict=True):
            one.zero_grad()
            loss(eager, mf.Tensor(X)).backward()
            one.step()
            step(X)
            assert_same(values(eager), values(model))
            assert one.gradient_norm == optimizer.gradient_norm
    assert all(step.replays for step in steps)


def test_a_hook_on_a_parameter_is_called_and_named():
    twins, seen = Twins(), []
    handles = [m.layers[0].weight.register_hook(lambda g: seen.append(1)) for m in (twins.eager, twins.model)]
    twins.go()
    assert len(seen) == 8 and "parameter '0.weight' has a hook" in twins.step.explain()
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


def test_a_copy_of_a_leaf_is_a_value_read():
    class Copy(nn.Module):
        def forward(self, x):
            return x * copy.copy(scale)

    scale = mf.tensor([2.0], np.float32)
    step = race(lambda: mlp(Copy()), nn.CrossEntropyLoss(), drawn(6, labels), replayed=False)
    assert not step.replays and "3 reads the values of a Tensor" in step.explain()


def test_a_step_that_looks_for_anomalies_runs_every_time():
    class Careful(nn.Module):
        def forward(self, x):
            with mf.detect_anomaly():
                return x * 2

    step = race(lambda: mlp(Careful()), nn.CrossEntropyLoss(), drawn(6, labels), replayed=False)
    assert not step.replays and "3 checks the values of a Tensor" in step.explain()


def test_an_argument_that_is_detached_is_read_at_every_step():
    class Detach(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = mlp()

        def forward(self, x):
            return self.inner(x.detach())

    first, other = drawn(2, labels)
    race(Detach, nn.CrossEntropyLoss(), [*[first] * 4, *[other] * 4])


def test_a_parameter_that_is_detached_and_returned_has_the_values_of_the_step():
    (eager, model), (one, optimizer) = pair(mlp)
    step = mf.compile(lambda X: (np.mean(model(X)), model[0].weight.detach()), optimizer)
    for X, _ in drawn(6, labels):
        one.zero_grad()
        loss, weight = np.mean(eager(mf.Tensor(X))), eager[0].weight.detach()
        loss.backward()
        one.step()
        assert_same([loss.data, weight.data], [t.data for t in step(X)])
    assert step.replays, step.explain()


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
    """Some moves are left out where a setting is 0; a replayed update must notice when the setting changes."""
    twins = Twins(kind=kind, **options | {"lr": 0.01})
    captures = twins.step.captures
    for name, value in list(twins.one.settings.items()):
        for changed in (0.25, 0.0, 0.125, value) if type(value) is float else ():
            try:
                twins.both(lambda _, optimizer, name=name, changed=changed: setattr(optimizer, name, changed))
                twins.go(2)
                for replay in twins.step.replays.values():  # the step is generated again, for the same plan
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


class Walking(nn.Module):
    """Calls the parts of a container that no code names."""

    def __init__(self):
        super().__init__()
        self.parts = [nn.Dense(5, 8, rng=0), [nn.Tanh()], {"a": nn.Dropout(0.3, rng=2), "b": nn.Dense(8, 4, rng=1)}]
        self.noted = []

    def forward(self, x):
        for _, module in self.named_modules():
            x = module(x) if module is not self else x
        return x


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.parts[1].__setitem__(0, nn.ReLU()),
        lambda m: m.parts[1].append(nn.Tanh()),
        lambda m: m.parts[0].requires_grad_(False),
        lambda m: m.parts[2].pop("a"),
        lambda m: vars(m)["parts"][2]["a"].eval(),
    ],
    ids=["another", "added", "frozen", "removed", "mode"],
)
def test_layers_in_a_container_that_no_code_names(change):
    twins = Twins(Walking)
    twins.both(lambda model, _: change(model))
    twins.go()
    assert twins.replays() == 1 and "run every time" not in twins.step.explain()


def test_a_list_of_numbers_that_no_code_names_may_grow_at_each_step():
    twins = Twins(Walking)
    for k in range(6):
        twins.both(lambda model, _, k=k: model.noted.append(k))
        twins.go(1)
    plan = next(iter(twins.step.replays.values()))
    assert plan.replays >= 2, twins.step.explain()


def test_children_are_compared():
    class Children(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = mlp()
            self.factors = [1.0]

        def forward(self, x):
            return self.inner(x) * dict(self.children())["fac" + "tors"][0]

    twins = Twins(Children)
    twins.both(lambda model, _: vars(model)["fac" + "tors"].__setitem__(0, 3.0))
    twins.go()


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
    """The plan knows the module that the function is of, and everything else in it."""
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


def test_an_unused_loss_does_not_prevent_replay():
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
    assert "it changes parameters, as an optimizer's step or p -= lr * p.grad does" in step.explain()


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
