"""Session as Markdown, for pull requests."""

from __future__ import annotations

import re

from microfw.profiler.ratio import Ratio
from microfw.profiler.reports.epochs import epoch_table
from microfw.profiler.reports.names import OUTSIDE, visible
from microfw.profiler.reports.text import in_flop, microseconds, whole
from microfw.profiler.session import Epoch, Session


def markdown(session: Session) -> str:
    """Return a summary and a table of layers, with ops and epochs folded."""
    if not session.epochs:
        return "microfw profile: no epoch was recorded\n"
    e = session.total()
    steps = e.observed or 1
    kinds = {layer.name: layer.kind for layer in session.layers}
    title = " ".join(filter(None, (code(session.name), code(session.model))))
    rows = []
    for row in e.layers():
        cells = [code(row.layer or OUTSIDE), code(kinds.get(row.layer, ""))]
        cells += [microseconds(ns / steps) for ns in (row.forward_ns, row.backward_ns)]
        cells.append(f"{row.backward_ns / (e.backward_ns or 1):.1%}")
        flops = (row.flops_forward, row.flops_backward, row.saved_bytes)
        rows.append([*cells, *(f"{round(value / steps):,}" for value in flops)])
    walk = [microseconds(ns / steps) for ns in (e.untagged_forward_ns, e.untagged_backward_ns)]
    share = f"{e.untagged_backward_ns / (e.backward_ns or 1):.1%}"
    rows.append(["untagged", "", *walk, share, "", "", ""])
    layers = [
        "layer",
        "kind",
        "forward µs",
        "backward µs",
        "of backward",
        "forward FLOP",
        "backward FLOP",
        "saved bytes",
    ]
    ops = []
    for row in e.ops():
        times = [microseconds(ns / steps) for ns in (row.forward_ns, row.backward_ns)]
        ops.append([code(row.op), f"{row.nodes / steps:.3g}", *times])
    epochs_title, head, epochs = epoch_table(session.epochs, session.every > 1)
    for cells, x in zip(epochs, session.epochs, strict=True):
        cells += [f"{x.backward_ns / x.forward_ns:.2f}" if x.forward_ns else "", *in_flop(x.ratio())]
    parts = [
        f"### Backward cost{': ' + title if title else ''}",
        _summary(e, session),
        *_ratio(e.ratio()),
        _table(layers, rows, 2),
        _folded("Ops, per step", _table(["op", "nodes", "forward µs", "backward µs"], ops, 1)),
        _folded(epochs_title, _table([*head, "bwd/fwd", "in FLOP", "3F - F1"], epochs)),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(e: Epoch, session: Session) -> str:
    steps, total = e.observed or 1, e.sum()
    nodes = round(total.nodes / steps)
    took = round((total.rules + total.accumulated) / steps)
    observed = f", {e.observed:,} of them observed" if session.every > 1 else ""
    text = (
        f"{len(session.epochs)} epochs, {e.steps:,} steps{observed}. In one step **N** = {nodes:,} op nodes, **P** = "
        f"{e.parameter_tensors} arrays of {whole(e.parameters)} numbers; backward took {took:,} steps (N + P = "
        f"{nodes + e.parameter_tensors:,}, N × P = {nodes * e.parameter_tensors:,}), {_times(e)}."
    )
    return text.replace("#", "&#35;")


def _ratio(r: Ratio) -> list[str]:
    if r.operations is None:
        return []
    text = f"Forward and backward together: {r.operations:.3f} times forward in operations"
    if r.products_forward:
        text += f"; in matrix products {r.products:.3f}, with 3F - F1 = {r.predicted:,} predicted"
        text += ", equal." if r.exact and not r.others else f", not equal because of {', '.join(map(code, r.others))}."
    return [text]


def _times(e: Epoch) -> str:
    steps = e.observed or 1
    text = f"{microseconds(e.backward_ns / steps)} µs"
    ratio = e.backward_ns / e.forward_ns if e.forward_ns else 0
    return f"{text}, {ratio:.2f} times forward" if ratio else text


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
    from html import unescape

    from microfw.profiler.reports.names import hidden_again

    return hidden_again(unescape(text.removeprefix("<code>").removesuffix("</code>")))


def _table(head: list[str], rows: list[list[str]], left: int = 0) -> str:
    line = ["---" if k < left else "---:" for k in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, line, *rows))


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"
