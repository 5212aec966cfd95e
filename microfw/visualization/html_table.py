"""Tables for notebooks: plain HTML without script or style, so that the notebook's theme decides how they look."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from microfw.errors import printable

MAX_ROWS = 24
"""Most rows of a table; the middle of a longer one is left out."""


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """Return a table of texts, which are escaped.

    Parameters
    ----------
    head : sequence of str
        Names of the columns.
    rows : sequence of sequences of str
        Cells. Of more than 24 rows the first and the last 12 are shown.
    caption : str
        Sentence above the table.

    Examples
    --------
    >>> html_table(["epoch"], [["1"]])
    '<table><thead><tr><th>epoch</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>'
    """
    shown = list(rows)
    if len(rows) > MAX_ROWS:
        gap = [f"… {len(rows) - MAX_ROWS} more", *[""] * (len(head) - 1)]
        shown = [*rows[: MAX_ROWS // 2], gap, *rows[-MAX_ROWS // 2 :]]
    body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in shown)
    above = f"<p>{escape(printable(caption))}</p>" if caption else ""
    return f"{above}<table><thead><tr>{_cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"


def _cells(kind: str, texts: Iterable[str]) -> str:
    return "".join(f"<{kind}>{escape(printable(text))}</{kind}>" for text in texts)
