"""Session as one table: a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from microfw.profiler.session import Row, Session


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
    head, *rows = flat_rows(session)
    return pandas.DataFrame(rows, columns=head)


def flat_rows(session: Session) -> Iterator[list[Any]]:
    """Yield the names of the columns, then one row for each op of each layer of each epoch."""
    kinds = {layer.name: layer.kind for layer in session.layers}
    names = [f.name for f in fields(Row)]
    yield ["epoch", "steps", "observed", "kind", *names]
    for e in session.epochs:
        for row in e.rows:
            values = (getattr(row, name) for name in names)
            yield [e.epoch, e.steps, e.observed, kinds.get(row.layer, ""), *values]
