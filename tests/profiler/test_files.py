"""A session in files: schema, CSV, frames, figures and notebooks."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from importlib.resources import files

import numpy as np
import pytest

from microfw.errors import ArgumentError, DataError
from microfw.profiler import Epoch, Layer, Ratio, Row, Session, Trace
from microfw.profiler.reports.formats import FORMATS, format_of
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
    assert set(frame[frame.layer == "CrossEntropyLoss"].kind) == {"CrossEntropyLoss"}
    np.testing.assert_allclose(frame.backward_s, frame.backward_ns / 1e9)
    np.testing.assert_allclose(frame.backward_s_per_step * frame.observed, frame.backward_s)
    np.testing.assert_array_equal(frame.flops_forward_per_step * frame.observed, frame.flops_forward)
    assert frame.groupby("epoch").loss.first().tolist() == [e.loss for e in session.epochs]


def test_a_frame_has_the_metrics_of_each_epoch():
    pytest.importorskip("pandas")
    rows = [Row("0", "linear", nodes=1), Row("MSELoss#2", "mse", nodes=1), Row("", "add", nodes=1)]
    metrics = [{"accuracy": 0.5, "steps": 7.0, "loss": 0.4}, {"loss": 0.3, "val_loss": 0.6}]
    epochs = [Epoch(k, 2, 0, found["loss"], found, rows=list(rows)) for k, found in enumerate(metrics, 1)]
    frame = Session(layers=[Layer("0", "Dense")], epochs=epochs).to_frame()
    assert list(frame)[:8] == ["epoch", "steps", "observed", "loss", "accuracy", "metrics.steps", "val_loss", "kind"]
    assert frame.loss.tolist() == [0.4] * 3 + [0.3] * 3
    assert frame["metrics.steps"].isna().tolist() == [False] * 3 + [True] * 3
    assert frame.val_loss.tolist()[3:] == [0.6] * 3 and frame.steps.tolist() == [2] * 6
    assert frame.kind.tolist()[:3] == ["Dense", "MSELoss", ""]
    assert frame.nodes_per_step.isna().all()  # no step was observed


@pytest.mark.parametrize(("method", "package"), [("to_frame", "pandas"), ("plot", "Matplotlib")])
def test_what_is_not_installed_is_named(monkeypatch, method, package):
    monkeypatch.setitem(sys.modules, package.lower(), None)
    with pytest.raises(ArgumentError, match=f"^Session.{method}: expected {package}, got none installed; pip install"):
        getattr(profiled("one layer"), method)()


def test_a_figure_shows_the_epochs_and_the_layers():
    pytest.importorskip("matplotlib")
    session = profiled("wide")
    session.layers[1].name = session.epochs[0].rows[0].layer = "$\\frac"  # no mathematics in names
    left, right = session.plot()
    scale = {"s": 1e9, "ms": 1e6, "µs": 1e3}[left.get_ylabel().removeprefix("time, ")]
    assert [bar.get_height() for bar in left.containers[0]] == [e.forward_ns / scale for e in session.epochs]
    assert len(right.get_yticklabels()) == len(session.total().layers())
    left.figure.draw_without_rendering()


@pytest.mark.parametrize("epochs", [2, 200])
def test_bars_of_a_figure_add_up_to_the_epochs_with_the_comparison_of_replays(epochs):
    pytest.importorskip("matplotlib")
    parts = {"forward": 4, "backward": 5, "update": 2, "data": 1, "evaluation": 3, "other": 2, "check": 6}
    ns = {f"{name}_ns": 1_000_000 * part for name, part in parts.items()}
    left, _ = Session(epochs=[Epoch(k + 1, 1, 1, total_ns=23_000_000, **ns) for k in range(epochs)]).plot()
    areas, bars = (left.collections, []) if epochs > 100 else ([], left.patches)
    tops = [area.get_datalim(left.transData).y1 for area in areas] + [bar.get_y() + bar.get_height() for bar in bars]
    assert max(tops) == pytest.approx(23)  # milliseconds
    assert "comparing replays" in [text.get_text() for text in left.get_legend().get_texts()]


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
    for made in FORMATS.values():
        assert format_of(f"run{made.suffix}") is made, f"{made.suffix} is a suffix of two formats"
        assert made.text(Session(trace=Trace())) != made.text(session), f"{made.function} does not use its session"
    for end in (".json", *(made.suffix for made in FORMATS.values())):
        path = tmp_path / f"run{end}"
        session.save(path)
        written = path.read_bytes().decode()
        assert written.startswith(starts.get(end, ""))
        assert end == ".json" or written == format_of(path.name).text(session)
    with pytest.raises(ArgumentError, match=r"save: expected a name that ends in \.json, \.html"):
        session.save(tmp_path / "run.txt")
