"""Session in a notebook: two plain HTML tables, no script."""

from __future__ import annotations

from microfw.profiler.reports.epochs import epoch_table
from microfw.profiler.reports.names import OUTSIDE, cell, middle
from microfw.profiler.reports.text import microseconds
from microfw.profiler.session import Session

MAX_ROWS = 24


def notebook(session: Session) -> str:
    """Return an HTML fragment: a table of layers, and a folded table of epochs."""
    if not session.epochs:
        return "<p>microfw profile: no epoch was recorded</p>"
    total = session.total()
    steps = total.observed or 1
    known = {layer.name: layer for layer in session.layers}
    layers = []
    for row in total.layers()[:MAX_ROWS]:
        layer = known.get(row.layer)
        times = [microseconds(ns / steps) for ns in (row.forward_ns, row.backward_ns)]
        share = f"{row.backward_ns / (total.backward_ns or 1):.1%}"
        name = cell(middle(row.layer or OUTSIDE, 60))
        layers.append([name, cell(layer.kind) if layer else "", f"{layer.trainable if layer else 0:,}", *times, share])
    walk = [microseconds(ns / steps) for ns in (total.untagged_forward_ns, total.untagged_backward_ns)]
    share = f"{total.untagged_backward_ns / (total.backward_ns or 1):.1%}"
    layers.append(["untagged", "", "", *walk, share])
    epochs_title, head, epochs = epoch_table(session.epochs[-MAX_ROWS:], session.every > 1)
    title = " ".join(filter(None, ("microfw profile:", cell(middle(session.name, 60)), cell(session.model))))
    more = f", {len(total.layers()) - MAX_ROWS} layers more" if len(total.layers()) > MAX_ROWS else ""
    return (
        f"<p><b>{title}</b>, {len(session.epochs)} epochs, one step{more}</p>"
        + _table(["layer", "kind", "P", "forward µs", "backward µs", "share of backward"], layers)
        + f"<details><summary>{epochs_title}</summary>"
        + _table(head, epochs)
        + "</details>"
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    top = "".join(f"<th>{name}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{text}</td>" for text in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
