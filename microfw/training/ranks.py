"""What the ranks of a data-parallel run must have in common: the number of steps, and the rows of the History."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.data.dataset import pieces
from microfw.errors import ArgumentError


def check_steps(run: Any) -> None:
    """Raise unless an epoch has the same number of steps on all ranks: one with more would wait for the others."""
    rows, size, steps = run.train, run.step_rows, 0
    if rows.counted:
        steps = len(rows) // size if run.drop_last else sum(1 for _ in pieces(len(rows), size, run.stepper.min_rows))
    found = run.stepper.optimizer.gather(steps)
    if len(set(found)) > 1:
        fix = "give each rank as many rows, or pass drop_last=True"
        raise ArgumentError(run.stepper.where, "as many steps in an epoch on all ranks", found, fix)


def common_row(optimizer: Any, row: dict[str, Any], count: float) -> dict[str, Any]:
    """Return an epoch's row for all ranks: the mean losses of all rows, and of other entries the mean of the ranks.

    ``count`` is the denominator of this rank's mean loss.
    """
    found = optimizer.gather((row, count))
    rows, counts = [part for part, _ in found], [part for _, part in found]
    return {name: _mean(name, [part.get(name, np.nan) for part in rows], counts) for name in row} | {
        "epoch": row["epoch"],
        "seconds": row["seconds"],
    }


def _mean(name: str, values: list[float], counts: list[float]) -> float:
    if name.partition("/")[0] == "loss":
        # A rank without rows that count has a loss of NaN.
        pairs = [(value, count) for value, count in zip(values, counts, strict=True) if count]
        return sum(value * count for value, count in pairs) / sum(counts) if pairs else np.nan
    return values[0] if len(set(values)) == 1 else float(np.mean(values))
