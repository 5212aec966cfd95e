"""Session as one table: a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from microfw.errors import ArgumentError
from microfw.profiler.session import Row, Session

PER_STEP = ("flops_forward", "flops_backward", "nodes", "rules", "saved_bytes", "forward_s", "backward_s")
"""Columns that a frame has by step, too."""


def to_frame(session: Session) -> Any:
    """Return one row for each op of each layer of each epoch.

    The columns are:

    - ``epoch``, ``steps``, ``observed``: its number, the steps taken, and how many of them were observed.
    - ``loss`` and the metrics of the epoch, by name; by ``metrics.name`` if another column has the name.
    - ``kind``: type of the layer, or of the loss; empty outside of modules.
    - ``layer``, ``op`` and the other fields of `microfw.profiler.Row`: sums over the observed steps of the epoch.
    - ``forward_s``, ``backward_s``: ``forward_ns`` and ``backward_ns`` in seconds.
    - ``flops_forward_per_step``, …: some of these by observed step; NaN if no step was observed.

    Raises
    ------
    ArgumentError
        If pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise ArgumentError("Session.to_frame", "pandas", "none installed", "pip install pandas") from None
    head, *rows = flat_rows(session)
    frame = pd.DataFrame(rows, columns=head)
    for name in ("forward", "backward"):
        frame[f"{name}_s"] = frame[f"{name}_ns"] / 1e9
    observed = frame["observed"].astype(float).replace(0.0, float("nan"))
    for name in PER_STEP:
        frame[f"{name}_per_step"] = frame[name] / observed
    taken, place = {*frame, "loss"}, list(frame).index("observed") + 1
    columns: dict[str, list[Any]] = {"loss": [e.loss for e in session.epochs for _ in e.rows]}
    for name in dict.fromkeys(name for e in session.epochs for name in e.metrics):
        if name not in ("epoch", "loss"):
            title = f"metrics.{name}" if name in taken else name
            columns[title] = [e.metrics.get(name) for e in session.epochs for _ in e.rows]
    for k, (title, values) in enumerate(columns.items()):
        frame.insert(place + k, title, pd.Series(values, index=frame.index, dtype=None if values else float))
    return frame


def flat_rows(session: Session) -> Iterator[list[Any]]:
    """Yield the names of the columns, then one row for each op of each layer of each epoch."""
    kinds = {layer.name: layer.kind for layer in session.layers}
    names = [f.name for f in fields(Row)]
    yield ["epoch", "steps", "observed", "kind", *names]
    for e in session.epochs:
        for row in e.rows:
            values = (getattr(row, name) for name in names)
            # A module without parameters outside of the model, such as the loss, has the name of its type.
            kind = kinds.get(row.layer, "" if "." in row.layer else row.layer.partition("#")[0])
            yield [e.epoch, e.steps, e.observed, kind, *values]
