"""A check of losses that are functions: outputs of shape (N, 1) and targets of shape (N,) must not become (N, N)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from microfw.autograd.mode import mode
from microfw.autograd.observer import Observer
from microfw.errors import ShapeError
from microfw.nn import Loss


class Sides(Observer):
    """An observer that finds an op in which outputs and targets are broadcast to a square.

    Pairs of outputs, and pairs of targets, may make one. The arrays are kept, so that no other one takes their ``id``.
    """

    def __init__(self, outputs: Sequence[Any], targets: Sequence[Any]) -> None:
        self.sides = {id(x._array): (x._array, side) for side, xs in (("o", outputs), ("t", targets)) for x in xs}
        self.found: dict[str, str] = {}

    def forward(self, op: Any, node: Any, inputs: Any, params: Any, output: Any, start_ns: int) -> None:
        """Note what the value depends on, and the shapes of a pair that makes a square."""
        known = [self.sides.get(id(x), (x, "")) for x in inputs]
        self.sides[id(output)] = output, "".join(sorted({c for _, side in known for c in side}))
        pair = {side: np.ndim(x) for x, side in known}
        rows = len(output) if output.ndim else 0
        shapes = {np.shape(x) for x in inputs}
        if rows > 1 and shapes == {(rows,), (rows, 1)} and pair.keys() == {"o", "t"} and not self.found:
            self.found = {side: "(N,)" if ndim == 1 else "(N, 1)" for side, ndim in pair.items()}


def may_broadcast(loss: Any, *sides: Sequence[Any]) -> bool:
    """Return True if outputs and targets have shapes that a loss may broadcast to a square."""
    # losses of this library check shapes themselves
    return not isinstance(loss, Loss) and all(any(x.shape[1:] in ((), (1,)) for x in side) for side in sides)


def check_broadcasts(loss: Any, outputs: Any, targets: Any, where: str, *leaves: Sequence[Any]) -> Any:
    """Return ``loss(outputs, targets)``; ``leaves`` are the Tensors in both, if they are nested.

    Raises
    ------
    ShapeError
        If the loss broadcasts outputs of N rows with targets of N rows to shape (N, N).
    """
    sides = leaves or ([outputs], [targets])
    if not may_broadcast(loss, *sides):
        return loss(outputs, targets)
    observer = Sides(*sides)
    with mode(observer=observer):
        made = loss(outputs, targets)
    if found := observer.found:
        got = f"outputs of shape {found['o']} and targets of shape {found['t']}, which the loss broadcasts to (N, N)"
        fix = "pass y[:, None]" if found["t"] == "(N,)" else "keep the last axis of the outputs"
        raise ShapeError(where, "a loss of outputs and targets of one shape", got, fix)
    return made
