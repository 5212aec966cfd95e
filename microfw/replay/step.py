"""A training step that is captured once for each shape of its arguments, and then replayed."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from time import perf_counter_ns
from typing import Any

import numpy as np

from microfw import recording
from microfw.errors import DTypeError, message
from microfw.optim.optimizer import Optimizer
from microfw.reach import reached
from microfw.recording import MODE
from microfw.replay.capture import Captured, Signature, Uncapturable, Watch, capture, same
from microfw.replay.guards import Carried, Named, fitting, state_of
from microfw.replay.plan import Plan
from microfw.replay.timed import Timed
from microfw.tensor import Tensor, result

Array = np.ndarray[Any, Any]
Key = tuple[Any, ...]
Between = Callable[[Array], None] | None

RECAPTURES = 20
"""How often a step may be captured anew before it is left alone: something that it depends on changes all the time."""

MOST_PLANS = 32
"""How many shapes may have a plan, each of which has memory of its own."""


class Replay:
    """A plan with what must hold for it."""

    def __init__(self, step: CompiledStep, captured: Captured, plan: Plan, several: bool, state: Any) -> None:
        self.plan = plan
        self.run = plan.run
        self.outputs = [plan.array(cell) for cell in captured.outputs]
        self.leaves = [(leaf, leaf.slot) for leaf, _ in captured.leaves]
        reached = {leaf for leaf, _ in self.leaves}
        self.others = [leaf for leaf in step.optimizer.flat.leaves if leaf not in reached]
        self.several = several
        self.state = state
        self.carried: Carried | None = None
        self.timed: Timed | None = None
        self.named = Named(step.f)
        self.fits = fitting(captured.inputs, self.named)
        self.changes = recording.changes.count
        self.mode = self.other = MODE.get()  # those under which the last steps were replayed
        self.whole = not self.others and type(step.optimizer).step is Optimizer.step
        self.lock = Lock()

    def results(self, watcher: Any) -> Any:
        """Return copies of the outputs as Tensors, and tell a watcher the loss."""
        first = _copied(self.outputs[0])
        if watcher is not None and watcher.losses is not None:
            watcher.losses.append(first._array)
        return (first, *[_copied(output) for output in self.outputs[1:]]) if self.several else first


def _copied(output: Array) -> Tensor:
    array: Any = output.copy()
    array.setflags(False)
    return result(array, None)


class _Stopped(Exception):
    """Carries out what a look at the loss raised."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


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
        self._last: Replay | None = None
        self._whole = self._watched = False

    def __getstate__(self) -> dict[str, Any]:
        return {"f": self.f, "optimizer": self.optimizer}

    def __setstate__(self, state: dict[str, Any]) -> None:
        CompiledStep.__init__(self, **state)  # a copy makes plans of its own

    def __call__(self, *arguments: Any) -> Any:
        """Do a step."""
        self._whole = False
        made = self.gradients(arguments)
        if not self._whole:
            self.optimizer.step()
        elif self._watched or not self.optimizer._at_once():
            self.optimizer._step(missing=False)
        return made

    def gradients(self, arguments: tuple[Any, ...], between: Between = None) -> Any:
        """Do a step but for the update: leave the gradients of a batch in the parameters, and return what ``f`` does.

        ``between`` is called with the loss before backward.
        """
        last, mode = self._last, _mode()
        if last is not None and mode is last.other:
            last.mode, last.other = mode, last.mode
        if last is not None and mode is last.mode and _changes.count == last.changes and last.fits(arguments):
            return self._replay(last, mode, arguments, between)
        return self._choose(tuple([self._array(a) for a in arguments]), between)

    def _choose(self, arrays: tuple[Array, ...], between: Between) -> Any:
        """Replay, learn, or run a step as ever."""
        key = tuple([(a.dtype.char, a.shape, a.strides) for a in arrays])
        replay, mode = self.replays.get(key), MODE.get()
        observer = mode.observer
        if mode.nested or not mode.recording or not (observer is None or observer.follows):
            return self._eager(arrays, between)
        if replay is None and key in self.reasons and not self._again(key):
            return self._eager(arrays, between)
        if replay is not None and not (replay.fits(arrays) and replay.changes == recording.changes.count):
            replay.named = Named(self.f)
            replay.fits = fitting(replay.plan.captured.inputs, replay.named)
            replay.changes = recording.changes.count
            if self._state(list(reached(self.f))) != replay.state:
                replay = None
                self.seen.pop(key, None)
        if replay is None:
            if len(self.replays) >= MOST_PLANS:
                self.reasons[key] = f"there are {MOST_PLANS} plans for other shapes"
                self.refused[key] = recording.changes.count, None
                return self._eager(arrays, between)
            return self._learn(key, arrays, between)
        if observer is not None and (replay.timed is None or replay.timed.observer is not observer):
            made = self._eager(arrays, between)  # which it sees first
            replay.timed = Timed(replay.plan, observer, observer.bound())
            replay.mode = replay.other = mode
            return made
        if mode is not replay.mode:
            replay.mode, replay.other = mode, replay.mode
        self._last = replay
        return self._replay(replay, mode, arrays, between)

    def _replay(self, replay: Replay, mode: recording.Mode, arrays: Any, between: Between) -> Any:
        if not replay.lock.acquire(False):  # another thread is in it
            return self._eager(arrays, between)
        try:
            before = None if replay.carried is None else replay.carried.save()
            watcher = mode.watcher
            try:
                if watcher is None and between is None:
                    replay.run(*arrays)
                else:
                    self._apart(replay, mode, arrays, between)
            except _Stopped as stopped:
                raise stopped.error from None
            except Exception:  # the step as ever says it in the layers' words
                if replay.carried is not None:
                    replay.carried.restore(before)
                if replay.timed is not None:
                    replay.timed.forget()
                return self._eager(arrays, between)
            for leaf, slot in replay.leaves:
                leaf.grad = slot
            for leaf in replay.others:
                leaf.grad = None
            self._whole, self._watched = replay.whole, watcher is not None
            return replay.results(watcher)
        except BaseException:
            self.optimizer.zero_grad()
            if replay.timed is not None:
                replay.timed.forget()
            raise
        finally:
            replay.lock.release()

    def _apart(self, replay: Replay, mode: recording.Mode, arrays: Any, between: Between) -> None:
        """Do one pass after the other, with a look at the loss, and at the clock if somebody keeps time."""
        watcher, timed = mode.watcher, replay.timed if mode.observer is not None else None
        plan = replay.plan if timed is None else timed
        at_once = plan.at_once if between is None and watcher is not None else None
        began = ended = perf_counter_ns() if watcher is not None else 0
        if at_once is not None:
            ended = at_once(*arrays)
        else:
            forward, backward = plan.apart
            forward(*arrays)
            if watcher is not None:
                ended = perf_counter_ns()
            if between is not None:
                try:
                    between(replay.outputs[0])
                except BaseException as error:
                    raise _Stopped(error) from None
            backward(*arrays)
        if watcher is not None:
            watcher.replayed(began, ended, perf_counter_ns())
        if timed is not None:
            timed.observer.follow(timed)

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
        self._last = None
        found = list(reached(self.f))
        state = self._state(found)
        self.refused[key] = recording.changes.count, state
        tensors = [x for x in found if isinstance(x, Tensor) and x._leaf is not None]
        generators = [x for x in found if isinstance(x, np.random.Generator)]
        carried = Carried(generators, [t for t in tensors if t._node is None])
        before = carried.save()
        watch, inputs = Watch(MODE.get().observer), [_given(a) for a in arrays]
        captured: list[Captured] = []

        def observed() -> Any:
            with recording.mode(observer=watch):
                returned = self.f(*inputs)
            try:
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
            except Exception as reason:
                self.reasons[key] = _why(reason)
            return returned

        made = self._eager(arrays, between, observed)
        if not captured:
            return made
        after = carried.save()
        try:
            plan = Plan(captured[0])
            carried.restore(before)
            self._prove(captured[0], plan, arrays, made)
            self.replays[key] = replay = Replay(self, captured[0], plan, isinstance(made, tuple), state)
            replay.carried = carried if plan.impure else None
            del self.seen[key]
        except Exception as reason:
            self.reasons[key] = _why(reason)
        finally:
            carried.restore(after)
        return made

    def _prove(self, captured: Captured, plan: Plan, arrays: tuple[Array, ...], made: Any) -> None:
        """Run a plan on the step that it was made from, and compare every bit."""
        tensors = made if isinstance(made, tuple) else (made,)
        slots: list[Any] = [(leaf, leaf.slot) for leaf, _ in captured.leaves]
        gradients = [(leaf, slot, slot.copy()) for leaf, slot in slots]
        try:
            plan.run(*arrays)
            got = zip(tensors, captured.outputs, strict=True)
            wrong = [f"output {k}" for k, (t, cell) in enumerate(got) if not same(t._array, plan.array(cell))]
            wrong += [leaf.name or f"a leaf of shape {leaf.shape}" for leaf, *two in gradients if not same(*two)]
        except Exception as error:
            wrong = [f"{type(error).__name__}: {error}"]
        finally:
            for _, slot, gradient in gradients:
                slot[...] = gradient
        if wrong:
            raise Uncapturable(f"the plan does not give what the step did ({wrong[0]}); this is a fault of microfw")

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


_mode, _changes = MODE.get, recording.changes
