"""Drawings: what is in them, that nothing overlaps, and that no name can break them."""

from __future__ import annotations

import itertools
import re
import sys
import time
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import ArgumentError, DTypeError, GraphError
from microfw.visualization import svg as pen
from microfw.visualization.layout import place
from microfw.visualization.text import clean, columns, quoted, short

X = np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8)
HOSTILE = "a\"b'</script><script>alert(1)</script>\\\n\0\x1b]]>&amp;\ud800\u202e{|}\\N"


class Skip(nn.Module):
    def __init__(self, *layers):
        self.body = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.body(x)


class Tied(nn.Module):
    """A weight used twice, residual blocks, and ops of the model's own."""

    def __init__(self):
        self.encode = nn.Dense(8, 8, rng=0)
        self.block = Skip(nn.Dense(8, 8, rng=1), nn.ReLU(), Skip(nn.Dense(8, 8, rng=2), nn.Tanh()))

    def forward(self, x):
        return (self.block(self.encode(x)) - 0.5) @ self.encode.weight.T


class Recurrent(nn.Module):
    def __init__(self):
        self.inner, self.outer = nn.Dense(8, 8, rng=0), nn.Dense(8, 8, rng=1)

    def forward(self, x):
        h = np.zeros_like(x)
        for _ in range(4):
            h = np.tanh(self.inner(h) + self.outer(x))
        return h


def deep(n=12):
    return nn.Sequential(*(layer for k in range(n) for layer in (nn.Dense(8, 8, rng=k), nn.ReLU())))


def digits():
    model = nn.Sequential(nn.Dense(8, 6, rng=0), nn.ReLU(), nn.Dense(6, 3, rng=1))
    return nn.CrossEntropyLoss()(model(X), np.arange(4) % 3), model


def with_mse(make):
    def build():
        model = make()
        return nn.MSELoss()(model(X), X), model

    return build


def scalars():
    x, beta = mf.tensor([-2.0, 0.0, 2.0], requires_grad=True), mf.tensor(1.5, requires_grad=True)
    y = x / (1 + np.exp(-beta * x)) + np.sin(x * x)
    return (y * y).sum(), None


def ladder():
    x = mf.tensor(np.ones(3), requires_grad=True)
    return sum(np.sin(x * k) for k in range(12)).sum(), None


def regression():
    w, b = (mf.tensor(np.ones(shape), requires_grad=True) for shape in ((8, 1), (1,)))
    return ((X.astype(float) @ w + b - 1.0) ** 2).mean(), None


def tangled():
    """Ops that use earlier results at random."""
    rng = np.random.default_rng(0)
    made = [mf.tensor(1.0, requires_grad=True) for _ in range(4)]
    for _ in range(36):
        a, b = rng.integers(0, len(made), 2)
        made.append(made[a] * made[b] if rng.random() < 0.7 else np.sin(made[a]))
    return sum(made), None


CASES = {
    "digits": digits, "tied": with_mse(Tied), "recurrent": with_mse(Recurrent), "deep": with_mse(deep),
    "scalars": scalars, "ladder": ladder, "regression": regression, "tangled": tangled,
}  # fmt: skip


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]()


@pytest.fixture(params=["TB", "LR"])
def direction(request):
    return request.param


def laid_out(drawing):
    """The layout that the SVG is written from, with down and right for along and across."""
    picture = drawing.picture
    sizes = {op.id: pen.op_size(op) for op in picture.ops} | {a.id: pen.leaf_size(picture, a) for a in picture.leaves}
    titles = [columns(short(box.title, 44)) * pen.SMALL * pen.EM for box in picture.boxes]
    return place(picture, {k: s[::-1] if drawing.tall else s for k, s in sizes.items()}, titles, drawing.tall)


def elements(drawing, kind):
    root = ElementTree.fromstring(drawing.svg)
    return [g for g in root.iter("{http://www.w3.org/2000/svg}g") if g.get("class") == kind]


def texts(element):
    return [t.text for t in element.iter("{http://www.w3.org/2000/svg}text")]


# What is in it


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
        assert f"N = {len(watcher.visited)} op nodes" in str(drawing)
        assert f"P = {trained:,} trainable numbers, in {len(model.parameters())} arrays" in str(drawing)


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


