"""Compare a replayed with an eager step: save, restore and compare everything that a step changes, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
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
        flat, found = optimizer.flat, vars(optimizer)
        arrays = [flat.gradients, flat.values, *(x for x in found.values() if isinstance(x, np.ndarray))]
        self.copies = [(array, array.copy()) for array in arrays]
        self.numbers = {name: x for name, x in found.items() if isinstance(x, bool | int | float | None)}
        self.squared = flat.squared
        self.leaves = [(leaf, leaf.version, leaf.grad) for leaf in flat.leaves]
        self.shared = [(leaf, leaf.grad, None if leaf.grad is None else leaf.grad.copy()) for leaf in shared]
        self.drawn = forward_state.save()

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
        self.forward_state.restore(self.drawn, new_version=False)

    def difference(self, other: StepState) -> Difference | None:
        """Return where another state of the same step differs first; None if all bits are equal."""
        for (where, mine), (_, theirs) in zip(self._parts(), other._parts(), strict=True):
            if not alike(mine, theirs):
                return Difference(where, _is_rounding(mine, theirs))
        return None

    def _parts(self) -> Iterator[tuple[str, Any]]:
        """Yield all that is compared, with its name."""
        for k, output in enumerate(self.outputs):
            yield "the loss" if k == 0 else f"output {k}", output
        flat = self.optimizer.flat
        of = ("the gradient of ", "", *["the optimizer's state of "] * (len(self.copies) - 2))
        for what, (_, copy) in zip(of, self.copies, strict=True):
            if copy.shape != flat.values.shape:
                yield "the optimizer's state", [copy]  # a list: never a difference of rounding
                continue
            for leaf, span in zip(flat.leaves, flat.spans, strict=True):
                yield what + _named(leaf), copy[span]
        for leaf, _, copy in self.shared:
            yield "the gradient of " + _named(leaf), copy
        for leaf, _, grad in self.leaves:
            yield "the gradient of " + _named(leaf), grad is None
        generators, buffers = self.drawn
        for state in generators:
            yield "a random generator, from which Python code draws,", repr(state)
        for tensor, values in zip(self.forward_state.buffers, buffers, strict=True):
            yield _named(tensor._leaf, "a buffer"), values


def generator_states(generators: list[Any]) -> str:
    """Return the states of Python's and NumPy's global generators, and of those generators that no op can draw from.

    The latter are all but objects of `numpy.random.Generator`.
    """
    own = [
        g.getstate() if hasattr(g, "getstate") else getattr(g, "state", None) or g.get_state()
        for g in generators
        if not isinstance(g, np.random.Generator)
    ]
    state: Any = np.random.get_state()  # noqa: NPY002 -- read, never changed
    kind, key, *rest = state
    return f"{own} {random.getstate()} {kind} {key.tobytes().hex()} {rest}"  # repr of the array would take 2 ms


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
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(alike, a, b))
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
