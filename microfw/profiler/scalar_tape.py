"""Arrays whose entries are nodes of a scalar graph, and the tape of the NumPy calls on them.

NumPy moves such entries as it moves values; calls that compute are recorded in a `Tape` and make new nodes. Going back
through the tape finds the nodes that a result depends on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from microfw.autograd.registry import NUMPY
from microfw.ops.elementwise.choices import where

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

FIRST = 2.0**52
"""Node k is the entry `FIRST` + k: an exact float64 that no value of a model has. Entries below are constants."""

MAX_ENTRIES = 1 << 26
"""Most entries of a tape: at 8 bytes each, 512 MB."""


MAX_BRANCHES = 100
"""Most conditions that an op may test: a loop until a value is small would not end, as values are not known."""


class Uncountable(Exception):
    """An op's value is not made of operations that are known to be scalar nodes."""


class TooLarge(Exception):
    """A graph has more than `MAX_ENTRIES` entries."""


def as_entries(x: Any) -> Entries:
    """Return an array as entries."""
    return np.asarray(x, np.float64).view(Entries)


def ids(x: Any) -> Array:
    """Return the number of the node of each entry, 0 for constants."""
    x = np.asarray(x).view(np.ndarray)
    if x.dtype != np.float64:
        return np.zeros(x.shape, np.int64)
    return np.where(x >= FIRST, x - FIRST, 0).astype(np.int64)


def values(x: Any) -> Any:
    """Return an argument with 0.5 in place of each node, whose value is not known."""
    if isinstance(x, tuple | list):
        return type(x)(map(values, x))
    if not isinstance(x, Entries):
        return x
    x = x.view(np.ndarray)
    return np.where(x >= FIRST, 0.5, x) if x.dtype == np.float64 else x


class Entries(Array):
    """Array of float64 whose entries are nodes of the current tape, or constants."""

    __array_priority__ = 10.0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = (), **options: Any) -> Any:
        tape = TAPE.get()
        plain = [x.view(np.ndarray) if isinstance(x, Entries) else x for x in inputs]
        op = getattr(NUMPY.get(ufunc), "op", None)
        if ufunc is np.matmul:
            y = tape.product(*plain)
        elif op is None:
            raise Uncountable(f"np.{ufunc.__name__}: compose the value of NumPy functions that are ops, too")
        elif not op.differentiable:
            y = tape.constant(getattr(ufunc, method), map(values, inputs), options)
        elif method == "__call__":
            y = tape.each(op, plain)
        elif method in ("reduce", "accumulate"):
            y = getattr(tape, method)(ufunc, plain[0], **options)
        elif method == "at":
            return tape.at(op, *plain)
        else:
            raise Uncountable(f"{ufunc.__name__}.{method}")
        if not out:
            return y
        out[0].view(np.ndarray)[...] = y
        return out[0]

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        op = getattr(NUMPY.get(function), "op", None)
        if function is np.where and len(args) == 3:
            return TAPE.get().each(where.op, [values(args[0]), *args[1:]])
        if function is np.dot:
            return as_entries(args[0]).dot(*args[1:])
        if op is not None and not op.differentiable:
            return TAPE.get().constant(function, map(values, args), options)
        y = super().__array_function__(function, types, args, options)
        return as_entries(y) if isinstance(y, np.ndarray) and y.dtype == np.float64 else y

    def dot(self, other: Any, out: Any = None) -> Any:
        """Matrix product."""
        y = TAPE.get().product(self, other)
        if out is None:
            return y
        out[...] = y
        return out

    def astype(self, dtype: Any, **options: Any) -> Any:  # type: ignore[override]
        """Return a copy: a cast to floats makes no node."""
        if self.dtype != np.float64:
            return super().astype(dtype, **options)
        if np.dtype(dtype).kind != "f":
            raise Uncountable("a cast to other numbers than floats")
        return self.copy()

    def argmax(self, *args: Any, **options: Any) -> Any:
        """Return the first entry: values are not known."""
        return values(self).argmax(*args, **options)

    argmin = argmax

    def item(self, *args: Any) -> Any:
        """Return the value of a constant, 0.5 for a node."""
        return values(self).item(*args)

    def __bool__(self) -> bool:
        tape = TAPE.get()
        tape.branches += 1
        if tape.branches > MAX_BRANCHES:
            raise Uncountable("a loop until a condition holds")
        return bool(values(self))

    def __float__(self) -> float:
        return float(self.item())


