"""A training step that is captured once for each shape of its arguments, and then replayed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Lock
from types import FunctionType
from typing import Any

import numpy as np

from microfw import recording
from microfw.errors import DTypeError, message
from microfw.reach import reached
from microfw.recording import MODE, PLAIN, Mode
from microfw.replay.capture import Captured, Signature, Uncapturable, Watch, capture, same
from microfw.replay.guards import Carried, Named, state_of
from microfw.replay.moves import moves
from microfw.replay.plan import Plan
from microfw.replay.program import program
from microfw.replay.timed import Timed
from microfw.tensor import Tensor, result

Array = np.ndarray[Any, Any]
Key = tuple[Any, ...]
Between = Callable[[Array], None] | None
Update = bool | Callable[[], None]

RECAPTURES = 20
"""How often a step may be captured anew before it is left alone: something that it depends on changes all the time."""

MOST_MODES = 4
"""Under how many modes, such as watched and not, a plan is kept written out."""

MOST_PLANS = 32
"""How many shapes may have a plan, each of which has memory of its own."""


class Replay:
    """A plan with what must hold for it."""

    def __init__(self, step: CompiledStep, captured: Captured, plan: Plan, several: bool, state: Any) -> None:
        self.f = step.f
        self.optimizer = step.optimizer
        self.plan = plan
        self.parts = plan.write()
        self.outputs = [plan.array(cell) for cell in captured.outputs]
        self.leaves: list[tuple[Any, Any]] = [(leaf, leaf.slot) for leaf, _ in captured.leaves]
        reached = {leaf for leaf, _ in self.leaves}
        self.others = [leaf for leaf in step.optimizer.flat.leaves if leaf not in reached]
        self.several = several
        self.state = state
        self.carried: Carried | None = None
        self.proven = False
        self.timed: Timed | None = None
        self.lock = Lock()
        self.runs: dict[Mode, Callable[..., Any]] = {}
        self.programs: dict[Any, FunctionType] = {}
        self.named = Named(self.f)
        self.changes = recording.changes.count

    def renew(self) -> None:
        """Take what the step's function names, and the model's settings, as they are now."""
        self.changes = recording.changes.count
        if self.named.same():  # as after an evaluation
            for run in self.programs.values():
                run.__globals__["count"] = self.changes
            return
        self.named = Named(self.f)
        self.runs.clear()
        self.programs.clear()

    def current(self) -> bool:
        """Whether all is as it was then."""
        return self.changes == recording.changes.count and self.named.same()

    def under(self, mode: Mode) -> Callable[..., Any]:
        """Return the function that replays a step under a mode."""
        run = self.runs.get(mode)
        if run is None:
            timed = None if mode.observer is None else self.timed
            run = self.programs.get((mode.watcher, timed))
            if run is None:
                if len(self.programs) >= MOST_MODES:
                    self.programs.clear()
                    self.runs.clear()  # which `renew` would not reach
                run = self.programs[mode.watcher, timed] = program(self, mode.watcher, timed)
            if len(self.runs) >= MOST_MODES:
                self.runs.clear()
            self.runs[mode] = run
        return run

    def broken(self, error: BaseException, looking: bool | None, before: Any) -> bool:
        """Clear up after an error; tell whether it is one to raise, and not for the step as ever to put in words."""
        if looking or not isinstance(error, Exception):
            self.optimizer.zero_grad()
            return True
        if self.carried is not None:
            self.carried.restore(before)
        return not self.proven


class CompiledStep:
    """A training step that is replayed where it can be; `mf.compile` makes one."""

    def __init__(self, f: Callable[..., Any], optimizer: Any) -> None:
        self.f = f
        self.optimizer = optimizer
        self.replays: dict[Key, Replay] = {}
        self.seen: dict[Key, Signature] = {}
        self.reasons: dict[Key, str] = {}
        self.refused: dict[Key, tuple[int, Any]] = {}
        self.captures = 0
        self._runs: dict[Mode, Callable[..., Any]] = {}  # of the plan that was last in use

    def __getstate__(self) -> dict[str, Any]:
        return {"f": self.f, "optimizer": self.optimizer}

    def __setstate__(self, state: dict[str, Any]) -> None:
        CompiledStep.__init__(self, **state)  # a copy makes plans of its own

    def __call__(self, *arguments: Any) -> Any:
        """Do a step."""
        run = self._runs.get(_mode())
        made = None if run is None else run(arguments, None, True)
        return self._choose(arguments, None, True) if made is None else made

    def take(self, arguments: tuple[Any, ...], between: Between, update: Update) -> Any:
        """Do a step, of which ``between`` sees the loss before backward, and return what ``f`` does.

        ``update`` is whether the optimizer is to take its step, or what to call before it does; else the gradients
        are left in the parameters.
        """
        run = self._runs.get(_mode())
        made = None if run is None else run(arguments, between, update)
        return self._choose(arguments, between, update) if made is None else made

    def _choose(self, arguments: tuple[Any, ...], between: Between, update: Update) -> Any:
        """Replay, learn, or run a step as ever."""
        arrays = tuple([self._array(a) for a in arguments])
        run, passes = self._way(arrays)
        made = None if run is None else run(arrays, between, update)
        if made is None:
            made = passes(arrays, between)
            if callable(update):
                update()
            if update:
                self.optimizer.step()
        return made

    def _way(self, arrays: tuple[Array, ...]) -> tuple[Callable[..., Any] | None, Callable[..., Any]]:
        """Return what replays such a step, if that may be, and what does both passes if not."""
        key = tuple([(a.dtype.char, a.shape, a.strides) for a in arrays])
        replay, mode = self.replays.get(key), MODE.get()
        observer = mode.observer
        if mode.nested or not mode.recording or not (observer is None or observer.follows):
            return None, self._eager
        if replay is None and key in self.reasons and not self._again(key):
            return None, self._eager
        if replay is not None and not replay.current():
            if self._state(list(reached(self.f))) == replay.state:
                replay.renew()
            else:
                replay = None
                self.seen.pop(key, None)
        if replay is None:
            if len(self.replays) >= MOST_PLANS:
                self.reasons[key] = f"there are {MOST_PLANS} plans for other shapes"
                self.refused[key] = recording.changes.count, None
                return None, self._eager
            return None, partial(self._learn, key)
        if observer is not None and (replay.timed is None or replay.timed.observer is not observer):
            return None, partial(self._show, replay, observer)
        run, self._runs = replay.under(mode), replay.runs
        return run, self._eager

    def _show(self, replay: Replay, observer: Any, arrays: Any, between: Between) -> Any:
        """Run a step as ever, which an observer sees before it follows replays."""
        made = self._eager(arrays, between)
        pattern = observer.bound()
        if pattern is not None and len(pattern.sites) >= len(replay.plan.captured.nodes):  # nobody else came between
            replay.timed = Timed(replay.plan, observer, pattern)
        return made

    def _array(self, x: Any) -> Array:
        array: Array = x._array if isinstance(x, Tensor) else np.asarray(x)
        dtype = self.optimizer.flat.values.dtype
        if array.dtype.kind == "f" and array.dtype != dtype:
            array = array.astype(dtype)
        if array.dtype.kind not in "fiub":
            raise DTypeError(message("compiled step", "arrays of numbers", array.dtype))
        return array if array.flags.c_contiguous else array.copy("K")

    def _eager(self, arrays: Any, between: Between, f: Callable[..., Any] | None = None) -> Any:
        self.optimizer.zero_grad()
        returned = self.f(*[_given(a) for a in arrays]) if f is None else f()
        tensors = returned if isinstance(returned, tuple) else (returned,)
        if between is not None:
            between(tensors[0]._array)
        tensors[0].backward()
        made = [result(t._array, None) if t._leaf is None else t.detach() for t in tensors]
        return tuple(made) if isinstance(returned, tuple) else made[0]

    # Learning a step

    def _learn(self, key: Key, arrays: tuple[Array, ...], between: Between) -> Any:
        """Run a step and note it; the second time make a plan, and hold it against what the step has given."""
        self.replays.pop(key, None)
        self._runs = {}
        found = list(reached(self.f))
        state = self._state(found)
        self.refused[key] = recording.changes.count, state
        tensors = [x for x in found if isinstance(x, Tensor) and x._leaf is not None]
        generators = [x for x in found if isinstance(x, np.random.Generator)]
        carried = Carried(generators, [t for t in tensors if t._node is None])
        before = carried.save()
        watch, inputs = Watch(MODE.get().observer), [_given(a) for a in arrays]
        captured: list[Captured] = []
        leaves = [(t._leaf, t._leaf.version) for t in tensors if t._node is not None and t._leaf is not None]

        def observed() -> Any:
            with recording.mode(observer=watch):
                returned = self.f(*inputs)
            try:
                if any(leaf.version != version for leaf, version in leaves):
                    raise Uncapturable("it changes parameters, as an optimizer's step does")
                signature = Signature(watch, [*inputs, *tensors])
                earlier = self.seen.get(key)
                if self._state(found) != state:
                    raise Uncapturable("it changes settings that it may depend on")
                if earlier is None:
                    if len(self.seen) > MOST_PLANS:
                        self.seen.clear()
                    self.seen[key] = signature
                else:
                    self.captures += 1
                    if self.captures > RECAPTURES:
                        raise Uncapturable("what it depends on changes all the time")
                    signature.compare(earlier)
                    with np.errstate(all="call", call=_nothing):  # so that an op that changes it is seen
                        captured.append(capture(watch, inputs, returned, tensors))
                        captured[0].update, captured[0].whole = moves(self.optimizer, captured[0].tape)
            except Exception as reason:
                self.reasons[key] = _why(reason)
            return returned

        made = self._eager(arrays, between, observed)
        if not captured:
            return made
        after = carried.save()
        try:
            plan = Plan(captured[0])
            replay = Replay(self, captured[0], plan, isinstance(made, tuple), state)
            replay.carried = carried if plan.impure else None
            carried.restore(before)
            self._prove(replay, arrays, made)
            self.replays[key] = replay
            del self.seen[key]
        except Exception as reason:
            self.reasons[key] = _why(reason)
        finally:
            carried.restore(after)
        return made

    def _prove(self, replay: Replay, arrays: tuple[Array, ...], made: Any) -> None:
        """Replay the step that a plan was made from, and compare every bit."""
        tensors = made if isinstance(made, tuple) else (made,)
        gradients = [(leaf, slot, slot.copy()) for leaf, slot in replay.leaves]
        try:
            if replay.under(PLAIN)(arrays, None, False) is None:
                raise AssertionError("a plan that does not fit what it was made of")
            got = zip(tensors, replay.outputs, strict=True)
            wrong = [f"output {k}" for k, (t, output) in enumerate(got) if not same(t._array, output)]
            wrong += [leaf.name or f"a leaf of shape {leaf.shape}" for leaf, *two in gradients if not same(*two)]
        except Exception as error:
            wrong = [f"{type(error).__name__}: {error}"]
        finally:
            for _, slot, gradient in gradients:
                slot[...] = gradient
        if wrong:
            raise Uncapturable(f"the plan does not give what the step did ({wrong[0]}); this is a fault of microfw")
        replay.proven = True

    def _again(self, key: Key) -> bool:
        """Whether to try once more what could not be captured: something has changed since."""
        changes, state = self.refused[key]
        if changes == recording.changes.count or self.captures > RECAPTURES:
            return False
        self.captures += 1
        self.refused[key] = recording.changes.count, state
        if self._state(list(reached(self.f))) == state:
            return False
        del self.reasons[key]
        self.seen.pop(key, None)
        return True

    def _state(self, found: list[Any]) -> Any:
        return state_of(self.f, found, self.optimizer.flat.owner)

    # Reading

    def explain(self) -> str:
        """Say for each shape of the arguments whether the step is replayed, and why not."""
        lines = []
        for key in dict.fromkeys((*self.replays, *self.reasons, *self.seen)):
            title = ", ".join(f"{np.dtype(char)} {shape}" for char, shape, _ in key)
            why = f"run every time: {self.reasons[key]}" if key in self.reasons else "seen once"
            if key in self.replays:
                opaque = self.replays[key].plan.captured.opaque
                why = "replayed" + "".join(f"\n  {name} as one call: {text}" for name, text in opaque.items())
            lines.append(f"{title}: {why}")
        return "\n".join(lines) or "no step yet"

    def __repr__(self) -> str:
        return "\n\n".join([self.explain(), *(f"{replay.plan}" for replay in self.replays.values())])


def _nothing(kind: str, flag: int) -> None:
    pass


def _given(array: Array) -> Tensor:
    tensor = Tensor(array)
    tensor._array.setflags(write=False)  # it is data, and no parameter
    return tensor


def _why(reason: Exception) -> str:
    return str(reason) if isinstance(reason, Uncapturable) else f"a fault of microfw, {type(reason).__name__}: {reason}"


_mode = MODE.get
