"""What is made of a session: schema, tables, Markdown, trace, figure, frame; hostile names come through all of them."""

from __future__ import annotations

import csv as csv_module
import io
import json
import sys
from collections import Counter
from dataclasses import fields
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError, DataError
from microfw.profiler import Epoch, Layer, Ratio, Row, Session, Trace, report
from microfw.profiler.recorder import trace as tracer
from microfw.profiler.reports.csv import unguarded
from microfw.profiler.reports.markdown import decoded
from microfw.profiler.row import COUNTS
from microfw.profiler.session import LARGEST, PHASES, merged

X = np.random.default_rng(0).random((48, 6)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 48)


class Residual(nn.Module):
    def __init__(self):
        self.inner = nn.Dense(6, 6, rng=0)

    def forward(self, x):
        return x + np.tanh(self.inner(x))


class Recurrent(nn.Module):
    """The same cell, again and again."""

    def __init__(self):
        self.cell, self.into, self.head = nn.Dense(6, 6, rng=0), nn.Dense(1, 6, rng=1), nn.Dense(6, 3, rng=2)

    def forward(self, x):
        state = self.into(x[:, :1])
        for k in range(1, 6):
            state = np.tanh(self.cell(state) + self.into(x[:, k : k + 1]))
        return self.head(state)


class Attention(nn.Module):
    """Each row looks at all rows."""

    def __init__(self):
        self.q, self.k, self.v = (nn.Dense(6, 3, rng=k) for k in range(3))

    def forward(self, x):
        scores = self.q(x) @ self.k(x).T / 3
        weights = np.exp(scores)
        return (weights / weights.sum(1, keepdims=True)) @ self.v(x)


class Shared(nn.Module):
    def __init__(self):
        self.layer, self.head = nn.Dense(6, 6, rng=0), nn.Dense(6, 3, rng=1)

    def forward(self, x):
        return self.head(self.layer(nn.ReLU()(self.layer(x))))


class Free(nn.Module):
    """No layers: parameters of its own."""

    def __init__(self):
        self.w = nn.Parameter(np.full((6, 3), 0.1, np.float32))

    def forward(self, x):
        return x @ self.w


class Sequence(nn.Module):
    """Six numbers as three steps of two, through layers that take sequences."""

    def __init__(self, *layers):
        self.body, self.head = nn.Sequential(*layers), nn.Dense(12, 3, rng=9)

    def forward(self, x):
        y = self.body(np.reshape(x, (-1, 3, 2)))
        return self.head(y.reshape(-1, 12))


class Taken(nn.Module):
    """A recurrent layer, of which the states are taken."""

    def __init__(self, kind):
        self.layer = kind(2, 4, rng=0)

    def forward(self, x):
        return self.layer(x)[0]


class Checkpointed(nn.Module):
    def __init__(self):
        self.body = nn.Sequential(nn.Dense(6, 8, rng=0), nn.Tanh(), nn.Dense(8, 6, rng=1))
        self.head = nn.Dense(6, 3, rng=2)

    def forward(self, x):
        return self.head(mf.checkpoint(self.body, self.head.bias[:1] + x))


class Image(nn.Module):
    """Six numbers as an image."""

    def __init__(self):
        self.conv, self.norm, self.pool = nn.Conv2D(1, 4, 3, padding=1, rng=0), nn.BatchNorm2D(4), nn.MaxPool2D(2, 1)
        self.head = nn.Dense(8, 3, rng=1)

    def forward(self, x):
        y = self.pool(nn.ReLU()(self.norm(self.conv(np.reshape(x, (-1, 1, 2, 3))))))
        return self.head(y.reshape(-1, 8))


def frozen():
    model = nn.Sequential(nn.Dense(6, 6, rng=0), nn.Dense(6, 3, rng=1))
    model[0].requires_grad_(False)
    return model


