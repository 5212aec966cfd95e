"""`compile`: a training step that is captured once for each shape of its arguments, and then replayed."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from time import perf_counter_ns
from typing import Any

import numpy as np

from microfw import recording
from microfw.errors import ArgumentError, DTypeError, message
from microfw.nn.module import Module
from microfw.reach import reach, reached
from microfw.recording import MODE
from microfw.replay.capture import Captured, Uncapturable, Watch, capture, same
from microfw.replay.plan import Plan
from microfw.tensor import Tensor, result

Key = tuple[Any, ...]


def compile(f: Callable[..., Any], optimizer: Any) -> CompiledStep:  # noqa: A001
    """Return a function that does a whole training step, and replays it when it has seen it twice.

    ``step(*arrays)`` does what these lines do, bit for bit::

        optimizer.zero_grad()
        loss = f(*arrays)
        loss.backward()
        optimizer.step()

    The first two calls for each shape and dtype of the arguments run just so, and are compared. From then on
    the NumPy calls that they came down to run from a list, into memory that is there already.

    Parameters
    ----------
    f : callable
        ``f(*arrays)`` returns the loss, a scalar Tensor, or a tuple whose first entry it is. It gets Tensors:
        floats in the dtype of the parameters, integers as they are.
    optimizer : optimizer
        Owns all parameters that ``f`` trains. Its settings, such as ``lr``, may change between steps.

    Returns
    -------
    CompiledStep
        ``step(*arrays)`` returns what ``f`` returns, as Tensors without a graph. ``step.explain()`` says what
        is replayed and what is not, and why; ``print(step)`` shows the calls.

    Raises
    ------
    ArgumentError
        If ``f`` is no function, or the optimizer is none.

    Notes
    -----
    What Python does in ``f`` besides ops is done only in the first two calls: side effects are not seen again,
    and what it reads from elsewhere must stay the same. Arrays that it makes must be equal in both calls. A
    step that reads a value of a Tensor, such as a branch on the loss, is not replayed, but run every time; so is
    one under an observer. A change of the model (a setting, `train` and `eval`, frozen parameters, hooks) makes
    the step captured anew.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> model = mf.nn.Dense(3, 1, rng=0)
    >>> loss = mf.nn.MSELoss()
    >>> step = mf.compile(lambda X, y: loss(model(X), y), mf.optim.SGD(model.parameters(), lr=0.1))
    >>> X, y = np.ones((8, 3)), np.zeros((8, 1))
    >>> [f"{step(X, y).item():.4f}" for _ in range(4)]
    ['0.1062', '0.0042', '0.0002', '0.0000']
    >>> print(step.explain())
    float32 (8, 3), float32 (8, 1): replayed
    """
    if not callable(f):
        raise ArgumentError(message("compile", "a function that returns the loss", type(f).__name__))
    if not hasattr(optimizer, "flat"):
        raise ArgumentError(message("compile", "an optimizer of microfw", type(optimizer).__name__))
    return CompiledStep(f, optimizer)


class Replay:
    """A plan with what must hold for it."""

    def __init__(self, captured: Captured, plan: Plan, returned: Any, state: Any) -> None:
        self.plan = plan
        self.inputs = [cell.fixed for cell in captured.inputs]
        self.outputs = [plan.array(cell) for cell in captured.outputs]
        self.leaves = [leaf for leaf, _ in captured.leaves]
        self.several = isinstance(returned, tuple)
        self.state = state
        self.changes = recording.changes.count
        self.lock = Lock()

    def results(self) -> Any:
        """Return copies of the outputs as Tensors."""
        tensors = [result(_locked(array.copy()), None) for array in self.outputs]
        return tuple(tensors) if self.several else tensors[0]


class CompiledStep:
    """A training step that is replayed where it can be; see `compile`."""

    def __init__(self, f: Callable[..., Any], optimizer: Any) -> None:
        self.f = f
        self.optimizer = optimizer
        self.replays: dict[Key, Replay] = {}
        self.seen: dict[Key, list[np.ndarray[Any, Any]]] = {}
        self.reasons: dict[Key, str] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Do a step."""
        arrays = [self._array(a) for a in arguments]
        key = tuple([(a.dtype.char, a.shape) for a in arrays])
        replay = self.replays.get(key)
        mode = MODE.get()
        if replay is None:
            if key in self.reasons or mode.observer is not None or mode.nested or not mode.recording:
                return self._eager(arrays)
            return self._learn(key, arrays)
        if mode.observer is not None or mode.nested or not mode.recording:
            return self._eager(arrays)
        if replay.changes != recording.changes.count and not self._still(key, replay):
            return self._learn(key, arrays)
        if not replay.lock.acquire(blocking=False):  # another thread is in it
            return self._eager(arrays)
        try:
            return self._replay(replay, arrays, mode.watcher)
        finally:
            replay.lock.release()

    def _replay(self, replay: Replay, arrays: list[Any], watcher: Any) -> Any:
        for place, array in zip(replay.inputs, arrays, strict=True):
            np.copyto(place, array)  # type: ignore[arg-type]
        for leaf in self.optimizer.flat.leaves:
            leaf.grad = None
        if watcher is None:
            replay.plan.forward()
            replay.plan.backward()
        else:
            began = perf_counter_ns()
            replay.plan.forward()
            between = perf_counter_ns()
            watcher.stretches.append(("forward", began, between))
            replay.plan.backward()
            watcher.stretches.append(("backward", between, perf_counter_ns()))
            if watcher.losses is not None:
                watcher.losses.append(replay.outputs[0].copy())
        for leaf in replay.leaves:
            leaf.grad = leaf.slot
        made = replay.results()
        self.optimizer.step()
        return made

    def _array(self, x: Any) -> np.ndarray[Any, Any]:
        array: np.ndarray[Any, Any] = x._array if isinstance(x, Tensor) else np.asarray(x)
        dtype = self.optimizer.flat.values.dtype
        if array.dtype.kind == "f" and array.dtype != dtype:
            array = array.astype(dtype)
        if array.dtype.kind not in "fiub":
            raise DTypeError(message("compiled step", "arrays of numbers", array.dtype))
        return array

    def _eager(self, arrays: list[Any]) -> Any:
        self.optimizer.zero_grad()
        returned = self.f(*[Tensor(a) for a in arrays])
        tensors = returned if isinstance(returned, tuple) else (returned,)
        tensors[0].backward()
        self.optimizer.step()
        made = [result(t._array, None) for t in tensors]
        return tuple(made) if isinstance(returned, tuple) else made[0]

    # Learning a step

    def _learn(self, key: Key, arrays: list[Any]) -> Any:
        """Run a step and note it; the second time make a plan, and hold it against what the step has given."""
        self.replays.pop(key, None)
        state = self._state()
        generators, tensors = reach(self.f)
        before = [g.bit_generator.state for g in generators]
        buffers = [(t, t._array.copy()) for t in tensors if t._node is None]
        self.optimizer.zero_grad()
        watch, inputs = Watch(), [Tensor(a) for a in arrays]
        with recording.mode(observer=watch):
            returned = self.f(*inputs)
        made = returned if isinstance(returned, tuple) else (returned,)
        after = [g.bit_generator.state for g in generators]
        moved = [t._array.copy() for t, _ in buffers]
        try:
            captured = capture(watch, inputs, returned, tensors)
        except Uncapturable as reason:
            self.reasons[key] = str(reason)
            captured = None
        made[0].backward()
        if captured is not None and self._twice(key, captured.constants):
            try:
                plan = Plan(captured)
                for g, s in zip(generators, before, strict=True):
                    g.bit_generator.state = s
                for t, values in buffers:
                    t._array[...] = values
                self._prove(captured, plan, arrays, made)
                self.replays[key] = Replay(captured, plan, returned, state)
            except Uncapturable as reason:
                self.reasons[key] = str(reason)
            finally:
                for g, s in zip(generators, after, strict=True):
                    g.bit_generator.state = s
                for (t, _), values in zip(buffers, moved, strict=True):
                    t._array[...] = values
        self.optimizer.step()
        results = [result(t._array, None) for t in made]
        return tuple(results) if isinstance(returned, tuple) else results[0]

    def _twice(self, key: Key, constants: list[np.ndarray[Any, Any]]) -> bool:
        """Whether a step has been seen before, with the same arrays made by its function."""
        earlier = self.seen.get(key)
        if earlier is None:
            self.seen[key] = constants
            return False
        if len(earlier) != len(constants) or not all(map(same, earlier, constants)):
            self.reasons[key] = "an array that the function makes is not the same at every step"
            return False
        return True

    def _prove(self, captured: Captured, plan: Plan, arrays: list[Any], made: Any) -> None:
        """Run a plan on the step that it was made from, and compare every bit."""
        expected = [t._array for t in made]
        gradients = [leaf.grad.copy() for leaf, _ in captured.leaves]  # type: ignore[union-attr]
        for cell, array in zip(captured.inputs, arrays, strict=True):
            np.copyto(cell.fixed, array)  # type: ignore[arg-type]
        plan.forward()
        plan.backward()
        got = [plan.array(cell) for cell in captured.outputs]
        for a, b in zip(expected, got, strict=True):
            if a.tobytes() != b.tobytes():
                raise Uncapturable("the plan gives another output than the step; this is a fault of microfw")
        for (leaf, _), gradient in zip(captured.leaves, gradients, strict=True):
            if leaf.slot.tobytes() != gradient.tobytes():  # type: ignore[union-attr]
                name = leaf.name or f"a leaf of shape {leaf.shape}"
                raise Uncapturable(f"the plan gives another gradient for {name}; this is a fault of microfw")

    # Guards

    def _state(self) -> Any:
        """Return what a plan depends on besides its arguments: the settings of modules, and which leaves are trained."""
        flat = self.optimizer.flat
        found = [id(flat.owner), flat.owner.lost]
        for x in reached(self.f):
            if isinstance(x, Module):
                found += [id(x), *((k, v) for k, v in vars(x).items() if type(v) in SIMPLE)]
            elif isinstance(x, Tensor) and x._leaf is not None:
                found += [id(x), id(x._array), x._node is not None, bool(x._leaf.hooks)]
        return found

    def _still(self, key: Key, replay: Replay) -> bool:
        """Whether all that a plan depends on is as it was."""
        if self._state() != replay.state:
            self.seen.pop(key, None)
            self.reasons.pop(key, None)
            return False
        replay.changes = recording.changes.count
        return True

    # Reading

    def explain(self) -> str:
        """Say for each shape of the arguments whether the step is replayed, and why not."""
        lines = []
        for key in dict.fromkeys((*self.replays, *self.reasons, *self.seen)):
            title = ", ".join(f"{np.dtype(char)} {shape}" for char, shape in key)
            why = f"run every time: {self.reasons.get(key)}" if key in self.reasons else "seen once"
            replay = self.replays.get(key)
            if replay is not None:
                opaque = replay.plan.captured.opaque
                why = "replayed" + "".join(f"\n  {name} as one call: {text}" for name, text in opaque.items())
            lines.append(f"{title}: {why}")
        return "\n".join(lines) or "no step yet"

    def __repr__(self) -> str:
        parts = [f"{replay.plan}" for replay in self.replays.values()]
        return "\n\n".join([self.explain(), *parts])


SIMPLE = (bool, int, float, str, type(None))


def _locked(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    array.setflags(write=False)
    return array
