"""A plan with what must hold for it, and the functions that run it."""

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
from microfw.replay.capture import CapturedStep
from microfw.replay.dependencies import Dependencies
from microfw.replay.forward_state import ForwardState
from microfw.replay.instrumented import InstrumentedPlan
from microfw.replay.observe import Signature
from microfw.replay.plan import Plan
from microfw.replay.trace import Array
from microfw.replay.verification import StepState
from microfw.replay.write import function, write_passes

MOST_MODES = 4
"""How many modes, such as with a profiler and without, a plan is kept for."""

MOST_PROGRAMS = 6
"""How many functions a plan is kept written out as: two for each profiler, and one without."""

FIRST_CHECK = 16
"""The replay at which a plan is held against the eager step again; then at 4 times as many, and so on."""


class Replay:
    """A plan with what must hold for it."""

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
        self.outputs = [plan.array(cell) for cell in step.outputs]
        self.leaves: list[tuple[Any, Any]] = [(leaf, leaf.grad_buffer) for leaf, _ in step.leaves]
        self.shared = [(leaf, plan.array(cell)) for leaf, cell in step.shared]
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
        self.unchanged = function("", [f"return {depends.test}"], {**depends.bound})

    def refresh(self, depends: Dependencies) -> None:
        """Take other tests of the same values, as after an evaluation."""
        same = depends.same_tests(self.depends)
        self._depend(self.depends if same else depends)
        if same:
            for run in self.programs.values():
                run.__globals__["count"] = self.changes
        else:
            self.programs_by_mode.clear()
            self.programs.clear()

    def current(self) -> bool:
        """Return True if nothing that the plan depends on has changed."""
        try:
            return self.changes == model_version.count and bool(self.unchanged())
        except Exception:  # of a test, as where an attribute was deleted
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
            if len(self.programs_by_mode) >= MOST_MODES:
                self.programs_by_mode.clear()
            self.programs_by_mode[mode] = run
        return run

    def _switching_program(self, timer: Any, observer: Any) -> Callable[..., Any]:
        """Return the function that replays a step for a timer: there is a program for each value of ``enabled``."""
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
            if len(self.programs) >= MOST_PROGRAMS:
                self.programs.clear()
                self.programs_by_mode.clear()  # which `renew` would not reach
            from microfw.replay.program import program  # which imports this file

            run = self.programs[key] = program(self, *key)
        return run

    @property
    def replays(self) -> int:
        """How often the plan was replayed."""
        return self.next_check - 1 - length_hint(self.countdown)

    def schedule_check(self) -> None:
        """Put the next check off until there are four times as many replays."""
        self.checked, self.next_check = self.next_check, 4 * self.next_check
        self.countdown = repeat(None, self.next_check - self.checked)  # this step takes one
        for run in self.programs.values():
            run.__globals__["countdown"] = self.countdown

    def state(self, outputs: Any = ()) -> StepState:
        """Return a copy of all that a step changes, with what it returned."""
        return StepState(self.optimizer, [leaf for leaf, _ in self.shared], self.forward_state, outputs)

    def try_replay(self, arrays: tuple[Array, ...], update: bool) -> StepState | None:
        """Replay a step that nobody observes, and return what it has come to; None if the plan does not fit it."""
        token = MODE.set(PLAIN)
        try:
            with np.errstate(all="ignore"):
                made = self.program_for(PLAIN)(arrays, None, update)
        except Exception:  # of the update, as where a gradient is not finite: the eager step raises it
            made = None
        finally:
            MODE.reset(token)
        return None if made is None else self.state(self.outputs)

    def on_error(self, error: BaseException, in_on_loss: bool | None, before: Any) -> bool:
        """Clear up after an error; return True if the error is one to raise, which no eager step would put in words."""
        if in_on_loss or not isinstance(error, Exception):
            self.optimizer.zero_grad()
            return True
        if self.impure_state is not None:
            self.impure_state.restore(before, new_version=False)
        return not self.verified