MODELS = {
    "one layer": lambda: nn.Dense(6, 3, rng=0),
    "deep": lambda: nn.Sequential(*[nn.Dense(6, 6, rng=k) for k in range(12)], nn.Dense(6, 3, rng=0)),
    "wide": lambda: nn.Sequential(nn.Dense(6, 300, rng=0), nn.ReLU(), nn.Dense(300, 3, rng=1)),
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Dense(6, 6, rng=0), nn.Sequential(nn.Tanh())), nn.Dense(6, 3)),
    "residual": lambda: nn.Sequential(Residual(), Residual(), nn.Dense(6, 3, rng=1)),
    "shared": Shared,
    "recurrent": Recurrent,
    "attention": Attention,
    "dropout": lambda: nn.Sequential(nn.Dense(6, 6, rng=0), nn.Dropout(0.3, rng=0), nn.Dense(6, 3, rng=1)),
    "frozen": frozen,
    "no layers": Free,
    "convolutional": Image,
    "lstm": lambda: Sequence(Taken(nn.LSTM)),
    "gru": lambda: Sequence(Taken(nn.GRU)),
    "self-attention": lambda: Sequence(nn.Dense(2, 4, rng=0), nn.MultiHeadAttention(4, 2, rng=1), nn.LayerNorm(4)),
    "checkpointed": Checkpointed,
}


def profiled(name, **options):
    model = MODELS[name]()
    profiler = mf.Profiler(model, name=name, **options)
    optimizer = optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    with profiler:
        for epoch in range(2):
            for x, y in mf.data.batches((X, Y), 16, rng=epoch):
                optimizer.zero_grad()
                nn.CrossEntropyLoss()(model(x), y).backward()
                optimizer.step()
            profiler.end_epoch()
    return profiler.session


# Attribution


@pytest.mark.parametrize("name", MODELS)
def test_layers_and_the_rest_are_the_total_in_every_epoch(name):
    session = profiled(name)
    for e in (*session.epochs, session.total()):
        for phase in ("forward", "backward"):
            total, key = getattr(e, f"{phase}_ns"), f"{phase}_ns"
            untagged = getattr(e, f"untagged_{phase}_ns")
            assert untagged >= 0
            for rows in (e.layers(), e.ops(), e.rows):
                assert sum(getattr(row, key) for row in rows) + untagged == total > 0
        assert e.sum().rules == e.sum().nodes > 0


@pytest.mark.parametrize("name", ["recurrent", "attention"])
def test_merging_conserves_every_sum(name):
    a, b = profiled(name), profiled(name)
    both = merged([*a.epochs, *b.epochs])
    for f in fields(Epoch):
        if f.type == "int" and f.name not in ("epoch", *LARGEST):
            assert getattr(both, f.name) == getattr(a.total(), f.name) + getattr(b.total(), f.name)
    for largest in LARGEST:
        assert getattr(both, largest) == max(getattr(a.total(), largest), getattr(b.total(), largest)) > 0
    for count in COUNTS:
        assert getattr(both.sum(), count) == getattr(a.total().sum(), count) + getattr(b.total().sum(), count)
    assert len(both.rows) == len(a.total().rows)


# Backward against forward


def test_products_take_3f_less_f1_in_every_epoch():
    for name in MODELS:
        session = profiled(name)
        for e in (*session.epochs, session.total()):
            r, total = e.ratio(), e.sum()
            assert (r.forward, r.backward) == (total.flops_forward, total.flops_backward)
            law = 2 * total.products_forward - total.products_first
            if name in ("lstm", "gru"):  # one op is a whole walk through time
                assert r.others == ["recur"] and not r.exact and total.products_backward > law
            elif name == "checkpointed":  # what it runs again, it counts again
                assert r.others == ["linear"] and not r.exact
                assert total.products_backward == law + e.observed * 2 * 16 * (6 * 8 + 8 * 6)
            else:
                assert r.exact and not r.others and total.products_backward == law > 0


def test_f1_is_of_the_ops_whose_data_need_no_gradient():
    per_step = 2 * 16 * 6 * 6
    assert profiled("deep").epochs[0].sum().products_first == 3 * per_step
    # The first layer is frozen and on data, so that neither of its factors needs a gradient.
    assert profiled("frozen").epochs[0].sum().products_first == 3 * (2 * 2 * 16 * 6 * 6 + 2 * 16 * 6 * 3)
    model = nn.Dense(6, 3, rng=0)
    model.weight.requires_grad = False
    with mf.Profiler(model) as profiler:  # data and weight are constants: only the bias is trained
        model(X).sum().backward()
        profiler.end_epoch()
    r = profiler.session.epochs[0].ratio()
    assert r.products_first == 2 * r.products_forward and r.products_backward == 0 and r.exact