def test_a_leaf_alone():
    drawing = mf.draw(mf.tensor([1.0, 2.0], requires_grad=True))
    assert str(drawing).startswith("leaf leaf (2,)\nN = 0 op nodes")
    assert [texts(g) for g in elements(drawing, "leaf")] == [["leaf (2,)"]]


# How it is laid out


def inside(a, b, by=0.0):
    """Whether a rectangle lies in another one, away from its border."""
    far = (a.u + a.du <= b.u + b.du - by + 1e-6, a.v + a.dv <= b.v + b.dv - by + 1e-6)
    return a.u >= b.u + by - 1e-6 and a.v >= b.v + by - 1e-6 and all(far)


def apart(a, b):
    return a.u + a.du < b.u or b.u + b.du < a.u or a.v + a.dv < b.v or b.v + b.dv < a.v


def test_nothing_overlaps(case, direction):
    loss, model = case
    drawing = mf.draw(loss, model, direction=direction)
    picture, found = drawing.picture, laid_out(drawing)
    assert (len(found.ops), len(found.leaves)) == (len(picture.ops), len(picture.leaves))
    items = [*found.ops.values(), *found.leaves.values()]
    assert all(apart(a, b) for a, b in itertools.combinations(items, 2))
    for (j, a), (k, b) in itertools.combinations(found.boxes.items(), 2):
        assert apart(a, b) or inside(a, b) or inside(b, a), (picture.boxes[j].title, picture.boxes[k].title)
    for op in picture.ops:
        assert inside(found.ops[op.id], found.boxes[op.box], 0 if op.box == 0 else 5)
        for k, box in found.boxes.items():
            around, own = picture.boxes[k], op.box
            while picture.boxes[own].depth > around.depth:
                own = picture.boxes[own].parent
            assert own == k or apart(found.ops[op.id], box)


def test_lines_keep_clear_of_boxes_and_titles(case, direction):
    loss, model = case
    drawing = mf.draw(loss, model, direction=direction)
    found = laid_out(drawing)
    obstacles = [*found.ops.values(), *found.leaves.values()]
    strips = [
        (box.u, box.v + 12, 22.0, columns(short(part.title, 44)) * pen.SMALL * pen.EM)
        for k, part in enumerate(drawing.picture.boxes[1:], 1)
        if (box := found.boxes[k]) and drawing.tall
    ]
    for wire in found.wires:
        for (u, v), (u2, v2) in itertools.pairwise(wire.points):
            for t in np.linspace(0.1, 0.9, 9):  # the curve that is drawn: flat at both ends
                s = 3 * t**2 - 2 * t**3
                at = (3 * t * (1 - t) / 2 + t**3, s) if not wire.sideways else (s, 3 * t * (1 - t) / 2 + t**3)
                x, y = u + (u2 - u) * at[0], v + (v2 - v) * at[1]
                assert not any(r.u < x - 1e-6 < r.u + r.du - 2e-6 and r.v < y < r.v + r.dv for r in obstacles)
                assert not any(a < x < a + da and b < y < b + db for a, b, da, db in strips)


def test_texts_fit_their_boxes(case, direction):
    loss, model = case
    drawing = mf.draw(loss, model, direction=direction)
    root = ElementTree.fromstring(drawing.svg)
    page_w, page_h = float(root.get("width")), float(root.get("height"))
    ns = "{http://www.w3.org/2000/svg}"
    for g in root.iter(ns + "g"):
        shapes = [r for r in g.iter(ns + "rect") if r.get("class") != "strip"]
        for t in g.iter(ns + "text"):
            size = pen.BIG if "name" in (t.get("class") or "") else pen.SMALL
            x, y, w = float(t.get("x")), float(t.get("y")), columns(t.text) * size * pen.EM
            low = x - w / 2 if t.get("text-anchor") else x
            for r in shapes:
                left, top, wide, high = (float(r.get(k)) for k in ("x", "y", "width", "height"))
                assert left < low and low + w < left + wide and top < y - size * 0.7 and y < top + high
        for r in shapes:
            assert float(r.get("x")) >= 0 and float(r.get("x")) + float(r.get("width")) <= page_w
            assert float(r.get("y")) >= 0 and float(r.get("y")) + float(r.get("height")) <= page_h
    for t in root.findall(ns + "text"):
        assert float(t.get("x")) + columns(t.text) * pen.SMALL * pen.EM <= page_w


