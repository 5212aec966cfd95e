"""An optimizer's step as calls, to be replayed with the passes before it."""

from __future__ import annotations

from typing import Any

from microfw.optim.optimizer import Optimizer
from microfw.replay.trace import CapturedArray, CapturedCall, Tape, Untraceable


def capture_update(optimizer: Optimizer, tape: Tape) -> tuple[list[CapturedCall], Any]:
    """Return what an optimizer's step comes down to, and what says so: it has another one when that is out of date.

    There are no calls where they are not the same at each step. Only this library's optimizers are known to do
    nothing besides.
    """
    whole = getattr(optimizer, "update_parts", None)
    if whole is None or optimizer.NEEDS_STEP or not type(optimizer)._update.__module__.startswith("microfw."):
        return [], whole
    tape.calls = []
    try:
        for constants, *arrays in whole:
            optimizer._update(constants, *[CapturedArray(tape, array.copy(), fixed=array) for array in arrays])
    except Untraceable:
        return [], whole
    return (tape.calls if all(call.style == "ufunc" for call in tape.calls) else []), whole
