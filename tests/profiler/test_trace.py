"""The trace of a session: its steps, its layers, its limits."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

import microfw as mf
from microfw import nn
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


@pytest.mark.parametrize("way", ["eager", "checkpoint"])
def test_each_op_of_a_step_is_an_event_of_the_phase_that_it_runs_in(way):
    """Also of a frozen layer, whose ops have no node, and of ops that a checkpoint runs again in backward."""
    model = nn.Sequential(nn.Dense(4, 5, rng=0), nn.Tanh(), nn.Dropout(0.5, rng=1), nn.Dense(5, 3, rng=1))
    model[0].requires_grad_(False)
    optimizer, loss = mf.optim.SGD(model[3].parameters(), lr=0.1), nn.CrossEntropyLoss()
    x, y = np.ones((6, 4), np.float32), np.zeros(6, int)
    part = (lambda x: mf.checkpoint(model, x)) if way == "checkpoint" else model
    with mf.Profiler(model, trace=100) as profiler:
        for _ in range(5):
            optimizer.zero_grad()
            loss(part(x), y).backward()
            optimizer.step()
    session = profiler.session
    found = Counter((site, phase) for phase, site, *_ in session.trace.events)
    for row in session.epochs[0].rows:
        site = session.trace.sites.index([row.layer, row.op])
        again = 5 if way == "checkpoint" and row.layer in ("0", "1", "2", "3") else 0
        assert [found[site, k] for k in range(2)] == [5, row.rules + again], row
    checked(session.chrome_trace(), 5)


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
