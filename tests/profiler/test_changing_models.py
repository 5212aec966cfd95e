"""Rows and numbers of layers in a profile of a model that changes."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.profiler.epoch import VARYING
from microfw.profiler.recorder.naming import LayerNames
from microfw.profiler.reports.html import view
from microfw.profiler.reports.tables import step_lines


class Net(nn.Module):
    """A model with a part that tests exchange."""

    def __init__(self):
        self.a, self.act, self.b = nn.Dense(4, 4, rng=0), nn.Tanh(), nn.Dense(4, 3, rng=1)

    def forward(self, x):
        return self.b(self.act(self.a(x)))


def steps(model, rows=8):
    optimizer = optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(np.ones((rows, 4), np.float32)).sum().backward()
        optimizer.step()


@pytest.mark.parametrize("bound", [True, False])
@pytest.mark.parametrize("blocks", [1, 2])
def test_a_layer_keeps_its_row_when_the_model_changes_and_a_new_one_gets_its_own(bound, blocks):
    if blocks == 2 and not bound:
        pytest.skip("then the paths are from the outermost module of each block")
    model = Net()
    profiler = mf.Profiler(model if bound else None)
    added = nn.Dense(4, 4, rng=2)
    with profiler:
        steps(model)
        if blocks == 1:
            profiler.end_epoch()
            model.act = added
            steps(model)
    if blocks == 2:
        model.act = added
        with profiler:
            steps(model)
    session = profiler.session
    first, second = ({row.layer: row.flops_forward for row in e.layers() if row.layer} for e in session.epochs)
    assert (set(first), set(second)) == ({"a", "act", "b"}, {"a", "act#2", "b"})
    assert first["a"] == second["a"] == second["act#2"]
    kinds = {layer.name: (layer.kind, layer.trainable) for layer in session.layers if layer.name in second}
    assert kinds == {"a": ("Dense", 20), "act#2": ("Dense", 20), "b": ("Dense", 15)}
    assert {line.name: line.reuse for line in step_lines(session, session.epochs[1]) if line.own.weights} == {
        "a": 8, "act#2": 8, "b": 8,
    }  # fmt: skip


def test_a_layer_that_is_inserted_leaves_the_others_their_rows():
    model = nn.Sequential(nn.Dense(4, 4, rng=0), nn.Dense(4, 3, rng=1))
    with mf.Profiler(model) as profiler:
        steps(model)
        profiler.end_epoch()
        model.insert(0, nn.Dense(4, 4, rng=2))
        steps(model)
    rows = [{row.layer: row.nodes for row in e.layers() if row.layer} for e in profiler.session.epochs]
    assert rows == [{"0": 2, "1": 2}, {"0#2": 2, "0": 2, "1": 2}]
    assert "55 parameters" in profiler.report(full=True)


@pytest.mark.parametrize("bound", [True, False])
def test_titles_count_the_parameters_of_the_model_at_the_end(bound):
    model = Net()
    with mf.Profiler(model if bound else None) as profiler:
        for rng in range(3):
            model.b = nn.Dense(4, 3, rng=rng)
            model.b.bias.requires_grad = rng < 2
            steps(model)
            profiler.end_epoch()
    session = profiler.session
    assert f"6 steps, {20 + 12} parameters and 3 frozen" in session.report(full=True).replace("\n", " ")
    shown = view(session)
    assert (shown["trainable"], shown["frozen"]) == (20 + 12, 3)


def test_titles_count_the_parameters_of_a_model_that_is_gone_at_the_end():
    with mf.Profiler() as profiler:
        steps(Net())
    assert "35 parameters" in profiler.report(full=True)


def test_an_activation_that_is_made_in_each_step_keeps_one_row():
    model = Net()
    with mf.Profiler(model) as profiler:
        for _ in range(5):
            model.act = nn.Tanh()
            steps(model)
    rows = {row.layer: row.nodes for row in profiler.session.epochs[0].layers() if row.layer}
    assert rows == {"a": 10, "act": 10, "b": 10}


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("blocks", [1, 2])
def test_numbers_of_a_layer_that_was_frozen_in_a_part_are_left_out(frozen, blocks, tmp_path):
    model = nn.Sequential(nn.Dense(4, 5, rng=0), nn.Tanh(), nn.Dense(5, 3, rng=1))
    profiler = mf.Profiler(model)
    model[0].requires_grad_(not frozen)
    with profiler:
        steps(model)
        if blocks == 1:
            profiler.end_epoch()
            model[0].requires_grad_(frozen)
            steps(model)
    if blocks == 2:
        model[0].requires_grad_(frozen)
        with profiler:
            steps(model)
    session = profiler.session
    profiler.save(tmp_path / "a.json")
    assert mf.profiler.Session.load(tmp_path / "a.json") == session
    for epoch in (*session.epochs, session.total()):
        lines = {line.name: line for line in step_lines(session, epoch)}
        body, head = lines["0"], lines["2"]
        assert (body.P, body.reuse, body.flops_each) == (0, 0, 0)
        assert (head.P, head.reuse) == (18, 8)
    assert f"{18 if not frozen else 43} parameters" in session.report(full=True)
    for text in (session.report(), session.report(full=True), session.markdown(), session.html()):
        assert VARYING in " ".join(text.split())


def rows_of_activations(plans):
    """Return the rows of the activations of each step. A plan names them: "made" is a new one each, "same" one a step."""
    layers, kept, found = [nn.Dense(4, 4, rng=k) for k in range(3)], {"a": nn.Tanh(), "b": nn.Tanh()}, []
    model = nn.Sequential(*layers)
    with mf.Profiler(model) as profiler:
        for plan in plans:
            h, modules = mf.tensor(np.ones((2, 4), np.float32)), kept | {"same": nn.Tanh()}
            for layer, name in zip(layers, plan, strict=True):
                h = (nn.Tanh() if name == "made" else modules[name])(layer(h))
            h.sum().backward()
            ran = [position.stats.path for position in profiler._recorder.last[0].path()][::-1]
            found.append([row for row in ran if row.startswith("Tanh")])
            optim.SGD(model.parameters(), lr=0.1).step()
    return found


def test_an_activation_that_is_made_in_each_step_is_found_without_a_search(monkeypatch):
    searches = []
    name = LayerNames.name
    monkeypatch.setattr(LayerNames, "name", lambda self, *given: searches.append(given) or name(self, *given))
    found = []
    for steps in (1, 5):
        rows = rows_of_activations([("made",) * 3] * steps)
        assert rows == steps * [["Tanh", "Tanh#2", "Tanh#3"]]
        found.append(len(searches))
        searches.clear()
    assert found[0] == found[1]


PLANS = [("made", "made", "a"), ("same", "same", "a"), ("a", "b", "made"), ("made", "same", "made")]


@pytest.mark.parametrize("first", PLANS)
@pytest.mark.parametrize("then", PLANS)
def test_each_activation_of_a_step_has_its_own_row(first, then):
    plans = [first, then, then, first, then]
    for rows, plan in zip(rows_of_activations(plans), plans, strict=True):
        assert len(set(rows)) == (2 if plan[0] == plan[1] == "same" else 3), plan
        assert (rows[0] == rows[1]) == (plan[0] == plan[1] == "same")
