"""A replayed step as one Python function: whether its plan still holds, both passes, the update.

On small models each call of Python counts, so there is none but NumPy's.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from microfw import recording
from microfw.optim.optimizer import Optimizer
from microfw.replay.guards import fitting
from microfw.replay.timed import Timed
from microfw.replay.write import function, indented
from microfw.tensor import result

if TYPE_CHECKING:
    from microfw.replay.step import Replay


def program(replay: Replay, watcher: Any, timed: Timed | None) -> Callable[..., Any]:
    """Write a replayed step, for the model as it is now.

    ``run(given, between, update)`` takes the arguments in a tuple, shows the loss to ``between`` before backward, if
    that is a function, and takes the optimizer's step if ``update`` is true. It returns what the step's function
    does, or None if nothing was done: the plan is for something else, or another thread is in it, or it failed.
    """
    plan, optimizer = replay.plan, replay.optimizer
    passes = replay.passes if timed is None else timed.passes
    watched = watcher is not None
    fits, names = fitting(plan.captured.inputs, replay.named)
    names |= passes.names
    names |= {"changes": recording.changes, "count": recording.changes.count, "leaves": replay.leaves}
    names |= {"acquire": replay.lock.acquire, "release": replay.lock.release, "broken": replay.broken}
    names |= {f"o{k}": output for k, output in enumerate(replay.outputs)} | {"result": result}
    if replay.carried is not None:
        names["save"] = replay.carried.save
    if replay.others:
        names["others"] = replay.others
    if watched:
        names |= {"clock": perf_counter_ns, "replayed": watcher.replayed, "updated": watcher.updated}
    if timed is not None:
        names |= {"timed": timed, "follow": timed.observer.follow, "forget": timed.forget}
    loses = watched and watcher.losses is not None
    if loses:
        names["note"] = watcher.losses.append
    usual = not replay.others and type(optimizer).step is Optimizer.step
    update = _update(passes.update, watched) if usual else ["step()"]
    names |= {"step": optimizer._step if usual else optimizer.step, "at_once": optimizer._at_once}
    if usual and passes.update:
        names |= {"optimizer": optimizer, "whole": optimizer._whole, "clear": optimizer._clear}
    outputs = range(len(replay.outputs))

    lines = [
        f"if changes.count != count or len(given) != {len(plan.captured.inputs)}:",
        "    return None",
        f"{plan.arguments}{',' if plan.arguments else '()'} = given",
        "before = looking = None",
        f"if not ({fits}) or not acquire(False):",
        "    return None",
        "try:",
        *indented([
            *_if(replay.carried is not None, "before = save()"),
            *_if(watched, "began = clock()"),
            *passes.forward,
            *_if(watched, "middle = clock()"),
            "if between is not None:",
            "    looking = True",
            "    between(o0)",
            "    looking = False",
            *passes.backward,
            *_if(watched, "replayed(began, middle, clock())"),
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
        *indented(update),
        f"return {', '.join(f'result(r{k}, None)' for k in outputs)}{',' if replay.several else ''}",
    ]  # fmt: skip
    return function("given, between, update", lines, names)


def _update(moves: list[str], watched: bool) -> list[str]:
    """Return the lines of an update: the moves written out, where they are known and nothing else is to be done."""
    if not moves:
        return ["step(False)"] if watched else ["if not at_once():", "    step(False)"]
    return [
        *_if(watched, "began = clock()"),
        "if optimizer._whole is whole and clear():",
        *indented(moves),
        *_if(watched, "    updated(began, clock())"),
        "else:",
        "    step(False)",
    ]


def _if(condition: bool, *lines: str) -> tuple[str, ...]:
    return lines if condition else ()
