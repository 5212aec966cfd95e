"""Hyperparameters that are set by item, by update or through a group: the next step has them, in each way to train."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError

WAYS = {
    "attribute": lambda o: setattr(o, "lr", 1e-3),
    "item": lambda o: o.settings.__setitem__("lr", 1e-3),
    "update": lambda o: o.settings.update(lr=1e-3),
    "in place": lambda o: o.settings.__ior__({"lr": 1e-3}),
    "item of a group": lambda o: o.groups[0].__setitem__("lr", 1e-3),
    "attribute of a group": lambda o: setattr(o.groups[0], "lr", 1e-3),
}


def trained(change, compile):
    model = nn.Dense(4, 2, rng=0)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    X = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)

    class Change(mf.Hook):
        def on_epoch_start(self, state):
            if state.epoch == 3:
                change(state.optimizer)

    trainer = mf.Trainer(model, nn.MSELoss(), optimizer, hooks=[Change()], compile=compile)
    trainer.fit((X, X[:, :2]), 5, batch_size=4, rng=0, progress=False)
    return model.weight.numpy().tobytes(), optimizer.groups[0]["lr"], optimizer.groups[0].lr


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_rate_that_is_set_in_any_way_is_that_of_the_next_step(way, compile):
    assert trained(WAYS[way], compile) == trained(WAYS["attribute"], False)


def test_names_of_settings_are_neither_added_nor_removed():
    optimizer = optim.SGD([nn.Parameter(1.0)], lr=0.1)
    for change in (
        lambda: optimizer.settings.update(rate=1),
        lambda: optimizer.settings.__setitem__("rate", 1),
        lambda: setattr(optimizer.groups[0], "rate", 1),
    ):
        with pytest.raises(ArgumentError, match=r"expected one of lr, momentum, nesterov, weight_decay, got 'rate'"):
            change()
    assert optimizer.settings.setdefault("momentum", 0.9) == 0.0
    for change in (
        lambda: optimizer.settings.pop("lr"),
        lambda: optimizer.settings.setdefault("rate", 1),
        optimizer.settings.clear,
        optimizer.settings.popitem,
    ):
        with pytest.raises(
            ArgumentError, match=r"settings: expected the hyperparameters lr, .* to stay, got one to be"
        ):
            change()
    with pytest.raises(AttributeError, match="'Group' object has no attribute 'rate'"):
        _ = optimizer.groups[0].rate
    assert optimizer.settings == {"lr": 0.1, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}


def test_a_bad_value_that_is_set_by_item_is_refused_by_the_next_step():
    p = nn.Parameter(1.0)
    optimizer = optim.SGD([p], lr=0.1)
    (p * p).backward()
    optimizer.settings["lr"] = -1
    with pytest.raises(ArgumentError, match="lr above 0"):
        optimizer.step()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_groups_and_settings_are_copied(copied):
    optimizer = optim.SGD([{"params": nn.Parameter(1.0), "lr": 0.5}, {"params": nn.Parameter(2.0)}], lr=0.1)
    other = copied(optimizer)
    other.settings["momentum"] = 0.9
    assert (other.groups[0].lr, other.groups[1].lr, other.groups[1].momentum) == (0.5, 0.1, 0.9)
    assert optimizer.groups[1].momentum == 0.0
