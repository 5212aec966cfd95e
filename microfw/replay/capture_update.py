"""Capture an optimizer's step as NumPy calls."""

from __future__ import annotations

from typing import Any

from microfw.optim.optimizer import Optimizer
from microfw.replay.trace import CapturedArray, CapturedCall, Tape, Untraceable


def capture_update(optimizer: Optimizer, tape: Tape) -> tuple[list[CapturedCall], Any]:
    """Return the calls of an optimizer's step, and the ``update_parts`` that they were captured from.

    The calls are valid as long as ``optimizer.update_parts`` is that object. The list is empty for optimizers whose
    calls differ from step to step, and for those defined outside of this library, whose `_update` may have effects.
    """
    parts = getattr(optimizer, "update_parts", None)
    if parts is None or optimizer.NEEDS_STEP or not type(optimizer)._update.__module__.startswith("microfw."):
        return [], parts
    tape.calls = []
    try:
        for constants, *arrays in parts:
            optimizer._update(constants, *[CapturedArray(tape, array.copy(), fixed=array) for array in arrays])
    except Untraceable:
        return [], parts
    return (tape.calls if all(call.style == "ufunc" for call in tape.calls) else []), parts