def test_each_form_says_what_backward_takes_of_forward_in_every_epoch():
    session = profiled("convolutional")
    r = session.total().ratio()
    text = report(session)
    assert [line.split()[-1] for line in text.splitlines()[5:7]] == ["exact"] * 2
    assert f"Predicted for both together: 3F - F1 = {r.predicted:,}," in " ".join(text.split())
    for source in ("Baur & Strassen 1983", "arXiv 2206.01730", "Griewank & Walther 2008", "Seconds may exceed"):
        assert source in text
    marked = session.markdown()
    assert f"{r.operations:.3f} times forward in operations" in marked and "3F - F1 = " in marked
    assert marked.count("| exact |") == 2
    differs = report(profiled("lstm"))
    assert "not equal because of recur" in " ".join(differs.split())
    assert [line.split()[-1] for line in differs.splitlines()[5:7]] == ["differs"] * 2


def test_weight_reuse_tells_a_convolution_from_a_dense_layer():
    session = profiled("convolutional")
    rows = {line.split()[0]: line.split() for line in report(session, by="layer").splitlines() if line}
    assert rows["conv"][-2] == str(16 * 2 * 3)  # each weight at each of six places of sixteen images
    assert rows["head"][-2] == "16"
    assert {layer.name: layer.weights for layer in session.layers}["conv"] == 4 * 9


def test_the_largest_step_says_what_is_kept():
    model = MODELS["wide"]()
    with mf.Profiler(model) as profiler:
        for n in (4, 16, 8):
            nn.CrossEntropyLoss()(model(X[:n]), Y[:n]).backward()
        profiler.end_epoch()
    epoch = profiler.session.epochs[0]
    assert epoch.saved_peak_bytes == 16 / (4 + 16 + 8) * epoch.sum().saved_bytes
    assert f"peak {epoch.saved_peak_bytes:,} bytes" in " ".join(profiler.report().split())


# Trace


def checked(text, traced_steps):
    """Read a trace strictly: pairs that nest, times that never go back, three tracks."""
    events = json.loads(text, parse_constant=pytest.fail)["traceEvents"]
    tracks = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert list(tracks.values()) == ["forward", "backward", "update"]
    timed = [e for e in events if e["ph"] != "M"]
    assert all(a["ts"] <= b["ts"] for a, b in zip(timed, timed[1:], strict=False))
    opened = {tid: [] for tid in tracks}
    for e in timed:
        if e["ph"] == "B":
            opened[e["tid"]].append(e["name"])
        else:
            assert e["ph"] == "E"
            assert opened[e["tid"]].pop() == e["name"]
    assert not any(opened.values())
    begun = Counter((tracks[e["tid"]], e["name"]) for e in timed if e["ph"] == "B")
    for phase in tracks.values():
        assert begun[phase, phase] == traced_steps
    return begun


@pytest.mark.parametrize("name", ["deep", "residual", "recurrent", "attention"])
def test_the_trace_holds_the_steps_that_were_asked_for(name):
    session = profiled(name, trace=4)
    assert session.trace is not None
    assert (session.trace.steps, session.trace.complete) == (4, True)
    begun = checked(session.chrome_trace(), 4)
    nodes = session.epochs[0].sum().nodes // session.epochs[0].steps
    ops = {row.op for row in session.total().rows}
    for phase in ("forward", "backward"):
        assert sum(n for (track, name_), n in begun.items() if track == phase and name_ in ops) == 4 * nodes
    plain = profiled(name)
    for count in COUNTS[:-2]:  # what is added up is the same with a trace and without
        assert getattr(session.total().sum(), count) == getattr(plain.total().sum(), count)


def test_nested_layers_lie_in_each_other():
    text = profiled("residual", trace=1).chrome_trace()
    names = [e["name"] for e in json.loads(text)["traceEvents"] if e["ph"] == "B" and e["tid"] == 1]
    assert names[:4] == ["forward", "0 Residual", "0.inner Dense", "linear"]


