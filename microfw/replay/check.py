"""Compare replayed with eager steps at intervals, to find dependencies that no guard covers."""

from __future__ import annotations

import warnings
from typing import Any

from microfw.autograd.mode import MODE, mode
from microfw.autograd.phases import CHECK
from microfw.errors import ReplayError, ReplayWarning, message
from microfw.replay.arguments import constant
from microfw.replay.capture import CaptureObserver
from microfw.replay.program import FIRST_CHECK, Replay
from microfw.replay.verification import Difference, Signature, StepState


def run_checked(step: Any, key: Any, replay: Replay, arrays: Any, on_loss: Any, update: Any) -> Any:
    """Replay a step, restore the state, run the step eagerly, and compare all bits. The eager step is kept."""
    timer = MODE.get().timer
    phase = timer.switch(CHECK) if timer is not None else CHECK
    replay.schedule_check()
    both = bool(update) and _runs_library_code(step.optimizer)
    before = replay.state()
    try:
        planned = replay.try_replay(arrays, both)
    finally:
        before.restore()
        if timer is not None:
            timer.switch(phase)
    made = step._eager(arrays, on_loss)
    if both:
        step._update(update)
    if planned is not None:
        outputs = [t._array for t in (made if isinstance(made, tuple) else (made,))]
        difference = planned.difference(replay.state(outputs))
        if difference is not None:
            _drop(step, key, replay, before, arrays, difference)
    if not both:
        step._update(update)
    return made


def _runs_library_code(optimizer: Any) -> bool:
    """Return True if no method of an optimizer is the user's, who may change what `StepState` does not copy."""
    kind = type(optimizer)
    wrapped = any(callable(getattr(kind, name, None)) for name in vars(optimizer))
    return kind.__module__.startswith("microfw.") and not wrapped


def _drop(step: Any, key: Any, replay: Replay, before: StepState, arrays: Any, difference: Difference) -> None:
    """Drop a plan whose results differ from the eager step, and raise or warn."""
    step.replays.pop(key, None)
    step._programs = {}
    step.dropped[key] = difference.where
    if difference.rounding:
        step._refuse(key, f"a replay gives other last digits for {difference.where}")
        return
    after = replay.state()
    before.restore()
    cause = _cause(step, replay, arrays)
    text = message(
        "compiled step",
        f"the replayed step to give {difference.where} as the eager step does",
        f"something else at replay {replay.checked}{f': {cause}' if cause else ''}",
        f"updates since replay {replay.checked // 4 if replay.checked > FIRST_CHECK else 1} may be wrong",
    )
    step._refuse(key, f"a replay gave another value for {difference.where}{f': {cause}' if cause else ''}")
    if step.strict:
        raise ReplayError(f"{text}; train with compile=False, or pass what changes as an argument")
    after.restore()
    warnings.warn(f"{text}; the step is run eagerly from here on", ReplayWarning, stacklevel=4)


def _cause(step: Any, replay: Replay, arrays: Any) -> str:
    """Return in which setting or array the step differs from the captured one; "" if none is found."""
    observer, inputs = CaptureObserver(), [constant(a) for a in arrays]
    try:
        with mode(observer=observer, timer=None):
            step.f(*inputs)
        return Signature(observer, [*inputs, *replay.depends.tensors]).difference(replay.signature) or ""
    except Exception as error:
        return str(error)
