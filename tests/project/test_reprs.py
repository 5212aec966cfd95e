"""What a console or a notebook shows of each object is short, says what it is, and holds no address of memory."""

from __future__ import annotations

import html.parser
import pathlib
import re
from dataclasses import replace

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError
from microfw.profiler import Epoch, Layer, Row, Session, compare, sweep
from microfw.training import Checkpoint, EarlyStopping, History, LearningRate, RangeTest
from tests.helpers.sessions import profiled

ADDRESS = re.compile(r"0x[0-9a-f]{6,}")


def fitted():
    train, _ = mf.data.load("iris", rng=0)
    model = nn.Sequential(nn.Dense(4, 3, rng=0))
    profiler = mf.Profiler()
    hooks = [profiler, EarlyStopping("loss", patience=50), LearningRate(optim.schedules.Cosine(0.1, 100), of="epoch")]
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), ["accuracy"], hooks)
    return trainer, trainer.fit(train, epochs=60, rng=0, progress=False), profiler


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    trainer, history, profiler = fitted()
    X, y = np.random.default_rng(0).normal(size=(8, 3)), np.arange(8) % 2
    model = nn.Sequential(nn.Dense(3, 2, rng=0))
    session = profiled("residual")
    law = mf.profiler.law(model, nn.CrossEntropyLoss(), X[:1], y[:1], budget=0.01)
    rates = np.geomspace(1e-5, 10, 300).tolist()
    return {
        "Trainer": trainer,
        "History": history,
        "Profiler": profiler,
        "Session": profiler.session,
        "Epoch": profiler.session.epochs[-1],
        "epochs": profiler.session.epochs[:8],
        "Comparison": compare(session, replace(session)),
        "Law": law,
        "page of a session": profiler.session.show(law),
        "page of a law": law.show(height=300),
        "Drawing": mf.draw(nn.CrossEntropyLoss()(model(X), y), model),
        "Sweep": sweep("depth", X, y, values=[1, 2, 3], budget=0.01),
        "RangeTest": RangeTest(rates, rates, 0.1),
        "Summary": mf.summary(model, X),
        "Checkpoint": Checkpoint(tmp_path_factory.mktemp("x") / "run.npz"),
        "EarlyStopping": trainer.hooks[1],
        "LearningRate": trainer.hooks[2],
        "History of many epochs": History({"epoch": k, "loss": 1 / k} for k in range(1, 5001)),
        "History of many entries": History({f"entry {k} of a hook": 0.5 for k in range(80)} for _ in range(30)),
    }


NAMES = [
    "Trainer", "History", "Profiler", "Session", "Epoch", "epochs", "Comparison", "Law", "page of a session", "page of a law", "Drawing", "Sweep", "RangeTest", "Summary",
    "Checkpoint", "EarlyStopping", "LearningRate", "History of many epochs", "History of many entries",
]  # fmt: skip
HTML = [
    "History",
    "Profiler",
    "Session",
    "Epoch",
    "Comparison",
    "Law",
    "page of a session",
    "page of a law",
    "Sweep",
    "RangeTest",
]
TAGS = {"img", "br", "hr", "input", "meta", "path", "line", "rect", "circle", "polygon", "polyline", "use", "stop"}


@pytest.mark.parametrize("name", NAMES)
def test_a_text_is_short_and_the_same_in_each_run(shown, name):
    text = repr(shown[name])
    assert 0 < len(text) <= 2000
    assert not ADDRESS.search(text), text


def test_texts_say_what_the_object_is(shown):
    assert repr(shown["Trainer"]).startswith("Trainer(Sequential, CrossEntropyLoss(), SGD(lr=")
    assert repr(shown["Trainer"]).endswith("metrics: accuracy, hooks: Profiler, EarlyStopping, LearningRate)")
    assert repr(shown["Profiler"]) == "Profiler(Session(Sequential, 60 epochs, 240 steps))"
    assert re.fullmatch(r"Epoch\(60, 4 steps, loss 0\.\d+, backward [\d.]+ of [\d.]+ ms\)", repr(shown["Epoch"]))
    assert repr(shown["Comparison"]).endswith("0 real changes, 0 counts differ)")
    assert repr(shown["Law"]) == "Law(Dense(3 -> 2), N 21, P 8, 29 steps in scalars)"
    assert repr(shown["Sweep"]).startswith("Sweep(over depth: 3 models, ")
    assert repr(shown["RangeTest"]) == "RangeTest(300 rates from 1e-05 to 10, suggestion 0.1)"
    assert repr(shown["EarlyStopping"]).startswith("EarlyStopping(")
    assert "patience=50" in repr(shown["EarlyStopping"])
    assert [line.split()[0] for line in repr(shown["History of many epochs"]).splitlines()] == [
        "epoch", *map(str, range(1, 11)), "…", *map(str, range(4991, 5001))
    ]  # fmt: skip


