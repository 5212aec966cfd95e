"""A replayed step as one Python function: whether its plan still holds, both passes, the update.

On small models each call of Python counts, so there is hardly one but NumPy's.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from microfw import recording
from microfw.optim.optimizer import Optimizer
from microfw.replay.guards import fitting
from microfw.replay.plan import Passes
from microfw.replay.timed import Timed
from microfw.replay.write import function, indented
from microfw.tensor import result

if TYPE_CHECKING:
    from microfw.replay.step import Replay


def program(replay: Replay, watcher: Any, timed: Timed | None) -> Callable[..., Any]:
    """Write a replayed step, for the model as it is now.

    ``run(given, between, update)`` takes the arguments in a tuple, and shows the loss to ``between`` before backward,
    if that is a function. It takes the optimizer's step if ``update`` is true; a function is called before. It
    returns what the step's function does, or None if nothing was done: the plan is for something else, or another
    thread is in it, or it failed.
    """
    plan, optimizer, watched = replay.plan, replay.optimizer, watcher is not None
    passes = replay.passes if timed is None else timed.passes
    both, times = _both(passes, watched)
    fits, names = fitting(plan.captured.inputs, replay.named)
    names |= passes.names
    names |= {"changes": recording.changes, "count": recording.changes.count, "leaves": replay.leaves, "result": result}
    names |= {"acquire": replay.lock.acquire, "release": replay.lock.release, "broken": replay.broken}
    names |= {f"o{k}": output for k, output in enumerate(replay.outputs)}
    if replay.carried is not None:
        names["save"] = replay.carried.save
    if replay.others:
        names["others"] = replay.others
    if watched:
        names |= {"clock": perf_counter_ns, "replayed": watcher.replayed, "stepped": watcher.stepped}
    if timed is not None:
        names |= {"timed": timed, "follow": timed.observer.follow, "forget": timed.forget, "mark": timed.marks.extend}
    loses = watched and watcher.losses is not None
    if loses:
        names["note"] = watcher.losses.append
    usual = not replay.others and type(optimizer).step is Optimizer.step
    names |= {"step": optimizer._step, "at_once": optimizer._at_once} if usual else {"step": optimizer.step}
    if usual and passes.update:
        names |= {"optimizer": optimizer, "whole": optimizer._whole, "clear": optimizer._clear}
    outputs = range(len(replay.outputs))
    lines = [
        f"if changes.count != count or len(given) != {len(plan.captured.inputs)}:",
        "    return None",
        f"[{plan.arguments}] = given",
        "before = looking = None",
        f"if not ({fits}) or not acquire(False):",
        "    return None",
        "try:",
        *indented([
            *_if(replay.carried is not None, "before = save()"),
            *both,
            *_if(timed is not None, "follow(timed)"),
            "for leaf, slot in leaves:",
            "    leaf.grad = slot",
            *_if(bool(replay.others), "for leaf in others:", "    leaf.grad = None"),
            *(f"r{k} = o{k}.copy()" for k in outputs),
            *(f"r{k}.setflags(False)" for k in outputs),
            *_if(loses, "note(r0)"),
        ]),
        "except BaseException as error:",
        *_if(timed is not None, "    forget()"),
        "    if broken(error, looking, before):",
        "        raise",
        "    return None",
        "finally:",
        "    release()",
        "if update:",
        "    if update is not True:",
        "        update()",
        *indented(_update(passes.update, times) if usual else [*_if(watched, f"replayed({times})"), "step()"]),
        *_if(watched, "else:", f"    replayed({times})"),
        f"return {', '.join(f'result(r{k}, None)' for k in outputs)}{',' if replay.several else ''}",
    ]  # fmt: skip
    return function("given, between, update", lines, names)


def _both(passes: Passes, watched: bool) -> tuple[list[str], str]:
    """Return the lines of both passes, and if they are watched, the names of when they began, met and ended."""
    forward, backward = passes.forward, passes.backward
    look = ["if between is not None:", "    looking = True", "    between(o0)", "    looking = False"]
    if passes.readings:  # forward's last is backward's first, unless somebody looks
        split = len(passes.before)
        began, middle, again, ended = (passes.readings[k] for k in (0, split - 1, split, -1))
        look = [f"{again} = {middle}", *look, f"    {again} = clock()"]
        lines = [*forward, *look, *backward[1:], f"mark(({', '.join(passes.readings)}))"]
        return lines, f"{began}, {middle}, {ended}"
    if watched:
        lines = ["began = clock()", *forward, "middle = clock()", *look, *backward, "ended = clock()"]
        return lines, "began, middle, ended"
    return [*forward, *look, *backward], ""


def _update(moves: list[str], times: str) -> list[str]:
    """Return the lines of an update of all parameters: the moves as they are, if they are known."""
    if not moves:
        return [f"replayed({times})", "step(False)"] if times else ["if not at_once():", "    step(False)"]
    return [
        *_if(bool(times), "moved = clock()"),
        "if optimizer._whole is whole and clear():",
        *indented(moves),
        *_if(bool(times), f"    stepped({times}, moved, clock())"),
        "else:",
        *_if(bool(times), f"    replayed({times})"),
        "    step(False)",
    ]


def _if(condition: bool, *lines: str) -> tuple[str, ...]:
    return lines if condition else ()
