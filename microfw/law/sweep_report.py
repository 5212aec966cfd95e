"""A sweep as text for a terminal."""

from __future__ import annotations

from microfw.errors import printable
from microfw.law.data import huge
from microfw.law.report import QUANTITIES
from microfw.law.sweeps import Sweep
from microfw.profiler.reports.text import short, table, whole, wrap_lines
from microfw.visualization.html_table import html_table

SAMPLED = "*: some numbers are extrapolated from a sample of the parameters; the interval includes their spread."


def _growth(sweep: Sweep) -> str:
    if sweep.size == "N":
        return "Growth: cost ~ N ** exponent; P is the same for all"
    return "Growth: cost ~ (N + P) ** exponent"


def _tables(sweep: Sweep) -> tuple[list[list[str]], list[list[str]]]:
    """Return two tables, each with its head: models, and exponents."""
    models = [[sweep.over, "N", "P", "N + P", "steps", "steps/(N+P)", "backward ops", "seconds", "N x P", "paths"]]
    for value, found in zip(sweep.values, sweep.laws, strict=True):
        c, way = found.count("scalars"), found.way("backprop", "tensors")
        assert c is not None
        cells = [whole(v) for v in (c.N, c.P, c.N + c.P, c.steps)]
        cells += [f"{c.steps / (c.N + c.P):.3f}", whole(way.operations or 0), f"{way.seconds:.1e}"]
        models.append([str(value), *cells, short(c.N * c.P), huge(found.paths or 0)])
    fits = [["strategy", "quantity", "exponent", "95 % interval"]]
    for f in sweep.fits:
        quantity = f"{QUANTITIES.get(f.quantity, f.quantity)}, on {f.graph}" + (" *" if f.sampled else "")
        fits.append([f.strategy, quantity, f"{f.exponent:.3f}", f"{f.low:.3f} to {f.high:.3f}"])
    return models, fits


def notebook(sweep: Sweep) -> str:
    """Return an HTML fragment: both tables."""
    (head, *models), (names, *fits) = _tables(sweep)
    return html_table(head, models, f"Models over {sweep.over}, in scalars") + html_table(
        names, fits, f"{_growth(sweep)}. {SAMPLED if any(f.sampled for f in sweep.fits) else ''}".rstrip()
    )


def sweep_report(sweep: Sweep) -> str:
    """Return the report of a sweep: models and exponents."""
    (head, *models), (names, *fits) = _tables(sweep)
    first = sweep.laws[0]
    model = "model" if len({found.model for found in sweep.laws}) == 1 else f"model for {sweep.values[0]}"
    of = f" of {first.name}" if first.name else ""
    lines = [
        *wrap_lines(f"microfw law: over {sweep.over}{of}; {model}: {first.model}"),
        "",
        "Models, in scalars (seconds: backprop with its forward pass, on tensors)",
        table(head, models),
        "",
        _growth(sweep),
        table(names, fits),
    ]
    notes = "Least squares on logarithms, with Student's t for the interval. An exponent is that of these sizes: if a "
    notes += "cost has terms of several powers, it rises with them. "
    if any(f.sampled for f in sweep.fits):
        notes += f"{SAMPLED} "
    notes += (
        "N: nodes of the scalar graph that a backward pass visits; P: trainable numbers; steps: rule calls plus "
        "gradients added into parameters; backward ops: scalar operations in the rules, by their cost rules. The "
        "seconds of small models grow more slowly: Python's work for a tensor node does not depend on its size. "
        "Seconds are wall-clock time, and vary if other programs run."
    )
    return printable("\n".join(lines + wrap_lines(notes)))
