"""Rows of modules whose paths and types have the same name."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.profiler import report

X = np.ones((8, 4), np.float32)


def dense():
    return nn.Dense(4, 4, rng=0)


class Block(nn.Module):
    """A model with a part that has the name of the model's type."""

    def __init__(self):
        self.Block, self.weights = dense(), [nn.Parameter(np.ones((4, 4)))]

    def forward(self, x):
        return self.Block(x) @ self.weights[0]


class Net(nn.Module):
    """A model with parts that have the names of other types."""

    def __init__(self):
        self.Dense, self.MSELoss = dense(), dense()

    def forward(self, x):
        return self.MSELoss(self.Dense(x))


def profiled(bound, step):
    with mf.Profiler(bound) as profiler:
        step().backward()
        profiler.end_epoch()
    return profiler.session


@pytest.mark.parametrize("bind", [True, False])
def test_a_model_and_its_part_of_the_same_name_have_two_rows(bind):
    model = Block()
    session = profiled(model if bind else None, lambda: model(X).sum())
    assert [(row.layer, row.op) for row in session.epochs[0].rows] == [
        ("Block", "linear"), ("Block#2", "matmul"), ("", "sum")
    ]  # fmt: skip
    layers = [(layer.name, layer.kind, layer.trainable) for layer in session.layers]
    assert layers == [("Block#2", "Block", 16), ("Block", "Dense", 20)]
    rows = {row.name: row for row in mf.summary(model, X).layers}
    assert [(rows[name].parameters, rows[name].N) for name in ("Block", "Block#2")] == [(20, 256), (16, 224)]
    assert [rows[name].output_shape for name in ("Block", "Block#2")] == [(8, 4), (8, 4)]
    found = mf.profiler.law(model, nn.MSELoss(), X, X, budget=0.01)
    assert {row.layer: (row.kind, row.parameters) for row in found.layers if row.parameters} == {
        "Block": ("Dense", 20), "Block#2": ("", 16)
    }  # fmt: skip


def test_other_modules_do_not_share_a_row_with_a_part_of_the_unbound_model():
    net, first, last, loss = Net(), dense(), dense(), nn.MSELoss()
    before = profiled(None, lambda: loss(net(first(X)), X)).epochs[0].rows
    assert [row.layer for row in before] == ["Dense", "Net.Dense", "Net.MSELoss", "MSELoss"]
    after = profiled(None, lambda: loss(last(net(X)), X)).epochs[0].rows
    assert [row.layer for row in after] == ["Dense", "MSELoss", "Dense#2", "MSELoss#2"]


@pytest.mark.parametrize(("bind", "name"), [(True, "outside: Dense"), (False, "Dense#2")])
def test_the_kind_of_every_layer_is_its_type_and_a_title_has_it_once(bind, name):
    body, head = nn.Sequential({"Dense": dense(), "out": dense()}), dense()
    session = profiled(body if bind else None, lambda: head(body(X)).sum())
    frame = session.to_frame()
    assert frame[["layer", "kind"]].values.tolist() == [["Dense", "Dense"], ["out", "Dense"], [name, "Dense"], ["", ""]]
    titles = [line.split("  ")[0] for line in report(session, by="layer").splitlines()]
    assert {"Dense", "out Dense", name} <= set(titles)
