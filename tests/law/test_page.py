"""The law's page: the walk is what the engine did, and names do no harm."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest

from microfw import nn
from microfw.autograd.graph import reachable
from microfw.autograd.mode import mode
from microfw.autograd.observer import Observer
from microfw.cli import main as cli
from microfw.law.walk import MAX_NODES
from microfw.profiler import law
from tests.helpers import browser, own_models
from tests.helpers.law_models import dense
from tests.law.test_counts_agree import LABELS, MODELS, X


class Calls(Observer):
    """Lists the nodes whose rules are called."""

    def __init__(self):
        self.nodes = []

    def backward(self, node, gradient, grad_inputs, start_ns):
        self.nodes.append(node)


def walk_of(name):
    model, loss = MODELS[name]().astype(np.float64), nn.CrossEntropyLoss()
    found = law(model, loss, X, LABELS, budget=1e-6, max_nodes=1)  # without the scalar graph
    return found.walk, loss(model(X[:1]), LABELS[:1])


@pytest.mark.parametrize("name", MODELS)
def test_the_walk_is_what_the_engine_does(name):
    walk, end = walk_of(name)
    nodes = reachable(end._node)
    forward, backward, alone, paths = walk.replays
    assert forward.events == list(range(len(nodes))) and forward.added == 0
    calls = Calls()
    with mode(observer=calls):
        end.backward()
    assert [e for e in backward.events if e < walk.ops] == [nodes.index(node) for node in calls.nodes]
    leaves = walk.names[walk.ops :]
    added = [e - walk.ops for e in backward.events if e >= walk.ops]
    assert sorted(set(added)) == list(range(len(leaves)))
    assert backward.visits == len(nodes) and backward.added == len(added)
    assert alone.added == backward.added and alone.visits >= backward.visits
    assert alone.visits <= len(nodes) * len(leaves)
    assert paths.visits >= backward.visits and paths.added >= backward.added
    if len(paths.events) < 2000:
        assert sum(e < walk.ops for e in paths.events) == paths.visits
    groups = re.findall(r'<g class="(op|parameter|leaf)"><title>([^:<]*)', walk.svg)
    drawn = [title for kind, title in groups if kind == "op"] + [title for kind, title in groups if kind != "op"]
    assert drawn == [name.partition(":")[0] for name in walk.names]


def test_a_small_model_is_walked_in_scalars():
    model = nn.Dense(2, 1, rng=0)
    found = law(model, nn.MSELoss(), np.ones((4, 2)), np.ones((4, 1)), budget=0.1)
    scalars = found.count("scalars")
    assert found.walk.kind == "scalars" and found.walk.ops == scalars.N == 7
    _, backward, alone, _ = found.walk.replays
    assert (backward.visits, backward.added) == (scalars.rules, scalars.accumulated)
    assert alone.visits == found.way("chain rule per parameter").rules == 16
    assert "Each node is one operation on numbers." in found.html()


def test_a_larger_model_says_what_a_node_stands_for():
    found = law(dense(4, 5, 3), nn.CrossEntropyLoss(), X, LABELS, budget=1e-3)
    assert found.walk.names[0] == "linear in 0 Dense: stands for 40 scalar nodes"
    assert found.walk.detail == "cross_entropy, one entry of the output: 12 scalar nodes"
    assert found.walk.detail_svg.count('class="op"') == 12
    assert "walk" not in json.loads(json.dumps(found.to_dict()))


def test_a_notebook_shows_the_drawing_as_one_image():
    found = law(dense(4, 5, 3), nn.CrossEntropyLoss(), X, LABELS, budget=1e-3)
    text = found._repr_html_()
    (data,) = re.findall(r'<img src="data:image/svg\+xml;base64,([^"]+)"', text)
    svg = base64.b64decode(data).decode()
    assert svg.count('class="op"') == found.walk.ops and "prefers-color-scheme" in svg
    assert "<svg" not in text and "linear" not in text, "an untrusted notebook removes tags and leaves words"


def test_a_deep_graph_is_not_drawn():
    found = law(dense(4, *[3] * 80), nn.CrossEntropyLoss(), X, LABELS, budget=1e-6, max_nodes=1)
    assert found.walk is None
    assert f"The graph has more than {MAX_NODES} nodes and is not drawn." in found.html()
    assert "<img" not in found._repr_html_()


HOSTILE = "</script><img src=x onerror=alert(1)>\"'\n"


def hostile():
    class Hostile(nn.Module):
        def __init__(self):
            setattr(self, HOSTILE, nn.Dense(2, 2, rng=0))

        def forward(self, x):
            return getattr(self, HOSTILE)(x)

    return law(Hostile(), nn.MSELoss(), np.ones((4, 2)), np.ones((4, 2)), budget=0.1, name=HOSTILE)


def test_names_are_escaped():
    found = hostile()
    for text in (found.html(), found._repr_html_()):
        assert "<img src=x" not in text and text.count("</script>") in (0, 2)


def test_a_notebook_shows_it_without_styles_for_the_rest_of_the_page():
    text = law(dense(4, 5, 3), nn.CrossEntropyLoss(), X, LABELS, budget=1e-3)._repr_html_()
    rules = re.findall(r"([^{}]+)\{[^{}]*\}", "".join(re.findall(r"<style>(.*?)</style>", text, re.S)))
    assert rules and all(selector.strip().startswith((".microfw-law", ".microfw-drawing")) for rule in rules
                         for selector in rule.split(","))  # fmt: skip
    assert "<script" not in text and "7,211" not in text and "N + P" in text


@pytest.fixture(scope="module")
def chromium():
    if browser.find() is None:
        pytest.skip("needs Chromium")
    opened = browser.Browser()
    yield opened
    opened.close()


def walk_on(chromium, walk):
    """Step through each replay, and compare its counters with the events that the engine made."""
    for k, replay in enumerate(walk.replays):
        chromium.run(f"document.querySelectorAll('.tab')[{k}].click()")
        for _ in replay.events:
            chromium.run("document.getElementById('step').click()")
        shown = [chromium.run(f"document.getElementById('{id}').textContent") for id in ("visits", "added", "again")]
        ops = [e for e in replay.events if e < walk.ops]
        assert shown == [str(replay.visits), str(replay.added), str(len(ops) - len(set(ops)))]
        assert chromium.run("document.getElementById('step').disabled") is True
    assert chromium.run("document.querySelectorAll('#graph .seen').length") == len(walk.names)


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_each_replay_ends_with_the_counts_of_the_engine(chromium, tmp_path, width):
    found = law(MODELS["residual"](), nn.CrossEntropyLoss(), X, LABELS, budget=0.1)
    path = tmp_path / "law.html"
    path.write_text(found.html())
    chromium.open(path, width=width, dark=width == 768)
    walk_on(chromium, found.walk)
    assert chromium.run("document.documentElement.scrollWidth") <= width
    assert chromium.complaints == [] and len(chromium.requests) == 1
    assert len(path.read_bytes()) < 300_000


@pytest.mark.slow
def test_hostile_names_do_no_harm(chromium, tmp_path):
    path = tmp_path / "hostile.html"
    path.write_text(hostile().html())
    chromium.open(path)
    chromium.run("document.getElementById('play').focus()")
    chromium.key("Enter")
    assert chromium.run("document.getElementById('play').textContent") == "pause"
    assert chromium.complaints == [] and len(chromium.requests) == 1
    assert chromium.run("document.images.length") == 0


OWN = [
    "gated",
    "tied",
    "convolution",
    "python_loop",
    "recurrent",
    "attention",
    "words",
    "frozen",
    "custom_op",
    "hostile",
    "noise",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_models_of_a_users_own_are_walked(chromium, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["law", f"{own_models.__file__}:{name}", "--html", "--budget", "1"]) == 0
    assert "N + P" in capsys.readouterr().out
    model, loss, inputs, targets = getattr(own_models, name)()
    walk = law(model, loss, inputs, targets, budget=0.1).walk
    chromium.open(tmp_path / "law.html")
    walk_on(chromium, walk)
    assert chromium.complaints == [] and len(chromium.requests) == 1
    assert chromium.run("document.images.length") == 0
