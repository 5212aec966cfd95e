"""Table of epochs, for Markdown and notebooks."""

from __future__ import annotations

from collections.abc import Iterable

from microfw.profiler.reports.text import decimal, phases
from microfw.profiler.session import Epoch

PHASES = ("data", "forward", "backward", "update")


def epoch_table(epochs: Iterable[Epoch], sampled: bool) -> tuple[str, list[str], list[list[str]]]:
    """Return title, column names and rows."""
    title = "Epochs: µs in an observed step, total in ms" if sampled else "Epochs, in ms"
    names = (*PHASES, "other") if sampled else (*PHASES, "evaluation", "other")
    rows = []
    for e in epochs:
        steps = f"{e.observed} of {e.steps}" if sampled else str(e.steps)
        rows.append([str(e.epoch), steps, decimal(e.loss), *phases(e, sampled, 1e6, names), f"{e.total_ns / 1e6:,.2f}"])
    return title, ["epoch", "observed" if sampled else "steps", "loss", *names, "total"], rows
