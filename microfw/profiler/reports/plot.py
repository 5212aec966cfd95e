"""Plots of a session and of a comparison."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.errors import ArgumentError
from microfw.profiler.comparison import Change, Comparison
from microfw.profiler.reports.names import OUTSIDE_LABEL, kinds, visible
from microfw.profiler.reports.text import UNITS, unit_of
from microfw.profiler.row import Row
from microfw.profiler.session import Session
from microfw.profiler.step_times import WHOLE
from microfw.visualization.plots import MARKERS, PALETTE, finish, integer_ticks, label_rows, plot_axes, rows_that_fit
from microfw.visualization.text import short

COLOURS = dict(zip(("forward", "backward", "update", "data", "evaluation", "other"), PALETTE, strict=True))
COLOURS["check"] = "#7f7f7f"
NAMES = {"check": "comparing replays"}
REST = ("evaluation", "other", "check")
"""Phases outside of steps; left out if the profile is sampled."""

MAX_LAYERS = 24
"""Most rows of a plot. A last row stands for the others."""

MAX_BARS = 100  # 2,000 epochs took 50 s with a bar for each phase of each, 0.6 s with an area for each phase
"""Most epochs with bars."""


def plot(session: Session, axes: Any = None) -> Any:
    """Draw time by epoch on the left, layers of one step on the right, with Matplotlib (extra ``plot``).

    Parameters
    ----------
    session : Session
        The profile.
    axes : array of two matplotlib Axes, optional
        Axes to draw into; those of a new figure by default.

    Returns
    -------
    array of two matplotlib Axes

    Raises
    ------
    ArgumentError
        If no epoch was recorded, ``axes`` are not two, or Matplotlib is not installed.
    """
    if not session.epochs:
        raise ArgumentError("Session.plot", "a session with an epoch", "none", "train with the profiler first")
    total = session.total()
    layers = total.layers()
    panels = plot_axes(axes, "Session.plot", 2, 1.8 + 0.21 * max(12, min(len(layers), MAX_LAYERS)))
    _plot_epochs(session, panels[0])
    _plot_layers(layers, kinds(session), total.observed or 1, panels[1])
    return panels


def _plot_epochs(session: Session, axes: Any) -> None:
    sampled = session.every > 1
    numbers = [e.epoch for e in session.epochs]
    phases = [phase for phase in COLOURS if not (sampled and phase in REST)]
    times = {phase: np.array([e.taken(phase, sampled) for e in session.epochs]) for phase in phases}
    unit = unit_of(float(np.sum(list(times.values()), axis=0).max()))
    scale = UNITS[unit]
    bottom = np.zeros(len(numbers))
    for phase, ns in times.items():
        label = NAMES.get(phase, phase)
        top = bottom + ns / scale
        if ns.any() and len(numbers) <= MAX_BARS:
            axes.bar(numbers, ns / scale, 0.85, bottom, color=COLOURS[phase], label=label)
        elif ns.any():
            x = np.repeat(numbers, 2) + np.tile((-0.5, 0.5), len(numbers))
            axes.fill_between(x, np.repeat(bottom, 2), np.repeat(top, 2), color=COLOURS[phase], label=label, lw=0)
        bottom = top
    axes.set_ylim(bottom=0)
    integer_ticks(axes)
    finish(axes, "An observed step by epoch" if sampled else "Time by epoch", "epoch", f"time, {unit}")


def _plot_layers(layers: list[Row], kind_of: dict[str, str], steps: int, axes: Any) -> None:
    def ns(row: Row) -> int:
        return row.forward_ns + row.backward_ns

    shown, others = _largest(layers, rows_that_fit(axes, MAX_LAYERS), ns)
    names = [
        f"{short(visible(row.layer) or OUTSIDE_LABEL, 24)} {short(visible(kind_of.get(row.layer, '')), 16)}".strip()
        for row in shown
    ]
    if others:
        share = sum(map(ns, others)) / (sum(map(ns, layers)) or 1)
        names.append(f"{len(others)} others, {share:.0%} of the time: not shown")
    unit = unit_of(max((max(row.forward_ns, row.backward_ns) for row in shown), default=0) / steps)
    scale = UNITS[unit]
    positions = label_rows(axes, names)[: len(shown)]
    for shift, phase in ((0.2, "forward"), (-0.2, "backward")):
        lengths = [getattr(row, f"{phase}_ns") / steps / scale for row in shown]
        axes.barh(positions + shift, lengths, 0.4, color=COLOURS[phase], label=phase)
    finish(axes, "Layers, in one step", f"time, {unit}", "layer")


def plot_comparison(found: Comparison, axes: Any = None) -> Any:
    """Draw the changes of the whole step, its phases and the layers, with intervals; see `Comparison.plot`."""
    n = min(len(found.changes), MAX_LAYERS)
    (place,) = plot_axes(axes, "Comparison.plot", 1, 1.8 + 0.21 * max(12, n))
    shown, others = _largest(found.changes, rows_that_fit(place, MAX_LAYERS), lambda c: (not c.layer, abs(c.b - c.a)))
    names = [_change_name(change) for change in shown]
    positions = label_rows(place, [*names, *([f"{len(others)} smaller changes: not shown"] if others else [])])
    text = place.xaxis.label.get_color()
    limit = 100 * found.min_change
    place.axvspan(-limit, limit, color=text, alpha=0.12, linewidth=0, label=f"less than {limit:g} %")
    enough = found.judges_times
    kinds_of_change = (("slower", PALETTE[1]), ("faster", PALETTE[0]), ("no real change", text))
    for marker, (kind, color) in zip(MARKERS, kinds_of_change, strict=False):
        rows = [k for k, change in enumerate(shown) if _kind(change) == kind]
        if rows:
            change, low, high = np.array([(shown[k].change, shown[k].low, shown[k].high) for k in rows]).T * 100
            ends = np.array([change - low, high - change]).clip(0) if enough else None
            place.errorbar(change, positions[rows], xerr=ends, fmt=marker, color=color, capsize=3, label=kind)
    rounds = "rounds" if found.alternated else "epochs"
    few = "" if enough else f"\n{found.rounds} of {found.needed} {rounds}: too few for intervals"
    few = few if found.every[0] == found.every[1] else "\nother steps were observed: no intervals"
    title = f"{short(visible(found.b), 24)} against {short(visible(found.a), 24)}"
    finish(place, title, f"change of the time of a step, %{few}", "part of a step")
    return place


def _kind(change: Change) -> str:
    if change.one_sided or not np.isfinite(change.change):
        return ""
    return "no real change" if not change.real else "slower" if change.change > 0 else "faster"


def _change_name(change: Change) -> str:
    if (change.layer, change.phase) == WHOLE[0]:
        return "whole step"
    alone = f": only in {'b' if change.change > 0 else 'a'}" if change.one_sided else ""
    return f"{short(visible(change.layer), 24)} {change.phase}{alone}".strip()


def _largest(rows: list[Any], most: int, size: Any) -> tuple[list[Any], list[Any]]:
    """Return the largest rows, at most ``most`` with one for the others, and the others; both in their order."""
    if len(rows) <= most:
        return rows, []
    kept = set(sorted(range(len(rows)), key=lambda k: size(rows[k]), reverse=True)[: most - 1])
    return [row for k, row in enumerate(rows) if k in kept], [row for k, row in enumerate(rows) if k not in kept]
