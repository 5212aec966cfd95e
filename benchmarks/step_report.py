"""Output of `bench_step`: a table for each workload, microfw against its targets, and the table of the docs."""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from interleaved import interval, ratios, shown, table

HAND, TUNED, OURS, REPLAY = "hand-written NumPy", "hand-tuned NumPy", "microfw eager", "microfw replay"
TORCH, FUSED, COMPILED = "PyTorch eager", "PyTorch fused SGD", "torch.compile"
JIT, DONATED, SCAN = "JAX jit", "JAX jit donated", "JAX scan"
MYGRAD, AUTOGRAD, SKLEARN = "MyGrad", "autograd", "scikit-learn MLP"
NAMES = (HAND, TUNED, OURS, REPLAY, TORCH, FUSED, COMPILED, JIT, DONATED, SCAN, MYGRAD, AUTOGRAD, SKLEARN)

Target = tuple[str, str, dict[str, tuple[float, float]]]
FASTER, RATIO = "x faster than", "/"  # the time of the other over ours, and the other way round
TARGETS: tuple[Target, ...] = (  # with whom; the most (for "faster", the least) that is solid, and what we would love
    (
        RATIO,
        HAND,
        {"tiny": (0.92, 0.72), "small": (0.92, 0.75), "mid": (1.0, 0.93), "deep": (0.92, 0.80), "conv": (0.65, 0.50)},
    ),
    (RATIO, TUNED, {"tiny": (1.25, 1.0), "small": (1.25, 1.0)}),
    (FASTER, TORCH, {"tiny": (5, 8), "small": (5, 6.5), "mid": (1.2, 1.4), "deep": (3.5, 4.5), "conv": (2.5, 4)}),
    (RATIO, JIT, {"tiny": (0.45, 0.28), "small": (0.50, 0.35), "deep": (0.85, 0.70), "conv": (0.50, 0.33)}),
    (FASTER, MYGRAD, {"conv": (8, 12)}),
    (RATIO, TORCH, {"embedding": (0.42, 0.42), "lstm": (1.1, 1.1), "gru": (0.58, 0.58), "transformer": (0.88, 0.88)}),
)
REPLAYED: tuple[Target, ...] = (  # the same for replay, where something is aimed at
    (RATIO, TUNED, {"tiny": (0.65, 0.45), "small": (0.70, 0.52), "mid": (1.0, 0.88), "deep": (0.80, 0.58)}),
    (RATIO, JIT, {"tiny": (0.25, 0.14), "small": (0.30, 0.18), "deep": (0.55, 0.35), "conv": (0.40, 0.24)}),
    (RATIO, COMPILED, {"tiny": (0.10, 0.06), "small": (0.12, 0.08), "deep": (0.30, 0.18)}),
    (
        RATIO,
        TORCH,
        {"embedding": (0.23, 0.19), "lstm": (0.82, 0.72), "gru": (0.42, 0.35), "transformer": (0.62, 0.54)},
    ),
    (RATIO, JIT, {"embedding": (0.60, 0.46), "lstm": (0.90, 0.75), "gru": (1.0, 0.85), "transformer": (0.88, 0.80)}),
)
BEGIN, END = "<!-- measured: written by bench_step.py -->", "<!-- end of what was measured -->"


class Measured(NamedTuple):
    """What was found for a workload: by column, µs of a step in each round, ms to start, MB at the peak."""

    times: dict[str, list[float]]
    start: dict[str, float]
    memory: dict[str, float]


def figure(value: float) -> str:
    """Return a number with three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(values: Sequence[float] | None) -> str:
    """Return a median with its interval as text, with three digits that count; blank for None."""
    if not values:
        return ""
    middle, low, high = map(figure, interval(values))
    return f"{middle} ({low}–{high})"


def layers(sizes: tuple[Any, ...]) -> str:
    """Return a network's sizes as text."""
    same = len(sizes) > 5 and len(set(sizes[1:-1])) == 1
    return f"{sizes[0]}-{len(sizes) - 2}×{sizes[1]}-{sizes[-1]}" if same else "-".join(map(str, sizes))


def report(title: str, measured: Measured, names: Sequence[str]) -> str:
    """Return a workload's table."""
    times = measured.times
    rows = [[title, "µs a step", *(f"/ {name}" for name in (HAND, OURS, REPLAY)), "ms to start", "peak MB"]]
    for name in names:
        if name not in times:
            rows.append([name, *("" for _ in rows[0][1:])])
            continue
        compared = [spread(ratios(times[name], times.get(other))) for other in (HAND, OURS, REPLAY)]
        start, memory = f"{measured.start[name]:,.0f}", f"{measured.memory[name]:,.0f}"
        rows.append([name, spread(times[name]), *compared, start, memory])
    return table(rows)


def verdicts(results: dict[str, Measured], ours: str, targets: Sequence[Target]) -> str:
    """Return how a column of microfw stands against what it aims at."""
    rows = [[f"{ours} against its targets", "measured", "solid", "best", ""]]
    for kind, other, aims in targets:
        for workload, (solid, best) in aims.items():
            get = results[workload].times.get if workload in results else {}.get
            values = ratios(get(other), get(ours)) if kind == FASTER else ratios(get(ours), get(other))
            if not values:
                continue
            sign = -1 if kind == FASTER else 1
            value = sign * statistics.median(values)
            word = "best" if value <= sign * best else "solid" if value <= sign * solid else "MISSED"
            rows.append([f"{workload:5s} {kind} {other}", shown(values), f"{solid:g}", f"{best:g}", word])
    return table(rows) if len(rows) > 1 else ""


def markdown(heading: str, titles: dict[str, str], results: dict[str, Measured], names: Sequence[str]) -> str:
    """Return what the docs show: the heading, and one table of all workloads."""

    def ratio(found: Measured, name: str) -> str:
        return spread(ratios(found.times.get(name), found.times.get(HAND)))

    def one(values: dict[str, float], name: str) -> str:
        return f"{values[name]:,.0f}" if name in values else ""

    blocks = (
        ("µs a step: median and 95 % interval", lambda found, name: spread(found.times.get(name))),
        (f"that, over {HAND} in the same round", ratio),
        ("ms to start, measured once", lambda found, name: one(found.start, name)),
        ("MB of memory at the peak", lambda found, name: one(found.memory, name)),
    )
    lines = ["```text", heading.strip(), *(titles[workload] for workload in results), "```", ""]
    rows = [["", *results], ["---", *("---:" for _ in results)]]
    for title, cell in blocks:
        rows.append([f"**{title}**", *("" for _ in results)])
        rows += [[name, *(cell(found, name) for found in results.values())] for name in names]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def framed(page: pathlib.Path) -> tuple[str, str]:
    """Return what stands on a page before and after the measured part."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page}: expected the lines {BEGIN} and {END}, found no such part; add them")
    return f"{before}{BEGIN}\n\n", f"\n\n{END}{after}"
