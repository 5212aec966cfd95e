"""Short report of a session: at most 80 columns, and 30 lines with the first line of ``microfw profile``."""

from __future__ import annotations

from statistics import median_low
from typing import Any

from microfw.profiler.reports.counts import counts, one_column
from microfw.profiler.reports.full import cut, title
from microfw.profiler.reports.remarks import remarks
from microfw.profiler.reports.tables import COLUMNS, phase_table, step_lines, validation_metric
from microfw.profiler.reports.text import UNITS, decimal, duration, shorten, table, unit_of, whole, wrap_lines
from microfw.profiler.session import Epoch, Session

WIDTH, LINES = 80, 29

LEVELS = "▁▂▃▄▅▆▇█"
"""Bars of one character, from an eighth to the full height."""

LEGEND = "In one step. Untagged: time outside of ops. Reuse: uses of a weight in products."

BRIEF = {
    "comparing replays with eager steps": "checks of replays",
    "preparing replays": "captures",
    "setting up the profiler": "set-up",
}
"""Short names of parts of the time."""

BARS = 28
"""Maximum number of bars. With more epochs, each bar is a mean."""


def first_look(session: Session, chosen: Epoch | None, max_rows: int | None, sort: str | None) -> list[str]:
    """Return the result, the cost of the epochs and of one step, and N, P and steps, as parts of a text.

    ``chosen``: epoch of the step; default the median one.
    """
    # On a busy machine a mean over all epochs is that of a few steps: one that waited 13 ms makes 40 % of 840 steps.
    e = chosen or median_epoch(session)
    lines = step_lines(session, e)
    notes = [line for note in session.total().notes for line in _wrapped(note)]
    head = [*_wrapped(title(session)), *notes, *_result(session)]
    first, second = ([*map(_wrapped, remarks(lines)), [], []])[:2]
    parts = ["\n".join(head), _epochs(session), _counts(e), "\n".join(_next(session))]
    room = LINES - sum(part.count("\n") + 2 for part in parts) - len(first) - 4  # 3 more rows, and one for the rest
    if len(lines) < room + 3 or len(lines) > room + 3 > 6:  # it takes the place of no layer, or of one of many
        first, room = [LEGEND, *first], room - 1
    notes = [*first, *(second if room - len(second) >= 3 else [])]
    room = max(room - len(notes) + len(first), 1)
    if len(lines) <= room + 3:  # a line for the rest would take as much room as its only layer
        room += 1
    shown = cut(lines, max_rows or room, sort)
    rows = [
        [
            shorten(line.title, 20),
            *(COLUMNS[name].cell(line) for name in ("P", "reuse", "forward", "backward", "share")),
        ]
        for line in shown
    ]
    for row, line in zip(rows, shown[:-1], strict=False):
        row[-1] = f"{row[-1]:>6}  {bar(line.share)}"
    columns = [_heading(session, e, chosen), "parameters", "reuse", "forward µs", "backward µs", "of backward"]
    parts.insert(2, "\n".join([_table(columns, rows, text=True), *notes]))
    return parts


def _heading(session: Session, e: Epoch, chosen: Epoch | None) -> str:
    if chosen or len(session.epochs) == 1:
        return f"A step of epoch {e.epoch}"
    return f"Median epoch {e.epoch}"


def median_epoch(session: Session) -> Epoch:
    """Return the epoch whose observed steps took the median time forward and backward."""
    times = {e.epoch: (e.forward_ns + e.backward_ns) / (e.observed or 1) for e in session.epochs if e.observed}
    median = median_low(times.values()) if times else 0
    return next(e for e in session.epochs if times.get(e.epoch, 0) == median)


