"""Each layer has a row of its own in a profile, named by its path in the model that is bound, however it is called."""

from __future__ import annotations

import re

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.autograd.scope import THREAD_SCOPE
from microfw.errors import ShapeError
from microfw.profiler import assert_cost
from microfw.profiler.reports.tables import step_lines
from tests.helpers.sampled_loop import observed_steps
from tests.helpers.thinning import thinned

RNG = np.random.default_rng(0)
X = RNG.random((6, 4)).astype(np.float32)
Y = RNG.random((6, 3)).astype(np.float32)
STEPS = 7


def dense(rows, columns, seed=0):
    return nn.Dense(rows, columns, rng=seed)


def mlp(rows=4, columns=3, seed=0):
    return nn.Sequential(dense(rows, 8, seed), nn.ReLU(), dense(8, columns, seed + 1))


MLP = {"0": (1, 40), "1": (1, 0), "2": (1, 27), "MSELoss": (1, 0)}


class Way:
    """A way of calling layers: what is bound, what is trained, a step's loss, and each row's N and P."""

    def __init__(self, bound, trained, loss, rows):
        self.bound, self.loss, self.rows = bound, loss, rows
        self.parameters = list({id(p): p for module in trained for p in module.parameters()}.values())


def mse(output):
    return nn.MSELoss()(output, Y)


def through_the_root():
    model = mlp()
    return Way(model, [model], lambda: mse(model(X)), MLP)


def part_by_part():
    G, D = mlp(4, 5), mlp(5, 3, 2)
    rows = {"0.0": (1, 40), "0.1": (1, 0), "0.2": (1, 45), "1.0": (1, 48), "1.1": (1, 0), "1.2": (1, 27)}
    return Way(nn.Sequential(G, D), [G, D], lambda: mse(D(G(X))), rows | {"MSELoss": (1, 0)})


def in_a_loop_over_layers():
    model = mlp()

    def loss():
        h = X
        for layer in model:
            h = layer(h)
        return mse(h)

    return Way(model, [model], loss, MLP)


def forward_of_the_root():
    model = mlp()
    return Way(model, [model], lambda: mse(model.forward(X)), MLP)


def forward_of_the_layers():
    model = mlp()

    def loss():
        h = X
        for layer in model.layers:
            h = layer.forward(h)
        return mse(h)

    return Way(model, [model], loss, MLP)


class Coder(nn.Module):
    def __init__(self):
        self.encoder = mlp(4, 5)
        self.decoder = dense(5, 3, 2)
        self.scale = nn.Parameter([1.0, 1.0, 1.0])

    def encode(self, x):
        return self.encoder.forward(x)

    def forward(self, x):
        return self.scale * self.decoder.forward(self.encode(x))


CODER = {"encoder.0": (1, 40), "encoder.1": (1, 0), "encoder.2": (1, 45), "decoder": (1, 18), "MSELoss": (1, 0)}


def nested():
    model = Coder()
    return Way(model, [model], lambda: mse(model(X)), CODER | {"Coder": (1, 3)})


def forward_of_a_model_of_ones_own():
    model = Coder()
    return Way(model, [model], lambda: mse(model.forward(X)), CODER | {"Coder": (1, 3)})


def other_methods_and_parts_by_name():
    model = Coder()
    return Way(model, [model.encoder, model.decoder], lambda: mse(model.decoder(model.encode(X))), CODER)


def shared():
    same = dense(4, 4)
    model = nn.Sequential(same, nn.ReLU(), same, dense(4, 3, 1))
    rows = {"0": (2, 20), "1": (1, 0), "3": (1, 15), "MSELoss": (1, 0)}
    return Way(model, [model], lambda: mse(model(X)), rows)


def two_models_in_one_step():
    one, two = mlp(), mlp(seed=3)
    rows = MLP | {f"outside: Sequential.{k}": MLP[k] for k in "012"} | {"": (1, 0)}
    return Way(one, [one, two], lambda: mse(one(X) + two(X)), rows)


def two_models_and_none_bound():
    one, two = mlp(), mlp(seed=3)
    rows = MLP | {f"Sequential#2.{k}": MLP[k] for k in "012"} | {"": (1, 0)}
    return Way(None, [one, two], lambda: mse(one(X) + two(X)), rows)


