"""Profiles in files: written in many formats, read back from JSON."""

from __future__ import annotations

import os
from dataclasses import MISSING, asdict, fields
from math import isfinite
from typing import Any, TypeVar

from microfw.errors import ArgumentError, DataError, message
from microfw.profiler.session import PHASES, VERSION, Epoch, Layer, Row, Session, Trace
from microfw.serialization.output import encode, path_text, picture, write_bytes
from microfw.serialization.strict import short

T = TypeVar("T")

PICTURES = (".png", ".svg", ".pdf")

LARGEST = 1 << 63
"""No count and no time of a profile is as large as this."""


def save(session: Session, path: str | os.PathLike[str]) -> None:
    """Write a session in the format that the name's end asks for.

    Parameters
    ----------
    session : Session
        What was recorded.
    path : str or path-like
        Ends in ``.html`` (a page), ``.csv``, ``.md``, ``.trace.json`` (Chrome's trace format), ``.png``, ``.svg`` or
        ``.pdf`` (matplotlib's figure), or ``.json``: the session itself, which `Session.load` reads.

    Raises
    ------
    ArgumentError
        If the name ends otherwise, or a trace is asked for that was not recorded.
    FileError
        If the file cannot be written. A file that was there before is then as it was.
    """
    if not isinstance(session, Session):
        raise ArgumentError(message("save", "a Session", type(session).__name__, "call session.save(path)"))
    text = path_text(path, "Session.save", "session.save(path)")
    write_bytes(text, content(session, text))


def content(session: Session, path: str) -> bytes:
    """Return what `save` writes."""
    name = path.lower()
    if name.endswith(PICTURES):
        return picture(session.plot(), path)
    if name.endswith(".trace.json"):
        text = session.chrome_trace()
    elif name.endswith(".json"):
        text = to_json(session)
    elif name.endswith((".html", ".htm")):
        text = session.html()
    elif name.endswith(".csv"):
        text = session.csv()
    elif name.endswith(".md"):
        text = session.markdown()
    else:
        ends = ".json, .html, .csv, .md, .trace.json, .png, .svg or .pdf"
        raise ArgumentError(message("save", f"a name that ends in {ends}", repr(path)))
    return encode(text)


def to_json(session: Session) -> str:
    """Return a session as strict JSON, laid down in ``schema.json``."""
    import json

    data = to_dict(session)
    for saved, epoch in zip(data["epochs"], session.epochs, strict=True):
        saved["ratio"] = epoch.ratio().to_dict()  # it follows from the rows, and is there for whoever reads the file
    if session.trace is None:
        del data["trace"]
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def to_dict(session: Session) -> dict[str, Any]:
    """Return a session as what strict JSON can hold, which `from_dict` reads: losses and metrics that are finite."""
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
        raise DataError(message(where, "JSON", got, "was the file cut short?")) from None
    except MemoryError:
        raise DataError(message(where, "a profile that fits the memory", "a larger one")) from None
    return parse(data, where)


def parse(data: Any, where: str) -> Session:
    """Return the session of what JSON held; ``where`` is for errors, which are `DataError`."""
    if not isinstance(data, dict) or "epochs" not in data:
        raise DataError(message(where, "a profile saved by microfw", "other JSON"))
    version = data.get("version")
    if type(version) is not int or version not in (4, VERSION):
        fix = "read it with the microfw that wrote it"
        raise DataError(message(where, f"version {VERSION}", short(version), fix))
    try:
        session = from_dict(data)
        if version == 4 and session.every == 1:  # which had no name for what was left
            for epoch in session.epochs:
                epoch.other_ns = max(epoch.unobserved_ns, 0)
        return session
    except Wrong as error:
        got = f"an entry that is wrong: {error}"
        raise DataError(message(where, "a profile saved by microfw", got, "was the file changed?")) from None


class Wrong(ValueError):
    """An entry of a saved profile that is not what it must be: its name, and what came."""


def from_dict(data: dict[str, Any]) -> Session:
    """Make a session of what ``dataclasses.asdict`` made of one.

    Raises
    ------
    Wrong
        If an entry is missing, of the wrong type, out of range, or not known.
    """
    epochs = []
    for entry in _listed(data.get("epochs"), "epochs"):
        entry = _table(entry, "Epoch")
        own = {name: value for name, value in entry.items() if name != "ratio"}  # which follows from the rows
        epochs.append(build(Epoch, own | {"rows": [build(Row, row) for row in _listed(own.get("rows"), "rows")]}))
    layers = [build(Layer, layer) for layer in _listed(data.get("layers"), "layers")]
    made = {"epochs": epochs, "layers": layers, "version": VERSION}
    if data.get("trace") is not None:
        made["trace"] = _trace(data["trace"])
    session = build(Session, data | made)
    if session.every < 1:
        raise Wrong(f"Session.every is {session.every}")
    if session.overhead and not {"ns_per_node", "share"} <= set(session.overhead):
        raise Wrong(f"Session.overhead is {short(session.overhead)}")
    return session


def _trace(data: Any) -> Trace:
    trace = build(Trace, data)
    for site in trace.sites:
        if type(site) is not list or len(site) != 2 or not all(type(part) is str for part in site):
            raise Wrong(f"trace site {short(site)}")
    for event in trace.events:
        whole = type(event) is list and len(event) == 4 and all(type(part) is int for part in event)
        if not whole or not (
            0 <= event[0] < len(PHASES) and -1 <= event[1] < len(trace.sites) and 0 <= event[2] <= event[3] < LARGEST
        ):
            raise Wrong(f"trace event {short(event)}")
    return trace


def _listed(value: Any, name: str) -> list[Any]:
    if type(value) is not list:
        raise Wrong(f"{name} is {short(value)}")
    return value


def _table(value: Any, name: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise Wrong(f"{name} is {short(value)}")
    return value


def build(kind: type[T], data: Any) -> T:
    """Return a dataclass made of a dict, whose keys and types are checked: `Wrong` if they are not its fields."""
    wanted = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for name, value in _table(data, kind.__name__).items():
        if name not in wanted:
            raise Wrong(f"{kind.__name__} has {short(name)}")
        if not _fits(value, str(wanted[name].type)):
            raise Wrong(f"{kind.__name__}.{name} is {short(value)}")
    for name, f in wanted.items():
        if name not in data and f.default is MISSING and f.default_factory is MISSING:
            raise Wrong(f"{kind.__name__}.{name} is missing")
    return kind(**data)


def _fits(value: Any, kind: str) -> bool:
    if kind == "int":
        return type(value) is int and 0 <= value < LARGEST
    if kind == "float | None":
        return value is None or _number(value)
    if kind in ("str", "bool"):
        return type(value).__name__ == kind
    if kind.startswith("dict"):
        good = (lambda v: type(v) is str) if kind.endswith("str]") else _number
        return type(value) is dict and all(map(good, value.values()))
    if kind.startswith("list"):
        item = kind[5:-1]
        return type(value) is list and (item not in ("int", "str") or all(_fits(v, item) for v in value))
    return True


def _number(value: Any) -> bool:
    return isfinite(value) if type(value) is float else type(value) is int and -LARGEST < value < LARGEST
