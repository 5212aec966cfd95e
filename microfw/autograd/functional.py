"""First derivatives of functions: of arrays, of nested containers of arrays, of a model's parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from microfw.autograd._tensor_base import native
from microfw.autograd.backward import backward_pass, stale_error
from microfw.autograd.double_backward import as_differentiable, visit_recorded
from microfw.autograd.graph import Node, Variable, node_counter, reachable, reaches_outside
from microfw.autograd.mode import MODE, mode
from microfw.autograd.pytree import as_arrays, flatten
from microfw.autograd.registry import OPS
from microfw.autograd.tangents import check_tangents, read_argnums, refuse_modules, require_sequence
from microfw.autograd.tensor import Tensor, result
from microfw.errors import ArgumentError, DTypeError, GraphError


def _variable(x: Any, where: str) -> Tensor:
    """Return a Tensor to differentiate with respect to; no other Tensor has its node or variable."""
    if isinstance(x, Tensor) and x.dtype.kind == "f":
        with mode(recording=True):
            made: Tensor = OPS["identity"].call(x)
        return made if made._node is not None else _fresh(made._array)
    array = native(np.array(x._values() if isinstance(x, Tensor) else x))
    if array.dtype.kind in "iub":
        array = array.astype(np.float64)
    if array.dtype.kind != "f":
        raise DTypeError(f"{where}: expected arrays of floats to differentiate by, got {type(x).__name__}")
    array.setflags(write=False)
    return _fresh(array)


def _fresh(array: Any) -> Tensor:
    node: Any = Variable(array.shape, array.dtype)
    return result(array, node)


class Linearization:
    """The recorded graph between variables and outputs. Its derivatives can be computed any number of times.

    Parameters
    ----------
    variables, outputs : sequence of Tensor
        Ends of the graph. No two variables share a node or leaf.
    since : int
        Order of the first node of this graph. Earlier nodes are not visited.
    differentiable : bool
        Whether derivatives are recorded, as Tensors, since they depend on more than the variables.
    """

    def __init__(
        self, variables: Sequence[Tensor], outputs: Sequence[Tensor], since: int, differentiable: bool
    ) -> None:
        self.variables = variables
        self.outputs = outputs
        self.since = since
        self.differentiable = differentiable
        self._between: list[Node] | None = None

    def vjp(self, seeds: Sequence[Any]) -> list[Any]:
        """Return the gradient with respect to each variable, given the gradient (or None) of each output."""
        nodes: list[Any] = [v._node for v in self.variables]
        differentiable = self._needs_graph(seeds)
        pairs = [(y._node, g) for y, g in zip(self.outputs, seeds, strict=True)]
        starts = [(n, _seed(g, differentiable)) for n, g in pairs if n is not None and g is not None]
        with mode(recording=differentiable):
            found: dict[Any, Any] = backward_pass(
                starts,
                targets=set(nodes),
                since=self.since,
                visit=visit_recorded if differentiable else None,
                retain=True,
            )
            for n in nodes:  # `backward_pass` calls the hooks of nodes; those of leaves are for `Tensor.backward`
                if type(n) is Variable and n.hooks and n in found:
                    found[n] = n.hooks(found[n])
        return [_out(found.get(n), v, differentiable) for n, v in zip(nodes, self.variables, strict=True)]

    def jvp(self, tangents: Sequence[Any]) -> list[Any]:
        """Return the tangent of each output, given the tangent (or None) of each variable."""
        return self.jvp_from({v._node: t for v, t in zip(self.variables, tangents, strict=True) if t is not None})

    def jvp_from(self, tangents: dict[Any, Any]) -> list[Any]:
        """Return the tangent of each output, given the tangents of some nodes and leaves."""
        differentiable = self._needs_graph(tangents.values())
        by_node = {n: _seed(t, differentiable) for n, t in tangents.items()}
        with mode(recording=differentiable):
            for node in self.between():
                for leaf, version in node.saved_versions:
                    if leaf.version != version:
                        raise stale_error(node, leaf, version)
                total = None
                for parent, partial, args in node.edges or ():
                    if parent in by_node:
                        args = as_differentiable(node, partial, args) if differentiable else args
                        t = partial_jvp(node, partial, by_node[parent], args)
                        total = t if total is None else total + t
                if total is not None:
                    by_node[node] = total if total.shape == node.shape else np.broadcast_to(total, node.shape)
        return [_out(by_node.get(y._node), y, differentiable) for y in self.outputs]

    @property
    def hooked(self) -> bool:
        """Whether `vjp` calls hooks, which may replace gradients. `jvp` has no gradients, and calls none."""
        nodes: list[Any] = [*self.between(), *(v._node for v in self.variables)]
        return any(n.hooks for n in nodes if (n.spec.hooked if type(n) is Node else type(n) is Variable))

    def between(self) -> list[Node]:
        """Return the nodes between variables and outputs, oldest first."""
        if self._between is None:
            ends = {v._node for v in self.variables}
            self._between = reachable(*(y._node for y in self.outputs), since=self.since, beyond=ends)
        return self._between

    def _needs_graph(self, given: Iterable[Any]) -> bool:
        """Return True if derivatives of ``given`` must be recorded. If not, notify the observer: values are read."""
        now = MODE.get()
        differentiable = now.recording and (
            self.differentiable or any(isinstance(t, Tensor) and t._node is not None for t in given)
        )
        if not differentiable and now.observer is not None:
            now.observer.on_value_read()  # a step whose values leave the graph cannot be replayed
        return differentiable


def _seed(g: Any, differentiable: bool) -> Any:
    if differentiable:
        return g if isinstance(g, Tensor) else result(np.asarray(g), None)
    return g._array if isinstance(g, Tensor) else g


def _out(g: Any, like: Tensor, differentiable: bool) -> Any:
    if g is None:
        g = np.zeros(like.shape, like.dtype)
    if differentiable:
        return g if isinstance(g, Tensor) else result(np.asarray(g), None)
    return np.array(g)


class LinearizedCall(Linearization):
    """The linearization of one function call.

    ``rebuild`` puts one value for each variable into the containers of ``arguments``, ``rebuild_output`` one for each
    output into those of ``output``. Derivatives are differentiable if recording is on and the function depends on
    another leaf or op result than its arguments, through a closure or because an argument is one. Parameters of a
    Module that is an argument belong to that argument.
    """

    def __init__(self, f: Callable[..., Any], args: tuple[Any, ...], argnums: Sequence[int], where: str) -> None:
        self.where = where
        since = next(node_counter)
        around = MODE.get()
        if not all(-len(args) <= k < len(args) for k in argnums):
            raise ArgumentError(where, f"argnums among {len(args)} positional arguments", tuple(argnums))
        argnums = [k % len(args) for k in argnums]
        if len(set(argnums)) < len(argnums):
            raise ArgumentError(where, "argnums that name each argument once", tuple(argnums))
        args = tuple(as_arrays(a) if k in argnums else a for k, a in enumerate(args))
        self.arguments = chosen = [args[k] for k in argnums]
        modules = [hasattr(a, "named_parameters") for a in chosen]
        _, self.rebuild = flatten(chosen)
        variables: list[Tensor] = []
        own = set()
        for a, is_module in zip(chosen, modules, strict=True):
            if not is_module:
                refuse_modules(a, where)
            leaves = flatten(a)[0]
            variables += leaves if is_module else [_variable(x, where) for x in leaves]
            if is_module:
                own |= {p._node for p in leaves}
        new_args = list(args)
        for k, arg, is_module in zip(argnums, self.rebuild(variables), modules, strict=True):
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
        differentiable = around.recording and (around.nested or reaches_outside((y._node for y in outputs), since, own))
        super().__init__(variables, outputs, since, differentiable)


def partial_jvp(node: Node, partial: Any, dx: Any, args: tuple[Any, ...]) -> Any:
    """Return the tangent of a node's output due to the tangent ``dx`` of one input."""
    if partial.jvp is not None:
        return partial.jvp(dx, *args)
    op = node.op  # the op is linear in this input: its derivative is the op, applied to the tangent
    others = dict(zip(partial.sources, args, strict=True))
    inputs = [dx if k == partial.index else others[name] for k, name in enumerate(op.inputs)]
    if isinstance(dx, Tensor):
        return op.call(*inputs, **node.params)
    return np.asarray(op.value(*inputs, **node.params))