def layers_of_no_model():
    layers = [dense(4, 4), nn.ReLU(), dense(4, 3, 1), nn.ReLU()]

    def loss():
        h = X
        for layer in layers:
            h = layer(h)
        return mse(h)

    rows = {"Dense": (1, 20), "ReLU": (1, 0), "Dense#2": (1, 15), "ReLU#2": (1, 0), "MSELoss": (1, 0)}
    return Way(None, [layers[0], layers[2]], loss, rows)


def a_backbone_outside_of_the_model():
    body, head = mlp(4, 5), mlp(5, 3, 2)
    rows = {"outside: Sequential.0": (1, 40), "outside: Sequential.1": (1, 0), "outside: Sequential.2": (1, 45)}
    rows |= {"0": (1, 48), "1": (1, 0), "2": (1, 27), "MSELoss": (1, 0)}
    return Way(head, [body, head], lambda: mse(head(body(X))), rows)


def a_head_that_is_bound_alone():
    model = Coder()
    rows = {f"outside: Coder.{path}": CODER[path] for path in CODER if path.startswith("encoder")}
    rows |= {"Dense": (1, 18), "outside: Coder": (1, 3), "MSELoss": (1, 0)}
    return Way(model.decoder, [model], lambda: mse(model(X)), rows)


def a_lambda():
    inner = dense(4, 4)
    model = nn.Sequential(nn.Lambda(np.sin), nn.Lambda(lambda x: x * inner(x)), dense(4, 3, 1))
    rows = {"1": (1, 0), "1.Dense": (1, 20), "2": (1, 15), "MSELoss": (1, 0)}
    return Way(model, [model, inner], lambda: mse(model(X)), rows)


class Collections(nn.Module):
    def __init__(self):
        self.blocks = [dense(4, 4, k) for k in range(3)]
        self.heads = {"mean": dense(4, 3, 5), "scale": (dense(4, 3, 6), nn.Tanh())}

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        layer, activation = self.heads["scale"]
        return self.heads["mean"](x) * activation(layer(x))


def lists_and_dicts():
    model = Collections()
    rows = {f"blocks.{k}": (1, 20) for k in range(3)} | {"heads.mean": (1, 15), "heads.scale.0": (1, 15)}
    rows |= {"heads.scale.1": (1, 0), "Collections": (1, 0), "MSELoss": (1, 0)}
    return Way(model, [model], lambda: mse(model(X)), rows)


def recurrent_in_a_python_loop():
    cell, readout = dense(4, 4), dense(4, 3, 1)
    model = nn.Sequential(cell, nn.Tanh(), readout)

    def loss():
        h = X
        for _ in range(5):
            h = model[1](cell(h))
        return mse(readout(h))

    return Way(model, [model], loss, {"0": (5, 20), "1": (5, 0), "2": (1, 15), "MSELoss": (1, 0)})


def under_checkpoint():
    model = nn.Sequential(mlp(4, 5), mlp(5, 3, 2))
    rows = {"0.0": (1, 40), "0.1": (1, 0), "0.2": (1, 45), "1.0": (1, 48), "1.1": (1, 0), "1.2": (1, 27)}
    return Way(model, [model], lambda: mse(model[1](mf.checkpoint(model[0], X))), rows | {"MSELoss": (1, 0)})


def without_modules_between():
    model = mlp()
    return Way(model, [model], lambda: mse(np.tanh(model[0](X)) @ model[2].weight), {
        "0": (1, 40), "": (2, 0), "MSELoss": (1, 0)
    })  # fmt: skip


class Inline(nn.Module):
    def __init__(self):
        self.layer = dense(4, 3)

    def forward(self, x):
        return nn.Tanh()(nn.ReLU()(self.layer(x))) + nn.ReLU()(x[:, :3])


def layers_made_in_each_step():
    model = Inline()
    rows = {"layer": (1, 15), "Inline.Tanh": (1, 0), "Inline.ReLU": (1, 0), "Inline": (1, 0), "MSELoss": (1, 0)}
    rows["Inline.ReLU#2"] = 0, 0  # of data: computed, and recorded nowhere
    return Way(model, [model], lambda: mse(model(X)), rows)


