"""What profiling cost: steps of the same kind, profiled and not, run in turns after the profile has ended.

A step that was run eagerly is run again op by op on copies of its arrays; a replayed one is replayed, and all that it
has changed is restored.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import repeat
from time import perf_counter_ns
from typing import Any, NamedTuple

import numpy as np

from microfw import nn
from microfw.autograd.mode import MODE, PLAIN, Mode, mode
from microfw.autograd.tensor import Tensor
from microfw.ops import elementwise
from microfw.optim import SGD
from microfw.profiler.recorder.recorder import Recorder
from microfw.profiler.recorder.sampling import never
from microfw.profiler.recorder.sequence import UNKNOWN, Position
from microfw.profiler.recorder.trace import Tracer
from microfw.profiler.session import Epoch, Session
from microfw.replay.instrumented import InstrumentedPlan
from microfw.replay.observe import constant
from microfw.replay.program import program

ROUNDS = 21
"""In each of them there is a turn of plain steps, one of observed steps, and one of steps that are not observed."""

TURN_NS = 1_000_000
"""How long a turn is at least."""

MAX_TURN = 64
"""How many steps a turn has at most."""

MAX_PART = 0.8
"""What part of the time of all steps the profiler can have taken: more is an error of the measurement."""

MAX_STEP_NS = 100_000_000
"""Longer steps are not run again."""


class Extra(NamedTuple):
    """Extra nanoseconds of a step, by round: of one that is observed, and of one that is not."""

    observed: np.ndarray[Any, Any]
    unobserved: np.ndarray[Any, Any]


def overhead(session: Session, recorder: Recorder) -> dict[str, float]:
    """Return what profiling cost: measured where a step of the profile can be run again, else estimated.

    Returns
    -------
    dict
        ``share``: how much longer all steps of the session took because of it, as a fraction of the time without;
        ``low`` and ``high``: its interval of 95 %; ``ns_per_node``: the extra time for each node of an observed step;
        ``measured``: 1.0, or 0.0 if it is estimated from a small step of another kind.
    """
    total = session.total()
    traced = isinstance(recorder, Tracer) and 2 * recorder.traced > total.observed
    with np.errstate(all="ignore"):
        eager, nodes = _try(lambda: run_again(recorder, traced)) or (None, 0)
        replayed = _try(lambda: replay_again(recorder, traced))
    share = min(total.replayed / total.steps, 1.0) if total.steps else 0.0
    measured = (eager is not None or share > 0.9) and (replayed is not None or share < 0.1)
    if eager is None:
        eager, nodes = relus()
    if replayed is None:
        replayed = Extra(eager.observed / 3, eager.unobserved / 3)
    found = total.sum().nodes
    scale = found / (total.observed or 1) / nodes  # a step may have several passes
    extra = total.observed * ((1 - share) * scale * eager.observed + share * replayed.observed)
    extra += (total.steps - total.observed) * ((1 - share) * scale * eager.unobserved + share * replayed.unobserved)
    low, middle, high = (_share(ns, total, recorder) for ns in interval(extra))
    per_node = ((1 - share) * scale * eager.observed + share * replayed.observed) * (total.observed or 1) / (found or 1)
    return {
        "ns_per_node": round(max(float(np.median(per_node)), 0.0), 1),
        "share": middle,
        "low": low,
        "high": high,
        "measured": float(measured),
    }


def _share(extra: float, total: Epoch, recorder: Recorder) -> float:
    """Return the nanoseconds that profiling took, as a fraction of what all steps would have taken without it.

    ``extra`` is what it took in the steps. What it took to set up is in the epochs too, and what it took between them,
    as a Trainer's hook, is not.
    """
    captures = max(total.preparation_ns - recorder.set_up_ns, 0)
    time = max(total.total_ns - total.evaluation_ns - total.check_ns - captures, 1)
    extra = min(max(extra, 0.0) + recorder.set_up_ns, MAX_PART * time)
    return round((extra + recorder.between_ns) / (time - extra), 4)


def interval(values: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """Return the ends of the 95 % interval of the median, and between them the median.

    Examples
    --------
    >>> interval(np.arange(21.0))
    (5.0, 10.0, 15.0)
    """
    ordered = np.sort(values)
    n = len(ordered)
    k = max(round(n / 2 - 0.98 * n**0.5) - 1, 0)
    return float(ordered[k]), float(np.median(ordered)), float(ordered[n - 1 - k])


def _try(measure: Callable[[], Any]) -> Any:
    """Return what a measurement gives, or None if the step cannot be run again."""
    try:
        return measure()
    except Exception:  # of a user's op, as where an array has changed since
        return None


def alternate(plain: Callable[[], Any], observed: Callable[[], Any], unobserved: Callable[[], Any]) -> Extra | None:
    """Time steps of three kinds in turns, and return the differences to plain ones."""
    kinds = (plain, observed, unobserved)
    for kind in kinds:
        kind()
        kind()
    began = perf_counter_ns()
    plain()
    one = perf_counter_ns() - began
    if one > MAX_STEP_NS:
        return None
    steps = min(max(TURN_NS // max(one, 1), 1), MAX_TURN)
    taken = np.empty((ROUNDS, 3))
    for turn in range(ROUNDS):
        for k in range(3):
            which = (k + turn) % 3
            run = kinds[which]
            began = perf_counter_ns()
            for _ in range(steps):
                run()
            taken[turn, which] = (perf_counter_ns() - began) / steps
    return Extra(taken[:, 1] - taken[:, 0], taken[:, 2] - taken[:, 0])


def recorders(traced: bool, losses: bool) -> tuple[Recorder, Recorder]:
    """Return a recorder that observes each step, and one that observes none."""
    every = Tracer(1 << 62, takes_losses=losses) if traced else Recorder(takes_losses=losses)
    return every, Recorder(never, takes_losses=losses)


def under(recorder: Recorder | None) -> Mode:
    """Return the mode of a step that a recorder observes."""
    return PLAIN if recorder is None else Mode(observer=recorder, timer=recorder)


class Part(nn.Module):
    """An op of a step that is run again: a layer, so that the step takes the same ways through the engine."""

    def __init__(self, call: Callable[..., Tensor], inputs: list[tuple[int, Any]], settings: dict[str, Any]) -> None:
        self.call = call
        self.inputs = inputs  # the number of the op that gives it, or -1 and what it is
        self.settings = settings

    def forward(self, made: list[Any]) -> Any:
        """Add the op's result to those of the ops before."""
        made.append(self.call(*[made[k] if k >= 0 else x for k, x in self.inputs], **self.settings))
        return made


