"""Texts that could break a drawing, and Graphviz's language."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree

import pytest

import microfw as mf
from microfw import nn
from microfw.visualization.text import clean, columns, quoted, short
from tests.helpers.drawings import X, apart, laid_out

HOSTILE = "a\"b'</script><script>alert(1)</script>\\\n\0\x1b]]>&amp;\ud800\u202e{|}\\N"


# Hostile texts


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
    for form in (drawing.svg, drawing.html, drawing.dot, str(drawing)):
        assert form.encode() and not re.search("[\0\x1b\u202e\ud800]", form)
    assert "<script" not in drawing.svg and "<script" not in drawing.html
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