def test_a_run_shorter_than_its_trace_says_so_and_none_is_an_error():
    trace = profiled("one layer", trace=100).trace
    assert trace is not None
    assert (trace.steps, trace.complete) == (6, False)
    with pytest.raises(ArgumentError, match="expected a traced session, got none; record it with Profiler"):
        profiled("one layer").chrome_trace()
    with pytest.raises(ArgumentError, match="trace to be a number of steps"):
        mf.Profiler(trace=-1)


def test_a_trace_ends_at_the_cap(monkeypatch):
    monkeypatch.setattr(tracer, "MAX_EVENTS", 25)
    session = profiled("deep", trace=6)
    assert session.trace is not None
    assert not session.trace.complete
    assert sum(site >= 0 for _, site, _, _ in session.trace.events) == 25
    json.loads(session.chrome_trace())


# Schema


def validated(value, schema, root):
    """Hold a value against the few words of JSON Schema that ours uses."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if "const" in schema:
        assert value == schema["const"]
        return
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}
    types = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    assert any((value is None if t == "null" else isinstance(value, kinds[t])) for t in types), value
    assert value is None or isinstance(value, str | list | dict) or value >= schema.get("minimum", value)
    if isinstance(value, dict):
        assert set(schema.get("required", ())) <= set(value)
        for key, item in value.items():
            inner = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            assert inner, key
            validated(item, inner, root)
    if isinstance(value, list):
        assert schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        for item in value:
            validated(item, schema["items"], root)


def test_the_schema_is_what_is_saved(tmp_path):
    schema = json.loads(files("microfw.profiler").joinpath("schema.json").read_text())
    for kind, part in ((Session, schema), *((k, schema["$defs"][k.__name__]) for k in (Layer, Epoch, Row, Trace))):
        assert [name for name in part["properties"] if name != "ratio"] == [f.name for f in fields(kind)]
    assert list(schema["$defs"]["Ratio"]["properties"]) == list(Ratio().to_dict())
    for session in (profiled("nested", trace=2), Session()):
        session.save(tmp_path / "a.json")
        saved = json.loads((tmp_path / "a.json").read_text())
        validated(saved, schema, schema)
        assert Session.load(tmp_path / "a.json") == session
    saved["epochs"] = [{"epoch": "1"}]
    with pytest.raises(AssertionError):
        validated(saved, schema, schema)


def test_what_follows_from_the_rows_is_not_read_back(tmp_path):
    session = profiled("one layer")
    session.save(tmp_path / "a.json")
    data = json.loads((tmp_path / "a.json").read_text())
    assert data["epochs"][0]["ratio"]["exact"] is True
    data["epochs"][0]["ratio"]["exact"] = "by no means"
    (tmp_path / "a.json").write_text(json.dumps(data))
    assert Session.load(tmp_path / "a.json") == session


@pytest.mark.parametrize(
    "change",
    [
        {"trace": {"events": [[9, 0, 0, 1]], "sites": [["", "a"]]}},
        {"trace": {"events": [[0, 3, 0, 1]], "sites": [["", "a"]]}},
        {"trace": {"events": [[0, -1, 5, 1]]}},
        {"trace": {"events": [[0, -1, 5]]}},
        {"trace": {"sites": [[1, "a"]]}},
        {"environment": {"python": 3}},
        {"layers": [{"name": 5, "kind": "Dense"}]},
        {"epochs": [{"epoch": 1, "rows": [], "loss": "low"}]},
    ],
)
def test_wrong_entries_are_refused(tmp_path, change):
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps({"version": 5, "epochs": [], "layers": []} | change))
    with pytest.raises(DataError, match="got an entry that is wrong"):
        Session.load(path)


# Frames, figures, notebooks


def test_a_frame_has_a_row_for_each_op_of_each_layer_of_each_epoch():
    session = profiled("residual")
    frame = session.to_frame()
    assert len(frame) == sum(len(e.rows) for e in session.epochs)
    assert frame.backward_ns.sum() == session.total().sum().backward_ns
    assert set(frame[frame.layer == "0"].kind) == {"Residual"}


@pytest.mark.parametrize(("method", "package"), [("to_frame", "pandas"), ("plot", "matplotlib")])
def test_what_is_not_installed_is_named(monkeypatch, method, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"{method}: expected {package} to be installed, got none; pip install"):
        getattr(profiled("one layer"), method)()


def test_a_figure_shows_the_epochs_and_the_layers():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    session = profiled("wide")
    session.layers[1].name = session.epochs[0].rows[0].layer = "$\\frac"  # no mathematics in names
    figure = session.plot()
    left, right = figure.axes
    assert [bar.get_height() for bar in left.containers[0]] == [e.forward_ns / 1e6 for e in session.epochs]
    assert len(right.get_yticklabels()) == len(session.total().layers())
    figure.canvas.draw()
    pyplot.close(figure)
    with pytest.raises(ArgumentError, match="expected a session with an epoch"):
        Session().plot()


def test_a_notebook_shows_tables_without_a_script():
    session = profiled("wide")
    session.name = "<script>alert(1)</script>"
    text = session._repr_html_()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert text.count("<tr>") == 1 + len(session.total().layers()) + 1 + 1 + 2
    assert "no epoch" in Session()._repr_html_()


def test_files_are_written_in_the_format_of_their_names(tmp_path):
    session = profiled("one layer", trace=1)
    for end, begins in {
        ".html": "<!doctype html>", ".csv": "epoch,steps", ".md": "### Backward cost", ".trace.json": '{"traceEvents"',
        ".json": '{\n "version": 5',
    }.items():  # fmt: skip
        path = tmp_path / f"run{end}"
        session.save(path)
        assert path.read_text().startswith(begins)
    with pytest.raises(ArgumentError, match=r"save: expected a name that ends in \.json, \.html"):
        session.save(tmp_path / "run.txt")


# The terminal


def test_tables_by_layer_and_op_sorted_and_cut():
    session = profiled("deep")
    text = report(session, by="layer", sort="flops", max_rows=3)
    lines = text.splitlines()
    assert "Layers, per step (all 2 epochs)" in text
    assert "11 more" in text
    assert not any(line.startswith("Ops") for line in lines)
    ops = report(session, by="op")
    assert [line.split()[0] for line in ops.splitlines()[6:8]] == ["linear", "cross_entropy"]
    for by, wrong in (("row", {}), ("layer", {"sort": "speed"}), ("op", {"max_rows": 0})):
        with pytest.raises(ArgumentError, match="report: expected"):
            report(session, by=by, **wrong)


def test_colour_changes_nothing_but_colour():
    import re

    session = profiled("deep")
    coloured = report(session, colour=True)
    assert "\x1b[1m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == report(session)


# Hostile names

PIECES = [
    "</script><script>window.pwned=1</script>", "<img src=x onerror=window.pwned=1>", '"', "'", "\\", "\0", "\n", "\r",
    "\t", "=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "\u202eabc", "\u2066", "\u2028", "\u2029", "&amp;", "&#0;", "`", "|",
    "${1}", "{{7*7}}", "<!--", "-->", "]]>", "\x1b[31m", "\x7f", "\x85", "\ufeff", "é", "漢字", "😀", "%s", "../..", "javascript:1",
    "__proto__", "constructor", " ", ",", ";", "* [x](javascript:1)", "<svg/onload=window.pwned=1>", "a.b", "\\u0041", "NaN",
]  # fmt: skip


def hostile_names(n=10_000):
    rng = np.random.default_rng(0)
    names = dict.fromkeys(PIECES)
    for k in (1, 2, 3):
        names["".join(rng.choice(PIECES, 4)) + chr(64 + k) * 100_000] = None
    while len(names) < n:
        names["".join(rng.choice(PIECES, rng.integers(1, 5))) + str(len(names))] = None
    return list(names)


def hostile_session(names):
    rows = [Row(name, names[-k], nodes=1, rules=1, forward_ns=5, backward_ns=k % 7 + 1) for k, name in enumerate(names)]
    n = len(names)
    epoch = Epoch(1, 1, 1, 0.5, {}, 3, 1, 6 * n, 9 * n, 1, 0, 0, 20 * n, rows)
    sites = [[row.layer, row.op] for row in rows]
    events = [[PHASES.index("forward"), k, 10 * k, 10 * k + 5] for k in range(n)]
    layers = [Layer(name, names[-k - 1]) for k, name in enumerate(names)]
    name = "".join(PIECES)
    return Session(name=name, model=name, layers=layers, epochs=[epoch], trace=Trace(1, True, sites, events))


class Data(HTMLParser):
    """Takes the page's block of data, and counts the scripts."""

    def __init__(self):
        super().__init__()
        self.scripts, self.data, self.inside = 0, "", False

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.inside = ("id", "data") in attrs

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.data += data


