"""Text report of a session, at most 100 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Never

from microfw.errors import ArgumentError, message, printable, refuse_former
from microfw.profiler.ratio import BOUNDS, WHY, Ratio, verdict
from microfw.profiler.reports.names import OUTSIDE, middle
from microfw.profiler.reports.phase_times import overhead_text, times_of_phases
from microfw.profiler.session import Epoch, Row, Session

WIDTH = 100

COLUMNS = {
    "nodes": ("nodes",),
    "forward": ("forward_ns",),
    "backward": ("backward_ns",),
    "flops": ("flops_forward", "flops_backward"),
    "saved": ("saved_bytes",),
}
"""Columns to sort a table by: name, and the fields of a row that the column adds up."""


def report(
    session: Session,
    *,
    epoch: int | None = None,
    max_rows: int = 24,
    by: str | None = None,
    sort: str | None = None,
    colour: bool = False,
    **former: Never,
) -> str:
    """Return a text report of a profile: epochs, counts of one step, layers, ops.

    Parameters
    ----------
    session : Session
        The profile.
    epoch : int, optional
        Report the layers of this epoch only; default all epochs together.
    max_rows : int
        Maximum number of rows in a table. The last row adds up the others.
    by : {"layer", "op"}, optional
        Only the table of layers, or that of ops.
    sort : str, optional
        Sort by ``nodes``, ``forward``, ``backward``, ``flops`` or ``saved``, largest first; default order of first use.
    colour : bool
        If True, add the colour codes of a terminal.

    Returns
    -------
    str

    Raises
    ------
    ArgumentError
        If the epoch, table or column does not exist.
    """
    refuse_former("report", former, most="max_rows")
    if by not in (None, "layer", "op"):
        raise ArgumentError(message("report", 'by to be "layer" or "op"', repr(by)))
    if sort is not None and sort not in COLUMNS:
        raise ArgumentError(message("report", f"a column to sort by from {', '.join(COLUMNS)}", repr(sort)))
    if max_rows < 1:
        raise ArgumentError(message("report", "a positive number of rows", max_rows))
    if not session.epochs:
        return "microfw profile: no epoch was recorded"
    numbers = [e.epoch for e in session.epochs]
    if epoch is not None and epoch not in numbers:
        raise ArgumentError(f"report: expected an epoch from {numbers[0]} to {numbers[-1]}, got {epoch}")
    chosen = session.total() if epoch is None else session.epochs[numbers.index(epoch)]
    span = f"epoch {epoch}" if epoch is not None else f"all {len(numbers)} epochs" if len(numbers) > 1 else "1 epoch"
    tables = {
        "layer": _table_of(chosen, session, f"Layers, per step ({span}", chosen.layers(), max_rows, sort),
        "op": _table_of(chosen, session, f"Ops, per step ({span}", chosen.ops(), max_rows, sort),
    }
    if by is None:
        phase_rows = table(["", "ms", "share"], times_of_phases(chosen, session.every > 1))
        parts = [_title(session), _epochs(session, max_rows), f"Phases (all steps together)\n{phase_rows}"]
        parts += [_counts(chosen), *tables.values()]
        if chosen.sum().flops_forward:
            parts.append(ratio_report(chosen.ratio(), chosen.observed or 1))
        parts.append(_footer(session, chosen))
    else:
        parts = [_title(session), tables[by]]
    parts = [printable(part) for part in parts]
    return "\n\n".join(coloured(part) for part in parts) if colour else "\n\n".join(parts)


def _title(session: Session) -> str:
    trainable = sum(layer.trainable for layer in session.layers)
    frozen = sum(layer.parameters for layer in session.layers) - trainable
    what = " ".join(shorten(text, 60) for text in (session.name, session.model) if text)
    notes = [f"{len(session.epochs)} epochs" if len(session.epochs) != 1 else "1 epoch"]
    if session.layers:
        notes.append(f"{trainable:,} trainable parameters" + (f" and {frozen:,} frozen" if frozen else ""))
    if session.every > 1:
        notes.append(f"sampled: 1 step in {session.every}")
    return "\n".join(wrap_lines(f"microfw profile: {what or 'a model'}, " + ", ".join(notes)))


def _epochs(session: Session, max_rows: int) -> str:
    epochs, sampled = session.epochs, session.every > 1
    shown = list(epochs)
    if len(shown) > max_rows:
        shown = [*shown[: max_rows // 2], *shown[-(max_rows - max_rows // 2) :]]
    metrics = [k for k in epochs[-1].metrics if k.startswith("val_") and k != "val_loss"][:1]
    replays = any(e.replayed for e in epochs)
    head = ["epoch", "observed" if sampled else "steps", *(["replayed"] if replays else []), "loss"]
    head += [shorten(m, 20) for m in metrics]
    head += ["forward", "backward", "update", "data", "total", "bwd/fwd", "in FLOP", "3F-F1"]
    unit, size = ("s", 1e9) if max(e.total_ns for e in shown) >= 1e10 else ("ms", 1e6)
    rows = []
    for k, e in enumerate(shown):
        if len(shown) < len(epochs) and k == max_rows // 2:
            rows.append(["…"] + [""] * (len(head) - 1))
        rows.append(
            [str(e.epoch), f"{e.observed} of {e.steps}" if sampled else str(e.steps)]
            + ([str(e.replayed)] if replays else [])
            + [decimal(e.loss)]
            + [decimal(e.metrics.get(m)) for m in metrics]
            + phases(e, sampled, size, ("forward", "backward", "update", "data"))
            + [f"{e.total_ns / size:,.2f}"]
            + [f"{e.backward_ns / e.forward_ns:.2f}" if e.forward_ns else ""]
            + in_flop(e.ratio())
        )
    times = f"µs in an observed step; total in {unit}" if sampled else f"times in {unit}"
    title = f"Epochs ({times}; backward/forward in time and in FLOP; do products match 3F - F1?)"
    return "\n".join([*wrap_lines(title), table(head, rows)])


def in_flop(r: Ratio) -> list[str]:
    """Return backward / forward in operations, and whether products match 3F - F1."""
    ratio = f"{r.backward / r.forward:.2f}" if r.forward else ""
    return [ratio, "" if not r.products_forward else "exact" if r.exact and not r.others else "differs"]


def _counts(e: Epoch) -> str:
    steps = e.observed or 1
    total = e.sum()
    scalars = sum(row.flops_forward for row in e.rows if row.nodes)
    nodes, scalars, edges = (round(v / steps) for v in (total.nodes, scalars, total.edges))
    rules, added = round(total.rules / steps), round(total.accumulated / steps)
    both = f"{whole(rules)} rules + {whole(added)} gradients added; scalar operations"
    bound = "predicted: upper bound if you start over for each P"
    head = ["per step", "in tensors", "in scalars", "what is counted"]
    rows = [
        ["N", whole(nodes), whole(scalars), "op nodes recorded; the scalar operations in them"],
        ["P", whole(e.parameter_tensors), whole(e.parameters), "arrays that got a gradient; the numbers in them"],
        ["N + P", whole(nodes + e.parameter_tensors), whole(scalars + e.parameters), ""],
        ["backward took", whole(rules + added), whole(round(total.flops_backward / steps)), both],
        ["N x P", whole(nodes * e.parameter_tensors), whole(scalars * e.parameters), bound],
        ["E", whole(edges), "", "edges: inputs of ops that need a gradient"],
    ]
    return "Counts\n" + table(head, rows, text=True)


def _table_of(e: Epoch, session: Session, title: str, found: list[Row], max_rows: int, sort: str | None) -> str:
    """Return the table of layers or of ops."""
    known = {layer.name: layer for layer in session.layers}
    steps = e.observed or 1
    head = [title.split("s,")[0].lower(), "nodes", "P", "forward", "backward", "share", "forward", "backward"]
    head += ["FLOP/P", "reuse", "saved"]
    units = ["", "", "", "µs", "µs", "of bwd", "FLOP", "FLOP", "", "", "bytes"]
    total_backward = e.backward_ns or 1
    rows = [units]

    def cells(name: str, row: Row, parameters: int, weights: int = 0) -> list[str]:
        flops = (row.flops_forward + row.flops_backward) / steps
        return [
            name,
            short(row.nodes / steps),
            f"{parameters:,}" if parameters else "",
            microseconds(row.forward_ns / steps),
            microseconds(row.backward_ns / steps),
            f"{row.backward_ns / total_backward:.1%}",
            short(row.flops_forward / steps),
            short(row.flops_backward / steps),
            short(flops / parameters) if parameters else "",
            short(reuse(row, weights, steps)) if reuse(row, weights, steps) else "",
            short(row.saved_bytes / steps),
        ]

    if sort is not None:
        found = sorted(found, key=lambda row: -sum(getattr(row, name) for name in COLUMNS[sort]))
    for row in found[:max_rows]:
        layer = known.get(row.layer)
        name = row.op or (row.layer if layer is None or layer.kind == row.layer else f"{row.layer} {layer.kind}")
        own = (layer.trainable, layer.weights) if layer and not row.op else (0, 0)
        rows.append(cells(shorten(name or OUTSIDE, 22), row, *own))
    if len(found) > max_rows:
        rest = Row("rest")
        for row in found[max_rows:]:
            rest.add(row)
        rows.append(cells(f"{len(found) - max_rows} more", rest, 0))
    untagged = ["untagged", "", "", microseconds(e.untagged_forward_ns / steps)]
    untagged += [microseconds(e.untagged_backward_ns / steps), f"{e.untagged_backward_ns / total_backward:.1%}"]
    rows.append(untagged + [""] * 5)
    total = cells("total", e.sum(), e.parameters)
    total[3:6] = [microseconds(ns / steps) for ns in (e.forward_ns, e.backward_ns)] + ["100.0%"]
    rows.append(total)
    sampled = f", sampled on {e.observed:,} of {e.steps:,} steps" if e.observed != e.steps else ""
    return f"{title}{sampled})\n" + table(head, rows)


def _footer(session: Session, e: Epoch) -> str:
    total = e.sum()
    lines = [
        "Untagged: time outside of ops and derivative rules. FLOP: scalar operations, a multiply-add is 2. FLOP/P: "
        "FLOP of a layer by its trained numbers. Reuse: uses of each trained weight in products of one step "
        "(multiply-adds by weights). Saved: bytes kept for backward, each once; peak "
        f"{e.saved_peak_bytes:,} bytes over all layers."
    ]
    if total.uncounted:
        lines.append(f"{total.uncounted:,} calls of ops without a declared cost; their operations are not counted.")
    if session.overhead:
        lines.append(overhead_text(session.overhead))
    env = {name: shorten(text, 20) for name, text in session.environment.items()}
    if env:
        lines.append(
            f"Python {env.get('python', '?')}, NumPy {env.get('numpy', '?')}, {env.get('system', '?')} "
            f"{env.get('machine', '?')}, BLAS threads: {env.get('blas_threads', '?')}."
        )
    return "\n".join(wrapped for line in lines for wrapped in wrap_lines(line))


def ratio_report(r: Ratio, steps: int = 1) -> str:
    """Return backward against forward: products and their formula, ratios, published bounds."""
    lines = ["Backward against forward"]
    if r.products_forward:
        F, B, F1 = (whole(round(n)) for n in (r.products_forward, r.products_backward, r.products_first))
        over = f" in {steps:,} steps" if steps > 1 else ""
        lines += wrap_lines(
            f"Matrix products{over}: F = {F} operations forward, {B} backward. Predicted for both together: "
            f"3F - F1 = {whole(r.predicted)}, with F1 = {F1} in ops whose data need no gradient. {verdict(r)}"
        )
    rows = []
    for what, ratio, how in (
        ("matrix products", r.products, "counted"),
        ("all scalar operations", r.operations, "counted"),
        ("seconds", r.seconds, "measured"),
    ):
        if ratio is not None:
            rows.append([what, f"{ratio:.3f}", how])
    lines.append(table(["(forward + backward) / forward", "", ""], rows, text=True))
    lines += ["Published bounds on this ratio, and what they count:", *BOUNDS, *wrap_lines(WHY)]
    return "\n".join(lines)


def phases(e: Epoch, sampled: bool, size: float, names: Sequence[str]) -> list[str]:
    """Return the times of phases: in an epoch, or if the profile is sampled, in one observed step."""
    times = [e.taken(name, sampled) for name in names]
    if sampled:
        return [microseconds(ns) if e.observed else "" for ns in times]
    return [f"{ns / size:,.2f}" for ns in times]


def microseconds(ns: float) -> str:
    """Format nanoseconds as microseconds.

    Examples
    --------
    >>> microseconds(12_345)
    '12.3'
    """
    return f"{ns / 1e3:,.1f}" if ns < 1e8 else short(ns / 1e3)


def reuse(row: Row, weights: int, steps: int) -> float:
    """Return the number of uses of each trained weight of a layer in products of one step; 0 without weights.

    Examples
    --------
    >>> reuse(Row("0", products_weights=2 * 32 * 64 * 10), weights=64 * 10, steps=1)
    32.0
    """
    return row.products_weights / 2 / steps / weights if weights else 0.0


def table(head: Sequence[str], rows: Sequence[Sequence[str]], text: bool = False) -> str:
    """Return an aligned table: first column left, others right; if ``text``, the last column left."""
    widths = [max(len(r[k]) for r in (head, *rows)) for k in range(len(head))]
    gap = " " * (2 if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else 1)
    lines = []
    for r in (head, *rows):
        cells = [r[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(r[1:], widths[1:], strict=True)]
        if text:
            cells[-1] = r[-1]
        lines.append(gap.join(cells).rstrip())
    lines.insert(1, "-" * min(WIDTH, sum(widths) + len(gap) * (len(widths) - 1)))
    return "\n".join(lines)


def coloured(part: str) -> str:
    """Add terminal colours to a part: title, total and untagged row."""
    title, *lines = part.split("\n")
    out = [f"\x1b[1m{title}\x1b[0m"]
    for line in lines:
        code = 2 if line.startswith(("---", "untagged")) else 1 if line.startswith("total ") else 0
        out.append(f"\x1b[{code}m{line}\x1b[0m" if code else line)
    return "\n".join(out)


def decimal(value: float | None) -> str:
    """Format a loss or a metric with four decimals; "" for None."""
    return "" if value is None else f"{value:.4f}" if abs(value) < 1e9 else f"{value:.4g}"


def whole(value: int) -> str:
    """Format a count in full, or a huge one with three digits.

    Examples
    --------
    >>> whole(1234567), whole(10**15)
    ('1,234,567', '1e+15')
    """
    return f"{value:,}" if value < 10**12 else f"{value:.3g}"


def short(value: float) -> str:
    """Format a count with three digits and a prefix.

    Examples
    --------
    >>> short(8), short(1234), short(2_621_440)
    ('8', '1.23k', '2.62M')
    """
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def shorten(text: str, width: int) -> str:
    """Shorten a text that is too wide, with … in the middle; control characters become ``?``."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return middle(text, width)


def wrap_lines(line: str) -> list[str]:
    """Return a text as lines of at most `WIDTH` columns."""
    return textwrap.wrap(" ".join(line.split()), WIDTH, break_long_words=False, break_on_hyphens=False)
