"""The layout of a drawing: nothing overlaps, values flow one way, long graphs are fast."""

from __future__ import annotations

import itertools
import sys
import time
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import ArgumentError
from microfw.visualization import svg as pen
from microfw.visualization.text import columns, short
from tests.helpers.drawings import apart, deep, elements, laid_out, with_mse


def inside(a, b, by=0.0):
    """Whether a rectangle lies in another one, away from its border."""
    far = (a.u + a.du <= b.u + b.du - by + 1e-6, a.v + a.dv <= b.v + b.dv - by + 1e-6)
    return a.u >= b.u + by - 1e-6 and a.v >= b.v + by - 1e-6 and all(far)


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
    """Four branches, made in one order and used in the other: rows are reordered, so that none cross."""
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
    assert "N = 1,500 scalar nodes" in drawing.svg


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
