"""Drawings of a graph: nodes, edges, layers, how they are saved, and what cannot be drawn."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import ArgumentError, DTypeError, GraphError
from tests.helpers.drawings import Tied, X, deep, digits, elements, with_mse


def texts(element):
    return [t.text for t in element.iter("{http://www.w3.org/2000/svg}text")]


# Contents


def test_numbers_are_the_order_of_the_walk(case, watcher):
    loss, model = case
    drawing = mf.draw(loss, model)
    with watcher.on():
        loss.backward()
    walked = [(k, node.op.name) for k, node in enumerate(watcher.visited, 1)]
    assert [(op.number, op.name) for op in reversed(drawing.picture.ops)] == walked
    drawn = sorted((int(n), name) for n, name, _ in map(texts, elements(drawing, "op")))
    assert drawn == walked
    listed = re.findall(r"^ *(\d+) (\w+) (?:scalar|\()", str(drawing), re.M)
    assert [(int(n), name) for n, name in listed] == walked


def test_edges_and_parameters_are_those_of_the_step(case, direction, watcher):
    loss, model = case
    with watcher.on():
        drawing = mf.draw(loss, model, direction=direction)
        loss.backward()
    edges = sum(len(shares) for shares in watcher.shares) if watcher.wants_grad_inputs else None
    assert drawing.picture.edges == edges
    assert drawing.svg.count('class="tip"') == edges
    if model is not None:
        trained = sum(p.size for p in model.parameters())
        text = " ".join(str(drawing).split())
        assert f"N = {len(watcher.visited)} tensor nodes" in text
        arrays = len(model.parameters())
        # in tensors, as N is: P counts arrays
        assert f"P = {arrays} array{'s' * (arrays != 1)} that get a gradient ({trained:,} numbers)" in text


def test_saved_bytes_are_those_of_the_profiler():
    loss, model = digits()
    drawing = mf.draw(loss, model)
    with mf.Profiler(model) as profiler:
        again = nn.CrossEntropyLoss()(model(X), np.arange(4) % 3)
        again.backward()
        profiler.end_epoch()
    assert sum(op.saved for op in drawing.picture.ops) == profiler.session.epochs[0].sum().saved_bytes > 0


def test_layers_are_nested_boxes():
    loss, model = with_mse(Tied)()
    picture = mf.draw(loss, model).picture
    shown = [(box.title, box.parent and picture.boxes[box.parent].title) for box in picture.boxes[1:]]
    assert shown == [
        ("Tied", 0), ("encode Dense", "Tied"), ("block Skip", "Tied"), ("block.body Sequential", "block Skip"),
        ("block.body.0 Dense", "block.body Sequential"), ("block.body.1 ReLU", "block.body Sequential"),
        ("block.body.2 Skip", "block.body Sequential"), ("block.body.2.body Sequential", "block.body.2 Skip"),
        ("block.body.2.body.0 Dense", "block.body.2.body Sequential"),
        ("block.body.2.body.1 Tanh", "block.body.2.body Sequential"), ("MSELoss", 0),
    ]  # fmt: skip
    assert [picture.layer(op) for op in picture.ops][:2] == ["encode Dense", "block.body.0 Dense"]
    shared = next(leaf for leaf in picture.leaves if leaf.name == "encode.weight")
    assert len(shared.users) == 2 and picture.label(shared) == "encode.weight"
    assert {picture.label(leaf) for leaf in picture.leaves} >= {"weight", "bias"}


def test_without_the_model_layers_have_their_names():
    loss, _ = digits()
    assert [box.title for box in mf.draw(loss).picture.boxes[1:]] == ["0", "1", "2", "CrossEntropyLoss"]


def test_a_layer_called_again_later_gets_another_box():
    relu = nn.ReLU()
    model = nn.Sequential(relu, nn.Dense(8, 8, rng=0), relu)
    loss = model(mf.tensor(X, requires_grad=True)).sum()
    assert [box.title for box in mf.draw(loss, model).picture.boxes[2:]] == ["0 ReLU", "1 Dense", "0 ReLU"]


def test_a_layer_that_the_model_did_not_hold_has_a_box():
    class Outer(nn.Module):
        def forward(self, x):
            return nn.Dense(8, 2, rng=0)(x)

    model = Outer()
    titles = [box.title for box in mf.draw(model(X).sum(), model).picture.boxes]
    assert titles == ["", "Outer.Dense"]


def test_data_is_shown_or_not():
    loss, model = digits()
    names = [leaf.name for leaf in mf.draw(loss, model).picture.leaves if leaf.kind == "data"]
    assert names == ["x", "labels"]
    assert not [leaf for leaf in mf.draw(loss, model, data=False).picture.leaves if leaf.kind == "data"]


def test_drawing_leaves_the_graph_and_outlives_it():
    loss, model = digits()
    drawing = mf.draw(loss, model)
    loss.backward()
    grads = [p.grad.copy() for p in model.parameters()]
    again, model = digits()
    again.backward()
    assert all((g == p.grad).all() for g, p in zip(grads, model.parameters(), strict=True))
    assert "cross_entropy" in drawing.svg and "cross_entropy" in drawing.dot


def test_a_graph_of_numbers_has_scalar_nodes():
    u, v = (mf.tensor(k, requires_grad=True) for k in (2.0, 3.0))
    drawing = mf.draw(u * v + u)
    text = "N = 2 scalar nodes, numbered in the order that backward visits them: 1 first. E = 4 edges that carry"
    assert text in str(drawing) and "P = 2 numbers that get a gradient." in " ".join(str(drawing).split())
    assert 'aria-label="Graph of one step: 2 scalar nodes"' in drawing.svg


def test_a_leaf_alone():
    drawing = mf.draw(mf.tensor([1.0, 2.0], requires_grad=True))
    assert str(drawing).startswith("leaf leaf (2,)\nN = 0 tensor nodes")
    assert [texts(g) for g in elements(drawing, "leaf")] == [["leaf (2,)"]]


# Saving and showing


def test_save(tmp_path):
    drawing = mf.draw(*digits())
    for name, text in (("a.svg", drawing.svg), ("b.dot", drawing.dot), ("c.SVG", drawing.svg)):
        drawing.save(tmp_path / name)
        assert (tmp_path / name).read_text(encoding="utf-8") == text
    with pytest.raises(ArgumentError, match=r"^Drawing.save: expected a path that ends in .svg or .dot, got 'x.png'$"):
        drawing.save("x.png")


def test_a_notebook_stores_one_picture_and_a_text(direction):
    drawing = mf.draw(*digits(), direction=direction)
    assert repr(drawing) == "<Drawing of 4 nodes>"
    data, metadata = drawing._repr_mimebundle_(include=None, exclude=None)
    assert data.keys() == {"image/svg+xml", "text/plain"} and not hasattr(drawing, "_repr_html_")
    assert data["text/plain"] == str(drawing)
    root = ElementTree.fromstring(data["image/svg+xml"])
    assert root.get("style") == "max-width:none" and metadata == {"image/svg+xml": {"unconfined": True}}, "it scrolls"
    del root.attrib["style"]
    assert ElementTree.tostring(root) == ElementTree.tostring(ElementTree.fromstring(drawing.svg))


def test_the_text_of_a_large_graph_is_short():
    loss, model = with_mse(lambda: deep(40))()
    data, _ = mf.draw(loss, model)._repr_mimebundle_()
    assert data["text/plain"] == "<Drawing of 81 nodes>"


def test_in_a_page():
    drawing = mf.draw(*digits())
    assert "prefers-color-scheme" in drawing.svg and "prefers-color-scheme" not in drawing.html, (
        "a page brings its own colours"
    )
    assert 'class="page"' in drawing.svg and 'class="page"' not in drawing.html
    assert ElementTree.fromstring(drawing.html).tag == "div"


def test_shapes_alone_tell_kinds_apart():
    loss = (mf.tensor(X, requires_grad=True) @ nn.Parameter(X.T)).sum()
    picture = mf.draw(loss).picture
    assert [leaf.kind for leaf in picture.leaves] == ["leaf", "leaf"]
    drawing = mf.draw(*digits())
    rounds = {kind: {r.get("rx") for g in elements(drawing, kind) for r in g if r.tag.endswith("rect")} for kind in ("op", "parameter", "data")}  # fmt: skip
    assert rounds == {"op": {None}, "parameter": {"12.0"}, "data": {"0"}}


# Refusals


def test_a_walked_graph_is_an_error_with_its_fix():
    loss, model = digits()
    loss.backward()
    with pytest.raises(GraphError, match=r"^draw: .*freed at CrossEntropyLoss: cross_entropy; call mf.draw\(loss\) before"):  # fmt: skip
        mf.draw(loss, model)
    loss, model = digits()
    loss.backward(retain_graph=True)
    assert len(mf.draw(loss, model).picture.ops) == 4


def test_a_graph_that_was_walked_in_part():
    x = mf.tensor(1.0, requires_grad=True)
    shared = np.exp(x)
    whole = shared * shared
    shared.backward()
    with pytest.raises(GraphError, match="freed at exp"):
        mf.draw(whole)


def test_without_a_graph():
    with pytest.raises(GraphError, match=r"^draw: expected a Tensor computed from leaves .*under no_grad"):
        mf.draw(mf.tensor(1.0))
    with pytest.raises(DTypeError, match=r"^draw: expected a Tensor, got float; pass the loss"):
        mf.draw(1.0)
    with pytest.raises(ArgumentError, match=r"""^draw: expected direction "TB" or "LR", got 'up'$"""):
        mf.draw(digits()[0], direction="up")
    with pytest.raises(ArgumentError, match="^draw: expected model to be a Module, got str; leave it out"):
        mf.draw(mf.tensor(1.0, requires_grad=True) * 2.0, "name")
    with pytest.raises(ArgumentError, match="^draw: expected max_nodes to be a positive integer, got 'a'$"):
        mf.draw(mf.tensor(1.0, requires_grad=True) * 2.0, max_nodes="a")