def bar(share: float) -> str:
    """Return a bar of ten characters for 100 %.

    Examples
    --------
    >>> bar(0.349), bar(0.01)
    ('███▌', '▏')
    """
    halves = round(20 * share)
    return "█" * (halves // 2) + "▌" * (halves % 2) or "▏" * (share > 0)


def _table(head: list[str], rows: list[list[str]], **options: Any) -> str:
    """Return a table without the line below its heading."""
    first, _, *rest = table(head, rows, width=WIDTH, **options).split("\n")
    return "\n".join([first, *rest])


def _wrapped(text: str) -> list[str]:
    return wrap_lines(text, WIDTH)


def _result(session: Session) -> list[str]:
    """Return the last loss and metrics of validation, and where the time went."""
    last, total = session.epochs[-1], session.total()
    last = next((e for e in reversed(session.epochs) if e.metrics), last)  # an interrupted one has none
    results = {"loss": last.loss} | {k: v for k, v in last.metrics.items() if k.startswith("val_")}
    texts = [f"{shorten(name, 20)} {decimal(value)}" for name, value in results.items() if value is not None]
    shares = {name: float(share.rstrip("%")) for name, _, share in phase_table(total, session.every > 1)[:-1]}
    small = [name for name in shares if name in BRIEF or shares[name] < 5]
    rest = sum(map(shares.pop, small if len(small) > 1 else []))
    times = ", ".join(f"{name} {share:.0f}%" for name, share in shares.items())
    times += f", and {rest:.0f}% in {', '.join(BRIEF.get(name, name) for name in small)}" if rest >= 0.5 else ""
    found = _wrapped(f"Result: {', '.join(texts)}") if texts else []
    return found + _wrapped(f"Time: {duration(total.total_ns)}; {times}")


def _epochs(session: Session) -> str:
    """Return bars of the backward time of the epochs, and the first, the median, the slowest and the last epoch."""
    sampled = session.every > 1
    epochs = [e for e in session.epochs if e.observed] or session.epochs
    times = [e.taken("backward", sampled) for e in epochs]
    unit = unit_of(max(times))
    group = -(-len(times) // BARS)
    means = [sum(part) / len(part) for part in (times[k : k + group] for k in range(0, len(times), group))]
    bars = "".join(LEVELS[max(0, round(8 * mean / (max(means) or 1)) - 1)] for mean in means)
    what = f"; a bar is {group} epochs" if group > 1 else ""
    found: dict[int, str] = {}
    slowest, median = times.index(max(times)), epochs.index(median_epoch(session))
    for k, name in ((0, "first"), (median, "median"), (slowest, "slowest"), (len(times) - 1, "last")):
        found[k] = f"{found[k]}, {name}" if k in found else name
    metrics = validation_metric(epochs)
    head = ["epoch", "", "loss", *(shorten(name, 14) for name in metrics)]
    head += [f"{name} {unit}" for name in ("forward", "backward")]
    rows = [
        [str(epochs[k].epoch), names if len(times) > 1 else "", decimal(epochs[k].loss)]
        + [decimal(epochs[k].metrics.get(name)) for name in metrics]
        + [f"{epochs[k].taken(name, sampled) / UNITS[unit]:,.2f}" for name in ("forward", "backward")]
        for k, names in sorted(found.items())
    ]
    name = "Backward of a step" if sampled else "Backward by epoch"
    return f"{name}  {bars}  tallest: {duration(max(means))}{what}\n" + _table(head, rows, left=2)


def _counts(e: Epoch) -> str:
    """Return N, P and steps: in scalars, or in tensors if an op has no scalar nodes."""
    found = counts(e)
    numbers = one_column(found).items()
    rows = [[name, whole(number), found[name].meaning] for name, number in numbers if found[name].meaning]
    unit = "in tensors" if found["N"].scalars is None else "count"
    return _table(["In one step", unit, "meaning"], rows, text=True)


def _next(session: Session) -> list[str]:
    """Return what to read next: options and commands, if ``microfw profile`` made the session."""
    name = session.settings.get("name")
    if name is None:
        return ['Next: session.report(full=True), session.save("run.html"), mf.profiler.law(...)']
    return _wrapped(f"Next: microfw law {name} (N + P against N x P), microfw profile {name} --full")
