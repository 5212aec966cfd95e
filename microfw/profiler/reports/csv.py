"""CSV report."""

from __future__ import annotations

import io
from dataclasses import fields

from microfw.profiler.session import Row, Session

FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\0", "'")
"""Characters that begin a formula in some spreadsheet, and the apostrophe itself, so that `unguarded` is exact."""


def csv(session: Session) -> str:
    """Return one line for each op of each layer of each epoch.

    A text that a spreadsheet might run as a formula gets an apostrophe in front; `unguarded` removes it.
    """
    from csv import QUOTE_MINIMAL, writer

    kinds = {layer.name: layer.kind for layer in session.layers}
    names = [f.name for f in fields(Row)]
    out = io.StringIO()
    table = writer(out, quoting=QUOTE_MINIMAL, lineterminator="\r\n")
    table.writerow(["epoch", "steps", "observed", "kind", *names])
    for epoch in session.epochs:
        for row in epoch.rows:
            cells = [epoch.epoch, epoch.steps, epoch.observed, kinds.get(row.layer, "")]
            cells += [getattr(row, name) for name in names]
            table.writerow([guarded(cell) if isinstance(cell, str) else cell for cell in cells])
    return out.getvalue()


def guarded(text: str) -> str:
    """Return a text, with an apostrophe in front if a spreadsheet might run it as a formula.

    Examples
    --------
    >>> guarded("0.weight"), guarded("=1+1")
    ('0.weight', "'=1+1")
    """
    return "'" + text if text.startswith(FORMULAS) else text


def unguarded(text: str) -> str:
    """Undo `guarded`."""
    return text.removeprefix("'")
