"""Compare a replayed with an eager step: save, restore and compare everything that a step changes, bit for bit."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterable, Iterator
from types import MethodType
from typing import Any, NamedTuple

import numpy as np

from microfw.autograd.op import Written
from microfw.autograd.scope import location
from microfw.autograd.tensor import Tensor
from microfw.nn.forward_state import ForwardState
from microfw.nn.module import in_microfw
from microfw.replay.reasons import Uncapturable
from microfw.replay.trace import Array


class Signature:
    """What two steps must share to use one plan: ops with their settings, shapes, and arrays made by Python."""

    def __init__(self, observer: Any, known: list[Any]) -> None:
        if observer.value_use:
            raise Uncapturable(observer.value_use)
        self.ops: list[tuple[Any, ...]] = []
        made = {id(t._array) for t in known}
        for a in observer.records:
            shapes = [x.shape if isinstance(x, np.ndarray) else x for x in a.inputs]
            constants = [x for x in a.inputs if isinstance(x, np.ndarray) and id(x) not in made]
            self.ops.append((a.scope, type(a.scope and a.scope[0]), a.op.name, a.params, shapes, constants))
            made.add(id(a.output))

    def difference(self, other: Signature) -> str | None:
        """Return how another step differs from this one, in words; None if both can use one plan."""
        for now, before in zip(self.ops, other.ops, strict=False):
            if not alike(now[1:], before[1:]):
                return _difference(now, before)
        if len(self.ops) != len(other.ops):
            return f"there are {len(self.ops)} ops, and {len(other.ops)} before"
        return None


def _difference(now: tuple[Any, ...], before: tuple[Any, ...]) -> str:
    """Return how two ops differ."""
    (scope, kind, name, params, shapes, _), (old_scope, old_kind, old_name, old_params, old_shapes, _) = now, before
    where = location(scope, name)
    if (name, kind) != (old_name, old_kind):
        return f"op {where} has taken the place of {location(old_scope, old_name)}"
    if not alike(params, old_params):
        keys = [k for k in params if not alike(params[k], old_params.get(k))]
        pairs = ", ".join(_short(params[k], old_params[k]) for k in keys)
        return f"{where} has another {', '.join(keys)}: {pairs}"
    if not alike(shapes, old_shapes):
        return f"{where} has other inputs: {_short(shapes, old_shapes)}"
    return f"an array that the function makes for {where} is not the same at every step"


def _short(now: Any, before: Any) -> str:
    texts = [" ".join(repr(value).split()) for value in (now, before)]
    return "{}, and {} before".format(*(text if len(text) < 40 else text[:37] + "..." for text in texts))


class StateBefore:
    """What a step may change besides its gradients, as it was before the step."""

    def __init__(self, depends: Any) -> None:
        self.depends = depends
        self.states = [generator_state(g) for g in depends.generators]
        generators = [*(g for g in depends.generators if isinstance(g, np.random.Generator)), *depends.layer_generators]
        self.forward_state = ForwardState(generators, [t for t in depends.tensors if t._node is None])
        self.forward_snapshot, self.other_generators = self.forward_state.save(), generator_states(depends.generators)
        self.versions = [(t._leaf, t._leaf.version) for t in depends.tensors if t._node is not None]

    def has_new_parameters(self) -> bool:
        """Return True if parameters were written to."""
        return any(leaf.version != version for leaf, version in self.versions)

    def unused_generators(self) -> list[Any]:
        """Return the generators whose states have not changed. A step may still read them, as by copying one."""
        found = zip(self.depends.generators, self.states, strict=True)
        return [generator for generator, state in found if generator_state(generator) == state]

    def has_drawn_elsewhere(self) -> bool:
        """Return True if a generator was used from which no op can draw."""
        return generator_states(self.depends.generators) != self.other_generators


class Difference(NamedTuple):
    """Where a replayed step differs from the eager one, and whether rounding could explain the difference."""

    where: str
    rounding: bool


class StepState:
    """A copy of everything that a training step changes, Python objects apart.

    Parameters
    ----------
    optimizer : Optimizer
        Its parameters, gradients and state are copied.
    shared : list of Leaf
        Leaves of no or another optimizer that get a gradient.
    forward_state : ForwardState
        Random generators, and buffers such as running statistics.
    outputs : iterable of ndarray
        What the step returned.
    """

    def __init__(self, optimizer: Any, shared: list[Any], forward_state: Any, outputs: Iterable[Array] = ()) -> None:
        self.optimizer = optimizer
        self.forward_state = forward_state
        self.outputs = [array.copy() for array in outputs]
        flat, found = optimizer.flat, vars(optimizer)
        arrays = [flat.gradients, flat.values, *(x for x in found.values() if isinstance(x, np.ndarray))]
        self.copies = [(array, array.copy()) for array in arrays]
        self.numbers = {name: x for name, x in found.items() if isinstance(x, bool | int | float | None)}
        self.squared = flat.squared
        self.leaves = [(leaf, leaf.version, leaf.grad) for leaf in flat.leaves]
        self.shared = [(leaf, leaf.grad, None if leaf.grad is None else leaf.grad.copy()) for leaf in shared]
        self.forward_snapshot = forward_state.save()

    def restore(self) -> None:
        """Restore everything in place."""
        for array, copy in self.copies:
            array[...] = copy
        vars(self.optimizer).update(self.numbers)
        self.optimizer.flat.squared = self.squared
        for leaf, version, grad in self.leaves:
            leaf.version, leaf.grad = version, grad
        for leaf, grad, copy in self.shared:
            leaf.grad = grad
            if grad is not None:
                grad[...] = copy
        self.forward_state.restore(self.forward_snapshot, new_version=False)

    def difference(self, other: StepState) -> Difference | None:
        """Return where another state of the same step differs first; None if all bits are equal."""
        pairs = zip(self.copies, other.copies, strict=True)
        # whole buffers first: one by one, the parameters of a small model take four times as long
        same_buffers = all(a.tobytes() == b.tobytes() for (_, a), (_, b) in pairs)
        for (where, mine), (_, theirs) in zip(self._parts(same_buffers), other._parts(same_buffers), strict=True):
            if not alike(mine, theirs):
                return Difference(where, _is_rounding(mine, theirs))
        return None

    def _parts(self, same_buffers: bool) -> Iterator[tuple[str, Any]]:
        """Yield all that is compared, with its name; what lies in the optimizer's buffers only if these differ."""
        for k, output in enumerate(self.outputs):
            yield "the loss" if k == 0 else f"output {k}", output
        flat = self.optimizer.flat
        of = ("the gradient of ", "", *["the optimizer's state of "] * (len(self.copies) - 2))
        for what, (_, copy) in () if same_buffers else zip(of, self.copies, strict=True):
            if copy.shape != flat.values.shape:
                yield "the optimizer's state", [copy]  # a list: never a difference of rounding
                continue
            for leaf, span in zip(flat.leaves, flat.spans, strict=True):
                yield what + _named(leaf), copy[span]
        for leaf, _, copy in self.shared:
            yield "the gradient of " + _named(leaf), copy
        for leaf, _, grad in self.leaves:
            yield "the gradient of " + _named(leaf), grad is None
        generators, buffers = self.forward_snapshot
        for state in generators:
            yield "a random generator, from which Python code draws,", repr(state)
        for tensor, values in zip(self.forward_state.buffers, buffers, strict=True):
            yield _named(tensor._leaf, "a buffer"), values


