"""A training step that is captured once for each shape of its arguments, and then replayed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import repeat
from operator import length_hint
from time import perf_counter_ns
from typing import Any

import numpy as np

from microfw.autograd.mode import MODE, Mode, mode, model_version, phase
from microfw.autograd.phases import PREPARATION
from microfw.autograd.state_discovery import reached
from microfw.autograd.tensor import Tensor, result
from microfw.errors import DTypeError, message
from microfw.replay.capture import Captured, capture
from microfw.replay.check import verify
from microfw.replay.dependencies import Dependencies
from microfw.replay.moves import moves
from microfw.replay.observe import Signature, Uncapturable, Watch, constant
from microfw.replay.replayed import FIRST_CHECK, Replay
from microfw.replay.timed import Timed
from microfw.replay.verification import Carried, StepState, global_generators

Array = np.ndarray[Any, Any]
Key = tuple[Any, ...]
Between = Callable[[Array], None] | None
Update = bool | Callable[[], None]

RECAPTURES = 20
"""How often a step may be captured again before it is run eagerly, since what it depends on changes all the time."""

WORTH = 64
"""A plan that was replayed so often has paid for its capture, which then does not count."""

MOST_PLANS = 32
"""How many shapes may have a plan, each of which has memory of its own."""


class CompiledStep:
    """A training step that is replayed where it can be; `mf.compile` makes one."""

    def __init__(self, f: Callable[..., Any], optimizer: Any) -> None:
        self.f = f
        self.optimizer = optimizer
        self.replays: dict[Key, Replay] = {}
        self.seen: dict[Key, tuple[Signature, Dependencies]] = {}
        self.reasons: dict[Key, str] = {}
        self.refused: dict[Key, tuple[int, Any]] = {}
        self.captures = 0
        self.settling: set[Key] = set()
        self.dropped: dict[Key, str] = {}
        self.strict = False  # whether a difference is an error, as in a Trainer, or a warning
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
        key = tuple([(a.dtype.char, a.shape, a.strides) for a in arrays])
        replay, passes = self._select(key)
        if replay is not None:
            if not length_hint(replay.ticks):
                return verify(self, key, replay, arrays, between, update)
            run, self._runs = replay.under(MODE.get()), replay.runs
            made = run(arrays, between, update)
            if made is not None:
                return made
        made = passes(arrays, between)
        self._update(update)
        return made

    def _update(self, update: Update) -> None:
        if callable(update):
            update()
        if update:
            self.optimizer.step()

    def _select(self, key: Key) -> tuple[Replay | None, Callable[..., Any]]:
        """Return the plan to replay, if there is one and it is right, and what does both passes if not."""
        replay, mode = self.replays.get(key), MODE.get()
        observer = mode.observer
        if mode.nested or not mode.recording or not (observer is None or observer.follows):
            return None, self._eager
        if replay is None and key in self.reasons and not self._again(key):
            return None, self._eager
        if replay is not None and not replay.current():
            depends = replay.depends.renewed()
            if depends.problem or replay.depends.difference(depends):
                self.captures -= replay.replays >= WORTH
                replay = None
                self.seen.pop(key, None)
                self.settling.discard(key)
            else:
                replay.renew(depends)
        if replay is None:
            if len(self.replays) >= MOST_PLANS:
                self._refuse(key, f"there are {MOST_PLANS} plans for other shapes")
                return None, self._eager
            return None, partial(self._learn, key)
        timed = replay.timed
        if observer is not None and observer.enabled and (timed is None or timed.observer is not observer):
            return None, partial(self._show, replay, observer)
        return replay, self._eager

    def _refuse(self, key: Key, why: str, depends: Dependencies | None = None) -> None:
        self.reasons[key] = why
        self.refused[key] = model_version.count, depends

    def _show(self, replay: Replay, observer: Any, arrays: Any, between: Between) -> Any:
        """Run a step eagerly, for an observer to record it before its replays are timed."""
        timer, began = MODE.get().timer, perf_counter_ns()
        made = self._eager(arrays, between)
        with phase(PREPARATION):
            sequence = observer.bound()
            if sequence is not None and len(sequence.op_stats) >= len(replay.plan.captured.nodes):  # no other ran since
                replay.timed = Timed(replay.plan, observer, sequence)
                replay.timed.example = replay, arrays
                replay.runs.clear()
        if timer is not None:
            timer.on_set_up(perf_counter_ns() - began)
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
        returned = self.f(*[constant(a) for a in arrays]) if f is None else f()
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
        timer = MODE.get().timer
        if timer is not None:
            timer.switch(PREPARATION)  # until the first op
        depends = Dependencies(self.f)
        if depends.problem:
            self._refuse(key, depends.problem, depends)
            return self._eager(arrays, between)
        found = list(reached(self.f))
        tensors = [x for x in found if isinstance(x, Tensor) and x._leaf is not None]
        generators = [x for x in found if isinstance(x, np.random.Generator)]
        carried = Carried(generators, [t for t in tensors if t._node is None])
        drawn, elsewhere = carried.save(), _states(depends.generators, generators)
        watch, inputs = Watch(MODE.get().observer), [constant(a) for a in arrays]
        captured: list[tuple[Captured, Signature, StepState]] = []
        leaves = [(t._leaf, t._leaf.version) for t in tensors if t._node is not None and t._leaf is not None]

        def observed() -> Any:
            with mode(observer=watch):
                returned = self.f(*inputs)
            if timer is not None:
                timer.switch(PREPARATION)  # until the backward pass
            note(returned)
            return returned

        def note(returned: Any) -> None:
            try:
                if any(leaf.version != version for leaf, version in leaves):
                    raise Uncapturable("it changes parameters, as an optimizer's step does")
                signature = Signature(watch, [*inputs, *tensors])
                now = depends.renewed()
                where = now.problem or depends.difference(now)
                if where is not None and not now.problem and key not in self.settling:
                    self.settling.add(key)  # the first step may fill caches and import modules
                    return
                if where is not None:
                    raise Uncapturable(f"it changes {where}, on which it may depend")
                if _states(depends.generators, generators) != elsewhere:
                    raise Uncapturable("Python code in it draws random numbers; draw them with a layer, or pass them")
                if self._seen_before(key, signature, depends):
                    now_drawn = carried.save()
                    with np.errstate(all="call", call=_nothing):  # so that an op that changes it is seen
                        try:
                            made = capture(watch, inputs, returned, tensors, self.optimizer.flat.owner)
                        finally:
                            carried.restore(now_drawn)  # ops of a user's own may draw
                        made.update, made.whole = moves(self.optimizer, made.tape)
                    state = StepState(self.optimizer, [leaf for leaf, _ in made.shared], carried)
                    state.drawn = drawn
                    captured.append((made, signature, state))
            except Exception as reason:
                self._refuse(key, _why(reason), depends)

        made = self._eager(arrays, between, observed)
        if captured:
            with phase(PREPARATION):
                self._prove(key, *captured[0], depends, carried, arrays, made)
        return made

    def _seen_before(self, key: Key, signature: Signature, depends: Dependencies) -> bool:
        """Return True if the step before was of the same kind, so that a plan can be made."""
        earlier, before = self.seen.get(key, (None, None))
        changed = None if before is None else before.difference(depends)
        if earlier is None or changed is not None:
            if len(self.seen) > MOST_PLANS:
                self.seen.clear()
            self.seen[key] = signature, depends
            if changed is None:
                return False
        self.captures += 1
        if self.captures > RECAPTURES:
            raise Uncapturable(f"{changed or 'what it depends on'} changes all the time")
        if changed is not None or earlier is None:
            return False
        difference = signature.difference(earlier)
        if difference is not None:
            raise Uncapturable(difference)
        return True

    def _prove(
        self,
        key: Key,
        captured: Captured,
        signature: Signature,
        before: StepState,
        depends: Dependencies,
        carried: Carried,
        arrays: tuple[Array, ...],
        made: Any,
    ) -> None:
        """Replay the step that a plan was made from, compare every bit, and keep the plan if all are the same."""
        tensors = made if isinstance(made, tuple) else (made,)
        after = StepState(self.optimizer, [leaf for leaf, _ in captured.shared], carried, [t._array for t in tensors])
        try:
            replay = Replay(self.optimizer, captured, isinstance(made, tuple), depends, carried, signature)
            before.restore()
            planned = replay.attempt(arrays, False)
            if planned is None:
                raise Uncapturable("its calls do not fit the step that they were noted from")
            after.restore()
            difference = after.difference(planned)
            if difference is not None:
                raise Uncapturable(f"a replay gives other bits for {difference.where}")
            replay.proven = True
            replay.ticks = repeat(None, FIRST_CHECK - 1)
            replay.programs.clear()
            replay.runs.clear()
            self.replays[key] = replay
            del self.seen[key]
            self.reasons.pop(key, None)
        except Exception as reason:
            self._refuse(key, _why(reason), depends)
        finally:
            after.restore()

    def _again(self, key: Key) -> bool:
        """Return True if what could not be captured is to be tried once more: something has changed since."""
        changes, depends = self.refused[key]
        if key in self.dropped or changes == model_version.count or self.captures > RECAPTURES:
            return False
        self.captures += 1
        self.refused[key] = model_version.count, depends
        if depends is not None and depends.difference(depends.renewed()) is None:
            return False
        del self.reasons[key]
        self.seen.pop(key, None)
        return True

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


def _why(reason: Exception) -> str:
    return (
        str(reason)
        if isinstance(reason, Uncapturable)
        else f"it could not be traced ({type(reason).__name__}: {reason})"
    )


def _states(generators: list[Any], followed: list[Any]) -> str:
    """Return the states of generators that no op of a plan can move: all but those of NumPy's new kind."""
    known = {id(g) for g in followed}
    own = [
        g.getstate() if hasattr(g, "getstate") else getattr(g, "state", None) or g.get_state()
        for g in generators
        if id(g) not in known and not isinstance(g, np.random.Generator)
    ]
    return repr(own) + global_generators()


_mode = MODE.get
