"""A replayed step as one Python function: whether its plan still holds, both passes, the update.

On small models each call of Python counts, so there is hardly one but NumPy's.
"""

from __future__ import annotations

from time import perf_counter_ns
from types import FunctionType
from typing import Any

from microfw.autograd.mode import model_version
from microfw.autograd.tensor import result
from microfw.optim.optimizer import Optimizer
from microfw.replay.guards import fitting
from microfw.replay.plan import Part
from microfw.replay.replayed import Replay
from microfw.replay.timed import Timed
from microfw.replay.write import function, indented


def program(replay: Replay, timer: Any, enabled: bool, timed: Timed | None) -> FunctionType:
    """Write a replayed step, for the model as it is now.

    ``timer`` is the `StepTimer` to notify, or None; the times are taken if ``enabled``.

    ``run(given, between, update)`` takes the arguments in a tuple, and shows the loss to ``between`` before backward,
    if that is a function. It takes the optimizer's step if ``update`` is true; a function is called before. It
    returns what the step's function does, or None if nothing was done: the plan is for something else, or another
    thread is in it, or it failed.
    """
    optimizer, carried, watched = replay.optimizer, replay.carried, timer is not None
    forward, backward, moves = replay.parts if timed is None else timed.written
    both, times = _both(forward, backward, enabled)
    inputs = replay.plan.captured.inputs
    fits, names = fitting(inputs, replay.depends)
    names |= forward.names | backward.names | moves.names
    names |= {f"o{k}": output for k, output in enumerate(replay.outputs)}
    names |= {"model_version": model_version, "count": model_version.count, "leaves": replay.leaves, "result": result}
    names |= {"acquire": replay.lock.acquire, "release": replay.lock.release, "broken": replay.broken}
    names |= {
        "carried": carried,
        "others": replay.others,
        "shared": replay.shared,
        "timed": timed,
        "timer": timer,
        "clock": perf_counter_ns,
    }
    names |= {"ticks": replay.ticks, "optimizer": optimizer, "whole": replay.plan.captured.whole}
    outputs = range(len(replay.outputs))
    start, end = ([f"timer.on_replay({times})"], ["timer.on_replay_end()"]) if watched else ([], [])
    update = [*start, "optimizer.step()", *end]
    if not replay.others and type(optimizer).step is Optimizer.step:
        update = _update(moves.lines, times, start, end, enabled)
    lines = [
        f"if model_version.count != count or len(given) != {len(inputs)}:",
        "    return None",
        f"[{replay.plan.arguments}] = given",
        "before = looking = None",
        "try:",
        f"    if not ({fits}) or not acquire(False):",
        "        return None",
        "except Exception:",  # of a test, as where an attribute was deleted
        "    return None",
        "for tick in ticks:",  # used up when the plan is to be held against the eager step again
        "    break",
        "else:",
        "    release()",
        "    return None",
        "try:",
        *indented([
            *_if(carried is not None, "before = carried.save()"),
            *both,
            *_if(timed is not None, "timed.observer.on_replayed_ops(timed)"),
            "for leaf, slot in leaves:",
            "    leaf.grad = slot",
            *_if(bool(replay.others), "for leaf in others:", "    leaf.grad = None"),
            *_if(bool(replay.shared), "for leaf, gradient in shared:", "    leaf.accumulate_grad(gradient)"),
            *(f"r{k} = o{k}.copy()" for k in outputs),
            *(f"r{k}.setflags(False)" for k in outputs),
            *_if(watched and timer.losses is not None, "timer.losses.append(r0)"),
        ]),
        "except BaseException as error:",
        *_if(timed is not None, "    timed.forget()"),
        "    if broken(error, looking, before):",
        "        raise",
        "    return None",
        "finally:",
        "    release()",
        "if update:",
        "    if update is not True:",
        "        update()",
        *indented(update),
        *_if(watched, "else:", *indented([*start, *end])),
        f"return {', '.join(f'result(r{k}, None)' for k in outputs)}{',' if replay.several else ''}",
    ]  # fmt: skip
    return function("given, between, update", lines, names)


def _both(forward: Part, backward: Part, enabled: bool) -> tuple[list[str], str]:
    """Return the lines of both passes, and the times at which they began, met and ended: zeros if not enabled."""
    look = ["if between is not None:", "    looking = True", "    between(o0)", "    looking = False"]
    if forward.readings:  # its last is the first of backward, unless somebody looks
        (began, *_, middle), (again, *_, ended) = forward.readings, backward.readings
        look = [f"{again} = {middle}", *look, f"    {again} = clock()"]
        mark = f"timed.marks.extend(({', '.join(forward.readings + backward.readings)}))"
        return [*forward.lines, *look, *backward.lines[1:], mark], f"{began}, {middle}, {ended}"
    if enabled:
        lines = ["began = clock()", *forward.lines, "middle = clock()", *look, *backward.lines, "ended = clock()"]
        return lines, "began, middle, ended"
    return [*forward.lines, *look, *backward.lines], "0, 0, 0"


def _update(moves: list[str], times: str, start: list[str], end: list[str], enabled: bool) -> list[str]:
    """Return the lines of an update of all parameters: its moves, if they are known, or a call that makes them."""
    stepped = f"timer.on_replayed_step({times}, {'updating, clock()' if enabled else '0, 0'})"
    return [
        *_if(enabled, "updating = clock()"),
        f"if {'optimizer._whole is whole and optimizer._clear()' if moves else 'optimizer._at_once()'}:",
        *indented([*moves, *_if(bool(start), stepped)] or ["pass"]),
        "else:",
        *indented([*start, "optimizer._step(False)", *end]),
    ]


def _if(condition: bool, *lines: str) -> tuple[str, ...]:
    return lines if condition else ()
