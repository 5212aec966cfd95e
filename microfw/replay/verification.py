"""Compare a replayed with an eager step: save, restore and compare everything that a step changes, bit for bit."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from microfw.replay.trace import Array


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
        flat = optimizer.flat
        self.values = flat.values.copy()
        self.gradients = flat.gradients.copy()
        self.squared = flat.squared
        self.leaves = [(leaf, leaf.version, leaf.grad) for leaf in flat.leaves]
        self.shared = [(leaf, leaf.grad, None if leaf.grad is None else leaf.grad.copy()) for leaf in shared]
        found = vars(optimizer).items()
        self.arrays = {name: (x, x.copy()) for name, x in found if isinstance(x, np.ndarray)}
        self.numbers = {name: x for name, x in found if isinstance(x, bool | int | float | None)}
        self.drawn = forward_state.save()

    def restore(self) -> None:
        """Restore everything in place."""
        flat = self.optimizer.flat
        flat.values[...] = self.values
        flat.gradients[...] = self.gradients
        flat.squared = self.squared
        for leaf, version, grad in self.leaves:
            leaf.version, leaf.grad = version, grad
        for leaf, grad, copy in self.shared:
            leaf.grad = grad
            if grad is not None:
                grad[...] = copy
        for array, copy in self.arrays.values():
            array[...] = copy
        vars(self.optimizer).update(self.numbers)
        self.forward_state.restore(self.drawn, new_version=False)

    def difference(self, other: StepState) -> Difference | None:
        """Return where another state of the same step differs first; None if all bits are equal."""
        for k, pair in enumerate(zip(self.outputs, other.outputs, strict=True)):
            if not same(*pair):
                return Difference("the loss" if k == 0 else f"output {k}", _rounding(*pair))
        flat = self.optimizer.flat
        spans = list(zip(flat.leaves, flat.spans, strict=True))
        for what, mine, theirs in (
            ("the gradient of ", self.gradients, other.gradients),
            ("", self.values, other.values),
            *(("the optimizer's state of ", a, other.arrays[name][1]) for name, (_, a) in self.arrays.items()),
        ):
            if same(mine, theirs):
                continue
            for leaf, span in spans if mine.shape == flat.values.shape else ():
                if not same(mine[span], theirs[span]):
                    return Difference(what + _named(leaf), _rounding(mine[span], theirs[span]))
            return Difference("the optimizer's state", False)
        for (leaf, _, mine), (_, _, theirs) in zip(self.shared, other.shared, strict=True):
            if mine is None or theirs is None or not same(mine, theirs):
                rounding = mine is not None and theirs is not None and _rounding(mine, theirs)
                return Difference("the gradient of " + _named(leaf), rounding)
        for (leaf, _, mine), (_, _, theirs) in zip(self.leaves, other.leaves, strict=True):
            if (mine is None) != (theirs is None):
                return Difference("the gradient of " + _named(leaf), False)
        generators, buffers = self.drawn
        for mine, theirs in zip(generators, other.drawn[0], strict=True):
            if repr(mine) != repr(theirs):
                return Difference("a random generator, from which Python code draws,", False)
        for tensor, mine, theirs in zip(self.forward_state.buffers, buffers, other.drawn[1], strict=True):
            if not same(mine, theirs):
                return Difference(_named(tensor._leaf, "a buffer"), _rounding(mine, theirs))
        return None


def generator_states(generators: list[Any], known: list[Any]) -> str:
    """Return the states of Python's and NumPy's global generators, and of those generators that no op can draw from.

    The latter are all but ``known`` and objects of `numpy.random.Generator`.
    """
    ids = {id(g) for g in known}
    own = [
        g.getstate() if hasattr(g, "getstate") else getattr(g, "state", None) or g.get_state()
        for g in generators
        if id(g) not in ids and not isinstance(g, np.random.Generator)
    ]
    state: Any = np.random.get_state()  # noqa: NPY002 -- read, never changed
    kind, key, *rest = state
    return f"{own} {random.getstate()} {kind} {key.tobytes().hex()} {rest}"  # repr of the array would take 2 ms


def generator_state(generator: Any) -> bytes:
    """Return the state of a random generator in a form that can be compared."""
    if isinstance(generator, random.Random):
        return pickle.dumps(generator.getstate())
    if isinstance(generator, np.random.RandomState):
        return pickle.dumps(generator.get_state())
    return pickle.dumps(getattr(generator, "bit_generator", generator).state)


def same(a: Array, b: Array) -> bool:
    """Return True if two arrays have the same bits in the same layout."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    kept = [k for k in range(a.ndim) if a.shape[k] > 1]
    if a.size and [a.strides[k] for k in kept] != [b.strides[k] for k in kept]:
        return False
    return a.tobytes() == b.tobytes()


def _rounding(a: Array, b: Array) -> bool:
    """Return True if two arrays are equal up to a hundred times the spacing of their largest entries."""
    if a.shape != b.shape or a.dtype.kind != "f" or not a.size:
        return False
    with np.errstate(all="ignore"):
        largest = float(np.abs(a).max())
        return bool(np.abs(a - b).max() <= 100 * np.finfo(a.dtype).eps * largest)


def _named(leaf: Any, kind: str = "a parameter") -> str:
    return leaf.name or f"{kind} of shape {leaf.shape}"
