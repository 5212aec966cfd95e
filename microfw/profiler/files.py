"""Files of profiles: written in several formats, read from JSON."""

from __future__ import annotations

import os
from dataclasses import MISSING, asdict, fields
from math import isfinite
from typing import Any, TypeVar

from microfw.errors import ArgumentError, DataError
from microfw.profiler.epoch import INTERRUPTED
from microfw.profiler.reports.formats import FORMATS, format_of
from microfw.profiler.session import PHASES, VERSION, Epoch, Layer, Row, Session, Trace
from microfw.serialization.output import encode, path_text, write_bytes
from microfw.serialization.strict import FormatError, document, short

T = TypeVar("T")

PICTURES = (".png", ".svg", ".pdf")

MAX_NUMBER = 1 << 63
"""Counts and times of a valid profile are below this."""


def save(session: Session, path: str | os.PathLike[str]) -> None:
    """Write a session to a file; the suffix selects the format.

    Parameters
    ----------
    session : Session
        The profile.
    path : str or path-like
        Name with a suffix of `FORMATS`, such as ``.html`` (page) or ``.trace.json`` (Chrome's trace format); ``.png``,
        ``.svg`` or ``.pdf`` (figure by matplotlib); or ``.json``: the session, which `Session.load` reads.

    Raises
    ------
    ArgumentError
        If the suffix is unknown, or the session has no trace to write.
    FileError
        If the file cannot be written. An existing file is then unchanged.
    """
    if not isinstance(session, Session):
        raise ArgumentError("save", "a Session", type(session).__name__, "call session.save(path)")
    text = path_text(path, "Session.save", "session.save(path)")
    write_bytes(text, content(session, text))


def content(session: Session, path: str) -> bytes:
    """Return the bytes that `save` writes."""
    name = path.lower()
    if name.endswith(PICTURES):
        from microfw.visualization.plots import picture

        return picture(session.plot, path)
    made = format_of(path)
    if made is not None:
        return encode(made.text(session))
    if name.endswith(".json"):
        return encode(to_json(session))
    ends = ", ".join([".json", *(made.suffix for made in FORMATS.values()), *PICTURES[:-1]])
    raise ArgumentError("save", f"a name that ends in {ends} or {PICTURES[-1]}", repr(path))


def to_json(session: Session) -> str:
    """Return a session as strict JSON; ``schema.json`` describes the format."""
    import json

    data = to_dict(session)
    for saved, epoch in zip(data["epochs"], session.epochs, strict=True):
        saved["ratio"] = epoch.ratio().to_dict()  # computed from the rows, for other readers of the file
    if session.trace is None:
        del data["trace"]
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def to_dict(session: Session) -> dict[str, Any]:
    """Return a session as plain values for strict JSON; losses and metrics that are not finite are left out."""
    data = asdict(session)
    for saved in data["epochs"]:
        saved["loss"] = saved["loss"] if _number(saved["loss"]) else None
        saved["metrics"] = {name: value for name, value in saved["metrics"].items() if _number(value)}
    return data


