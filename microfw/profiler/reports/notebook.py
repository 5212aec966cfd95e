"""Session in a notebook: two plain HTML tables, no script."""

from __future__ import annotations

from microfw.profiler.reports.names import cell, middle
from microfw.profiler.reports.tables import epoch_table, one_line, step_rows
from microfw.profiler.reports.text import NO_EPOCH, plural
from microfw.profiler.session import Session

MAX_ROWS = 24

UNTAGGED = "Untagged: time outside of ops and derivative rules."


def notebook(session: Session) -> str:
    """Return an HTML fragment: a table of layers, and a folded table of epochs."""
    if not session.epochs:
        return f"<p>microfw profile: {NO_EPOCH}</p>"

    def mark(name: str) -> str:
        return cell(middle(name, 60))

    head, *rows = step_rows(session, session.total(), ("P", "forward", "backward", "share"), mark)
    more = f", {len(rows) - 2 - MAX_ROWS} layers more" if len(rows) - 2 > MAX_ROWS else ""
    epochs_title, names, units, epochs = epoch_table(session, session.epochs[-MAX_ROWS:])
    heading = [mark(name) for name in one_line(names, units)]
    title = " ".join(filter(None, (mark(session.name), cell(session.model))))
    number = len(session.epochs)
    of = f", the last {MAX_ROWS} of {number}" if number > MAX_ROWS else ""
    mean = f": mean of {number} epochs" if number > 1 else ""
    facts = ", ".join(filter(None, (title, plural(number, "epoch"), f"one step{mean}{more}")))
    return (
        f"<p><b>microfw profile:</b> {' '.join([f'{facts}.', *map(cell, session.total().notes), UNTAGGED])}</p>"
        + _table([head, *rows[:-2][:MAX_ROWS], *rows[-2:]])
        + f"<details><summary>{epochs_title}{of}</summary>"
        + _table([heading, *epochs])
        + "</details>"
    )


def _table(rows: list[list[str]]) -> str:
    top = "".join(f"<th>{name}</th>" for name in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{text}</td>" for text in row) + "</tr>" for row in rows[1:])
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
