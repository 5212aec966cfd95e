"""Session as Markdown, for pull requests."""

from __future__ import annotations

import re
from html import unescape

from microfw.profiler.ratio import Ratio
from microfw.profiler.reports.counts import counts, one_column, undeclared
from microfw.profiler.reports.names import hidden_again, visible
from microfw.profiler.reports.tables import epoch_table, one_line, step_rows
from microfw.profiler.reports.text import NO_EPOCH, microseconds, plural, whole
from microfw.profiler.session import Epoch, Session


def markdown(session: Session) -> str:
    """Return a summary and a table of layers, with ops and epochs folded."""
    if not session.epochs:
        return f"microfw profile: {NO_EPOCH}\n"
    e = session.total()
    title = " ".join(filter(None, (code(session.name), code(session.model))))
    columns = ("forward", "backward", "share", "flops_forward", "flops_backward", "saved")
    ops = step_rows(session, e, ("nodes", "forward", "backward"), code, "op")
    epochs_title, head, units, epochs = epoch_table(session, session.epochs)
    parts = [
        f"### Backward cost{': ' + title if title else ''}",
        _summary(e, session),
        *_ratio(e.ratio()),
        markdown_table(step_rows(session, e, columns, code), 2),
        _folded("Ops, per step", markdown_table(ops, 2)),
        _folded(epochs_title, markdown_table([one_line(head, units), *epochs])),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(e: Epoch, session: Session) -> str:
    observed = f", {e.observed:,} of them observed" if session.every > 1 else ""
    time = microseconds(e.backward_ns / (e.observed or 1))
    ratio = f", {e.backward_ns / e.forward_ns:.2f} times forward" if e.forward_ns else ""
    return (
        f"{plural(len(session.epochs), 'epoch')}, {e.steps:,} steps{observed}. In one step "
        + ", ".join(f"**{name}** = {whole(number)}" for name, number in one_column(counts(e)).items())
        + " ".join([f"; backward took {time} µs{ratio}.", *filter(None, (undeclared(e, code), *e.notes))])
    )


def _ratio(r: Ratio) -> list[str]:
    if r.operations is None:
        return []
    text = f"Forward and backward together: {r.operations:.3f} times forward in operations"
    if r.products_forward:
        text += f"; in matrix products {r.products:.3f}, with 3F - F1 = {r.predicted:,} predicted"
        text += ", equal." if r.exact and not r.others else f", not equal because of {', '.join(map(code, r.others))}."
    return [text]


def code(text: str) -> str:
    """Return a name as code that Markdown and HTML do not interpret; `decoded` is the inverse.

    Examples
    --------
    >>> code("0.weight"), code("a|b")
    ('<code>0.weight</code>', '<code>a&#124;b</code>')
    """
    if not text:
        return ""
    spelt = re.sub(r"[^\w.]|_", lambda m: f"&#{ord(m[0])};", visible(text))
    return f"<code>{spelt}</code>"


def decoded(text: str) -> str:
    """Return the name from `code`."""
    return hidden_again(unescape(text.removeprefix("<code>").removesuffix("</code>")))


def markdown_table(rows: list[list[str]], left: int = 0) -> str:
    """Return a table with a heading; the first ``left`` columns are aligned left, the others right."""
    line = ["---" if k < left else "---:" for k in range(len(rows[0]))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (rows[0], line, *rows[1:]))


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"
