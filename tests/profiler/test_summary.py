"""The table of a model's layers, against profiles of the same step."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from operator import itemgetter

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import ArgumentError, GraphError
from tests.helpers.sessions import MODELS, X, Y


def state_of(model):
    return pickle.dumps({name: (t.data, t.grad) for name, t in model.named_parameters()})


@pytest.mark.parametrize("name", MODELS)
def test_it_has_the_counts_of_a_profile(name):
    model = MODELS[name]()
    before = state_of(model), model.training
    summary = mf.summary(model, X[:16], Y[:16], nn.CrossEntropyLoss())
    assert (state_of(model), model.training) == before
    twin = copy.deepcopy(model).eval()
    with mf.Profiler(twin) as profiler:
        nn.CrossEntropyLoss()(twin(X[:16]), Y[:16]).backward()
        profiler.end_epoch()
    (epoch,) = profiler.session.epochs
    assert summary.counts == epoch.counts() and len(summary.counts) == 2
    rows = {row.name: (row.N, row.operations) for row in summary.layers}
    for row in epoch.layers():
        assert rows.pop(row.layer) == (row.scalar_nodes, row.flops_forward + row.flops_backward)
    assert set(rows.values()) <= {(0, 0)}
    assert sum(row.parameters for row in summary.layers) == sum(p.size for p in model.parameters())


class TwoHeads(nn.Module):
    def __init__(self, outputs=tuple):
        self.a, self.b, self.outputs = nn.Dense(6, 4, rng=0), nn.Dense(6, 3, rng=1), outputs

    def forward(self, x):
        return self.outputs((self.a(x), self.b(x)))


@pytest.mark.parametrize("outputs", [tuple, list, lambda pair: {"a": pair[0], "rest": (None, pair[1], np.ones(2))}])
def test_all_outputs_of_a_model_without_a_loss_count(outputs):
    heads = [mf.summary(nn.Dense(6, n, rng=0), X[:5]) for n in (4, 3)]
    for k, count in enumerate(mf.summary(TwoHeads(outputs), X[:5]).counts):
        for name in ("N", "P", "rules", "accumulated"):
            assert getattr(count, name) == sum(getattr(head.counts[k], name) for head in heads), name
    flops = sum(layer.operations for head in heads for layer in head.layers)
    mf.profiler.assert_cost(TwoHeads(outputs), X[:5], nodes=2, edges=4, parameters=49, flops=flops)


def test_P_is_the_trained_numbers_that_the_loss_depends_on():
    first = TwoHeads(itemgetter(0))
    loss = nn.CrossEntropyLoss()
    with mf.Profiler(first) as profiler:
        loss(first(X[:5]), Y[:5]).backward()
        profiler.end_epoch()
    found = mf.profiler.law(first, loss, X[:5], Y[:5], budget=0.01)
    for kind, P in enumerate((2, 28)):
        counts = [mf.summary(first, X[:5], Y[:5], loss).counts, profiler.session.epochs[0].counts(), found.counts]
        assert [count[kind].P for count in (*counts, found.batch_counts)] == [P] * 4
    assert found.note == "not in P, since they get no gradient: b.weight, b.bias"
    assert sum(layer.parameters for layer in found.layers) == found.P
    first.a.requires_grad_(False)
    with pytest.raises(GraphError, match="law: expected a loss of one number that depends on the parameters"):
        mf.profiler.law(first, loss, X[:5], Y[:5], budget=0.01)


@pytest.mark.parametrize("call", [mf.summary, partial(mf.profiler.assert_cost, nodes=1)])
def test_targets_without_a_loss_are_refused(call):
    with pytest.raises(ArgumentError, match="expected a loss with targets y, got MSELoss as y and no loss; call "):
        call(nn.Dense(6, 3, rng=0), X, nn.MSELoss())


def test_shapes_are_those_of_the_last_output():
    class Twice(nn.Module):
        def __init__(self):
            self.layer, self.pair, self.unused = nn.Dense(6, 6, rng=0), nn.LSTM(6, 4, rng=0), nn.ReLU()

        def forward(self, x):
            rows = self.layer(self.layer(x)[:5])
            return {"first": None, "states": self.pair(rows[None])}

    model = Twice()
    shapes = {row.name: row.output_shape for row in mf.summary(model, X[:16]).layers}
    assert shapes == {"Twice": (1, 5, 4), "layer": (5, 6), "pair": (1, 5, 4), "unused": None}
    assert "forward" not in vars(model.layer)


@pytest.mark.parametrize("layer", [nn.Flatten(), nn.Dropout(0.5), nn.Lambda(lambda x: x.reshape(len(x), -1))])
def test_a_first_layer_without_parameters_has_a_shape(layer):
    model = nn.Sequential(layer, nn.Flatten(), nn.Dense(6, 3, rng=0))
    assert [row.output_shape for row in mf.summary(model, X[:2].reshape(2, 3, 2)).layers[2:]] == [(2, 6), (2, 3)]
    assert mf.summary(model, X[:2].reshape(2, 3, 2)).layers[1].output_shape is not None


def test_a_frozen_model_has_operations_and_no_steps():
    model = nn.Sequential(nn.Dense(6, 4, rng=0), nn.Dense(4, 3, rng=1)).requires_grad_(False)
    text = str(mf.summary(model, X[:2]))
    assert "No parameter is trained, so backward has no steps." in text
    # a product of 2 x 6 and 6 x 4, and a bias
    assert [line.split() for line in text.splitlines() if line.startswith("0 ")] == [
        ["0", "Dense", "(2,", "4)", "28", str(2 * 2 * 6 * 4 + 2 * 4)]
    ]


def test_a_random_generator_is_not_used_up():
    model = nn.Sequential(nn.Dense(6, 4, rng=0), nn.Dropout(0.5, rng=3))
    mf.summary(model, X[:2])
    assert np.array_equal(model(X).numpy(), nn.Sequential(nn.Dense(6, 4, rng=0), nn.Dropout(0.5, rng=3))(X).numpy())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda m: mf.summary(m, X, Y, nn.CrossEntropyLoss),
            "summary: .* got the class CrossEntropyLoss; make one: Cross",
        ),
        (lambda m: mf.summary(m, X, Y, 3), r"summary: expected a loss, called as loss\(prediction, y\), got 3"),
        (
            lambda m: mf.profiler.assert_cost(m, X, nodes="1"),
            "assert_cost: expected nodes to be a count, 0 or more, got '1'",
        ),
        (lambda m: mf.profiler.assert_cost(None, X, nodes=1), "assert_cost: expected a Module, got NoneType"),
        (lambda m: mf.Profiler(name=3), "Profiler: expected name to be a text, got 3"),
        (lambda m: mf.Profiler(m).report(max_rows="a"), "report: expected a positive number of rows, got 'a'"),
    ],
)
def test_wrong_arguments_are_named(call, says):
    with pytest.raises(ArgumentError, match=says):
        call(nn.Dense(6, 3, rng=0))


def test_what_is_no_module_is_refused():
    with pytest.raises(ArgumentError) as info:
        mf.summary(nn.Dense, X)
    assert str(info.value) == "summary: expected a Module, got type; pass the model itself"