WAYS = [
    through_the_root, part_by_part, in_a_loop_over_layers, forward_of_the_root, forward_of_the_layers, nested,
    forward_of_a_model_of_ones_own, other_methods_and_parts_by_name, shared, two_models_in_one_step,
    two_models_and_none_bound, layers_of_no_model, a_backbone_outside_of_the_model, a_head_that_is_bound_alone,
    a_lambda, lists_and_dicts, recurrent_in_a_python_loop, under_checkpoint, without_modules_between,
    layers_made_in_each_step,
]  # fmt: skip


def check(way, profiler, observed):
    """Check names, N and P by row, and that the seconds of layers and the rest are those of the phases."""
    (epoch,) = profiler.session.epochs
    assert (epoch.steps, epoch.observed) == (STEPS, observed)
    rows = {row.layer: row for row in epoch.layers()}
    assert {name: (row.nodes / observed, row.rules / observed) for name, row in rows.items()} == {
        name: (nodes, nodes) for name, (nodes, _) in way.rows.items()
    }
    sizes = {layer.name: layer.parameters for layer in profiler.session.layers}
    assert {name: sizes.get(name, 0) for name in rows} == {name: size for name, (_, size) in way.rows.items()}
    assert epoch.parameters == sum(p.size for p in way.parameters if p.grad is not None)
    times = [sum(getattr(row, name) for row in epoch.rows) for name in ("forward_ns", "backward_ns")]
    assert times[0] + epoch.untagged_forward_ns == epoch.forward_ns >= times[0] > 0
    assert times[1] + epoch.untagged_backward_ns == epoch.backward_ns >= times[1] > 0
    assert epoch.forward_ns + epoch.backward_ns + epoch.update_ns <= epoch.total_ns
    assert profiler.report()


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("make", WAYS, ids=lambda make: make.__name__)
def test_rows_are_the_users_names(make, every):
    way = make()
    optimizer = optim.SGD(way.parameters, lr=0.01)
    with mf.Profiler(way.bound, every=every) as profiler:
        for _ in range(STEPS):
            optimizer.zero_grad()
            way.loss().backward()
            optimizer.step()
            with mf.no_grad():  # an evaluation changes no row
                way.loss()
    check(way, profiler, len(observed_steps(STEPS, every)))


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("make", thinned(WAYS, 2), ids=lambda make: make.__name__)
def test_rows_of_a_replayed_step_are_those_of_the_step(make, every):
    way = make()
    step = mf.compile(way.loss, optim.SGD(way.parameters, lr=0.01))
    for _ in range(3):
        step()
    with mf.Profiler(way.bound, every=every) as profiler:
        for _ in range(STEPS):
            step()
    check(way, profiler, len(observed_steps(STEPS, every)))
    if make not in (under_checkpoint, a_lambda, layers_made_in_each_step):
        assert profiler.session.epochs[0].replayed > 0


def test_a_layer_in_two_models_is_named_by_each():
    layer = dense(4, 3)
    models = [nn.Sequential(nn.Tanh(), layer), nn.Sequential(nn.ReLU(), nn.Tanh(), layer)]
    for model, name in zip(models, "12", strict=True):
        for called in models:
            with mf.Profiler(model) as profiler:
                mse(called(X)).backward()
                profiler.end_epoch()
            linear = [row.layer for row in profiler.session.epochs[0].rows if row.op == "linear"]
            assert linear == [name]
        loss = mse(models[0](X))
        leaves = {leaf.name for leaf in mf.draw(loss, model).picture.leaves if leaf.kind == "parameter"}
        assert leaves == {f"{name}.weight", f"{name}.bias"}
        assert f"{name} Dense" in {box.title for box in mf.draw(loss, model).picture.boxes}


def test_a_layer_under_two_paths_has_the_first():
    model = Coder()
    model.again = model.encoder
    with mf.Profiler(model) as profiler:
        mse(model.decoder(model.again(X)) + model.decoder(model.encoder(X))).backward()
        profiler.end_epoch()
    found = {row.layer: row.nodes for row in profiler.session.epochs[0].layers()}
    assert found == {"encoder.0": 2, "encoder.1": 2, "encoder.2": 2, "decoder": 2, "": 1, "MSELoss": 1}
    assert sum(layer.parameters for layer in profiler.session.layers) == sum(p.size for p in model.parameters())


