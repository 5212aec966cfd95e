"""A replayed step as one Python function: whether its plan still holds, both passes, the update.

On small models each call of Python counts, so there is hardly one but NumPy's.
"""

from __future__ import annotations

from time import perf_counter_ns
from types import FunctionType
from typing import TYPE_CHECKING, Any

from microfw import recording
from microfw.optim.optimizer import Optimizer
from microfw.replay.guards import fitting
from microfw.replay.plan import Part
from microfw.replay.timed import Timed
from microfw.replay.write import function, indented
from microfw.tensor import result

if TYPE_CHECKING:
    from microfw.replay.replayed import Replay


def program(replay: Replay, watcher: Any, timed: Timed | None) -> FunctionType:
    """Write a replayed step, for the model as it is now.

    ``run(given, between, update)`` takes the arguments in a tuple, and shows the loss to ``between`` before backward,
    if that is a function. It takes the optimizer's step if ``update`` is true; a function is called before. It
    returns what the step's function does, or None if nothing was done: the plan is for something else, or another
    thread is in it, or it failed.
    """
    optimizer, carried, watched = replay.optimizer, replay.carried, watcher is not None
    timing = watched and watcher.timing
    forward, backward, moves = replay.parts if timed is None else timed.written
    both, times = _both(forward, backward, timing)
    inputs = replay.plan.captured.inputs
    fits, names = fitting(inputs, replay.depends)
    names |= forward.names | backward.names | moves.names
    names |= {f"o{k}": output for k, output in enumerate(replay.outputs)}
    names |= {"changes": recording.changes, "count": recording.changes.count, "leaves": replay.leaves, "result": result}
    names |= {"acquire": replay.lock.acquire, "release": replay.lock.release, "broken": replay.broken}
    names |= {
        "carried": carried,
        "others": replay.others,
        "shared": replay.shared,
        "timed": timed,
        "watcher": watcher,
        "clock": perf_counter_ns,
    }
    names |= {"ticks": replay.ticks, "optimizer": optimizer, "whole": replay.plan.captured.whole}
    outputs = range(len(replay.outputs))
    tell, told = ([f"watcher.replayed({times})"], ["watcher.repeated()"]) if watched else ([], [])
    update = [*tell, "optimizer.step()", *told]
    if not replay.others and type(optimizer).step is Optimizer.step:
        update = _update(moves.lines, times, tell, told, timing)
    lines = [
        f"if changes.count != count or len(given) != {len(inputs)}:",
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
            *_if(timed is not None, "timed.observer.follow(timed)"),
            "for leaf, slot in leaves:",
            "    leaf.grad = slot",
            *_if(bool(replay.others), "for leaf in others:", "    leaf.grad = None"),
            *_if(bool(replay.shared), "for leaf, gradient in shared:", "    leaf.accept(gradient)"),
            *(f"r{k} = o{k}.copy()" for k in outputs),
            *(f"r{k}.setflags(False)" for k in outputs),
            *_if(watched and watcher.losses is not None, "watcher.losses.append(r0)"),
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
        *_if(watched, "else:", *indented([*tell, *told])),
        f"return {', '.join(f'result(r{k}, None)' for k in outputs)}{',' if replay.several else ''}",
    ]  # fmt: skip
    return function("given, between, update", lines, names)


def _both(forward: Part, backward: Part, timing: bool) -> tuple[list[str], str]:
    """Return the lines of both passes, and what says when they began, met and ended: zeros if nobody keeps time."""
    look = ["if between is not None:", "    looking = True", "    between(o0)", "    looking = False"]
    if forward.readings:  # its last is the first of backward, unless somebody looks
        (began, *_, middle), (again, *_, ended) = forward.readings, backward.readings
        look = [f"{again} = {middle}", *look, f"    {again} = clock()"]
        mark = f"timed.marks.extend(({', '.join(forward.readings + backward.readings)}))"
        return [*forward.lines, *look, *backward.lines[1:], mark], f"{began}, {middle}, {ended}"
    if timing:
        lines = ["began = clock()", *forward.lines, "middle = clock()", *look, *backward.lines, "ended = clock()"]
        return lines, "began, middle, ended"
    return [*forward.lines, *look, *backward.lines], "0, 0, 0"


def _update(moves: list[str], times: str, tell: list[str], told: list[str], timing: bool) -> list[str]:
    """Return the lines of an update of all parameters: its moves, if they are known, or a call that makes them."""
    stepped = f"watcher.stepped({times}, {'moved, clock()' if timing else '0, 0'})"
    return [
        *_if(timing, "moved = clock()"),
        f"if {'optimizer._whole is whole and optimizer._clear()' if moves else 'optimizer._at_once()'}:",
        *indented([*moves, *_if(bool(tell), stepped)] or ["pass"]),
        "else:",
        *indented([*tell, "optimizer._step(False)", *told]),
    ]


def _if(condition: bool, *lines: str) -> tuple[str, ...]:
    return lines if condition else ()
