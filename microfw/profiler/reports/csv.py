"""CSV report."""

from __future__ import annotations

import io

from microfw.profiler.reports.frame import flat_rows
from microfw.profiler.session import Session

FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\0", "'")
"""Characters that begin a formula in some spreadsheet, and the apostrophe itself, so that `unguarded` is exact."""


def csv(session: Session) -> str:
    """Return one line for each op of each layer of each epoch.

    A text that a spreadsheet might run as a formula gets an apostrophe in front; `unguarded` removes it.
    """
    from csv import QUOTE_MINIMAL, writer

    out = io.StringIO()
    table = writer(out, quoting=QUOTE_MINIMAL, lineterminator="\r\n")
    for cells in flat_rows(session):
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
