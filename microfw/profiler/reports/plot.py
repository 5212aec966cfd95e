"""Session as a matplotlib figure."""

from __future__ import annotations

from typing import Any

from microfw.errors import ArgumentError
from microfw.profiler.reports.names import OUTSIDE, middle, visible
from microfw.profiler.session import Session

COLOURS = {"forward": "#3f7fd0", "backward": "#d0602f", "update": "#1f9463", "data": "#9a8fb8"}
REST = {"evaluation": "#c7a12c", "other": "#b4bac2"}
"""Phases outside of steps; left out if the profile is sampled."""

MAX_LAYERS = 16


def plot(session: Session) -> Any:
    """Return a figure: time by epoch on the left, layers of one step on the right. Needs ``microfw[plot]``.

    Raises
    ------
    ArgumentError
        If no epoch was recorded.
    ImportError
        If matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ImportError("plot: expected matplotlib to be installed, got none; pip install microfw[plot]") from None
    if not session.epochs:
        raise ArgumentError("plot: expected a session with an epoch, got none")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    numbers = [e.epoch for e in session.epochs]
    bottom = [0.0] * len(numbers)
    sampled = session.every > 1
    for phase, colour in (COLOURS if sampled else COLOURS | REST).items():
        heights = [e.taken(phase, sampled) / (1e3 if sampled else 1e6) for e in session.epochs]
        left.bar(numbers, heights, 0.85, bottom, color=colour, label=phase)
        bottom = [b + h for b, h in zip(bottom, heights, strict=True)]
    what = ("An observed step by epoch", "µs") if sampled else ("Time by epoch", "ms")
    left.set(title=what[0], xlabel="epoch", ylabel=what[1])
    left.legend()
    total = session.total()
    steps = total.observed or 1
    layers = total.layers()[:MAX_LAYERS][::-1]
    names = [middle(visible(row.layer) or OUTSIDE, 24) for row in layers]
    positions = range(len(layers))
    for shift, phase in ((0.2, "forward"), (-0.2, "backward")):
        lengths = [getattr(row, f"{phase}_ns") / steps / 1e3 for row in layers]
        right.barh([k + shift for k in positions], lengths, 0.4, color=COLOURS[phase], label=phase)
    right.set_yticks(positions, names, parse_math=False)
    right.set(title="Layers, in one step", xlabel="µs")
    right.legend()
    return figure
