"""An optimizer's step as calls, to be replayed with the passes before it."""

from __future__ import annotations

from microfw.optim.optimizer import Optimizer
from microfw.replay.trace import Call, Cell, Tape, Untraceable


def moves(optimizer: Optimizer, tape: Tape) -> list[Call]:
    """Return the calls that an optimizer's step comes down to; none where they are not the same at each step.

    Only this library's optimizers are known to do nothing besides.
    """
    if optimizer.COUNTS or not type(optimizer)._move.__module__.startswith("microfw.") or optimizer.settings.changed:
        return []
    tape.calls = []
    try:
        for constants, *arrays in optimizer._whole:
            optimizer._move(constants, *[Cell(tape, array.copy(), fixed=array) for array in arrays])
    except Untraceable:
        return []
    return tape.calls if all(call.style == "ufunc" for call in tape.calls) else []
