"""A session in files: schema, CSV, frames, figures and notebooks."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from importlib.resources import files

import pytest

from microfw.errors import ArgumentError, DataError
from microfw.profiler import Epoch, Layer, Ratio, Row, Session, Trace
from microfw.profiler.reports.formats import FORMATS
from tests.helpers.sessions import profiled

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
    assert text.count("<tr>") == 1 + len(session.total().layers()) + 2 + 1 + 2
    assert "no epoch" in Session()._repr_html_()


def test_files_are_written_in_the_format_of_their_names(tmp_path):
    session = profiled("one layer", trace=1)
    starts = {
        ".html": "<!doctype html>", ".csv": "epoch,steps", ".md": "### Backward cost", ".trace.json": '{"traceEvents"',
        ".json": '{\n "version": 5',
    }  # fmt: skip
    missing = {made.suffix for made in FORMATS.values()} - starts.keys()
    assert not missing, f"say here how a file of each format of reports/formats.py starts: {missing}"
    for end, begins in starts.items():
        path = tmp_path / f"run{end}"
        session.save(path)
        assert path.read_text().startswith(begins)
    with pytest.raises(ArgumentError, match=r"save: expected a name that ends in \.json, \.html"):
        session.save(tmp_path / "run.txt")
