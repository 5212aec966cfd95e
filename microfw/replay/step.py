"""`CompiledStep`: chooses for each call whether to replay the step, capture it, or run it eagerly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import length_hint
from time import perf_counter_ns
from typing import Any

import numpy as np

from microfw.autograd.mode import MODE, Mode, mode, model_version, phase
from microfw.autograd.phases import PREPARATION
from microfw.autograd.tensor import Tensor, result
from microfw.replay.arguments import array_of, constant, returned_tensors
from microfw.replay.capture import CapturedStep, CaptureObserver, capture
from microfw.replay.check import run_checked
from microfw.replay.dependencies import Dependencies
from microfw.replay.instrumented import InstrumentedPlan
from microfw.replay.program import Replay
from microfw.replay.reasons import Uncapturable, reason_of
from microfw.replay.verification import Signature, StateBefore, StepState

Array = np.ndarray[Any, Any]
Key = tuple[Any, ...]
OnLoss = Callable[[Array], None] | None
Update = bool | Callable[[], None]

# Captures of one step, after which it runs eagerly: what it depends on keeps changing.
RECAPTURES = 20

# Replays after which a plan has saved the time of its capture, which then is not counted in RECAPTURES.
REPLAYS_TO_PAY_OFF = 64

# Plans kept. Each shape of the arguments has its own plan and memory.
MAX_PLANS = 32


class CompiledStep:
    """A training step that is replayed where possible; `mf.compile` makes one.

    Attributes
    ----------
    replays : dict
        Plans by key: dtype, shape and strides of each argument.
    reasons : dict
        Why the steps of a key run eagerly.
    strict : bool
        Whether a replay that differs from the eager step raises, as in a Trainer, or warns.
    trusted : bool
        Whether the step is the library's code alone, which runs the same ops each time: one step is enough for a plan.
    """

    def __init__(self, f: Callable[..., Any], optimizer: Any) -> None:
        self.f = f
        self.optimizer = optimizer
        self.replays: dict[Key, Replay] = {}
        self.seen: dict[Key, tuple[Signature, Dependencies]] = {}  # of the last eager step, for keys without a plan
        self.reasons: dict[Key, str] = {}
        self.refused: dict[Key, tuple[int, Any]] = {}  # for keys of `reasons`: model version and dependencies then
        self.captures = 0  # those that count for `RECAPTURES`
        self.settling: set[Key] = set()  # whose first step changed what it depends on, as by filling a cache
        self.dropped: dict[Key, str] = {}  # whose plan differed from the eager step, and where; never captured again
        self.strict = self.trusted = False
        self._programs: dict[Mode, Callable[..., Any]] = {}  # of the plan used last

    def __getstate__(self) -> dict[str, Any]:
        return {"f": self.f, "optimizer": self.optimizer}

    def __setstate__(self, state: dict[str, Any]) -> None:
        CompiledStep.__init__(self, **state)  # plans are not copied

    def __call__(self, *arguments: Any) -> Any:
        """Run a step: forward, backward, update."""
        # written out: calling `run` takes 60 ns
        run = self._programs.get(_current_mode())
        made = None if run is None else run(arguments, None, True)
        return self._dispatch(arguments, None, True) if made is None else made

    def run(self, arguments: tuple[Any, ...], on_loss: OnLoss, update: Update) -> Any:
        """Run a step, and return what ``f`` returns.

        Parameters
        ----------
        arguments : tuple
            Arguments of ``f``.
        on_loss : callable or None
            Called with the loss, an array, before backward.
        update : bool or callable
            Whether the optimizer's step runs; else the gradients stay in the parameters. A callable is called before
            the optimizer's step.
        """
        run = self._programs.get(_current_mode())
        made = None if run is None else run(arguments, on_loss, update)
        return self._dispatch(arguments, on_loss, update) if made is None else made

    def _dispatch(self, arguments: tuple[Any, ...], on_loss: OnLoss, update: Update) -> Any:
        """Run a step that the last program did not run: select a plan, or run it eagerly."""
        arrays = tuple([array_of(a, self.optimizer.flat.values.dtype) for a in arguments])
        key = tuple([(a.dtype.char, a.shape, a.strides) for a in arrays])
        replay, passes = self._select(key)
        if replay is not None:
            if not length_hint(replay.countdown):
                return run_checked(self, key, replay, arrays, on_loss, update)
            run, self._programs = replay.program_for(MODE.get()), replay.programs_by_mode
            made = run(arrays, on_loss, update)
            if made is not None:
                return made
        made = passes(arrays, on_loss)
        self._update(update)
        return made

    def _update(self, update: Update) -> None:
        if callable(update):
            update()
        if update:
            self.optimizer.step()

    def _select(self, key: Key) -> tuple[Replay | None, Callable[..., Any]]:
        """Return the plan to replay, or None, and the function that runs both passes otherwise."""
        replay, mode = self.replays.get(key), MODE.get()
        observer = mode.observer
        if mode.nested or not mode.recording or not (observer is None or observer.supports_replay):
            return None, self._eager
        if replay is None and key in self.reasons and not self._should_retry(key):
            return None, self._eager
        if replay is None or not (replay.current() or self._refreshed(key, replay)):
            return None, partial(self._capture_step, key)
        if observer is not None and observer.enabled:
            instrumented = replay.instrumented
            if instrumented is None or instrumented.observer is not observer:
                return None, partial(self._run_observed, replay, observer)
        return replay, self._eager

    def _refreshed(self, key: Key, replay: Replay) -> bool:
        """Make a plan's guards again, since one does not hold; return False if a value has changed."""
        depends = replay.depends.recompute()
        if depends.problem or replay.depends.difference(depends) or self.optimizer.replaces("zero_grad"):
            self.captures -= replay.replays >= REPLAYS_TO_PAY_OFF
            self.seen.pop(key, None)
            self.settling.discard(key)
            return False
        replay.refresh(depends)
        return True

    def _refuse(self, key: Key, reason: str, depends: Dependencies | None = None) -> None:
        self.reasons[key] = reason
        self.refused[key] = model_version.count, depends

    def _run_observed(self, replay: Replay, observer: Any, arrays: Any, on_loss: OnLoss) -> Any:
        """Run a step eagerly for an observer to record, then make an instrumented plan for it."""
        timer, start_ns = MODE.get().timer, perf_counter_ns()
        made = self._eager(arrays, on_loss)
        with phase(PREPARATION):
            sequence, nodes = observer.last_sequence(), replay.plan.step.nodes
            if sequence is not None and len(sequence.op_stats) >= len(nodes):  # else another step has run since
                replay.instrumented = InstrumentedPlan(replay.plan, observer, sequence)
                replay.instrumented.example = replay, arrays
                replay.programs_by_mode.clear()
        if timer is not None:
            timer.on_set_up(perf_counter_ns() - start_ns)
        return made

    def _eager(self, arrays: Any, on_loss: OnLoss) -> Any:
        """Run both passes."""
        self.optimizer.zero_grad()
        return self._finish(self.f(*[constant(a) for a in arrays]), on_loss)

    def _finish(self, returned: Any, on_loss: OnLoss) -> Any:
        """Run the backward pass; return what the function returned without its graph."""
        tensors = returned_tensors(returned)
        if on_loss is not None:
            on_loss(tensors[0]._array)
        tensors[0].backward()
        made = [result(t._array, None) if t._leaf is None else t.detach() for t in tensors]
        return tuple(made) if isinstance(returned, tuple) else made[0]

    # Capturing a step

    def _capture_step(self, key: Key, arrays: tuple[Array, ...], on_loss: OnLoss) -> Any:
        """Run a step eagerly and record it. The second time, or the first if trusted, make a plan and verify it."""
        self._programs = {}
        if self.replays.pop(key, None) is None and len(self.replays) >= MAX_PLANS:
            self._refuse(key, f"there are {MAX_PLANS} plans for other shapes")
            return self._eager(arrays, on_loss)
        timer = MODE.get().timer
        if timer is not None:
            timer.switch(PREPARATION)  # until the first op runs
        depends = Dependencies(self.f)
        if depends.problem:
            self._refuse(key, depends.problem, depends)
            return self._eager(arrays, on_loss)
        before = StateBefore(depends)
        capturing, inputs = CaptureObserver(MODE.get().observer), [constant(a) for a in arrays]
        self.optimizer.zero_grad()
        with mode(observer=capturing):
            returned = self.f(*inputs)
        if timer is not None:
            timer.switch(PREPARATION)  # until the backward pass starts
        plan = None
        try:
            if before.has_new_parameters():
                raise Uncapturable("it changes parameters, as an optimizer's step or p -= lr * p.grad does")
            if any(leaf.grad is not None for leaf in self.optimizer.flat.leaves):
                raise Uncapturable("it runs a backward pass of its own; return the sum of the losses")
            if self.optimizer.replaces("zero_grad"):
                raise Uncapturable("its optimizer has a zero_grad of its own, which a replay would not call")
            signature = Signature(capturing, [*inputs, *depends.tensors])
            if self._can_plan(key, before, signature):
                if unused := before.unused_generators():
                    before.depends = Dependencies(self.f, depends.names, unused)
                plan = self._plan(before, capturing, inputs, returned)
        except Exception as error:
            self._refuse(key, reason_of(error), depends)
        made = self._finish(returned, on_loss)
        if plan is not None:
            with phase(PREPARATION):
                self._verify_plan(key, *plan, before, signature, arrays, made)
        return made

    def _plan(
        self, before: StateBefore, capturing: CaptureObserver, inputs: list[Tensor], returned: Any
    ) -> tuple[CapturedStep, StepState]:
        """Return the calls of a step of which the forward pass has run, and the state before it."""
        snapshot = before.forward_state.save()
        # a rule that sets np.errstate is then detected
        with mode(observer=None), np.errstate(all="call", call=_nothing):
            try:
                step = capture(capturing, inputs, returned, self.optimizer.flat.owner)
            finally:
                before.forward_state.restore(snapshot, new_version=False)  # user-defined ops may draw
            step.capture_update(self.optimizer)
        state = StepState(self.optimizer, [leaf for leaf, _ in step.shared], before.forward_state)
        state.forward_snapshot = before.forward_snapshot
        return step, state

    def _can_plan(self, key: Key, before: StateBefore, signature: Signature) -> bool:
        """Return True if the step has changed nothing that it depends on, and is like the one before."""
        depends = before.depends
        now = depends.recompute()
        where = now.problem or depends.difference(now)
        if where is not None and not now.problem and key not in self.settling:
            self.settling.add(key)  # the first step may fill caches and import modules
            return False
        if where is not None:
            raise Uncapturable(f"it changes {where}, on which it may depend")
        if before.has_drawn_elsewhere():
            raise Uncapturable("Python code in it draws random numbers; draw them with a layer, or pass them")
        return self._matches_previous(key, signature, depends)

    def _matches_previous(self, key: Key, signature: Signature, depends: Dependencies) -> bool:
        """Return True if a plan can be made: the previous step was alike, or there is none and the step is trusted."""
        if key not in self.seen and len(self.seen) > MAX_PLANS:
            self.seen.clear()
        earlier, before = self.seen.setdefault(key, (signature, depends))
        if earlier is signature:
            return self.trusted
        changed = before.difference(depends)
        self.captures += 1
        if self.captures > RECAPTURES:
            raise Uncapturable(f"{changed or 'what it depends on'} changes all the time")
        if changed is not None:
            self.seen[key] = signature, depends
            return False
        difference = signature.difference(earlier)
        if difference is not None:
            raise Uncapturable(difference)
        return True

    def _verify_plan(
        self,
        key: Key,
        step: CapturedStep,
        state: StepState,
        before: StateBefore,
        signature: Signature,
        arrays: tuple[Array, ...],
        made: Any,
    ) -> None:
        """Replay the step that a plan was made from, and keep the plan if all bits are equal."""
        tensors = made if isinstance(made, tuple) else (made,)
        depends, forward_state = before.depends, before.forward_state
        after = StepState(self.optimizer, [leaf for leaf, _ in step.shared], forward_state, [t._array for t in tensors])
        try:
            replay = Replay(self.optimizer, step, isinstance(made, tuple), depends, forward_state, signature)
            state.restore()
            planned = replay.try_replay(arrays, False)
            if planned is None:
                raise Uncapturable("its calls do not fit the step that they were noted from")
            after.restore()
            difference = after.difference(planned)
            if difference is not None:
                raise Uncapturable(f"a replay gives other bits for {difference.where}")
            replay.verified = True
            self.replays[key] = replay
            del self.seen[key]
            self.reasons.pop(key, None)
        except Exception as error:
            self._refuse(key, reason_of(error), depends)
        finally:
            after.restore()

    def _should_retry(self, key: Key) -> bool:
        """Return True if a step that could not be captured may be now, since something has changed."""
        changes, depends = self.refused[key]
        if key in self.dropped or changes == model_version.count or self.captures > RECAPTURES:
            return False
        self.captures += 1
        self.refused[key] = model_version.count, depends
        if depends is not None and depends.difference(depends.recompute()) is None:
            return False
        del self.reasons[key]
        self.seen.pop(key, None)
        return True

    # Reading

    def explain(self) -> str:
        """Return a line for each shape of the arguments: whether the step is replayed, and if not, why."""
        lines = []
        for key in dict.fromkeys((*self.replays, *self.reasons, *self.seen)):
            title = ", ".join(f"{np.dtype(char)} {shape}" for char, shape, _ in key)
            status = f"run every time: {self.reasons[key]}" if key in self.reasons else "seen once"
            if key in self.replays:
                opaque = self.replays[key].plan.step.opaque
                status = "replayed" if self.replays[key].leaves else "replayed; it trains no parameter of its optimizer"
                status += "".join(f"\n  {name} as one call: {text}" for name, text in opaque.items())
            lines.append(f"{title}: {status}")
        return "\n".join(lines) or "no step yet"

    def __repr__(self) -> str:
        return "\n\n".join([self.explain(), *(f"{replay.plan}" for replay in self.replays.values())])


def _nothing(kind: str, flag: int) -> None:
    pass


_current_mode = MODE.get  # a global, not an attribute: 5 ns less in each replay
