"""Bytes that a graph keeps for backward, each address counted once."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from microfw.autograd.graph import Leaf, Node
from microfw.autograd.tensor import Tensor
from microfw.nn.module import Module

Array = np.ndarray[Any, Any]


class AddressRanges:
    """Sorted, disjoint ranges of addresses.

    Examples
    --------
    >>> ranges = AddressRanges()
    >>> ranges.add(0, 10), ranges.add(5, 20), ranges.add(0, 20), ranges.add(30, 40)
    (10, 10, 0, 10)
    """

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []

    def add(self, start: int, end: int) -> int:
        """Add a range; return the number of its bytes that are new."""
        first, last = bisect_left(self.ends, start), bisect_right(self.starts, end)
        known = sum(min(end, self.ends[k]) - max(start, self.starts[k]) for k in range(first, last))
        joined = [start, *self.starts[first:last]], [end, *self.ends[first:last]]
        self.starts[first:last], self.ends[first:last] = [min(joined[0])], [max(joined[1])]
        return end - start - known


class SavedMemory:
    """Counts the bytes that nodes keep. Each byte counts for the first node that keeps it.

    Arrays of trainable leaves, and of the modules that the nodes belong to, exist without a graph: they are not
    counted.

    Parameters
    ----------
    nodes : iterable of Node
        All nodes of the graph.
    ranges : AddressRanges, optional
        Addresses that are counted already. New ones are added.
    """

    def __init__(self, nodes: Iterable[Node], ranges: AddressRanges | None = None) -> None:
        self.ranges = ranges or AddressRanges()
        modules: dict[int, Module] = {}
        for node in nodes:
            scope: Any = node.scope
            while scope is not None:
                module, scope = scope
            if node.scope is not None:
                modules[id(module)] = module
            parents = _parents(node)
            for index, array in _saved_inputs(node).items():
                if type(parents.get(index)) is Leaf:
                    self._add(array)
        for module in modules.values():
            for _, part in module._walk():
                if isinstance(part, Tensor) and part._leaf is not None:
                    self._add(part._array)

    def count(self, node: Node) -> int:
        """Return the number of bytes that a node keeps and no node before it keeps."""
        parents = _parents(node)
        data = [leaf.shape for leaf, _ in node.saved_versions if leaf not in parents.values()]
        outside = {  # these arrays exist without the graph; of a frozen layer's result it keeps all
            id(array)
            for k, array in _saved_inputs(node).items()
            if type(parents.get(k)) is Leaf or getattr(array, "shape", None) in data
        }
        not_views = outside | {id(array) for array in _arrays(node.params)}
        return sum(
            self._add(array if id(array) in not_views else _owner(array))
            for array in _arrays([node.saved, node.params])
        )

    def _add(self, array: Any) -> int:
        return self.ranges.add(*byte_bounds(array)) if isinstance(array, np.ndarray) and array.size else 0


def _parents(node: Node) -> dict[int, Any]:
    """Return the parents of a node, by input index."""
    return {p.index: parent for p, parent in zip(node.spec.partials, node.parents or (), strict=False)}


def _saved_inputs(node: Node) -> dict[int, Any]:
    """Return the inputs of an op that its node saved, by input index."""
    op, found = node.op, dict(enumerate(node.inputs))
    if node.parents is None:  # freed by an earlier backward, which raises an error for it
        return {}
    for partial, places in zip(node.spec.partials, node.spec.saved_indices, strict=True):
        for source, place in zip(partial.sources, places, strict=True):
            if source not in op.inputs or node.saved[place] is None:
                continue
            value = node.saved[place]
            found |= dict(enumerate(value)) if op.variadic else {op.inputs.index(source): value}
    return found


def bytes_of(value: Any) -> int:
    """Return the bytes of the arrays in nested containers, each address counted once.

    Examples
    --------
    >>> rows = np.zeros(10, np.int32)
    >>> bytes_of({"index": (rows, rows[:5])})
    40
    """
    ranges = AddressRanges()
    return sum(ranges.add(*byte_bounds(array)) for array in _arrays(value) if array.size)


def _arrays(value: Any) -> Iterator[Array]:
    """Yield the arrays in nested containers and in the attributes of objects."""
    waiting, seen = [value], {id(value)}
    while waiting:
        value = waiting.pop()
        inner: Iterable[Any] = ()
        if isinstance(value, Tensor):
            inner = (value._array,)
        elif isinstance(value, np.ndarray):
            yield value
            inner = value.flat if value.dtype.hasobject else getattr(value, "__dict__", {}).values()
        elif isinstance(value, dict):
            inner = value.values()
        elif isinstance(value, tuple | list | set | frozenset | deque):
            inner = value
        elif hasattr(value, "__dict__") and not callable(value):
            inner = vars(value).values()
        fresh = [item for item in inner if id(item) not in seen]
        seen |= {id(item) for item in fresh}
        waiting += reversed(fresh)


def _owner(array: Array) -> Array:
    """Return the array that owns the memory of a view. A view of one entry keeps all of it alive."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