class Call(NamedTuple):
    """Nodes made by one NumPy call.

    ``nodes``: number of scalar nodes of each entry of ``out``. ``inputs``: for each, and in its shape, the entries that
    it is made of; of a matrix product the two factors.
    """

    kind: str
    out: Array
    nodes: Any
    inputs: tuple[Array, ...]
    owner: int


class Tape:
    """NumPy calls on `Entries`, in order.

    Attributes
    ----------
    leaves : int
        Number of leaf scalars. They are the nodes 1, 2, ….
    size : int
        Number of nodes and leaves so far. The last partial result of a sum stands for all of them.
    owner : int
        Index of the op that runs.
    """

    def __init__(self, leaves: int) -> None:
        self.calls: list[Call] = []
        self.leaves = self.size = leaves
        self.held = self.owner = self.branches = 0

    @staticmethod
    def numbered(first: int, shape: Shape) -> Entries:
        """Return an array with successive nodes."""
        return as_entries(FIRST + np.arange(first, first + int(np.prod(shape, dtype=int))).reshape(shape))

    def constant(self, function: Callable[..., Any], args: Any, options: dict[str, Any]) -> Any:
        """Return the result of a function that makes no nodes, such as a comparison."""
        y = function(*args, **{name: value for name, value in options.items() if name != "dtype"})
        return np.asarray(y).view(Entries) if isinstance(y, np.ndarray | np.generic) else y

    def add(self, kind: str, depends: Array, nodes: Any, inputs: Sequence[Array], known: Any = 1.0) -> Entries:
        """Record a call; return its result. ``depends``: where it is a node; elsewhere it has the value ``known``."""
        out = np.zeros(depends.shape, np.int64)
        n = int(np.count_nonzero(depends))
        out[depends] = np.arange(self.size + 1, self.size + 1 + n)
        self.size += n
        self.held += out.size + sum(x.size for x in inputs)
        if self.held > MAX_ENTRIES:
            raise TooLarge
        if n:
            self.calls.append(Call(kind, out, nodes, tuple(inputs), self.owner))
        return as_entries(np.where(depends, out + FIRST, known))

    def each(self, op: Any, arrays: Sequence[Any], known: Any = None) -> Entries:
        """Record an elementwise op: a node for each entry that depends on one."""
        arrays = [x.view(np.ndarray) if isinstance(x, Entries) else x for x in arrays]
        given = [ids(x) if op.partial(k) is not None else np.zeros(np.shape(x), int) for k, x in enumerate(arrays)]
        inputs = np.broadcast_arrays(*given)
        depends: Any = np.any([x > 0 for x in inputs], axis=0)
        if known is None and not depends.all():
            known = op.value(
                *(np.where(x >= FIRST, 1, x) if i.any() else x for i, x in zip(given, arrays, strict=True))
            )
        return self.add("each", depends, 1, inputs, 1.0 if known is None else known)

    def reduce(self, ufunc: Any, x: Array, axis: Any = 0, keepdims: bool = False, **options: Any) -> Any:
        """Record a fold over one axis after the other: n - 1 nodes for n entries."""
        axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        for k in sorted({a % x.ndim for a in axes}, reverse=True):
            x = np.moveaxis(x.view(np.ndarray), k, -1)
            if x.shape[-1] == 1:
                x = x[..., 0].copy()
            else:
                inputs = ids(x)
                depends = inputs > 0
                first = np.maximum(depends.argmax(-1), 1)  # constants before it are folded to a constant
                known = ufunc.reduce(np.where(depends, 1.0, x), axis=-1)
                x = self.add("fold", np.any(depends, -1), x.shape[-1] - first, [inputs], known)
            x = np.expand_dims(x, k) if keepdims else x
        return as_entries(x)

    def accumulate(self, ufunc: Any, x: Array, axis: int = 0, **options: Any) -> Any:
        """Record a running fold: n - 1 nodes for n entries."""
        y = np.moveaxis(x.copy(), axis, 0)
        for k in range(1, len(y)):
            y[k, ...] = self.each(NUMPY[ufunc].op, [y[k - 1], y[k]])  # type: ignore[attr-defined]
        return as_entries(np.moveaxis(y, 0, axis))

    def at(self, op: Any, target: Array, key: Any, x: Any) -> None:
        """Record ``ufunc.at``: a node for each entry of ``x``, one after the other where they meet."""
        places = np.arange(target.size).reshape(target.shape)[key]
        flat, x = target.reshape(-1), np.broadcast_to(x, places.shape).reshape(-1)
        places = places.reshape(-1)
        order = np.argsort(places, kind="stable")
        _, starts, counts = np.unique(places[order], return_index=True, return_counts=True)
        for k in range(counts.max(initial=0)):
            now = order[starts[counts > k] + k]
            flat[places[now]] = self.each(op, [flat[places[now]], x[now]])

    def product(self, a: Any, b: Any) -> Any:
        """Record a matrix product: for n factors n products and n - 1 sums."""
        a, b = np.asarray(a), np.asarray(b)
        if not a.ndim or not b.ndim:
            return self.each(NUMPY[np.multiply].op, [a, b])  # type: ignore[attr-defined]
        left, right = ids(a)[None] if a.ndim == 1 else ids(a), ids(b)[:, None] if b.ndim == 1 else ids(b)
        batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        left, right = (np.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (left, right))
        n, shape = left.shape[-1], (*batch, left.shape[-2], right.shape[-1])
        if n and (left.all() or right.all()):
            depends, nodes, known = np.ones(shape, bool), np.full((), 2 * n - 1), np.zeros(())
        else:
            nodes, depends = np.zeros(shape, int), np.zeros(shape, bool)
            for k in range(n):
                term = (left[..., :, k, None] > 0) | (right[..., None, k, :] > 0)
                depends |= term
                nodes += term + (depends if k else 0)
            known = np.matmul(*(np.where(ids(x) > 0, 1.0, x) for x in (a, b))).reshape(shape)
        y = self.add("product", depends, nodes, [left, right], known)
        return y.reshape((*batch, *(shape[-2:-1] if a.ndim > 1 else ()), *(shape[-1:] if b.ndim > 1 else ())))

    def back(self, seeds: Sequence[Any], owners: int) -> tuple[Array, Array]:
        """Return for each op how many of its nodes the seeds depend on, and how many edges they have to leaves."""
        live = np.zeros(self.size + 1, bool)
        for seed in seeds:
            live[ids(seed)] = True
        nodes, edges = np.zeros((2, owners), np.int64)
        for call in reversed(self.calls):
            live[0] = False  # constants
            out = live[call.out]
            if not out.any():
                continue
            nodes[call.owner] += int(np.sum(np.broadcast_to(call.nodes, out.shape)[out]))
            if call.kind == "product":
                for x, used in zip(call.inputs, (out.sum(-1), out.sum(-2)), strict=True):
                    by_line = x if x is call.inputs[0] else np.swapaxes(x, -1, -2)
                    live[by_line[used > 0]] = True
                    edges[call.owner] += int(np.sum(((by_line > 0) & (by_line <= self.leaves)).sum(-1) * used))
                continue
            for x in call.inputs:
                read = x if call.kind == "all" else x[out]
                live[read] = True
                edges[call.owner] += call.kind != "all" and int(np.count_nonzero((read > 0) & (read <= self.leaves)))
        return nodes, edges


TAPE: ContextVar[Tape] = ContextVar("tape")
"""The tape of the ops that run."""
