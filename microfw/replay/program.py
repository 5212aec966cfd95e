"""Generate the function that replays a step: guards, both passes, and the update.

The passes are written into its body, not called: on small models a call of a Python function is a visible cost.
"""

from __future__ import annotations

from time import perf_counter_ns
from types import FunctionType
from typing import Any

from microfw.autograd.mode import model_version
from microfw.autograd.tensor import result
from microfw.optim.optimizer import Optimizer
from microfw.replay.guards import guard_expression
from microfw.replay.instrumented import InstrumentedPlan
from microfw.replay.plan import Part
from microfw.replay.replayed import Replay
from microfw.replay.write import indented, make_function


def program(replay: Replay, timer: Any, enabled: bool, instrumented: InstrumentedPlan | None) -> FunctionType:
    """Return a function ``run(args, on_loss, update)`` that replays a step for the present model version.

    Parameters
    ----------
    replay : Replay
        The plan, and what it depends on.
    timer : StepTimer or None
        Is notified of phases.
    enabled : bool
        Whether times are measured; else the timer gets zeros.
    instrumented : InstrumentedPlan or None
        If given, each node is timed for its observer.

    Returns
    -------
    function
        ``args`` is the tuple of arguments. ``on_loss(loss)`` is called before backward, unless None. ``update`` is
        False, True (run the optimizer's step), or a function to call before that step. ``run`` returns what the
        step's function returns; or None if the step has to run eagerly: a guard fails, another thread is running
        the plan, a comparison with the eager step is due, or an error occurred.
    """
    optimizer, impure_state, observed = replay.optimizer, replay.impure_state, timer is not None
    forward, backward, update_part = replay.parts if instrumented is None else instrumented.passes_code
    passes, times = _pass_lines(forward, backward, enabled)
    inputs = replay.plan.step.inputs
    guards, names = guard_expression(inputs, replay.depends)
    names |= forward.names | backward.names | update_part.names
    names |= {f"o{k}": output for k, output in enumerate(replay.outputs)}
    names |= {"model_version": model_version, "count": model_version.count, "leaves": replay.leaves, "result": result}
    names |= {"acquire": replay.lock.acquire, "release": replay.lock.release, "on_error": replay.on_error}
    names |= {
        "impure_state": impure_state,
        "leaves_without_grad": replay.leaves_without_grad,
        "shared": replay.shared,
        "instrumented": instrumented,
        "timer": timer,
        "clock": perf_counter_ns,
    }
    names |= {"countdown": replay.countdown, "optimizer": optimizer, "update_parts": replay.plan.step.update_parts}
    outputs = range(len(replay.outputs))
    start, end = ([f"timer.on_replay({times})"], ["timer.on_replay_end()"]) if observed else ([], [])
    update = [*start, "optimizer.step()", *end]
    if not replay.leaves_without_grad and type(optimizer).step is Optimizer.step:
        update = _update_lines(update_part.lines, times, start, end, enabled)
    lines = [
        f"if model_version.count != count or len(args) != {len(inputs)}:",
        "    return None",
        f"[{replay.plan.arguments}] = args",
        "before = in_on_loss = None",
        "try:",
        f"    if not ({guards}) or not acquire(False):",
        "        return None",
        "except Exception:",  # raised by a guard, as where an attribute was deleted
        "    return None",
        "for _ in countdown:",  # empty when a comparison with the eager step is due
        "    break",
        "else:",
        "    release()",
        "    return None",
        "try:",
        *indented([
            *_if(impure_state is not None, "before = impure_state.save()"),
            *passes,
            *_if(instrumented is not None, "instrumented.observer.on_replayed_ops(instrumented)"),
            "for leaf, slot in leaves:",
            "    leaf.grad = slot",
            *_if(bool(replay.leaves_without_grad), "for leaf in leaves_without_grad:", "    leaf.grad = None"),
            *_if(bool(replay.shared), "for leaf, gradient in shared:", "    leaf.accumulate_grad(gradient)"),
            *(f"r{k} = o{k}.copy()" for k in outputs),
            *(f"r{k}.setflags(False)" for k in outputs),
            *_if(observed and timer.losses is not None, "timer.losses.append(r0)"),
        ]),
        "except BaseException as error:",
        *_if(instrumented is not None, "    instrumented.discard_unfinished()"),
        "    if on_error(error, in_on_loss, before):",
        "        raise",
        "    return None",
        "finally:",
        "    release()",
        "if update:",
        "    if update is not True:",
        "        update()",
        *indented(update),
        *_if(observed, "else:", *indented([*start, *end])),
        f"return {', '.join(f'result(r{k}, None)' for k in outputs)}{',' if replay.returns_tuple else ''}",
    ]  # fmt: skip
    return make_function("args, on_loss, update", lines, names)


def _pass_lines(forward: Part, backward: Part, enabled: bool) -> tuple[list[str], str]:
    """Return the lines of both passes, and the start of forward, start and end of backward: zeros if not enabled."""
    call_on_loss = ["if on_loss is not None:", "    in_on_loss = True", "    on_loss(o0)", "    in_on_loss = False"]
    if forward.readings:  # the last is also the first of backward, unless on_loss runs between them
        (began, *_, middle), (again, *_, ended) = forward.readings, backward.readings
        call_on_loss = [f"{again} = {middle}", *call_on_loss, f"    {again} = clock()"]
        extend = f"instrumented.timestamps.extend(({', '.join(forward.readings + backward.readings)}))"
        return [*forward.lines, *call_on_loss, *backward.lines[1:], extend], f"{began}, {middle}, {ended}"
    if enabled:
        lines = [
            "began = clock()",
            *forward.lines,
            "middle = clock()",
            *call_on_loss,
            *backward.lines,
            "ended = clock()",
        ]
        return lines, "began, middle, ended"
    return [*forward.lines, *call_on_loss, *backward.lines], "0, 0, 0"


def _update_lines(calls: list[str], times: str, start: list[str], end: list[str], enabled: bool) -> list[str]:
    """Return the lines of the update: the captured calls if there are any, else a call of ``update_all``."""
    stepped = f"timer.on_replayed_step({times}, {'updating, clock()' if enabled else '0, 0'})"
    ready = "optimizer.update_parts is update_parts and optimizer.preflight()" if calls else "optimizer.update_all()"
    return [
        *_if(enabled, "updating = clock()"),
        f"if {ready}:",
        *indented([*calls, *_if(bool(start), stepped)] or ["pass"]),
        "else:",
        *indented([*start, "optimizer.step()", *end]),
    ]


def _if(condition: bool, *lines: str) -> tuple[str, ...]:
    return lines if condition else ()