def load(path: str | os.PathLike[str]) -> Session:
    """Read a session from JSON; see `Session.load`."""
    import json

    def refuse(name: str) -> Any:
        raise ValueError(f"{name}, which is not JSON")

    text = path_text(path, "Session.load", "Session.load(path)")
    where = f"profile {text}"
    try:
        with open(text, encoding="utf-8") as file:
            data = json.load(file, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        got = "nesting without end" if isinstance(error, RecursionError) else error
        raise DataError(where, "JSON", got, "was the file cut short?") from None
    except MemoryError:
        raise DataError(where, "a profile that fits the memory", "a larger one") from None
    return parse(data, where)


def parse(data: Any, where: str) -> Session:
    """Return a session from parsed JSON. ``where``: name of the source in a `DataError`."""
    if not isinstance(data, dict) or "epochs" not in data:
        raise DataError(where, "a profile saved by microfw", "other JSON")
    version = data.get("version")
    if type(version) is not int or version not in (4, VERSION):
        fix = "read it with the microfw that wrote it"
        raise DataError(where, f"version {VERSION}", short(version), fix)
    try:
        session = from_dict(data)
        if version == 4 and session.every == 1:  # version 4 had no field for other time
            for epoch in session.epochs:
                epoch.other_ns = max(epoch.unobserved_ns, 0)
        return session
    except InvalidEntry as error:
        got = f"an entry that is wrong: {error}"
        raise DataError(where, "a profile saved by microfw", got, "was the file changed?") from None


def parse_state(state: dict[str, Any], every: int) -> tuple[Session, Epoch | None]:
    """Return the session from `Profiler.state_dict`, and the finished part of its current epoch."""
    where = "Profiler.load_state_dict"
    try:
        session = parse(document(state["session"]), where)
        partial = parse(document(state["partial"]), where).epochs[0] if state["partial"] else None
    except FormatError as error:
        raise DataError(str(error.with_location(where))) from None
    if session.every != every:
        raise DataError(where, f"every={every}", session.every)
    if partial is not None:
        partial.notes = [note for note in partial.notes if note != INTERRUPTED]  # it is continued
    return session, partial


class InvalidEntry(ValueError):
    """A saved profile has an invalid entry; the message names the entry and its value."""


def from_dict(data: dict[str, Any]) -> Session:
    """Return a session from the dict that ``dataclasses.asdict`` returned.

    Raises
    ------
    InvalidEntry
        If an entry is missing, has a wrong type or value, or is unknown.
    """
    epochs = []
    for entry in _listed(data.get("epochs"), "epochs"):
        entry = _table(entry, "Epoch")
        own = {name: value for name, value in entry.items() if name != "ratio"}  # computed from the rows
        epochs.append(build(Epoch, own | {"rows": [build(Row, row) for row in _listed(own.get("rows"), "rows")]}))
    layers = [build(Layer, layer) for layer in _listed(data.get("layers"), "layers")]
    made = {"epochs": epochs, "layers": layers, "version": VERSION}
    if data.get("trace") is not None:
        made["trace"] = _trace(data["trace"])
    session = build(Session, data | made)
    if session.every < 1:
        raise InvalidEntry(f"Session.every is {session.every}")
    if session.overhead and not {"ns_per_node", "share"} <= set(session.overhead):
        raise InvalidEntry(f"Session.overhead is {short(session.overhead)}")
    return session


def _trace(data: Any) -> Trace:
    trace = build(Trace, data)
    for site in trace.sites:
        if type(site) is not list or len(site) != 2 or not all(type(part) is str for part in site):
            raise InvalidEntry(f"trace site {short(site)}")
    for event in trace.events:
        whole = type(event) is list and len(event) == 4 and all(type(part) is int for part in event)
        if not whole or not (
            0 <= event[0] < len(PHASES) and -1 <= event[1] < len(trace.sites) and 0 <= event[2] <= event[3] < MAX_NUMBER
        ):
            raise InvalidEntry(f"trace event {short(event)}")
    return trace


def _listed(value: Any, name: str) -> list[Any]:
    if type(value) is not list:
        raise InvalidEntry(f"{name} is {short(value)}")
    return value


def _table(value: Any, name: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise InvalidEntry(f"{name} is {short(value)}")
    return value


def build(kind: type[T], data: Any) -> T:
    """Return a dataclass made of a dict. Raise `InvalidEntry` if keys or types are not those of the class."""
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for name, value in _table(data, kind.__name__).items():
        if name not in known:
            raise InvalidEntry(f"{kind.__name__} has {short(name)}")
        if not _is_valid(value, str(known[name].type)):
            raise InvalidEntry(f"{kind.__name__}.{name} is {short(value)}")
    for name, f in known.items():
        if name not in data and f.default is MISSING and f.default_factory is MISSING:
            raise InvalidEntry(f"{kind.__name__}.{name} is missing")
    return kind(**data)


def _is_valid(value: Any, kind: str) -> bool:
    if kind == "int":
        return type(value) is int and 0 <= value < MAX_NUMBER
    if kind == "float | None":
        return value is None or _number(value)
    if kind in ("str", "bool"):
        return type(value).__name__ == kind
    if kind.startswith("dict"):
        good = (lambda v: type(v) is str) if kind.endswith("str]") else _number
        return type(value) is dict and all(map(good, value.values()))
    if kind.startswith("list"):
        item = kind[5:-1]
        return type(value) is list and (item not in ("int", "str") or all(_is_valid(v, item) for v in value))
    return True


def _number(value: Any) -> bool:
    return isfinite(value) if type(value) is float else type(value) is int and -MAX_NUMBER < value < MAX_NUMBER
