"""Times of the parts of a step: of layers, and of what belongs to no layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.profiler.change import NO_LAYER
from microfw.profiler.session import Epoch

Array = np.ndarray[Any, Any]

LAYER_PHASES = ("forward", "backward")

Key = tuple[str | None, str]
"""A layer and a phase."""

REST: list[Key] = [(None, "forward"), (None, "backward"), (None, "update")]
"""Parts of a step that belong to no layer."""

WHOLE: list[Key] = [("", "step"), ("", "forward"), ("", "backward"), ("", "update")]
"""Compared times of the whole step: "step" is forward, backward and update together."""

MIN_SHARE = 0.01
"""A layer with a smaller share of the step in both runs is not compared."""


def large_parts(a: Array, b: Array) -> Array:
    """Return which parts take at least `MIN_SHARE` of the step in one of the runs."""
    typical = np.array([np.median(times, axis=0) for times in (a, b)])
    return np.asarray((typical >= MIN_SHARE * np.maximum(typical.sum(axis=1, keepdims=True), 1)).any(axis=0))


def is_part(part: Key, label: Key) -> bool:
    """Return True if the time of a part is included in a compared time."""
    return part == label or label == WHOLE[0] or (not label[0] and part[1] == label[1])


def part_times(epochs: list[Epoch], parts: list[Key]) -> Array:
    """Return nanoseconds of one step, of shape (epochs, parts). The parts add up to the whole step."""
    columns = {key: k for k, key in enumerate(parts)}
    table = np.zeros((len(epochs), len(parts)))
    for k, epoch in enumerate(epochs):
        rest = {phase: getattr(epoch, f"{phase}_ns") for _, phase in REST}
        for row in epoch.rows:
            for phase in LAYER_PHASES:
                ns = getattr(row, f"{phase}_ns")
                table[k, columns[row.layer or NO_LAYER, phase]] += ns
                rest[phase] -= ns
        for phase, ns in rest.items():
            table[k, columns[None, phase]] = ns
        table[k] /= epoch.observed
    return table


def share_of(times: Array, parts: list[Key], chosen: list[bool]) -> float:
    """Return the share of the chosen parts in the median time of all layers and the update."""
    ns = np.median(times, axis=0)
    own = [part not in REST[:2] for part in parts]
    return float(ns[np.logical_and(own, chosen)].sum() / max(ns[own].sum(), 1))