@pytest.fixture(scope="module")
def hostile():
    names = hostile_names()
    return names, hostile_session(names)


def test_hostile_names_come_through_json_exactly(hostile, tmp_path):
    names, session = hostile
    session.save(tmp_path / "hostile.json")
    assert Session.load(tmp_path / "hostile.json") == session


def test_hostile_names_come_through_the_page_exactly(hostile):
    names, session = hostile
    reader = Data()
    reader.feed(session.html())
    data = json.loads(reader.data, parse_constant=pytest.fail)
    assert reader.scripts == 2
    assert [data["names"][layer] for layer, _ in data["sites"]] == names
    assert [data["ops"][op] for _, op in data["sites"]] == [row.op for row in session.epochs[0].rows]
    assert not set("<>&\u2028\u2029") & set(reader.data)


def test_hostile_names_come_through_the_trace_exactly(hostile):
    names, session = hostile
    events = json.loads(session.chrome_trace(), parse_constant=pytest.fail)["traceEvents"]
    timed = [e for e in events if e["ph"] != "M"]
    inner = [a for a, b in zip(timed, timed[1:], strict=False) if (a["ph"], b["ph"]) == ("B", "E")]
    assert [(e["args"]["layer"], e["name"]) for e in inner] == [(row.layer, row.op) for row in session.epochs[0].rows]


