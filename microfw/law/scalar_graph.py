"""The scalar graph: a model's loss computed number by number, each operation on numbers a node of its own.

A tensor node stands for many scalar operations. To see those, the loss is computed once as usual, and each
op that it depends on is then run again: its own value function, on an array whose entries are Tensors of no
axis. NumPy's loops over such an array call the ops on its entries, and the ops record nodes. So the scalar
graph is the same model in the same engine, and no second table of ops is needed.
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

Array = np.ndarray[Any, Any]


class Scalars(Array):
    """An array of Tensors of no axis. NumPy's functions become ops on the entries; moving them records nothing."""

    __array_priority__ = 10.0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = (), **options: Any) -> Any:
        plain = [x.view(np.ndarray) if isinstance(x, Scalars) else x for x in inputs]
        call = NUMPY.get(ufunc)
        if call is None or ufunc.signature is not None:  # a matrix product: NumPy's loop multiplies and adds entries
            y = getattr(ufunc, method)(*plain, **options)
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
        return as_scalars(super().__array_function__(function, types, inputs, options))  # np.where forgets the class

    def __getitem__(self, key: Any) -> Any:
        return as_scalars(super().__getitem__(key))

    def dot(self, other: Any, out: Any = None) -> Any:
        """Matrix product; of two vectors it is an array of no axis."""
        y = as_scalars(super().dot(other))
        if out is None:
            return y
        out[...] = y
        return out


def as_scalars(y: Any) -> Any:
    """Return what a NumPy function gave as `Scalars`, if there are Tensors in it."""
    if isinstance(y, Tensor):
        array = np.empty((), object)
        array[()] = y
        return array.view(Scalars)
    return y.view(Scalars) if isinstance(y, np.ndarray) and y.dtype == object else y


def numbers_in(x: Any) -> Any:
    """Return the values of an array of Tensors; anything else as it is."""
    if isinstance(x, np.ndarray) and x.dtype == object:
        with mode(recording=False):  # the numbers are meant, and no gradient
            return np.array([float(t) for t in x.reshape(-1)], float).reshape(x.shape)
    return x


def _fold(function: Any, x: Array, axis: Any, keepdims: bool) -> Any:
    """Reduce over one axis after another: a function of two entries says nothing about the order."""
    axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    for k in sorted({a % x.ndim for a in axes}, reverse=True):
        x = function.reduce(x, axis=k, keepdims=keepdims)
    return x


class Tape(Observer):
    """Observer that notes each op that recorded a node, with its inputs."""

    def __init__(self) -> None:
        self.entries: list[tuple[Any, Node, tuple[Any, ...], dict[str, Any], Array]] = []

    def forward(
        self, op: Any, node: Node | None, inputs: tuple[Any, ...], params: dict[str, Any], output: Array, began: int
    ) -> None:
        """Note an op."""
        if node is not None:
            self.entries.append((op, node, inputs, params, output))


@dataclass
class ScalarGraph:
    """A loss computed with scalars.

    Attributes
    ----------
    loss : Tensor
        The loss; its graph is what the loss depends on.
    leaves : list of Leaf
        The leaf of each trainable scalar, those of the first parameter first.
    """

    loss: Tensor
    leaves: list[Leaf]


def scalar_graph(loss: Callable[[], Tensor], parameters: Sequence[Tensor], observer: Any = None) -> ScalarGraph:
    """Compute a loss with scalars.

    Parameters
    ----------
    loss : callable
        Computes the loss, one number, from the parameters.
    parameters : sequence of Tensor
        The trainable Tensors, in float64.
    observer : Observer, optional
        Told of each scalar op.

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
    >>> len(reachable(graph.loss._node)), len(graph.leaves)
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
            array[k] = entry  # one by one: NumPy would ask a Tensor for its array
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
    return ScalarGraph(known[end._node].item(), leaves)


def _run(op: Any, node: Node, inputs: list[Any], params: dict[str, Any], output: Array) -> Array:
    """Run an op's value on arrays of Tensors; one that can't take those, on one entry at a time."""
    reason: object = "its value lost the Tensors on the way"
    each: Callable[..., Any] = np.frompyfunc(lambda *entries: op.call(*entries, **params), len(inputs), 1)
    runs: tuple[Callable[[], Any], ...] = (lambda: op.value(*inputs, **params), lambda: each(*inputs))
    for run in runs:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # values taken out of Tensors are found below
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
    """Take entries out of arrays of no axis, as which NumPy stores them where one entry is assigned."""
    flat = y.view(np.ndarray).reshape(-1)
    for k, entry in enumerate(flat):
        if isinstance(entry, np.ndarray):
            flat[k] = entry.item()
    return flat.reshape(y.shape).view(Scalars)


def _same(y: Array, output: Array) -> bool:
    """Whether scalars have the values of an op's output, and a gradient flows to some of them."""
    flat = y.view(np.ndarray).reshape(-1)
    connected = any(isinstance(t, Tensor) and t._node is not None for t in flat) or not flat.size
    return connected and bool(np.allclose(numbers_in(y), output, rtol=1e-9, atol=1e-12, equal_nan=True))
