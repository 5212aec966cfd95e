"""Derivatives of functions: of arrays, of nested containers of arrays, of a model's parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from microfw.errors import DTypeError, GraphError, ShapeError
from microfw.graph import OPS, Leaf, Node, numbers, stale, walk
from microfw.recording import MODE, mode
from microfw.tensor import Tensor, relink, result

Tree = Any
"""A Tensor, an array or a number; a Module; or a list, tuple or dict of such."""


def flatten(tree: Tree) -> tuple[list[Any], Callable[[Sequence[Any]], Tree]]:
    """Return a tree's leaves in order, and a function that puts others in their places.

    A Module's leaves are its trainable parameters; in their places comes a dict by name.

    Examples
    --------
    >>> leaves, rebuild = flatten({"w": 1.0, "b": (2.0, 3.0)})
    >>> leaves
    [1.0, 2.0, 3.0]
    >>> rebuild([4, 5, 6])
    {'w': 4, 'b': (5, 6)}
    """
    if hasattr(tree, "named_parameters"):
        tree = {name: p for name, p in tree.named_parameters() if p.requires_grad}
    if isinstance(tree, dict):
        keys, children = list(tree), list(tree.values())
        return _branches(children, lambda new: dict(zip(keys, new, strict=True)))
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return _branches(list(tree), lambda new: type(tree)(*new))
    if isinstance(tree, list | tuple):
        return _branches(list(tree), type(tree))
    return [tree], lambda new: new[0]


def _branches(children: list[Tree], join: Callable[[list[Any]], Tree]) -> tuple[list[Any], Callable[..., Tree]]:
    parts = [flatten(child) for child in children]

    def rebuild(new: Sequence[Any]) -> Tree:
        new = list(new)
        rebuilt, start = [], 0
        for leaves, inner in parts:
            rebuilt.append(inner(new[start : start + len(leaves)]))
            start += len(leaves)
        return join(rebuilt)

    return [leaf for leaves, _ in parts for leaf in leaves], rebuild


def _variable(x: Any, where: str) -> Tensor:
    """Return a Tensor to differentiate with respect to: the parameter itself, or a fresh one."""
    if isinstance(x, Tensor):
        if isinstance(x._node, Leaf):
            return x
        if x._node is not None:
            with mode(recording=True):
                made: Tensor = OPS["identity"].call(x)
            return made
    array = np.array(x._array if isinstance(x, Tensor) else x)
    if array.dtype.kind in "iub":
        array = array.astype(np.float64)
    if array.dtype.kind != "f":
        raise DTypeError(f"{where}: expected arrays of floats to differentiate by, got {type(x).__name__}")
    return Tensor(array, requires_grad=True)


class _Recorded:
    """One call of a function, with the nodes of its variables and of its outputs."""

    def __init__(self, f: Callable[..., Any], args: tuple[Any, ...], argnums: Sequence[int], where: str) -> None:
        self.where = where
        self.since = next(numbers)
        self.outer = MODE.get().nested
        chosen = [args[k] for k in argnums]
        leaves, self.rebuild = flatten(chosen)
        self.variables = [_variable(x, where) for x in leaves]
        new_args = list(args)
        modules = [hasattr(a, "named_parameters") for a in chosen]
        for k, arg, is_module in zip(argnums, self.rebuild(self.variables), modules, strict=True):
            new_args[k] = args[k] if is_module else arg
        with mode(recording=True, nested=True):
            self.output = f(*new_args)
        outputs, self.rebuild_output = flatten(self.output)
        for y in outputs:
            if not isinstance(y, Tensor):
                raise GraphError(
                    f"{where}: expected the function to return Tensors, got {type(y).__name__}; "
                    "compute with operators and NumPy functions, and keep away from .data and .numpy()"
                )
        self.outputs: list[Tensor] = outputs

    def pull(self, seeds: Sequence[Any]) -> list[Any]:
        """Return the gradient with respect to each variable."""
        nodes: list[Any] = [v._node for v in self.variables]
        starts = [(y._node, g) for y, g in zip(self.outputs, seeds, strict=True) if y._node is not None]
        if self.outer:
            starts = [(n, g if isinstance(g, Tensor) else result(np.asarray(g), None)) for n, g in starts]
        with mode(recording=self.outer):
            found = walk(
                starts, targets=set(nodes), since=self.since, relink=relink if self.outer else None, retain=True
            )
        return [self._out(found.get(n), v) for n, v in zip(nodes, self.variables, strict=True)]

    def _out(self, g: Any, variable: Tensor) -> Any:
        if g is None:
            g = np.zeros(variable.shape, variable.dtype)
        if self.outer:
            return g if isinstance(g, Tensor) else result(np.asarray(g), None)
        return np.array(g)

    def push(self, tangents: Sequence[Any]) -> list[Any]:
        """Return the tangent of each output, given one for each variable."""
        moving: dict[Any, Any] = {}
        for v, t in zip(self.variables, tangents, strict=True):
            moving[v._node] = result(np.asarray(t), None) if self.outer and not isinstance(t, Tensor) else t
        nodes: dict[Node, None] = {}
        stack = [y._node for y in self.outputs if isinstance(y._node, Node)]
        while stack:
            node = stack.pop()
            if node in nodes or node in moving or node.order < self.since:
                continue
            nodes[node] = None
            stack.extend(parent for parent, _, _ in node.edges or () if isinstance(parent, Node))
        with mode(recording=self.outer):
            for node in sorted(nodes, key=lambda n: n.order):
                for leaf, version in node.guards:
                    if leaf.version != version:
                        raise stale(node, leaf, version)
                total = None
                for parent, partial, args in node.edges or ():
                    if parent in moving:
                        args = relink(node, partial, args) if self.outer else args
                        t = _advance(node, partial, moving[parent], args)
                        total = t if total is None else total + t
                if total is not None:
                    moving[node] = total if total.shape == node.shape else np.broadcast_to(total, node.shape)
        ends = []
        for y in self.outputs:
            t = moving.get(y._node)
            t = np.zeros(y.shape, y.dtype) if t is None else t
            ends.append(t if isinstance(t, Tensor) else result(np.asarray(t), None) if self.outer else np.array(t))
        return ends


def _advance(node: Node, partial: Any, dx: Any, args: tuple[Any, ...]) -> Any:
    if partial.jvp is not None:
        return partial.jvp(dx, *args)
    op = node.op  # linear in this input: the op itself, at the tangent
    others = dict(zip(partial.sources, args, strict=True))
    inputs = [dx if k == partial.index else others[name] for k, name in enumerate(op.inputs)]
    if isinstance(dx, Tensor):
        return op.call(*inputs, **node.params)
    return np.asarray(op.value(*inputs, **node.params))


def _scalar(recorded: _Recorded) -> Tensor:
    y = recorded.output
    if not isinstance(y, Tensor) or y.size != 1:
        got = f"shape {y.shape}" if isinstance(y, Tensor) else type(y).__name__
        raise GraphError(f"{recorded.where}: expected a function with one scalar output, got {got}; use mf.vjp")
    return y


def value_and_grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., tuple[Any, Any]]:
    """Return a function that computes ``f`` and its gradient.

    Parameters
    ----------
    f : callable
        Returns one scalar Tensor.
    argnums : int or sequence of int
        The positional arguments to differentiate by: each a number, an array, a nested list, tuple or
        dict of such, a parameter, or a Module, meaning its trainable parameters.

    Returns
    -------
    callable
        With the arguments of ``f``; returns the value and the gradient, an array for each array (by name
        for a Module). Inside another derivative both are Tensors, so that derivatives nest.

    Raises
    ------
    GraphError
        If ``f`` does not return one scalar Tensor.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> value, gradient = mf.value_and_grad(lambda p: np.sum(p["a"] * p["b"]))({"a": [1.0, 2.0], "b": 3.0})
    >>> float(value)
    9.0
    >>> gradient["b"]
    array(3.)
    """
    single = isinstance(argnums, int)
    places = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def call(*args: Any) -> tuple[Any, Any]:
        leaves_are_arrays = [as_arrays(a) if k in places else a for k, a in enumerate(args)]
        recorded = _Recorded(f, tuple(leaves_are_arrays), places, "grad")
        y = _scalar(recorded)
        gradients = recorded.rebuild(recorded.pull([np.ones(y.shape, y.dtype)]))
        value = y if recorded.outer else y.numpy()
        return value, gradients[0] if single else tuple(gradients)

    return call


def as_arrays(tree: Any) -> Any:
    """Read a list that holds only numbers as one array."""
    if isinstance(tree, list | tuple) and not hasattr(tree, "_fields") and tree:
        if all(isinstance(x, int | float) for x in tree):
            return np.array(tree, float)
        return type(tree)(as_arrays(x) for x in tree)
    if isinstance(tree, dict):
        return {k: as_arrays(v) for k, v in tree.items()}
    return tree


def grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """Return a function that computes the gradient of ``f``; see `value_and_grad`.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> mf.grad(np.tanh)(0.0)
    array(1.)
    >>> mf.grad(mf.grad(np.sin))(np.pi / 2)
    array(-1.)
    """
    both = value_and_grad(f, argnums)
    return lambda *args: both(*args)[1]


def vjp(f: Callable[..., Any], *args: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """Compute ``f(*args)`` and return it with the function that pulls gradients back.

    Parameters
    ----------
    f : callable
        Of arrays or nested containers of arrays; returns Tensors, nested likewise.
    *args
        Where to compute it.

    Returns
    -------
    value
        What ``f`` returned, as arrays.
    pull : callable
        Given a gradient for each output, nested like the output, returns a tuple of one for each argument.
        It can be called more than once.

    Raises
    ------
    ShapeError
        If a gradient does not have its output's shape.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> value, pull = mf.vjp(np.exp, np.zeros(2))
    >>> pull(np.array([1.0, 2.0]))
    (array([1., 2.]),)
    """
    recorded = _Recorded(f, tuple(as_arrays(a) for a in args), range(len(args)), "vjp")

    def pull(gradient: Any) -> tuple[Any, ...]:
        seeds = _match(as_arrays(gradient), recorded.outputs, "vjp", "output")
        return tuple(recorded.rebuild(recorded.pull(seeds)))

    return _values(recorded), pull


def jvp(f: Callable[..., Any], args: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """Compute ``f(*args)`` and its derivative in a direction, in forward mode.

    Parameters
    ----------
    f : callable
        Of arrays or nested containers of arrays; returns Tensors, nested likewise.
    args : sequence
        Where to compute it.
    tangents : sequence
        The direction, nested like ``args``.

    Returns
    -------
    value, tangent
        Arrays, nested like what ``f`` returns.

    Raises
    ------
    ShapeError
        If a tangent does not have its argument's shape.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> mf.jvp(np.sin, (0.0,), (2.0,))
    (array(0.), array(2.))
    """
    recorded = _Recorded(f, tuple(as_arrays(a) for a in args), range(len(args)), "jvp")
    directions = _match([as_arrays(t) for t in tangents], recorded.variables, "jvp", "argument")
    return _values(recorded), recorded.rebuild_output(recorded.push(directions))


def _values(recorded: _Recorded) -> Any:
    return recorded.rebuild_output([y if recorded.outer else np.array(y.data) for y in recorded.outputs])


def _match(tree: Any, tensors: Sequence[Tensor], where: str, what: str) -> list[Any]:
    given = flatten(tree)[0]
    if len(given) != len(tensors):
        raise ShapeError(f"{where}: expected one array for each {what}, {len(tensors)} in all, got {len(given)}")
    for k, (g, t) in enumerate(zip(given, tensors, strict=True)):
        if np.shape(g) != t.shape:
            raise ShapeError(f"{where}: expected {what} {k} to get an array of shape {t.shape}, got {np.shape(g)}")
    return [g if isinstance(g, Tensor) else np.asarray(g, t.dtype) for g, t in zip(given, tensors, strict=True)]
