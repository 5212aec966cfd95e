"""Overhead of profiling: run steps of the profile with and without it, in turns, after the profile has ended.

An eager step is repeated op by op on copies of its arrays. For ops without a node, as in frozen layers, a small frozen
layer is repeated, and for ops in a checkpoint a small checkpoint. A replayed step is replayed, and its changes are
undone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from itertools import repeat
from statistics import median  # np.median imports numpy.ma, which takes 10 ms
from time import perf_counter_ns
from typing import Any, NamedTuple

import numpy as np

from microfw import nn
from microfw.autograd.mode import MODE, PLAIN, Mode, mode, model_version
from microfw.autograd.tensor import Tensor
from microfw.derivatives.checkpoint import checkpoint
from microfw.ops import elementwise
from microfw.optim import SGD
from microfw.profiler.recorder.recorder import Recorder
from microfw.profiler.recorder.sampling import never
from microfw.profiler.recorder.sequence import UNKNOWN, Position
from microfw.profiler.recorder.trace import Tracer
from microfw.profiler.session import Epoch, Session
from microfw.replay.arguments import constant
from microfw.replay.instrumented import InstrumentedPlan
from microfw.replay.program import program

MEASURED: ContextVar[bool] = ContextVar("MEASURED", default=True)
"""Whether profiles measure their overhead, which takes up to 0.5 s. Of alternated runs, only the last ones do."""

ROUNDS = 21
"""Rounds of the measurement. A round is a turn each of plain steps, observed steps and unobserved steps."""

TURN_NS = 3_000_000
"""Minimum duration of a turn. The stated share of one loop varied from 24 to 49 % with 1 ms, from 30 to 49 with 4."""

MAX_TURN = 64
"""Maximum number of steps in a turn."""

MAX_PART = 0.8
"""Largest plausible overhead of steps, as a fraction of their time. More is an error of the measurement."""

MIN_STEPS = 0.05
"""Smallest plausible time of the steps, as a fraction of a profile that also contains the profiler's set-up."""

MAX_UNUSUAL = 0.1
"""Maximum fraction of ops in a checkpoint, or in another order than in the last step, if the overhead is measured."""

MAX_STEP_NS = 100_000_000
"""Longer steps are not repeated."""


class Extra(NamedTuple):
    """Extra nanoseconds of an observed and of an unobserved step, one value for each round."""

    observed: np.ndarray[Any, Any]
    unobserved: np.ndarray[Any, Any]


def overhead(session: Session, recorder: Recorder) -> dict[str, float]:
    """Return what profiling cost: measured if a step of the profile can be repeated, else estimated.

    Returns
    -------
    dict
        ``share``: extra time of all steps of the session, as a fraction of their time without the profiler.
        ``low``, ``high``: 95 % interval of ``share``. ``ns_per_node``: extra nanoseconds for each node of an observed
        step. ``measured``: 1.0 if measured, 0.0 if estimated from a small step of another kind, as if most ops have no
        node or are in a checkpoint. ``capped``: 1.0 if ``share`` is the largest plausible value because the
        measurement gave more; else missing.
    """
    total = session.total()
    traced = isinstance(recorder, Tracer) and 2 * recorder.traced > total.observed
    with np.errstate(all="ignore"):
        eager, nodes = _try(lambda: measure_eager(recorder, traced)) or (None, 0)
        replayed = _try(lambda: measure_replayed(recorder, traced))
    share = min(total.replayed / total.steps, 1.0) if total.steps else 0.0
    measured = (eager is not None or share > 0.9) and (replayed is not None or share < 0.1)
    if eager is None:
        eager, nodes = measure_small("eager")
    if replayed is None:
        replayed = Extra(eager.observed / 3, eager.unobserved / 3)
    found, seen = total.sum().nodes, recorder.observed or total.observed or 1
    scale = (found / (total.observed or 1) - recorder.recomputations / seen) / nodes  # a step may have several passes
    observed_ns, unobserved_ns = ((1 - share) * scale * x + share * y for x, y in zip(eager, replayed, strict=True))
    observed_ns = observed_ns + recorder.lookup_ns / seen  # a repeated step has the order of the last one
    for kind, count in (("checkpoint", recorder.recomputations), ("frozen", recorder.constants)):
        if count > 0:
            each, ops = measure_small(kind)
            ratio = count / seen / ops  # ops of this kind in a step, by those in the measured step
            observed_ns = observed_ns + ratio * each.observed
            unobserved_ns = unobserved_ns + ratio * each.unobserved
        if kind == "checkpoint":
            per_node = observed_ns * (total.observed or 1) / (found or 1)
    extra = total.observed * observed_ns + (total.steps - total.observed) * unobserved_ns
    measured = measured and recorder.constants <= found
    measured = measured and max(recorder.recomputations, recorder.lookups) <= MAX_UNUSUAL * found
    (low, _), (middle, capped), (high, _) = (_share(ns, total, recorder) for ns in interval(extra))
    return {
        "ns_per_node": round(max(float(median(per_node)), 0.0), 1),
        "share": middle,
        "low": low,
        "high": high,
        "measured": float(measured),
    } | ({"capped": 1.0} if capped else {})


