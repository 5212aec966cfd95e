"""Scalar graph: the loss of a model as a graph with one node for each operation on numbers.

A tensor node stands for many scalar operations. To record those, the loss is computed once as usual. Then the value
function of each op that the loss depends on runs again, on an array whose entries are 0-d Tensors. NumPy's loops call
the ops on the entries, and the ops record nodes. The scalar graph is the same model in the same engine; no second
table of ops is needed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microfw.autograd.graph import Leaf, Node, reachable
from microfw.autograd.mode import mode
from microfw.autograd.observer import Observer
from microfw.autograd.registry import NUMPY
from microfw.autograd.tensor import Tensor
from microfw.errors import GraphError, MicrofwError
from microfw.ops.elementwise.choices import where

Array = np.ndarray[Any, Any]


class Scalars(Array):
    """Array of 0-d Tensors. NumPy's functions become ops on the entries; moving entries records nothing."""

    __array_priority__ = 10.0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = (), **options: Any) -> Any:
        plain = [x.view(np.ndarray) if isinstance(x, Scalars) else x for x in inputs]
        call = NUMPY.get(ufunc)
        if ufunc is np.matmul:  # NumPy's loop multiplies and adds entries
            y = ufunc(*plain, **options)
        elif call is None:
            # not a TypeError, for which NumPy runs np.clip on an array of another class
            raise GraphError(f"np.{ufunc.__name__}: expected a function that is an op")
        elif method == "at":
            return ufunc.at(*plain)
        elif not call.op.differentiable:  # type: ignore[attr-defined]
            y = getattr(ufunc, method)(*(numbers_in(x) for x in plain), **options)
        elif method == "__call__":
            y = np.frompyfunc(call, ufunc.nin, 1)(*plain)
        elif method == "reduce":
            y = _fold(np.frompyfunc(call, 2, 1), plain[0], options.get("axis", 0), options.get("keepdims", False))
        else:
            return NotImplemented
        if not out:
            return as_scalars(y)
        if out[0].dtype != object:
            raise TypeError(f"np.{ufunc.__name__}: expected to write Tensors into an array of objects")
        out[0].view(np.ndarray)[...] = as_scalars(y).view(np.ndarray)
        return out[0]

    def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Any:
        if function is np.where and len(inputs) == 3:  # a node that depends on both, whichever is chosen
            a, b = (x.view(np.ndarray) if isinstance(x, Scalars) else x for x in inputs[1:])
            return as_scalars(np.frompyfunc(where, 3, 1)(numbers_in(inputs[0]), a, b))
        return as_scalars(super().__array_function__(function, types, inputs, options))

    def __getitem__(self, key: Any) -> Any:
        return as_scalars(super().__getitem__(key))

    def astype(self, *args: Any, **options: Any) -> Any:
        """Return a copy: a cast makes no node."""
        return self.copy()

    def dot(self, other: Any, out: Any = None) -> Any:
        """Matrix product; that of two vectors is a 0-d array."""
        y = as_scalars(super().dot(other))
        if out is None:
            return y
        out[...] = y
        return out


def as_scalars(y: Any) -> Any:
    """Return the result of a NumPy function as `Scalars` if it contains Tensors."""
    if isinstance(y, Tensor):
        array = np.empty((), object)
        array[()] = y
        return array.view(Scalars)
    return y.view(Scalars) if isinstance(y, np.ndarray) and y.dtype == object else y


def numbers_in(x: Any) -> Any:
    """Return the values of an array of Tensors; return anything else unchanged."""
    if isinstance(x, np.ndarray) and x.dtype == object:
        with mode(recording=False):  # plain numbers without a gradient
            return np.array([float(t) for t in x.reshape(-1)], float).reshape(x.shape)
    return x


def _fold(function: Any, x: Array, axis: Any, keepdims: bool) -> Any:
    """Reduce over one axis after the other, as for a binary function that need not be commutative."""
    axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    for k in sorted({a % x.ndim for a in axes}, reverse=True):
        x = function.reduce(x, axis=k, keepdims=keepdims)
    return x


class Tape(Observer):
    """Observer that stores each op with a node, and its inputs."""

    def __init__(self) -> None:
        self.entries: list[tuple[Any, Node, tuple[Any, ...], dict[str, Any], Array]] = []

    def forward(
        self, op: Any, node: Node | None, inputs: tuple[Any, ...], params: dict[str, Any], output: Array, start_ns: int
    ) -> None:
        """Store an op."""
        if node is not None:
            self.entries.append((op, node, inputs, params, output))