class Again:
    """A step that is run again, op by op, on copies of its arrays.

    Parameters
    ----------
    path : list of (position, inputs, links)
        Its ops, in order; the last one gives the loss.
    """

    def __init__(self, path: Sequence[tuple[Position, tuple[Any, ...], tuple[Any, ...]]]) -> None:
        calls = {position.site.op: position.site.op._call() for position, *_ in path}
        places = {position: k for k, (position, *_) in enumerate(path)}
        copies: dict[int, Any] = {}
        parts = []
        for position, arrays, links in path:
            linked = {p.index: found for p, found in zip(position.site.spec.partials, links, strict=False)}
            inputs: list[tuple[int, Any]] = []
            for k, x in enumerate(arrays):
                if type(x) is Position:
                    inputs.append((places[x], None))
                    continue
                if id(x) not in copies:
                    copies[id(x)] = copied(x, linked.get(k) is not None)
                inputs.append((-1, copies[id(x)]))
            if not inputs:
                raise LookupError("an op whose inputs were not kept")
            parts.append(Part(calls[position.site.op], inputs, copy.deepcopy(position.settings)))
        self.model, self.loss = nn.Sequential(*parts[:-1]), parts[-1]
        parameters = [p for part in parts for _, p in part.inputs if isinstance(p, nn.Parameter)]
        self.optimizer = SGD(list(dict.fromkeys(parameters)), lr=1e-30, momentum=0.9)

    def __call__(self, recorder: Recorder | None) -> None:
        """Run it."""
        token = MODE.set(under(recorder))
        try:
            self.optimizer.zero_grad()
            y = self.loss(self.model([]))[-1]
            y.backward(None if y.size == 1 else np.ones(y.shape, y.dtype))
            self.optimizer.step()
        finally:
            MODE.reset(token)


def copied(x: Any, trained: bool) -> Any:
    """Return a copy of an op's input; a Parameter if it was trained."""
    if x is UNKNOWN:
        raise LookupError("an array that was not kept")
    if not isinstance(x, np.ndarray):
        return x
    if trained:
        return nn.Parameter(x.copy())
    return constant(x.copy()) if x.dtype.kind == "f" else x.copy()


def run_again(recorder: Recorder, traced: bool) -> tuple[Extra, int] | None:
    """Run the last step that was run eagerly again, and return what it costs to profile it, and how many nodes."""
    path = recorder.example
    if not path:
        return None
    every, none = recorders(traced, recorder.losses is not None)
    step = Again(path)
    found = alternate(lambda: step(None), lambda: step(every), lambda: step(none))
    return None if found is None else (found, len(path))


def replay_again(recorder: Recorder, traced: bool) -> Extra | None:
    """Replay the step that was replayed last, restore what it has changed, and return what it costs to profile it."""
    timed = recorder.followed
    if timed is None:
        return None
    replay, arrays = timed.example
    every, none = recorders(traced, recorder.losses is not None)
    before, countdown = replay.state(), replay.countdown
    replay.countdown = repeat(None, 1 << 30)  # no comparison with eager steps
    runs = (
        (program(replay, None, False, None), PLAIN),
        (program(replay, every, True, InstrumentedPlan(replay.plan, every, timed.sequence)), under(every)),
        (program(replay, none, False, None), under(none)),
    )

    def step(run: Callable[..., Any], its: Mode) -> None:
        token = MODE.set(its)
        try:
            if run(arrays, None, True) is None:
                raise LookupError("a step that has changed since")
        finally:
            MODE.reset(token)

    try:
        return alternate(*(lambda run=run, its=its: step(run, its) for run, its in runs))
    finally:
        replay.countdown = countdown
        before.restore()


def relus() -> tuple[Extra, int]:
    """Return what it costs to profile a step of 16 small ops, and its number of nodes."""
    x = Tensor(np.ones((8, 8)), requires_grad=True)
    every, none = recorders(False, False)

    def step(recorder: Recorder | None) -> None:
        with mode(observer=recorder, timer=recorder, recording=True):
            y: Any = x
            for _ in range(16):
                y = elementwise.relu(y)
            y.sum().backward()
            if recorder is not None:
                recorder.on_update(step, perf_counter_ns())
        x.grad = None

    found = alternate(lambda: step(None), lambda: step(every), lambda: step(none))
    return found or Extra(np.zeros(1), np.zeros(1)), 17
