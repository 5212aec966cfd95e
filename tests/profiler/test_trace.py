"""The trace of a session: its steps, its layers, its limits."""

from __future__ import annotations

import json
from collections import Counter

import pytest

import microfw as mf
from microfw.errors import ArgumentError
from microfw.profiler.recorder import trace as tracer
from microfw.profiler.row import COUNTS
from tests.helpers.sessions import profiled


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
