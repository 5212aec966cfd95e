"""Profiles in files: written in many formats, read back from JSON."""

from __future__ import annotations

import os
from dataclasses import asdict, fields
from typing import Any, TypeVar

from microfw.errors import ArgumentError, DataError, message
from microfw.profiler.session import PHASES, VERSION, Epoch, Layer, Row, Session, Trace

T = TypeVar("T")

PICTURES = (".png", ".svg", ".pdf")


def save(session: Session, path: str | os.PathLike[str]) -> None:
    """Write a session in the format that the name's end asks for.

    Parameters
    ----------
    session : Session
        What was recorded.
    path : str or path
        Ends in ``.html`` (a page), ``.csv``, ``.md``, ``.trace.json`` (Chrome's trace format), ``.png``, ``.svg`` or
        ``.pdf`` (matplotlib's figure), or ``.json``: the session itself, which `Session.load` reads.

    Raises
    ------
    ArgumentError
        If the name ends otherwise, or a trace is asked for that was not recorded.
    """
    name = os.fspath(path).lower()
    if name.endswith(PICTURES):
        session.plot().savefig(path)
        return
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
        raise ArgumentError(message("save", f"a name that ends in {ends}", repr(os.fspath(path))))
    # Half a surrogate pair, which a Python string may hold, is no text: it is spelt out.
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        file.write(text)


def to_json(session: Session) -> str:
    """Return a session as strict JSON, laid down in ``schema.json``."""
    import json

    data = asdict(session)
    for saved, epoch in zip(data["epochs"], session.epochs, strict=True):
        saved["ratio"] = epoch.ratio().to_dict()  # it follows from the rows, and is there for whoever reads the file
    if session.trace is None:
        del data["trace"]
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def load(path: str | os.PathLike[str]) -> Session:
    """Read a session from JSON; see `Session.load`."""
    import json

    where = f"profile {os.fspath(path)}"
    with open(path, encoding="utf-8") as file:
        try:
            data = json.load(file)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: expected JSON, got {error}; was the file cut short?") from None
    return parse(data, where)


def parse(data: Any, where: str) -> Session:
    """Return the session of what JSON held; ``where`` is for errors, which are `DataError`."""
    if not isinstance(data, dict) or "epochs" not in data:
        raise DataError(f"{where}: expected a profile saved by microfw, got other JSON")
    if data.get("version") != VERSION:
        raise DataError(
            f"{where}: expected version {VERSION}, got {data.get('version')!r}; read it with the microfw that wrote it"
        )
    try:
        return from_dict(data)
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f"{where}: expected a profile saved by microfw, got an entry that is wrong: {error}") from None


def from_dict(data: dict[str, Any]) -> Session:
    """Make a session of what ``dataclasses.asdict`` made of one."""
    epochs = []
    for entry in data["epochs"]:
        own = {name: value for name, value in entry.items() if name != "ratio"}  # which follows from the rows
        epochs.append(_make(Epoch, own | {"rows": [_make(Row, row) for row in entry["rows"]]}))
    made = {"epochs": epochs, "layers": [_make(Layer, layer) for layer in data["layers"]], "version": VERSION}
    if data.get("trace") is not None:
        made["trace"] = _trace(data["trace"])
    return _make(Session, data | made)


def _trace(data: Any) -> Trace:
    trace = _make(Trace, data)
    for phase, site, began, ended in trace.events:
        if not (0 <= phase < len(PHASES) and -1 <= site < len(trace.sites) and 0 <= began <= ended):
            raise ValueError(f"trace event {[phase, site, began, ended]}")
    for layer, op in trace.sites:
        if type(layer) is not str or type(op) is not str:
            raise TypeError(f"trace site {[layer, op]!r}")
    return trace


def _make(kind: type[T], data: Any) -> T:
    wanted = {f.name: str(f.type) for f in fields(kind)}  # type: ignore[arg-type]
    for name, value in data.items():
        if not _fits(value, wanted[name]):
            raise TypeError(f"{kind.__name__}.{name} is {value!r}")
    return kind(**data)


def _fits(value: Any, kind: str) -> bool:
    if kind == "int":
        return type(value) is int and value >= 0
    if kind == "float | None":
        return value is None or type(value) in (int, float)
    if kind in ("str", "bool"):
        return type(value).__name__ == kind
    if kind.startswith("dict"):
        values = (str,) if kind.endswith("str]") else (int, float)
        return type(value) is dict and all(type(v) in values for v in value.values())
    if kind.startswith("list"):
        return type(value) is list
    return True