def test_hostile_names_come_through_csv_exactly_and_run_nothing(hostile):
    names, session = hostile
    rows = list(csv_module.DictReader(io.StringIO(session.csv(), newline=""), strict=True))
    assert [unguarded(row["layer"]) for row in rows] == names
    assert [unguarded(row["op"]) for row in rows] == [row.op for row in session.epochs[0].rows]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\0")) for row in rows for cell in row.values())


def test_hostile_names_come_through_markdown_exactly(hostile):
    names, session = hostile
    lines = session.markdown().split("\n")
    assert all(c.isprintable() for line in lines for c in line)
    start = next(k for k, line in enumerate(lines) if line.startswith("| layer")) + 2
    cells = [line.split(" | ") for line in lines[start : start + len(names)]]
    assert {len(c) for c in cells} == {8}
    assert [decoded(c[0].removeprefix("| ")) for c in cells] == names
    assert not any(set("<>|`*[]@#") & set(c[0].removeprefix("| ").replace("<code>", "").replace("</code>", "").replace("&#", "")) for c in cells)  # fmt: skip


def test_hostile_names_come_through_a_markdown_reader(hostile):
    markdown_it = pytest.importorskip("markdown_it")
    names, _ = hostile
    chosen = names[:200]
    html = markdown_it.MarkdownIt("gfm-like", {"linkify": False}).render(hostile_session(chosen).markdown())

    class Cells(HTMLParser):
        def __init__(self):
            super().__init__()
            self.rows, self.tags = [], set()

        def handle_starttag(self, tag, attrs):
            self.tags.add(tag)
            assert tag in ("td", "th") or not attrs
            if tag == "tr":
                self.rows.append([])
            if tag in ("td", "th"):
                self.rows[-1].append("")

        def handle_data(self, data):
            if self.rows and self.rows[-1]:
                self.rows[-1][-1] += data

    reader = Cells()
    reader.feed(html)
    allowed = {"h3", "p", "code", "strong", "table", "thead", "tbody", "tr", "th", "td", "details", "summary"}
    assert reader.tags <= allowed
    from microfw.profiler.reports.names import hidden_again

    assert [hidden_again(row[0].strip("\n")) for row in reader.rows[1 : 1 + len(chosen)]] == chosen


def test_half_a_character_in_a_name_stops_no_file(tmp_path):
    session = hostile_session(["a\ud800", "b"])
    for end in (".json", ".html", ".csv", ".md", ".trace.json"):
        session.save(tmp_path / f"half{end}")
    assert Session.load(tmp_path / "half.json") == session
    assert len(report(session).encode("utf-8")) > 0