def test_values_flow_one_way(case, direction):
    loss, model = case
    drawing = mf.draw(loss, model, direction=direction)
    found = laid_out(drawing)
    for op in drawing.picture.ops:
        for source in op.inputs:
            if source < len(drawing.picture.ops):
                above = found.ops[source]
                assert above.u + above.du < found.ops[op.id].u


def test_a_chain_is_straight():
    found = laid_out(mf.draw(*with_mse(deep)()))
    assert len({round(r.v + r.dv / 2, 3) for r in found.ops.values()}) == 1


def test_lines_cross_only_where_they_must():
    """Four branches, made in one order and used in the other: rows are ordered anew, so that none cross."""
    leaves = [mf.tensor(float(k), requires_grad=True) for k in range(4)]
    sines = [np.sin(x) for x in leaves]
    cosines = [np.cos(y) for y in reversed(sines)]
    found = laid_out(mf.draw((cosines[0] * cosines[1]) * (cosines[2] * cosines[3])))
    lines = [(w.points[0][1], w.points[-1][1]) for w in found.wires]
    for row in {round(w.points[0][0], 3) for w in found.wires}:
        row_lines = sorted(line for line, w in zip(lines, found.wires, strict=True) if round(w.points[0][0], 3) == row)
        assert [end for _, end in row_lines] == sorted(end for _, end in row_lines)


def chain(n):
    y = x = mf.tensor(1.0, requires_grad=True)
    for k in range(n):
        y = y * 1.001 if k % 3 else y + x
    return y


def test_long_graphs_are_drawn_soon_and_without_recursion():
    loss = chain(1500)
    limit = sys.getrecursionlimit()
    began = time.process_time()
    sys.setrecursionlimit(200)
    try:
        drawing = mf.draw(loss)
        drawing.svg, drawing.dot, str(drawing)
    finally:
        sys.setrecursionlimit(limit)
    assert time.process_time() - began < 10
    assert len(elements(drawing, "op")) == 1500
    assert "N = 1,500 op nodes" in drawing.svg


def test_deep_nesting_needs_no_recursion():
    y = mf.tensor(1.0, requires_grad=True)
    part = nn.Sequential(nn.Tanh())
    for _ in range(25):
        part = nn.Sequential(part)
    picture = mf.draw(part(y), part).picture
    assert max(box.depth for box in picture.boxes) == 27


def test_too_many_nodes_are_refused():
    with pytest.raises(
        ArgumentError, match=r"^draw: expected at most 2,000 nodes, .*got 2,001, .*; .* pass max_nodes=2001$"
    ):
        mf.draw(chain(2001))
    assert len(mf.draw(chain(2001), max_nodes=2001).picture.ops) == 2001


# Texts that could break it


def hostile():
    class Evil(nn.Module):
        def __init__(self):
            setattr(self, HOSTILE, nn.Dense(8, 8, rng=0))
            self.more = {HOSTILE + "x": nn.Parameter(X[0]), "損失" * 40: nn.Parameter(X[1])}

        def forward(self, x):
            return getattr(self, HOSTILE)(x) * self.more[HOSTILE + "x"] + self.more["損失" * 40]

    Evil.__name__ = HOSTILE.replace("\0", "").replace("\ud800", "")  # Python itself refuses these
    model = Evil()
    return nn.MSELoss()(model(X), X), model


def test_hostile_names(direction):
    drawing = mf.draw(*hostile(), direction=direction)
    assert any(HOSTILE in box.title for box in drawing.picture.boxes)
    root = ElementTree.fromstring(drawing.svg)
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "style", "rect", "g", "title", "text", "path"}
    for form in (drawing.svg, drawing._repr_html_(), drawing.dot, str(drawing)):
        assert form.encode() and not re.search("[\0\x1b\u202e\ud800]", form)
    assert "<script" not in drawing.svg and "<script" not in drawing._repr_html_()
    nodes, edges, _ = parsed(drawing.dot)
    assert len(nodes) == len(drawing.picture.ops) + len(drawing.picture.leaves)
    items = [*laid_out(drawing).ops.values(), *laid_out(drawing).leaves.values()]
    assert all(apart(a, b) for a, b in itertools.combinations(items, 2))