def _scalar(linearized: LinearizedCall) -> Tensor:
    y = linearized.output
    if not isinstance(y, Tensor) or y.size != 1:
        got = f"shape {y.shape}" if isinstance(y, Tensor) else type(y).__name__
        raise GraphError(f"{linearized.where}: expected a function with one scalar output, got {got}; use mf.vjp")
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
        With the arguments of ``f``, keywords as constants; returns the value and the gradient, an array for each
        array (by name for a Module). Inside another derivative both are Tensors, so that derivatives nest.

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
    positions, single = read_argnums(argnums, "grad")

    def call(*args: Any, **constants: Any) -> tuple[Any, Any]:
        linearized = LinearizedCall(functools.partial(f, **constants), args, positions, "grad")
        y = _scalar(linearized)
        gradients = linearized.rebuild(linearized.vjp([np.ones(y.shape, y.dtype)]))
        value = y if linearized.differentiable else y.numpy()
        return value, gradients[0] if single else tuple(gradients)

    return call


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
    return lambda *args, **constants: both(*args, **constants)[1]


def vjp(f: Callable[..., Any], *args: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """Compute ``f(*args)``; return the value and a function that computes vector-Jacobian products.

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
    vjp_fn : callable
        ``vjp_fn(gradient)``, with ``gradient`` nested like the output, dicts by name, returns a tuple with the
        gradient of each argument. Can be called more than once.

    Raises
    ------
    ShapeError
        If a gradient does not have its output's shape or names.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> value, vjp_fn = mf.vjp(np.exp, np.zeros(2))
    >>> vjp_fn(np.array([1.0, 2.0]))
    (array([1., 2.]),)
    """
    linearized = LinearizedCall(f, args, range(len(args)), "vjp")

    def vjp_fn(gradient: Any) -> tuple[Any, ...]:
        seeds = check_tangents(gradient, linearized.output, linearized.outputs, "vjp", "output")
        return tuple(linearized.rebuild(linearized.vjp(seeds)))

    return _values(linearized), vjp_fn


def jvp(f: Callable[..., Any], args: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """Compute ``f(*args)`` and its derivative in a direction, in forward mode.

    Parameters
    ----------
    f : callable
        Of arrays or nested containers of arrays; returns Tensors, nested likewise.
    args : sequence
        Where to compute it.
    tangents : sequence
        The direction, nested like ``args``; dicts and Modules by name.

    Returns
    -------
    value, tangent
        Arrays, nested like what ``f`` returns.

    Raises
    ------
    ShapeError
        If a tangent does not have its argument's shape or names.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> mf.jvp(np.sin, (0.0,), (2.0,))
    (array(0.), array(2.))
    """
    require_sequence("jvp", args=args, tangents=tangents)
    linearized = LinearizedCall(f, tuple(args), range(len(args)), "jvp")
    if len({v._node for v in linearized.variables}) < len(linearized.variables):
        raise ArgumentError("jvp", "each parameter in one argument", "one that is in two", "pass its Module once")
    directions = check_tangents(tangents, linearized.arguments, linearized.variables, "jvp", "argument")
    return _values(linearized), linearized.rebuild_output(linearized.jvp(directions))


def _values(linearized: LinearizedCall) -> Any:
    return linearized.rebuild_output([y if linearized.differentiable else np.array(y.data) for y in linearized.outputs])