def _share(extra: float, total: Epoch, recorder: Recorder) -> tuple[float, bool]:
    """Return the time of profiling, as a fraction of the time that all steps would have taken without it.

    The second value is True if the fraction is the largest plausible one.

    ``extra``: nanoseconds of profiling in the steps. The epochs also include the time to set up, but not the time
    between epochs, as in a Trainer's hook.
    """
    set_up_ns = max(recorder.set_up_ns, total.set_up_ns)  # a session may have several recorders
    captures = max(total.preparation_ns + total.set_up_ns - set_up_ns, 0)
    time = max(total.total_ns - total.evaluation_ns - total.check_ns - captures, 1)
    set_up = min(set_up_ns, (1 - MIN_STEPS) * time)
    steps = time - set_up
    capped = extra > MAX_PART * steps or set_up < set_up_ns
    extra = min(max(extra, 0.0), MAX_PART * steps)
    return round((extra + set_up + recorder.between_ns) / (steps - extra), 4), capped


def interval(values: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """Return the median and its 95 % interval, as ``(low, median, high)``.

    Examples
    --------
    >>> interval(np.arange(21.0))
    (5.0, 10.0, 15.0)
    """
    ordered = np.sort(values)
    n = len(ordered)
    k = max(round(n / 2 - 0.98 * n**0.5) - 1, 0)
    return float(ordered[k]), float(median(ordered)), float(ordered[n - 1 - k])


def _try(measure: Callable[[], Any]) -> Any:
    """Return the result of a measurement, or None if the step cannot be repeated."""
    try:
        return measure()
    except Exception:  # from a user's op, for example if an array has changed since
        return None


def time_in_turns(plain: Callable[[], Any], observed: Callable[[], Any], unobserved: Callable[[], Any]) -> Extra | None:
    """Time three kinds of steps in turns; return the differences from plain steps."""
    kinds = (plain, observed, unobserved)
    for kind in kinds:
        kind()
        kind()
    start_ns = perf_counter_ns()
    plain()
    one = perf_counter_ns() - start_ns
    if one > MAX_STEP_NS:
        return None
    steps = min(max(TURN_NS // max(one, 1), 1), MAX_TURN)
    taken = np.empty((ROUNDS, 3))
    for turn in range(ROUNDS):
        for k in range(3):
            which = (k + turn) % 3
            run = kinds[which]
            start_ns = perf_counter_ns()
            for _ in range(steps):
                run()
            taken[turn, which] = (perf_counter_ns() - start_ns) / steps
    return Extra(taken[:, 1] - taken[:, 0], taken[:, 2] - taken[:, 0])


def recorders(traced: bool, losses: bool) -> tuple[Recorder, Recorder]:
    """Return a recorder that observes every step, and one that observes none."""
    every = Tracer(1 << 62, takes_losses=losses) if traced else Recorder(takes_losses=losses)
    return every, Recorder(never, takes_losses=losses)


def mode_with(recorder: Recorder) -> Mode:
    """Return the mode of a step with this recorder attached. A profile makes it once, not for each step."""
    return Mode(observer=recorder, timer=recorder)


class OpModule(nn.Module):
    """One op of a repeated step, as a module: the step then runs the same engine code as the original."""

    def __init__(self, call: Callable[..., Tensor], inputs: list[tuple[int, Any]], settings: dict[str, Any]) -> None:
        self.call = call
        self.inputs = inputs  # (index of the op that computed it, None), or (-1, value)
        self.settings = settings

    def append(self, made: list[Any]) -> list[Any]:
        """Append the op's result to the results of the earlier ops."""
        made.append(self.call(*[made[k] if k >= 0 else x for k, x in self.inputs], **self.settings))
        return made

    def forward(self, made: list[Any]) -> Any:
        """Run the op in this module."""
        return self.append(made)


class RenewedModule(OpModule):
    """One op of a repeated step whose module is made in each step."""

    def forward(self, made: list[Any]) -> Any:
        """Run the op in a new module. It has no parameters, as in the original step."""
        return nn.Lambda(self.append)(made)


class RepeatedStep:
    """An eager step repeated op by op, on copies of its arrays.

    Parameters
    ----------
    path : list of (position, inputs, links)
        Ops of the step, in order. The last one computes the loss.
    """

    def __init__(self, path: Sequence[tuple[Position, tuple[Any, ...], tuple[Any, ...]]]) -> None:
        calls = {position.stats.op: position.stats.op._call() for position, *_ in path}
        places = {position: k for k, (position, *_) in enumerate(path)}
        copies: dict[int, Any] = {}
        parts = []
        for position, arrays, links in path:
            linked = {p.index: found for p, found in zip(position.stats.spec.partials, links, strict=False)}
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
            kind = RenewedModule if position.renewed else OpModule
            parts.append(kind(calls[position.stats.op], inputs, copy.deepcopy(position.settings)))
        self.model, self.loss = nn.Sequential(*parts[:-1]), parts[-1]
        parameters = [p for part in parts for _, p in part.inputs if isinstance(p, nn.Parameter)]
        self.optimizer = SGD(list(dict.fromkeys(parameters)), lr=1e-30, momentum=0.9)

    def __call__(self, its: Mode) -> None:
        """Run the step, optimizer update included."""
        token = MODE.set(its)
        try:
            self.optimizer.zero_grad()
            y = self.loss(self.model([]))[-1]
            y.backward(None if y.size == 1 else np.ones(y.shape, y.dtype))
            self.optimizer.step()
        finally:
            MODE.reset(token)


def copied(x: Any, trained: bool) -> Any:
    """Return a copy of an op's input; a Parameter if the input was trained."""
    if x is UNKNOWN:
        raise LookupError("an array that was not kept")
    if not isinstance(x, np.ndarray):
        return x
    if trained:
        return nn.Parameter(x.copy())
    return constant(x.copy()) if x.dtype.kind == "f" else x.copy()


def measure_eager(recorder: Recorder, traced: bool) -> tuple[Extra, int] | None:
    """Repeat the last eager step; return the overhead and the number of nodes."""
    path = recorder.example
    if not path:
        return None
    step = RepeatedStep(path)
    observed, unobserved = map(mode_with, recorders(traced, recorder.losses is not None))
    found = time_in_turns(lambda: step(PLAIN), lambda: step(observed), lambda: step(unobserved))
    return None if found is None else (found, len(path))


def measure_replayed(recorder: Recorder, traced: bool) -> Extra | None:
    """Repeat the last replayed step, undo its changes, and return the overhead."""
    timed = recorder.followed
    if timed is None:
        return None
    replay, arrays = timed.example
    every, none = recorders(traced, recorder.losses is not None)
    before, countdown, count = replay.state(), replay.countdown, replay.count
    replay.countdown = repeat(None, 1 << 30)  # no comparison with eager steps
    replay.count = model_version.count  # also after a change of the model: the profile is of the step as it was
    runs = (
        (program(replay, None, False, None), PLAIN),
        (program(replay, every, True, InstrumentedPlan(replay.plan, every, timed.sequence)), mode_with(every)),
        (program(replay, none, False, None), mode_with(none)),
    )

    def step(run: Callable[..., Any], its: Mode) -> None:
        token = MODE.set(its)
        try:
            if run(arrays, None, True) is None:
                raise LookupError("a step that has changed since")
        finally:
            MODE.reset(token)

    try:
        return time_in_turns(*(lambda run=run, its=its: step(run, its) for run, its in runs))
    finally:
        replay.countdown, replay.count = countdown, count
        before.restore()


def measure_small(kind: str) -> tuple[Extra, int]:
    """Return the overhead of a step with 16 small ops, and its number of ops.

    ``kind``: "eager" with a backward pass, "checkpoint" with ops that run again in it, or "frozen" for the ops of a
    frozen layer, without nodes.
    """
    frozen = kind == "frozen"
    x = Tensor(np.ones((8, 8), np.float32), requires_grad=not frozen)
    layer = nn.Dense(8, 8, rng=0)
    layer.requires_grad_(False)
    call: Callable[[Any], Any] = layer if frozen else elementwise.relu

    def all_ops(y: Any) -> Any:
        for _ in range(16):
            y = call(y)
        return y

    every, none = recorders(False, False)

    def step(recorder: Recorder | None) -> None:
        with mode(observer=recorder, timer=recorder, recording=True):
            y = checkpoint(all_ops, x) if kind == "checkpoint" else all_ops(x)
            if not frozen:
                y.sum().backward()
            if recorder is not None:
                recorder.on_update(step, perf_counter_ns())
        x.grad = None

    found = time_in_turns(lambda: step(None), lambda: step(every), lambda: step(none))
    return found or Extra(np.zeros(1), np.zeros(1)), 16 + (kind == "eager")
