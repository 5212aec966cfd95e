"""Full report of a session, at most 100 columns wide."""

from __future__ import annotations

from operator import attrgetter

from microfw.profiler.reports.counts import counts
from microfw.profiler.reports.names import parameter_counts
from microfw.profiler.reports.tables import COLUMNS, SORTS, Line, epoch_table, phase_table, step_lines
from microfw.profiler.reports.text import plural, ratio_report, shorten, table, whole, wrap_lines
from microfw.profiler.session import Epoch, Session

NOTE = (
    "Untagged: time outside of ops and derivative rules. FLOP: scalar operations, a multiply-add is 2. FLOP/P: FLOP of "
    "a layer by its trained numbers. Reuse: uses of each trained weight in products of one step (multiply-adds by "
    "weights). Saved: bytes kept for backward, each once; peak {:,} bytes over all layers."
)


MAX_ROWS = 24
"""Default for the layers or ops in a table."""


def full_report(session: Session, chosen: Epoch | None, max_rows: int | None, sort: str | None) -> list[str]:
    """Return all tables of a session, as parts of a text. ``chosen``: epoch of the step; default all of them."""
    e = chosen or session.total()
    parts = ["\n".join(wrap_lines(title(session)) + session.total().notes), count_table(e)]
    parts += [step_table(session, chosen, by, max_rows, sort) for by in ("layer", "op")]
    parts += [f"Phases (all steps together)\n{table(['', 'ms', 'share'], phase_table(e, session.every > 1))}"]
    parts.append(_epochs(session, max_rows))
    if e.sum().flops_forward:
        parts.append(ratio_report(e.ratio(), e.observed or 1))
    return [*parts, _footer(session, e)]


def title(session: Session) -> str:
    """Return the first line of a report: name, model, epochs, parameters."""
    trained, frozen = parameter_counts(session)
    what = " ".join(shorten(text, 60) for text in (session.name, session.model) if text)
    notes = [what or "a model", plural(len(session.epochs), "epoch"), plural(session.total().steps, "step")]
    if session.layers:
        notes.append(plural(trained, "parameter") + (f" and {frozen:,} frozen" if frozen else ""))
    if session.every > 1:
        total = session.total()
        notes.append(f"sampled: {total.observed:,} of {plural(total.steps, 'step')}")
    return f"microfw profile: {', '.join(notes)}"


def count_table(e: Epoch) -> str:
    """Return the table of N, P and steps."""
    rows = [
        [name, *("" if v is None else whole(v) for v in (count.scalars, count.tensors)), count.meaning]
        for name, count in counts(e).items()
    ]
    return "Counts\n" + table(["per step", "in scalars", "in tensors", "what is counted"], rows, text=True)


def step_table(session: Session, chosen: Epoch | None, by: str, max_rows: int | None, sort: str | None) -> str:
    """Return the table of layers or of ops."""
    e, n = chosen or session.total(), len(session.epochs)
    span = f"epoch {e.epoch}" if chosen else f"mean of all {n} epochs" if n > 1 else "1 epoch"
    lines = cut(step_lines(session, e, by), max_rows or MAX_ROWS, sort)
    rows = [["", *(column.unit for column in COLUMNS.values())]]
    rows += [[shorten(line.title, 22), *(c.cell(line) for c in COLUMNS.values())] for line in lines]
    sampled = f", sampled on {e.observed:,} of {e.steps:,} steps" if e.observed != e.steps else ""
    return f"{by.capitalize()}s, per step ({span}{sampled})\n" + table([by, *(c.head for c in COLUMNS.values())], rows)


def cut(lines: list[Line], max_rows: int, sort: str | None) -> list[Line]:
    """Return the lines of a step with at most ``max_rows`` layers or ops; one more line adds up the others."""
    *parts, untagged, total = lines
    if sort is not None:
        parts.sort(key=attrgetter(SORTS[sort]), reverse=True)
    if len(parts) > max_rows:
        if sort is None:  # keep the slowest in backward, which remarks name, in order of use
            shown = sorted(parts, key=lambda line: (-line.backward_ns, -line.forward_ns))[:max_rows]
            parts.sort(key=lambda line: line not in shown)
        rest = Line("", name=f"({len(parts) - max_rows} others)")
        for line in parts[max_rows:]:
            rest.add(line)
            rest.share += line.share
        parts[max_rows:] = [rest]
    return [*parts, untagged, total]


def _epochs(session: Session, max_rows: int | None) -> str:
    shown = chosen = session.epochs
    if max_rows is not None and len(chosen) > max_rows:
        shown = [*chosen[: max_rows // 2], *chosen[max_rows // 2 - max_rows :]]
    name, head, units, rows = epoch_table(session, shown)
    if len(shown) < len(chosen):
        rows.insert(len(shown) // 2, ["…"] + [""] * (len(head) - 1))
    return f"{name}\n{table(head, [units, *rows])}"


def _footer(session: Session, e: Epoch) -> str:
    uncounted = e.sum().uncounted
    lines = [NOTE.format(e.saved_peak_bytes)]
    if uncounted:
        lines.append(f"{uncounted:,} calls of ops without a declared cost; their operations are not counted.")
    if session.overhead:
        lines.append(overhead_text(session.overhead))
    env = {name: shorten(text, 20) for name, text in session.environment.items()}
    if env:
        lines.append(
            f"Python {env.get('python', '?')}, NumPy {env.get('numpy', '?')}, {env.get('system', '?')} "
            f"{env.get('machine', '?')}, BLAS threads: {env.get('blas_threads', '?')}."
        )
    return "\n".join(wrapped for line in lines for wrapped in wrap_lines(line))


def overhead_text(overhead: dict[str, float]) -> str:
    """Return a sentence with the cost of profiling."""
    low, high = (overhead.get(end, overhead["share"]) for end in ("low", "high"))
    how = "measured by alternating profiled and plain steps" if overhead.get("measured") else "estimated"
    interval = f" ({low:.1%} to {high:.1%})" if low < high else ""
    share, per_node = overhead["share"], overhead["ns_per_node"]
    cap = " The measurement gave more, which is not plausible." if overhead.get("capped") else ""
    return f"Profiling made the steps {share:.1%} slower{interval}, {how}: {per_node:,.0f} ns a node.{cap}"
