"""A plan with its guards, and the functions generated to run it: guards, both passes, and the update."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from operator import length_hint
from threading import Lock
from time import perf_counter_ns
from types import FunctionType
from typing import Any

import numpy as np

from microfw.autograd.mode import MODE, PLAIN, Mode, model_version, phase
from microfw.autograd.phases import PREPARATION
from microfw.autograd.tensor import result
from microfw.nn.forward_state import ForwardState
from microfw.replay.capture import CapturedStep
from microfw.replay.dependencies import Dependencies
from microfw.replay.instrumented import InstrumentedPlan
from microfw.replay.plan import Plan
from microfw.replay.trace import Array
from microfw.replay.verification import Signature, StepState
from microfw.replay.write import fill, guard_expression, make_function, write_passes

# Modes, such as with and without a profiler, for which programs are kept.
MAX_MODES = 4

# Programs kept for one plan: two for each profiler, and one without.
MAX_PROGRAMS = 6

# The replay that is compared with an eager step first; later ones are at 4, 16, … times as many.
FIRST_CHECK = 16

# Both passes are written into the function, not called: on small models a call of a Python function is a visible cost.
# Lines that end with ``# if flag`` are written only where the flag is set, so two headers may share a block.
# A guard may raise, as where an attribute was deleted. ``countdown`` is empty when a comparison with the eager step is
# due.

PROGRAM = """
if model_version.count != count or len(args) != {n_inputs}:
    return None
[{arguments}] = args
before = in_on_loss = None
try:
    if not ({guards}) or not acquire(False):
        return None
except Exception:
    return None
for _ in countdown:
    break
else:
    release()
    return None
try:
    before = impure_state.save()  # if impure_state
    {forward_start} = clock()  # if clocked
    {forward}
    {forward_end} = clock()  # if clocked
    {backward_start} = {forward_end}  # if instrumented
    if on_loss is not None:
        in_on_loss = True
        on_loss(o0)
        in_on_loss = False
        {backward_start} = clock()  # if instrumented
    {backward}
    {backward_end} = clock()  # if clocked
    instrumented.timestamps.extend(({readings}))  # if instrumented
    instrumented.observer.on_replayed_ops(instrumented)  # if observed
    for leaf, slot in leaves:
        leaf.grad = slot
    for leaf in written:  # if written
        leaf.version += 1  # if written
    for leaf in leaves_without_grad:  # if leaves_without_grad
        leaf.grad = None  # if leaves_without_grad
    for leaf, gradient in shared:  # if shared
        leaf.accumulate_grad(gradient)  # if shared
    {copies}
    timer.losses.append(r0)  # if keeps losses
except BaseException as error:
    instrumented.discard_unfinished()  # if observed
    if on_error(error, in_on_loss, before):
        raise
    return None
finally:
    release()
if update:
    if update is not True:
        update()
    updating = clock()  # if enabled and usual
    if optimizer.update_parts is update_parts and optimizer.preflight() and optimizer.same_count:  # if captured
        optimizer.count_step()  # if counted
    if optimizer.update_all():  # if not captured
        {calls}
        timer.on_replayed_step({times}, {update_times})  # if timed and usual
    else:  # if usual
        timer.on_replay({times})  # if timed and usual
        optimizer.step()  # if usual
        timer.on_replay_end()  # if timed and usual
    timer.on_replay({times})  # if timed and unusual
    optimizer.step()  # if unusual
    timer.on_replay_end()  # if timed and unusual
else:  # if timed
    timer.on_replay({times})  # if timed
    timer.on_replay_end()  # if timed
