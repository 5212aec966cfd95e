"""Numbers, tables and paragraphs as text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from microfw.profiler.ratio import BOUNDS, WHY, Ratio, verdict
from microfw.profiler.reports.names import middle

WIDTH = 100
"""Columns of a full report."""

NO_EPOCH = "no epoch was recorded. An epoch needs a backward pass, and ends with the profiler's block or end_epoch()"
"""Text of an empty session."""


class Text(str):
    """Text that a notebook or a console prints as it is, as the last expression of a cell."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


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
    lines.append("Published bounds on this ratio, which is 1 more than backward / forward, and what they count:")
    lines += [*BOUNDS, *wrap_lines(WHY)]
    return "\n".join(lines)


def microseconds(ns: float) -> str:
    """Format nanoseconds as microseconds.

    Examples
    --------
    >>> microseconds(12_345)
    '12.3'
    """
    return f"{ns / 1e3:,.1f}" if ns < 1e8 else short(ns / 1e3)


UNITS = {"s": 1e9, "ms": 1e6, "µs": 1e3}
"""Nanoseconds of each unit."""


def unit_of(ns: float) -> str:
    """Return the largest unit that a time, rounded to three digits, has one of; microseconds for all shorter times."""
    return next((unit for unit, size in UNITS.items() if ns >= 0.9995 * size), "µs")


def duration(ns: float) -> str:
    """Format a time with three digits.

    Examples
    --------
    >>> duration(12_345), duration(2.5e9), duration(1234e9)
    ('12.3 µs', '2.5 s', '1,234 s')
    """
    unit = unit_of(ns)
    value = ns / UNITS[unit]
    return f"{value:,.0f} {unit}" if value >= 999.5 else f"{value:.3g} {unit}"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: "2 fits"."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], text: bool = False, left: int = 1, width: int = WIDTH
) -> str:
    """Return an aligned table: the first ``left`` columns left, others right; if ``text``, the last column left."""
    widths = [max(len(r[k]) for r in (head, *rows)) for k in range(len(head))]
    gap = " " * (2 if sum(widths) + 2 * (len(widths) - 1) <= width else 1)
    lines = []
    for r in (head, *rows):
        cells = [c.ljust(w) if k < left else c.rjust(w) for k, (c, w) in enumerate(zip(r, widths, strict=True))]
        if text:
            cells[-1] = r[-1]
        lines.append(gap.join(cells).rstrip())
    lines.insert(1, "-" * min(width, sum(widths) + len(gap) * (len(widths) - 1)))
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
    """Format a loss or a metric with four decimals, a small or huge one with four digits; "" for None.

    Examples
    --------
    >>> decimal(0.25), decimal(2.43e-20)
    ('0.2500', '2.43e-20')
    """
    return "" if value is None else f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e9 else f"{value:.4g}"


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
    >>> short(8), short(1234), short(2_621_440), short(999_600)
    ('8', '1.23k', '2.62M', '1M')
    """
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def shorten(text: str, width: int) -> str:
    """Shorten a text that is too wide, with … in the middle; control characters become ``?``."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return middle(text, width)


def wrap_lines(line: str, width: int = WIDTH) -> list[str]:
    """Return a text as lines of at most ``width`` columns."""
    return textwrap.wrap(" ".join(line.split()), width, break_long_words=False, break_on_hyphens=False)