@pytest.mark.parametrize("text", [HOSTILE, "損失" * 30, "x" * 100, "", "a\u0301" * 50])
@pytest.mark.parametrize("most", [8, 28])
def test_short_texts(text, most):
    assert columns(short(text, most)) <= most
    assert clean(short(text, most)) == short(text, most)


# Graphviz's language


TOKENS = re.compile(r'\s+|"(?:[^"\\\n]|\\.)*"|->|[\w.]+|[{}\[\]=;,]')


def parsed(text):
    """Read the part of the language that drawings use: nodes, edges and clusters, or fail."""
    tokens, at = [], 0
    while at < len(text):
        match = TOKENS.match(text, at)
        assert match, text[at : at + 40]
        at = match.end()
        tokens += [match[0]] if match[0].strip() else []
    assert tokens[:3] == ["digraph", "microfw", "{"] and tokens[-1] == "}"
    nodes, edges, clusters, depth = {}, [], [], 0
    statement = []
    for token in tokens[3:-1]:
        if token == "{":
            assert statement[0] == "subgraph"
            clusters.append(statement[1])
            depth, statement = depth + 1, []
        elif token == "}":
            assert not statement and depth
            depth -= 1
        elif token == ";":
            if "->" in statement[:2]:
                edges.append((statement[0], statement[2]))
            elif statement[0] not in ("node", "edge", "graph") and statement[1] == "[":
                assert statement[0] not in nodes
                nodes[statement[0]] = statement[statement.index("label") + 2]
            statement = []
        else:
            statement.append(token)
    assert not depth and not statement
    return nodes, edges, clusters


def test_dot(case, direction):
    loss, model = case
    drawing = mf.draw(loss, model, direction=direction)
    picture = drawing.picture
    nodes, edges, clusters = parsed(drawing.dot)
    assert f"rankdir={direction};" in drawing.dot
    assert len(clusters) == len(picture.boxes) - 1
    for op in picture.ops:
        assert nodes.pop(f"n{op.number}").startswith(f'"{op.number} {op.name}\\n')
    assert sorted(nodes) == sorted(f"a{k}" for k in range(1, len(picture.leaves) + 1))
    assert len(edges) == sum(len(op.inputs) for op in picture.ops)
    assert all(int(a[1:]) > int(b[1:]) for a, b in edges if a[0] == "n"), "values flow to a lower number"


def test_quoted():
    assert quoted('a"b\\N', "c") == '"a\\"b\\\\N\\nc"'


# How it is handed out


def test_save(tmp_path):
    drawing = mf.draw(*digits())
    for name, text in (("a.svg", drawing.svg), ("b.dot", drawing.dot), ("c.SVG", drawing.svg)):
        drawing.save(tmp_path / name)
        assert (tmp_path / name).read_text(encoding="utf-8") == text
    with pytest.raises(ArgumentError, match=r"^Drawing.save: expected a path that ends in .svg or .dot, got 'x.png'$"):
        drawing.save("x.png")


def test_in_a_notebook():
    drawing = mf.draw(*digits())
    assert repr(drawing) == "<Drawing of 4 nodes>"
    assert drawing._repr_svg_() == drawing.svg
    html = drawing._repr_html_()
    assert "prefers-color-scheme" in drawing.svg and "prefers-color-scheme" not in html, "a page brings its own colours"
    assert 'class="page"' in drawing.svg and 'class="page"' not in html
    assert ElementTree.fromstring(html).tag == "div"


def test_shapes_alone_tell_kinds_apart():
    loss = (mf.tensor(X, requires_grad=True) @ nn.Parameter(X.T)).sum()
    picture = mf.draw(loss).picture
    assert [leaf.kind for leaf in picture.leaves] == ["leaf", "leaf"]
    drawing = mf.draw(*digits())
    rounds = {kind: {r.get("rx") for g in elements(drawing, kind) for r in g if r.tag.endswith("rect")} for kind in ("op", "parameter", "data")}  # fmt: skip
    assert rounds == {"op": {None}, "parameter": {"12.0"}, "data": {"0"}}


# What cannot be drawn


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
