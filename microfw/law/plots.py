"""Plots of the law on one model, and of a sweep."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.law.data import Law
from microfw.law.report import QUANTITIES
from microfw.law.sweeps import ROWS, Sweep, quantity_of
from microfw.visualization.plots import MARKERS, PALETTE, finish, label_rows, name_label, plot_axes

COUNTED = [*(row for row in ROWS if row[2] != "seconds"), ("paths, no memory", "scalars", "rules")]
"""Strategy, graph and quantity of each count in the plot of a law."""

BOUND = ", bound of the chain rule"
"""What N × P bounds: other costs may be higher."""


def plot_law(law: Law, axes: Any = None) -> Any:
    """Draw the counts of each strategy on the left, their seconds on the right; see `Law.plot`."""
    panels = plot_axes(axes, "Law.plot", 2, 5)
    run = {(way.name, way.graph): way for way in law.ways if way.seconds is not None}
    # name, and the first part of the reason
    not_run = [(f"{way.name}\nnot run", way.note.partition(", and")[0]) for way in law.ways if way.seconds is None]
    if all(graph == "tensors" for _, graph in run):
        not_run.append(("on scalars\nnot run", law.note.partition(":")[0]))
    counted, timed = [], []  # name, value and interval of each bar
    for strategy, graph, quantity in COUNTED:
        if (strategy, graph) in run:
            name = f"{strategy}\n{QUANTITIES.get(quantity, quantity)}"
            counted.append((name, *quantity_of(law, strategy, graph, quantity)))
    for (name, graph), way in run.items():
        timed.append((f"{name}\non {graph}", way.seconds or 0.0, way.intervals.get("seconds")))
    for place, bars, color in zip(panels, (counted, timed), PALETTE, strict=False):
        names = [f"{name}, extrapolated" if ends else name for name, _, ends in bars]
        positions = label_rows(place, names + [name for name, _ in not_run])
        for position, (_, reason) in zip(positions[len(bars) :], not_run, strict=True):
            place.text(
                0.5, position, reason.removeprefix("not run: it "), transform=place.get_yaxis_transform(), ha="center",
                va="center", size="small", bbox={"fc": place.get_facecolor(), "ec": "none", "pad": 1},
            )  # fmt: skip
        for position, (_, value, ends) in zip(positions, bars, strict=False):
            margin = [[value - ends[0]], [ends[1] - value]] if ends else None
            place.errorbar(value, position, xerr=margin, fmt="o", color=color, capsize=3)
        place.grid(axis="y", alpha=0.3)
        place.set(xscale="log")
    if law.count("scalars"):
        color = panels[0].xaxis.label.get_color()
        for text, x, style in (("N + P = {:,} scalars", law.N + law.P, "--"), ("N × P = {:,}" + BOUND, law.bound, ":")):
            panels[0].axvline(x, color=color, linestyle=style, label=text.format(x))
    finish(panels[0], "Counts for one gradient", "count", "strategy")
    finish(panels[1], "Seconds for one gradient", "time, s", "strategy")
    return panels


def plot_sweep(sweep: Sweep, axes: Any = None) -> Any:
    """Draw the counts of each strategy over its size; see `Sweep.plot`."""
    (place,) = plot_axes(axes, "Sweep.plot", 1, 5.4)
    sizes = sweep.sizes()
    fits = [fit for fit in sweep.fits if fit.quantity != "seconds"]
    for k, fit in enumerate(fits):
        values = [quantity_of(found, fit.strategy, fit.graph, fit.quantity)[0] for found in sweep.laws]
        text = f"{fit.strategy}, {QUANTITIES.get(fit.quantity, fit.quantity)}: exponent {fit.exponent:.2f}"
        place.plot(sizes, values, color=PALETTE[k % len(PALETTE)], marker=MARKERS[k % len(MARKERS)], label=text)
    laws = [sweep.laws[k] for k in np.argsort(sizes)]
    color = place.xaxis.label.get_color()
    sums, products = [found.N + found.P for found in laws], [found.bound for found in laws]
    for text, style, line in (("N + P", "--", sums), (f"N × P{BOUND}", ":", products)):
        place.plot(np.sort(sizes), line, color=color, linestyle=style, label=text)
    place.set(xscale="log", yscale="log")
    title = f"Cost of a gradient, over {name_label(sweep.over).strip()}"
    finish(place, title, f"{sweep.size}, in scalars", "steps, rule calls, operations")
    return place