class Tags(html.parser.HTMLParser):
    """The attributes of the first element of each kind."""

    def __init__(self, text):
        super().__init__()
        self.found = {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.setdefault(tag, dict(attrs))


class Balanced(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        assert tag != "script"
        if tag not in TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in TAGS:
            assert self.open.pop() == tag


@pytest.mark.parametrize("name", HTML)
def test_html_is_balanced_and_restyles_nothing_else(shown, name):
    text = shown[name]._repr_html_()
    parser = Balanced()
    parser.feed(text)
    assert parser.open == [] and len(text) < 200_000
    for styles in re.findall(r"<style>(.*?)</style>", text, re.S):
        rules = re.sub(r"/\*.*?\*/|@media[^{]*\{", "", styles)
        assert all(".microfw" in rule.split("{")[0] for rule in rules.split("}") if "{" in rule), styles


@pytest.mark.parametrize("name", ["page of a session", "page of a law"])
def test_a_page_is_in_a_frame_that_shares_nothing_with_the_notebook(shown, name):
    frame = Tags(shown[name]._repr_html_()).found["iframe"]
    assert frame["srcdoc"] == shown[name].page and frame["sandbox"] == "allow-scripts"
    assert ("height:640px" if name == "page of a session" else "height:300px") in frame["style"]
    for part in ("Content-Security-Policy", "prefers-color-scheme: dark", "<script>", "</html>"):
        assert part in frame["srcdoc"]


def test_the_code_below_a_page_writes_it(shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"session": shown["Session"], "law": shown["Law"], "pathlib": pathlib}
    exec(shown["page of a session"].save, names)
    exec(shown["page of a law"].save, names)
    assert (tmp_path / "run.html").read_text(encoding="utf-8") == shown["Session"].html()
    assert (tmp_path / "law.html").read_text(encoding="utf-8") == shown["page of a law"].page


def test_a_height_is_a_number_of_pixels():
    with pytest.raises(ArgumentError, match="^show: expected height to be a positive number of pixels, got 90%$"):
        Session().show(height="90%")


def test_what_a_notebook_stores_of_a_large_profile_is_small():
    rows = [Row(f"block.{k // 5}.{k}", "linear", *range(1_000_000, 1_000_018)) for k in range(50)]
    session = Session(layers=[Layer(row.layer, "Dense", 72, 72) for row in rows])
    session.epochs = [Epoch(k, 100, 100, 0.5, rows=rows, total_ns=10**9) for k in range(1, 101)]
    whole = session.html()
    assert len(whole) > 500_000 and "1000017" in whole
    for text in (session.show()._repr_html_(), session._repr_html_()):
        assert len(text) < 200_000
    assert '"rows":null' in session.show().page, "the page has the sum of the epochs"
    session.epochs = session.epochs[:12]
    assert '"rows":null' not in session.show().page and len(session.show()._repr_html_()) < 200_000


def test_names_are_escaped_in_html():
    history = History([{"epoch": 1, "<script>x</script>": 0.5}])
    assert "<script>" not in history._repr_html_() and "&lt;script&gt;" in history._repr_html_()


def test_a_report_as_a_last_expression_prints_its_text(shown):
    for text in (shown["Profiler"].report(), shown["Session"].report(by="layer"), Session().report()):
        assert isinstance(text, str) and repr(text) == text and text.startswith("microfw profile: ")


def test_slices_and_sums_of_histories_are_histories():
    history = History([{"epoch": k, "loss": 1 / k} for k in range(1, 5)])
    assert type(history[1:3]) is type(history + history) is History
    assert history[1:3].column("epoch") == [2, 3] and (history + history[:1]).column("epoch") == [1, 2, 3, 4, 5]
    assert history[0] == {"epoch": 1, "loss": 1.0}