def generator_states(generators: list[Any]) -> tuple[Any, ...]:
    """Return the states of Python's and NumPy's global generators, and of those that no op can draw from.

    The latter are all but objects of `numpy.random.Generator`. What is returned can be compared.
    """
    own = [generator_state(g) for g in generators if not isinstance(g, np.random.Generator)]
    state = np.random.get_state(legacy=False)  # noqa: NPY002 -- read, never changed
    return own, random.getstate(), pickle.dumps(state)


def generator_state(generator: Any) -> bytes:
    """Return the state of a random generator in a form that can be compared."""
    if isinstance(generator, random.Random):
        return pickle.dumps(generator.getstate())
    if isinstance(generator, np.random.RandomState):
        return pickle.dumps(generator.get_state(legacy=False))  # of any bit generator
    return pickle.dumps(getattr(generator, "bit_generator", generator).state)


def same(a: Array, b: Array) -> bool:
    """Return True if two arrays have the same bits in the same layout."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    kept = [k for k in range(a.ndim) if a.shape[k] > 1]
    if a.size and [a.strides[k] for k in kept] != [b.strides[k] for k in kept]:
        return False
    return a.tobytes() == b.tobytes()


def alike(a: Any, b: Any) -> bool:
    """Return True if two settings are equal, arrays in them bit for bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return same(a, b)
    if isinstance(a, Written):
        return all(x is y for x, y in zip(a, b, strict=True))
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, MethodType) and in_microfw(type(a.__self__)):  # of a loss that each step makes again
        same_kind = a.__func__ is b.__func__ and type(a.__self__) is type(b.__self__)
        return same_kind and alike(vars(a.__self__), vars(b.__self__))
    if isinstance(a, Tensor):
        return a is b or (a._node is b._node is None and same(a._array, b._array))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(a[k], b[k]) for k in a)
    return bool(a == b) or a is b


def _is_rounding(a: Any, b: Any) -> bool:
    """Return True if two arrays are equal up to a hundred times the spacing of their largest entries."""
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return False
    if a.shape != b.shape or a.dtype.kind != "f" or not a.size:
        return False
    with np.errstate(all="ignore"):
        largest = float(np.abs(a).max())
        return bool(np.abs(a - b).max() <= 100 * np.finfo(a.dtype).eps * largest)


def _named(leaf: Any, kind: str = "a parameter") -> str:
    return leaf.name or f"{kind} of shape {leaf.shape}"
