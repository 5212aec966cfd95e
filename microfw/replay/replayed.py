"""A plan with its guards, and the functions that run it."""

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
from microfw.nn.forward_state import ForwardState
from microfw.replay.capture import CapturedStep
from microfw.replay.dependencies import Dependencies
from microfw.replay.guards import guard_expression
from microfw.replay.instrumented import InstrumentedPlan
from microfw.replay.observe import Signature
from microfw.replay.plan import Plan
from microfw.replay.trace import Array
from microfw.replay.verification import StepState
from microfw.replay.write import make_function, write_passes

MAX_MODES = 4
"""Modes, such as with and without a profiler, for which programs are kept."""

MAX_PROGRAMS = 6
"""Programs kept for one plan: two for each profiler, and one without."""

FIRST_CHECK = 16
"""The replay that is compared with an eager step first; later ones are at 4, 16, … times as many."""


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
        self.plan = plan = Plan(step)
        self.parts = write_passes(plan)
        self.outputs = [plan.array(output) for output in step.outputs]
        self.leaves: list[tuple[Any, Any]] = [(leaf, leaf.grad_buffer) for leaf, _ in step.leaves]
        self.shared = [(leaf, plan.array(grad)) for leaf, grad in step.shared]
        reached = {leaf for leaf, _ in self.leaves}
        self.leaves_without_grad = [leaf for leaf in optimizer.flat.leaves if leaf not in reached]
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
        self.countdown = repeat(None, FIRST_CHECK - 1)
        self._depend(depends)

    def _depend(self, depends: Dependencies) -> None:
        self.depends = depends
        self.changes = model_version.count
        guards, names = guard_expression([], depends)
        self.unchanged = make_function("", [f"return {guards}"], names)

    def refresh(self, depends: Dependencies) -> None:
        """Set guards that were made again and have the same values, as after an evaluation."""
        same = depends.has_same_guards(self.depends)
        self._depend(self.depends if same else depends)
        if same:
            for run in self.programs.values():
                run.__globals__["count"] = self.changes
        else:
            self.programs_by_mode.clear()
            self.programs.clear()

    def current(self) -> bool:
        """Return True if all guards hold."""
        try:
            return self.changes == model_version.count and bool(self.unchanged())
        except Exception:  # raised by a guard, as where an attribute was deleted
            return False

    def program_for(self, mode: Mode) -> Callable[..., Any]:
        """Return the function that replays a step under a mode."""
        run = self.programs_by_mode.get(mode)
        if run is None:
            timer = mode.timer
            if timer is None:
                run = self._program(None, False, None)
            else:
                run = self._switching_program(timer, mode.observer)
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
            began = perf_counter_ns()
            with phase(PREPARATION):
                programs[enabled] = self._program(timer, enabled, instrumented)
            timer.on_set_up(perf_counter_ns() - began)
            return programs[enabled]

        return run

    def _program(self, timer: Any, enabled: bool, instrumented: InstrumentedPlan | None) -> FunctionType:
        key = timer, enabled, instrumented
        run = self.programs.get(key)
        if run is None:
            if len(self.programs) >= MAX_PROGRAMS:
                self.programs.clear()
                self.programs_by_mode.clear()  # else they would keep programs that `refresh` does not update
            from microfw.replay.program import program  # deferred: program.py imports this file

            run = self.programs[key] = program(self, *key)
        return run

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
