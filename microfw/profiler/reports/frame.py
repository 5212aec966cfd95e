"""Session as a pandas DataFrame."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from microfw.profiler.session import Session


def to_frame(session: Session) -> Any:
    """Return one row for each op of each layer of each epoch: times in nanoseconds, counts summed over the epoch.

    Raises
    ------
    ImportError
        If pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise ImportError("to_frame: expected pandas to be installed, got none; pip install pandas") from None
    kinds = {layer.name: layer.kind for layer in session.layers}
    columns: dict[str, list[Any]] = {}
    for epoch in session.epochs:
        about = {"epoch": epoch.epoch, "steps": epoch.steps, "observed": epoch.observed}
        for row in epoch.rows:
            for name, value in (about | {"kind": kinds.get(row.layer, "")} | asdict(row)).items():
                columns.setdefault(name, []).append(value)
    return pandas.DataFrame(columns)
