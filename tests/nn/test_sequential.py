"""Sequential: names of layers, layers added, files."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import ArgumentError

X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


def named():
    return nn.Sequential({"body": nn.Dense(4, 3, rng=0), "act": nn.Tanh(), "head": nn.Dense(3, 2, rng=1)})


def test_names_are_those_of_parameters_modules_errors_and_profiles():
    model = named()
    assert list(model.state_dict()) == ["body.weight", "body.bias", "head.weight", "head.bias"]
    assert [name for name, _ in model.named_modules()] == ["", "body", "act", "head"]
    assert repr(model).splitlines()[1].startswith("  body: Dense(4 -> 3)")
    with pytest.raises(ValueError, match=r"^body Dense: expected x of shape \(N, 4\)"):
        model(np.ones((2, 3)))
    with mf.Profiler(model) as profiler:
        optimizer = mf.optim.SGD(model.parameters(), lr=0.1)
        nn.MSELoss()(model(X), np.zeros((5, 2))).backward()
        optimizer.step()
    assert {row.layer for row in profiler.session.epochs[0].layers()} >= {"body", "act", "head"}
    plain = nn.Sequential(*model)  # with numbers
    np.testing.assert_array_equal(model(X).data, plain(X).data)


def test_layers_are_found_by_name_number_and_slice():
    model = named()
    assert model["act"] is model[1] and list(model) == list(model.layers) and len(model) == 3
    part = model[1:]
    assert list(part.state_dict()) == ["head.weight", "head.bias"] and part["head"] is model["head"]
    with pytest.raises(KeyError, match="none"):
        model["none"]


def test_append_and_insert():
    model = nn.Sequential(nn.Dense(4, 3, rng=0)).append(nn.Dense(3, 2, rng=1))
    assert model.insert(1, nn.Tanh()) is model
    np.testing.assert_array_equal(model(X).data, named()(X).data)
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    grown = nn.Sequential({"body": model[0]}).append(model[2], "head").insert(-1, model[1], "act")
    assert list(grown.state_dict()) == list(named().state_dict())
    np.testing.assert_array_equal(grown(X).data, model(X).data)
    empty = nn.Sequential().append(nn.Tanh())
    np.testing.assert_array_equal(empty(X).data, np.tanh(X))


def test_layers_are_replaced_and_removed_by_number_and_name():
    model = nn.Sequential(nn.Dense(4, 3, rng=0), nn.ReLU(), nn.Dense(3, 5, rng=1))
    model[1], model[-1] = nn.Tanh(), named()["head"]
    np.testing.assert_array_equal(model(X).data, named()(X).data)
    del model[:2]
    assert [str(layer) for layer in model] == [str(named()["head"])] and list(model.state_dict()) == [
        "0.weight",
        "0.bias",
    ]

    model = named()
    model["act"] = nn.ReLU()
    np.testing.assert_array_equal(model(X).data, model["head"](np.maximum(model["body"](X).data, 0)).data)
    del model["act"], model[0]
    assert list(model.state_dict()) == ["head.weight", "head.bias"]
    with pytest.raises(KeyError, match="act"):
        model["act"] = nn.Tanh()
    with pytest.raises(IndexError):
        del model[1]
    with pytest.raises(ArgumentError, match="layer 'head' to be a Module"):
        model["head"] = np.tanh
    assert list(model.state_dict()) == ["head.weight", "head.bias"]


def test_a_compiled_step_runs_a_layer_that_was_added():
    model = nn.Sequential(nn.Dense(4, 2, rng=0))
    optimizer = mf.optim.SGD(model.parameters(), lr=0.1)
    step = mf.compile(lambda x: np.square(model(x)).mean(), optimizer)
    for _ in range(5):
        step(X)
    assert step.replays
    model.append(nn.Lambda(lambda x: 2 * x))
    expected = np.square(model(X)).mean().item()
    assert step(X).item() == expected
    model[1] = nn.Lambda(lambda x: 3 * x)
    expected = np.square(model(X)).mean().item()
    assert step(X).item() == expected


def test_a_named_model_is_saved_copied_and_pickled(tmp_path):
    model = named().append(nn.Sequential({"0": nn.Dense(2, 2, rng=2), "$last": nn.Tanh()}), "tail")
    mf.save(tmp_path / "model.npz", model)
    for other in (mf.load(tmp_path / "model.npz"), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert repr(other) == repr(model)
        np.testing.assert_array_equal(other(X).data, model(X).data)
        assert other.append(nn.Tanh(), "more")["more"] is other[-1]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: nn.Sequential({"a.b": nn.Tanh()}), "Sequential: expected different names, texts without dots, got 'a.b'"),
        (lambda: nn.Sequential({"": nn.Tanh()}), "Sequential: expected different names, texts without dots, got ''"),
        (lambda: nn.Sequential({1: nn.Tanh()}), "Sequential: expected different names, texts without dots, got 1"),
        (lambda: nn.Sequential({"a": np.tanh}), "Sequential: expected layer 'a' to be a Module, got ufunc; wrap a function in nn.Lambda"),
        (lambda: named().append(nn.Tanh(), "act"), "Sequential: expected different names, texts without dots, got 'act'"),
        (lambda: named().append(nn.Tanh()), "Sequential.insert: expected a name, as the others have, got None"),
        (lambda: nn.Sequential().append(nn.Tanh(), "a"), "Sequential.insert: expected no name, since layers have numbers, got 'a'"),
        (lambda: nn.Sequential().append(nn.Tanh), "Sequential: expected layer 0 to be a Module, got the class Tanh; make one: Tanh()"),
    ],
)  # fmt: skip
def test_what_is_refused(make, text):
    with pytest.raises(ArgumentError) as info:
        make()
    assert str(info.value) == text


def test_a_refused_layer_changes_nothing():
    model = named()
    with pytest.raises(ArgumentError):
        model.insert(0, nn.Tanh(), "act")
    assert repr(model) == repr(named())
    model.layers = model.layers[:2]
    with pytest.raises(ArgumentError, match="^Sequential: expected 3 layers, as names, got 2; use append$"):
        model.state_dict()