def test_losses_of_one_type_have_rows_of_their_own():
    first, second, model = nn.MSELoss(), nn.MSELoss(), dense(4, 3)
    with mf.Profiler(model) as profiler:
        for _ in range(3):
            output = model(X)
            (first(output, Y) + second(output, X[:, :3])).backward()
        second(model(X), Y).backward()
        profiler.end_epoch()
    found = {row.layer: row.nodes for row in profiler.session.epochs[0].layers()}
    assert found == {"Dense": 4, "MSELoss": 3, "MSELoss#2": 4, "": 3}


def test_a_model_that_is_made_in_each_step_leaves_its_name_to_the_next():
    with mf.Profiler() as profiler:
        for k in range(200):
            mse(mlp(seed=k)(X)).backward()
        profiler.end_epoch()
        names = {row.layer for row in profiler.session.epochs[0].rows}
        assert len(names) < 400
        assert len(profiler._recorder.op_stats) < 400


def test_the_rows_of_a_trainers_fit_are_the_paths_in_its_model():
    model = Coder()
    profiler = mf.Profiler(name="fit")
    trainer = mf.Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.01), hooks=[profiler])
    trainer.fit((X, Y), epochs=2, batch_size=3, rng=0, progress=False)
    assert [row.layer for row in profiler.session.epochs[0].layers()] == [*CODER][:4] + ["Coder", "MSELoss"]


@pytest.mark.parametrize(
    ("call", "path"),
    [
        (lambda m: m(X[:, :2]), "encoder.0 Dense"),
        (lambda m: m.forward(X[:, :2]), "encoder.0 Dense"),
        (lambda m: m.encode(X[:, :2]), "0 Dense"),
        (lambda m: m.encoder[0](X[:, :2]), "Dense"),
        (lambda m: m.encoder[0].forward(X[:, :2]), "Dense"),
        (lambda m: nn.Sequential(m)(X[:, :2]), "0.encoder.0 Dense"),
    ],
)
def test_errors_name_the_path_from_the_outermost_module(call, path):
    with pytest.raises(ShapeError, match=rf"^{re.escape(path)}: expected x of shape \(N, 4\), got \(6, 2\)"):
        call(Coder())
    assert THREAD_SCOPE.scope is None


def test_forward_runs_what_the_class_defines():
    class Twice(Coder):
        def forward(self, x, *, times=2):
            return super().forward(x) * times

    model = Twice()
    np.testing.assert_array_equal(model.forward(X, times=3).data, model(X, times=3).data)
    np.testing.assert_array_equal(Coder.forward(model, X).data * np.float32(2), model(X).data)
    with mf.Profiler(model) as profiler:
        mse(model.forward(X)).backward()
        mse(Coder.forward(model, X)).backward()
        profiler.end_epoch()
    assert {row.layer: row.nodes for row in profiler.session.epochs[0].layers()}["Twice"] == 3

    class Mixin:
        def forward(self, inputs):
            return inputs * self.factor

    class Mixed(Mixin, nn.Module):
        def __init__(self):
            self.factor = nn.Parameter(2.0)

    model = Mixed()
    with mf.Profiler(model) as profiler:
        model.forward(inputs=X).sum().backward()
        profiler.end_epoch()
    assert [row.layer for row in profiler.session.epochs[0].rows] == ["Mixed", ""]


def test_a_forward_that_is_replaced_is_called():
    layer = dense(4, 3)
    layer.forward = lambda x: mf.tensor(x) * 2.0
    np.testing.assert_array_equal(layer(X).data, X * 2)
    np.testing.assert_array_equal(nn.Sequential(layer)(X).data, X * 2)


def test_a_cost_is_that_of_the_model_however_it_is_called():
    assert_cost(Coder(), X, Y, nn.MSELoss(), nodes=6, parameters=106)


