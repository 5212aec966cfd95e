"""A plan is held against the eager step again and again: what it cannot know of must not go wrong for long."""

from __future__ import annotations

import warnings
from typing import Any

from microfw.autograd.mode import MODE, mode
from microfw.autograd.phases import CHECK
from microfw.autograd.state_discovery import iter_reachable
from microfw.autograd.tensor import Tensor
from microfw.errors import ReplayError, ReplayWarning, message
from microfw.replay.observe import Signature, Watch, constant
from microfw.replay.replayed import FIRST_CHECK, Replay
from microfw.replay.verification import Difference, StepState


def verify(step: Any, key: Any, replay: Replay, arrays: Any, between: Any, update: Any) -> Any:
    """Do a step by the plan and once more eagerly, and compare every bit; the eager step is the one that counts."""
    timer = MODE.get().timer
    phase = timer.switch(CHECK) if timer is not None else CHECK
    replay.count_check()
    known = type(step.optimizer).__module__.startswith("microfw.")  # others may keep state that no copy is made of
    both = bool(update) and known
    before = replay.state()
    try:
        planned = replay.attempt(arrays, both)
    finally:
        before.restore()
        if timer is not None:
            timer.switch(phase)
    made = step._eager(arrays, between)
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


def _drop(step: Any, key: Any, replay: Replay, before: StepState, arrays: Any, difference: Difference) -> None:
    """Take a plan that gives something else than the eager step away, for good, and say so."""
    step.replays.pop(key, None)
    step._runs = {}
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
    """Return the setting or array in which the step is not the one that was captured, as far as can be found."""
    watch, inputs = Watch(), [constant(a) for a in arrays]
    tensors = [x for x in iter_reachable(step.f) if isinstance(x, Tensor) and x._leaf is not None]
    try:
        with mode(observer=watch, timer=None):
            step.f(*inputs)
        return Signature(watch, [*inputs, *tensors]).difference(replay.signature) or ""
    except Exception as error:
        return str(error)