@dataclass
class ScalarGraph:
    """A loss with its scalar graph.

    Attributes
    ----------
    loss : Tensor
        The loss, with its scalar graph.
    leaves : list of Leaf
        Leaf of each trainable scalar, in the order of the parameters.
    nodes : list of Node
        N: nodes that the outputs of the ops depend on, all entries of an output included.
    """

    loss: Tensor
    leaves: list[Leaf]
    nodes: list[Node]


def scalar_graph(loss: Callable[[], Tensor], parameters: Sequence[Tensor], observer: Any = None) -> ScalarGraph:
    """Compute a loss with scalars, and record its graph.

    Parameters
    ----------
    loss : callable
        Computes the loss, one number, from the parameters.
    parameters : sequence of Tensor
        The trainable Tensors, in float64.
    observer : Observer, optional
        Notified of each scalar op.

    Returns
    -------
    ScalarGraph

    Raises
    ------
    GraphError
        If an op can be run neither on an array of Tensors nor on one entry at a time.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> w = mf.tensor([2.0, 3.0], requires_grad=True)
    >>> graph = scalar_graph(lambda: np.sum(w * w), [w])
    >>> graph.loss
    tensor(13., op=add)
    >>> len(graph.nodes), len(graph.leaves)
    (3, 2)
    """
    tape = Tape()
    with mode(observer=tape, recording=True):
        end = loss()
    known: dict[Any, Array] = {}
    leaves: list[Leaf] = []
    for p in parameters:
        entries = [Tensor(value, requires_grad=True) for value in p.data.reshape(-1)]
        array = np.empty(len(entries), object)
        for k, entry in enumerate(entries):
            array[k] = entry  # one by one: for a whole list NumPy would convert the Tensors
        known[p._node] = array.reshape(p.shape).view(Scalars)
        name = p._leaf.name if p._leaf is not None else ""
        for k, t in enumerate(entries):
            leaf: Any = t._node
            leaf.name = f"{name}[{k}]"
            leaves.append(leaf)
    needed = set(reachable(end._node))
    with mode(observer=observer, recording=True):
        for op, node, inputs, params, output in tape.entries:
            if node in needed:
                given = list(inputs)
                for parent, partial, _ in node.edges or ():
                    if parent in known:
                        given[partial.index] = known[parent]
                known[node] = _run(op, node, given, params, output)
    ends = [t._node for node in needed for t in known[node].view(np.ndarray).reshape(-1) if isinstance(t, Tensor)]
    return ScalarGraph(known[end._node].item(), leaves, reachable(*ends))


def _run(op: Any, node: Node, inputs: list[Any], params: dict[str, Any], output: Array) -> Array:
    """Run the value function of an op on arrays of Tensors, or if that fails on one entry at a time."""
    reason: object = "its value contains no Tensors"
    each: Callable[..., Any] = np.frompyfunc(lambda *entries: op.call(*entries, **params), len(inputs), 1)
    entries = [x.view(np.ndarray) if isinstance(x, Scalars) else x for x in inputs]
    # A value may write Tensors into an array that it made of constants, such as a product without trained factors.
    floats = lambda x: x.astype(object).view(Scalars) if getattr(x, "dtype", None) == np.float64 else x  # noqa: E731
    runs: tuple[Callable[[], Any], ...] = (
        lambda: op.value(*inputs, **params),
        lambda: op.value(*map(floats, inputs), **params),
        lambda: each(*entries),
    )
    for run in runs:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # values taken out of Tensors are detected below
                y = run()
            y = as_scalars(y[0] if isinstance(y, tuple) else y)
            y = _unpacked(y) if isinstance(y, Scalars) else y
            right = isinstance(y, Scalars) and y.shape == output.shape and _same(y, output)
        except (TypeError, ValueError, AttributeError, IndexError, MicrofwError) as error:
            reason, right = error, False
        if right:
            return y  # type: ignore[no-any-return]
    raise GraphError(
        f"{node.where}: expected an op that can be computed with scalars, got one that can't ({reason}); "
        "write its value with operators and NumPy functions"
    )


def _unpacked(y: Array) -> Array:
    """Unpack entries from 0-d arrays: NumPy stores a single assigned entry as one."""
    flat = y.view(np.ndarray).reshape(-1)
    for k, entry in enumerate(flat):
        if isinstance(entry, np.ndarray):
            flat[k] = entry.item()
    return flat.reshape(y.shape).view(Scalars)


def _same(y: Array, output: Array) -> bool:
    """Return True if scalars equal the output of an op and some of them need a gradient."""
    flat = y.view(np.ndarray).reshape(-1)
    connected = any(isinstance(t, Tensor) and t._node is not None for t in flat) or not flat.size
    return connected and bool(np.allclose(numbers_in(y), output, rtol=1e-9, atol=1e-12, equal_nan=True))