return {returned}
"""

# Names in the program of the times at which passes start and end, if the clock is not read for each node.
ENDS = ("forward_start", "forward_end", "backward_start", "backward_end")


class Replay:
    """A plan with its guards, and the programs generated from it.

    Attributes
    ----------
    leaves : list of (Leaf, ndarray)
        Leaves of the optimizer that get a gradient, each with its part of the gradient buffer.
    shared : list of (Leaf, ndarray)
        Other leaves that get a gradient, each with the array to add.
    leaves_without_grad : list of Leaf
        Leaves of the optimizer that get none.
    written : list of Leaf
        Buffers to which the plan writes.
    forward_state : ForwardState
        All generators and buffers that the step's function reaches.
    impure_state : ForwardState or None
        The same if an op of the plan may change them; then they are saved before each replay.
    verified : bool
        Whether the plan has given the bits of the eager step.
    countdown : iterator
        Has one item for each replay until the next comparison with an eager step.
    programs_by_mode : dict
        The function that replays a step under a mode.
    programs : dict
        The generated functions, by timer, whether it is enabled, and instrumented plan.
    """

    def __init__(
        self,
        optimizer: Any,
        step: CapturedStep,
        returns_tuple: bool,
        depends: Dependencies,
        forward_state: ForwardState,
        signature: Signature,
    ) -> None:
        self.optimizer = optimizer
        self.update_parts = step.update_parts
        self.plan = plan = Plan(step)
        self.parts = write_passes(plan)
        self.outputs = [plan.array(output) for output in step.outputs]
        self.leaves: list[tuple[Any, Any]] = [(leaf, leaf.grad_buffer) for leaf, _ in step.leaves]
        self.shared = [(leaf, plan.array(grad)) for leaf, grad in step.shared]
        self.leaves_without_grad = [leaf for leaf in optimizer.flat.leaves if leaf not in dict(self.leaves)]
        self.written = [t._leaf for t in forward_state.buffers if id(t._array) in plan.written]
        self.returns_tuple = returns_tuple
        self.signature = signature
        self.forward_state = forward_state
        self.impure_state = forward_state if plan.impure else None
        self.verified = False
        self.instrumented: InstrumentedPlan | None = None
        self.lock = Lock()
        self.programs_by_mode: dict[Mode, Callable[..., Any]] = {}
        self.programs: dict[Any, FunctionType] = {}
        self.checked, self.next_check = 0, FIRST_CHECK
        self.countdown = repeat(None, FIRST_CHECK)  # the verification takes one
        self._depend(depends)

    def _depend(self, depends: Dependencies) -> None:
        # a step of the user's own, in a class or wrapped around that of an object, is called and not written out
        own = self.optimizer.replaces("step", "update_all", "_update_present") or "_update" in vars(self.optimizer)
        self.usual = not own
        self.depends = depends
        self.count = model_version.count
        guards, names = guard_expression([], depends)
        self.unchanged = make_function("", [f"return {guards}"], names)

    def refresh(self, depends: Dependencies) -> None:
        """Set guards that were made again and have the same values, as after an evaluation."""
        same, usual = depends.has_same_guards(self.depends), self.usual
        self._depend(self.depends if same else depends)
        if same and usual == self.usual:
            for run in self.programs.values():
                run.__globals__["count"] = self.count
        else:
            self.programs_by_mode.clear()
            self.programs.clear()

    def current(self) -> bool:
        """Return True if all guards hold."""
        try:
            return self.count == model_version.count and bool(self.unchanged())
        except Exception:  # raised by a guard, as where an attribute was deleted
            return False

    def program_for(self, mode: Mode) -> Callable[..., Any]:
        """Return the function that replays a step under a mode."""
        run = self.programs_by_mode.get(mode)
        if run is None:
            timer, observer = mode.timer, mode.observer
            run = self._program(None, False, None) if timer is None else self._switching_program(timer, observer)
            if len(self.programs_by_mode) >= MAX_MODES:
                self.programs_by_mode.clear()
            self.programs_by_mode[mode] = run
        return run

    def _switching_program(self, timer: Any, observer: Any) -> Callable[..., Any]:
        """Return a function that runs the program for the present value of ``timer.enabled``."""
        programs: dict[bool, FunctionType] = {}

        def run(args: Any, on_loss: Any, update: Any) -> Any:
            written = programs.get(timer.enabled) or write(timer.enabled)
            return None if written is None else written(args, on_loss, update)

        def write(enabled: bool) -> FunctionType | None:
            instrumented = self.instrumented if enabled and observer is not None else None
            if enabled and observer is not None and (instrumented is None or instrumented.observer is not observer):
                return None  # the observer has yet to record a step that is run eagerly
            start_ns = perf_counter_ns()
            with phase(PREPARATION):
                programs[enabled] = self._program(timer, enabled, instrumented)
            timer.on_set_up(perf_counter_ns() - start_ns)
            return programs[enabled]

        return run

    def _program(self, *key: Any) -> FunctionType:
        """Return the program for a timer, whether it is enabled, and an instrumented plan."""
        if key not in self.programs:
            if len(self.programs) >= MAX_PROGRAMS:
                self.programs.clear()
                self.programs_by_mode.clear()  # else they would keep programs that `refresh` does not update
            self.programs[key] = program(self, *key)
        return self.programs[key]

    @property
    def replays(self) -> int:
        """Number of replays."""
        return self.next_check - 1 - length_hint(self.countdown)

    def schedule_check(self) -> None:
        """Set the next comparison to four times as many replays."""
        self.checked, self.next_check = self.next_check, 4 * self.next_check
        self.countdown = repeat(None, self.next_check - self.checked)  # this step takes one
        for run in self.programs.values():
            run.__globals__["countdown"] = self.countdown

    def state(self, outputs: Any = ()) -> StepState:
        """Return a copy of everything that a step changes, with its outputs."""
        return StepState(self.optimizer, [leaf for leaf, _ in self.shared], self.forward_state, outputs)

    def try_replay(self, arrays: tuple[Array, ...], update: bool) -> StepState | None:
        """Replay a step without observers, and return the state after it; None if it could not be replayed."""
        token = MODE.set(PLAIN)
        try:
            with np.errstate(all="ignore"):
                made = self.program_for(PLAIN)(arrays, None, update)
        except Exception:  # of the update, such as a gradient that is not finite: the eager step will raise it
            made = None
        finally:
            MODE.reset(token)
        return None if made is None else self.state(self.outputs)

    def on_error(self, error: BaseException, in_on_loss: bool | None, before: Any) -> bool:
        """Restore the state after an error; return True to raise it, False to run the step eagerly instead."""
        if in_on_loss or not isinstance(error, Exception):
            self.optimizer.zero_grad()
            return True
        if self.impure_state is not None:
            self.impure_state.restore(before, new_version=False)
        return not self.verified


def program(replay: Replay, timer: Any, enabled: bool, instrumented: InstrumentedPlan | None) -> FunctionType:
    """Return a function ``run(args, on_loss, update)`` that replays a step for the model version of its guards.

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
    forward, backward, update_part = replay.parts if instrumented is None else instrumented.passes_code
    guards, names = guard_expression(replay.plan.step.inputs, replay.depends)
    # no readings of a plan in several functions, which store theirs
    ends = [part.readings[k] for part in (forward, backward) for k in (0, -1)] if forward.readings else ENDS
    timed, outputs = timer is not None, range(len(replay.outputs))
    usual = replay.usual
    flags = vars(replay) | {"enabled": enabled, "timed": timed, "usual": usual, "unusual": not usual}
    captured = usual and bool(update_part.lines)
    flags |= {"captured": captured, "not captured": usual and not captured}
    flags |= {"counted": captured and replay.optimizer.NEEDS_STEP}
    flags |= {"instrumented": bool(forward.readings), "observed": instrumented is not None}
    flags |= {"clocked": enabled and not forward.readings, "keeps losses": timed and timer.losses is not None}
    lines = fill(
        PROGRAM,
        flags,
        n_inputs=len(replay.plan.step.inputs),
        arguments=replay.plan.arguments,
        guards=guards,
        forward=forward.lines,
        # The last reading of forward is also the first of backward, unless on_loss runs between them.
        backward=backward.lines[1:] if forward.readings else backward.lines,
        readings=", ".join(forward.readings + backward.readings),
        copies=[f"r{k} = o{k}.copy()" for k in outputs] + [f"r{k}.setflags(False)" for k in outputs],
        calls=(update_part.lines or ["pass"]) if usual else [],
        times=f"{ends[0]}, {ends[1]}, {ends[3]}" if enabled else "0, 0, 0",
        update_times="updating, clock()" if enabled else "0, 0",
        returned=", ".join(f"result(r{k}, None)" for k in outputs) + "," * replay.returns_tuple,
        **dict(zip(ENDS, ends, strict=True)),
    )
    names |= forward.names | backward.names | update_part.names | vars(replay)
    names |= {f"o{k}": output for k, output in enumerate(replay.outputs)}
    names |= {"acquire": replay.lock.acquire, "release": replay.lock.release, "on_error": replay.on_error}
    names |= {"model_version": model_version, "result": result, "clock": perf_counter_ns}
    return make_function("args, on_loss, update", lines, names | {"timer": timer, "instrumented": instrumented})
