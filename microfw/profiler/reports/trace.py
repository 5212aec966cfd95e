"""Events of a traced session in Chrome's trace format, for Perfetto and speedscope."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from heapq import merge
from itertools import groupby
from typing import Any

from microfw.errors import ArgumentError
from microfw.profiler.reports.names import OUTSIDE_LABEL, chain, kinds
from microfw.profiler.session import PHASES, Session, Trace

TRACKS = ("forward", "backward", "update")

Slice = tuple[int, int, int, str, dict[str, Any]]
"""Start, minus the end, depth, name, arguments. In sorted order an outer slice comes before its inner slices."""


def chrome_trace(session: Session) -> str:
    """Return strict JSON: begin and end events in order of time, on one track each for forward, backward and update.

    Layers are slices around the slices of their ops and inner layers. Evaluations under `no_grad` are on the forward
    track.

    Raises
    ------
    ArgumentError
        If the session has no trace.
    """
    trace = session.trace
    if trace is None:
        fix = "record it with Profiler(trace=10), or microfw profile --trace-steps 10"
        raise ArgumentError("chrome_trace", "a traced session", "none", fix)
    events: list[dict[str, Any]] = [_named("process_name", 0, " ".join(filter(None, ("microfw", session.name))))]
    events += [_named("thread_name", k, track) for k, track in enumerate(TRACKS)]
    events += [_named("thread_sort_index", k, k) for k in range(len(TRACKS))]
    tracks = [_paired(_slices(session, trace, track), k) for k, track in enumerate(TRACKS)]
    events += merge(*tracks, key=lambda event: event["ts"])
    about = {"model": session.model, "steps": trace.steps, "complete": trace.complete, **session.environment}
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns", "otherData": about}, allow_nan=False)


def _named(kind: str, track: int, name: Any) -> dict[str, Any]:
    key = "sort_index" if kind == "thread_sort_index" else "name"
    return {"ph": "M", "name": kind, "pid": 1, "tid": track + 1, "args": {key: name}}


def _slices(session: Session, trace: Trace, track: str) -> list[Slice]:
    """Return the slices of a track: phases, layers and ops."""
    known = {layer.name for layer in session.layers}
    kind = kinds(session)
    phases = {k for k, phase in enumerate(PHASES) if (phase == "evaluation" and track == "forward") or phase == track}
    events = [event for event in trace.events if event[0] in phases]
    found: list[Slice] = [(b, -e, 0, PHASES[phase], {}) for phase, site, b, e in events if site < 0]
    ends = sorted(e for _, site, _, e in events if site < 0)
    ops = []
    phase_index = 0
    for _, site, start_ns, end_ns in events:
        if site < 0:
            continue
        while phase_index < len(ends) and ends[phase_index] <= start_ns:
            phase_index += 1
        layer, op = trace.sites[site]
        found.append((start_ns, -end_ns, 99, op, {"layer": layer or OUTSIDE_LABEL}))
        ops.append((phase_index, chain(layer, known), start_ns, end_ns))
    for depth in range(max((len(layers) for _, layers, _, _ in ops), default=0)):
        for (_, path), run in groupby(ops, partial(_place, depth + 1)):
            members = list(run)
            if len(path) > depth:
                name = path[-1]
                title = f"{name} {kind[name]}" if name in kind else name
                end = max(end_ns for *_, end_ns in members)
                found.append((members[0][2], -end, depth + 1, title, {"layer": name}))
    return sorted(found, key=lambda slice: slice[:3])


def _place(depth: int, op: tuple[int, list[str], int, int]) -> tuple[int, list[str]]:
    """Return the number of the phase that an op is in, and its layers down to a depth."""
    return op[0], op[1][:depth]


def _paired(slices: list[Slice], track: int) -> Iterator[dict[str, Any]]:
    """Yield nested begin and end events of slices."""
    open_: list[tuple[int, str]] = []

    def event(ph: str, name: str, ns: int) -> dict[str, Any]:
        return {"ph": ph, "name": name, "cat": TRACKS[track], "ts": ns / 1000, "pid": 1, "tid": track + 1}

    for start_ns, minus_end, _, name, args in slices:
        while open_ and open_[-1][0] <= start_ns:
            end_ns, last = open_.pop()
            yield event("E", last, end_ns)
        open_.append((min(-minus_end, open_[-1][0]) if open_ else -minus_end, name))
        yield event("B", name, start_ns) | {"args": args}
    while open_:
        end_ns, last = open_.pop()
        yield event("E", last, end_ns)