# A step, and a profile of one model


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("backward", [True, False])
def test_a_step_ends_with_the_last_update_before_the_next_backward(every, backward):
    body, head = mlp(4, 5), mlp(5, 3, 2)
    optimizers = [optim.SGD(part.parameters(), lr=0.01) for part in (body, head)]
    mse(head(body(X))).backward()
    gradients = {p: p.grad.copy() for part in (body, head) for p in part.parameters()}
    with mf.Profiler(nn.Sequential(body, head), every=every) as profiler:
        for _ in range(STEPS):
            if backward:
                for optimizer in optimizers:
                    optimizer.zero_grad()
                mse(head(body(X))).backward()
            else:
                for p, gradient in gradients.items():
                    p.grad = gradient
            for optimizer in optimizers:
                optimizer.step()
    (epoch,) = profiler.session.epochs
    observed = len(observed_steps(STEPS, every))
    assert (epoch.steps, epoch.observed) == (STEPS, observed)
    assert epoch.sum().nodes == 7 * observed * backward
    assert epoch.update_ns > 0 and epoch.forward_ns + epoch.backward_ns + epoch.update_ns <= epoch.total_ns


def test_a_compiled_step_and_another_optimizers_update_are_one_step():
    body, head = mlp(4, 5), mlp(5, 3, 2)
    optimizers = [optim.SGD(part.parameters(), lr=0.01) for part in (body, head)]
    step = mf.compile(lambda: mse(head(body(X))), optimizers[1])
    with mf.Profiler(nn.Sequential(body, head)) as profiler:
        for _ in range(STEPS):
            optimizers[0].zero_grad()
            step()
            optimizers[0].step()
    assert profiler.session.epochs[0].steps == STEPS


def fit(profiler, model, epochs=2):
    trainer = mf.Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.01), hooks=[profiler])
    trainer.fit((X, Y), epochs=epochs, batch_size=3, rng=0, progress=False)


def test_a_profile_is_of_one_model():
    profiler, large, small = mf.Profiler(), mlp(), dense(4, 3)
    fit(profiler, large)
    fit(profiler, large)
    assert len(profiler.sessions) == 1 and len(profiler.session.epochs) == 4
    fit(profiler, small)
    old, new = profiler.sessions
    assert new is profiler.session and [len(s.epochs) for s in (old, new)] == [4, 2]
    assert [s.epochs[0].parameters for s in (old, new)] == [67, 15]
    assert [[layer.name for layer in s.layers] for s in (old, new)] == [["Sequential", "0", "1", "2"], ["Dense"]]
    assert [epoch.epoch for epoch in new.epochs] == [1, 2]


def test_a_fit_that_fails_at_once_leaves_the_profile_as_it_was():
    profiler, model = mf.Profiler(), mlp()
    fit(profiler, model)

    class Fails(mf.Hook):
        def on_epoch_start(self, state):
            raise ValueError

    other = dense(4, 3)
    trainer = mf.Trainer(other, nn.MSELoss(), optim.SGD(other.parameters(), lr=0.01), hooks=[profiler, Fails()])
    with pytest.raises(ValueError):
        trainer.fit((X, Y), epochs=1, progress=False)
    (session,) = profiler.sessions
    assert session.model == "Sequential" and [layer.name for layer in session.layers] == ["Sequential", "0", "1", "2"]
    fit(profiler, model)
    assert len(profiler.session.epochs) == 4 and len(profiler.sessions) == 1


def test_a_shared_weight_is_used_by_each_of_its_layers():
    first, second = nn.Dense(8, 8, rng=0), nn.Dense(8, 8, rng=1)
    second.weight = first.weight
    model = nn.Sequential(first, nn.Tanh(), second)
    with mf.Profiler(model) as profiler:
        model(np.ones((20, 8), np.float32)).sum().backward()
        mf.optim.SGD(model.parameters(), lr=1e-3).step()
    layers = {layer.name: layer for layer in profiler.session.layers}
    assert [layers[name].weights for name in ("0", "2")] == [64, 64]
    assert [layers[name].parameters for name in ("0", "2")] == [72, 8]
    lines = {line.name: line for line in step_lines(profiler.session, profiler.session.epochs[0])}
    assert [lines[name].reuse for name in ("0", "2")] == [20, 20]
    assert [lines[name].flops_each * 72 for name in ("0", "2")] == [lines[name].flops for name in ("0", "2")]
