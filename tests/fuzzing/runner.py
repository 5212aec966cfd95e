"""Runs a program in all ways that must agree to the last bit, and compares them after every step."""

from __future__ import annotations

import contextvars
import sys
import warnings
from dataclasses import dataclass, field

import numpy as np

import microfw as mf
from microfw.autograd.mode import mode
from microfw.autograd.observer import Observer
from tests.fuzzing.batches import batch
from tests.fuzzing.world import World, bits, first_difference

KEEPS = {"lr", "load_state_dict", "zero_grad", "another optimizer's zero_grad", "evaluation"}
"""Changes after which a plan continues."""


@dataclass
class Result:
    """The result of a program.

    Attributes
    ----------
    difference : str
        The first difference between two ways; empty if there is none.
    faults : list of str
        Messages that blame the library.
    reasons : list of str
        Why steps that should have been replayed were not.
    expected, missed : int
        How many steps should have been replayed, and how many of them were not.
    steps, failed : int
        How many steps were tried, and how many raised, as some are meant to.
    finite, moved : bool
        Whether all losses were finite, and whether a parameter changed.
    """

    seed: int
    difference: str = ""
    faults: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    expected: int = 0
    missed: int = 0
    steps: int = 0
    failed: int = 0
    finite: bool = True
    moved: bool = False
    trained: bool = False


def code_of(f):
    """Return the code of what users call."""
    while hasattr(f, "func"):
        f = f.func
    f = getattr(f, "__func__", f)
    return f.__code__ if hasattr(f, "__code__") else type(f).__call__.__code__


class Calls:
    """Whether a function ran, as a profile function of the interpreter sees it."""

    def __init__(self, f):
        self.code = code_of(f)
        self.count = 0

    def __call__(self, frame, event, arg):
        if event == "call" and frame.f_code is self.code:
            self.count += 1

    def __enter__(self):
        self.count = 0
        sys.setprofile(self)

    def __exit__(self, *exc):
        sys.setprofile(None)


def hand_written(world):
    """Return a step as users write it."""

    def step(X, y):
        world["optimizer"].zero_grad()
        made = world["f"](mf.Tensor(X), mf.Tensor(y))
        (made[0] if isinstance(made, tuple) else made).backward()
        world["optimizer"].step()
        return made

    return step


def compiled(world):
    """Return a compiled step."""
    return mf.compile(world["f"], world["optimizer"])


class Way:
    """One way to run a program, a step at a time."""

    def __init__(self, program, make):
        self.program = program
        self.world = World(program)
        self.step = make(self.world)
        self.calls = Calls(self.world["f"])
        self.warned = []
        self.losses = []
        self.error = None
        self.context = contextvars.copy_context()  # what one way attaches, the other one does not see

    def take(self, step):
        """Take a step; return everything that it left."""
        return self.context.run(self._take, step)

    def _take(self, step):
        X, y = batch(self.program, step)
        self.error = None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                self.world.change(step, X, y)
            except (Exception, KeyboardInterrupt) as error:
                return [("error of a change", f"{type(error).__name__}: {error}"), *self.world.state()]
            try:
                with (
                    self.calls,
                    eval(step.context or "np.errstate()", {"np": np, "mf": mf, "mode": mode, "Observer": Observer}),
                ):
                    made = self.step(X, y)
                made = made if isinstance(made, tuple) else (made,)
                left = [(f"output {k}", bits(t.data)) for k, t in enumerate(made)]
                self.losses.append(made[0].item())
            except (Exception, KeyboardInterrupt) as error:
                self.error = error
                left = [("error", f"{type(error).__name__}: {error}")]
        self.warned = [
            str(w.message) for w in caught if not issubclass(w.category, RuntimeWarning | DeprecationWarning)
        ]
        return left + self.world.state()


def examine_steps(program, result):
    """Run a program as a loop and as a compiled step, and compare."""
    loop, replay = Way(program, hand_written), Way(program, compiled)
    start = replay.world.state()
    expected = [(loop.take(step), loop.error, loop.warned) for step in program.steps]
    quiet, late = {}, 0
    for k, (step, (before, error, warned)) in enumerate(zip(program.steps, expected, strict=True)):
        after = replay.take(step)
        result.steps += 1
        result.failed += error is not None
        difference = first_difference(before, after)
        if difference is None and warned != replay.warned:
            difference = f"warnings: {warned} in the one, {replay.warned} in the other"
        if difference is not None:
            result.difference = f"step {k} ({step}), loop and compiled: {difference}"
            break
        key = step.rows, step.fault
        if set(step.kinds) - KEEPS or error is not None or (step.changes and not step.kinds):
            quiet.clear()
        trained = quiet.get(key, 0)
        quiet[key] = trained + (error is None and not replay.world["handles"])
        if trained >= 2 and error is None and not replay.world["handles"] and not step.context:
            result.expected += 1
            late = late + 1 if replay.calls.count else 0
            result.missed += late == 2
    why = replay.step.explain()
    result.faults += [line for line in why.splitlines() if "fault of microfw" in line]
    if result.missed:
        result.reasons = [line for line in why.splitlines() if "run every time" in line] or [why]
    result.finite = bool(np.isfinite(loop.losses).all())
    values = [row for row in start if row[0].startswith("value")]
    result.moved = (
        first_difference(values, [row for row in loop.world.state() if row[0].startswith("value")]) is not None
    )
    for way in (loop, replay):
        way.context.run(way.world.close)


def examine(program, ways=("steps", "trainer")):
    """Run a program in all ways; return the result."""
    from tests.fuzzing.trainers import examine_trainers

    result = Result(program.seed)
    if "steps" in ways and program.steps_alone:
        examine_steps(program, result)
    if "trainer" in ways and program.trainer is not None and not result.difference:
        result.trained = True
        examine_trainers(program, result)
    return result
