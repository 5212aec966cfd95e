"""Checkpoints: a part of a computation that is run again in backward, and not kept until then."""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import prod
from typing import Any

import numpy as np

from microfw import ops
from microfw.autograd.backward import backward_pass
from microfw.autograd.double_backward import as_differentiable
from microfw.autograd.functional import Recorded
from microfw.autograd.graph import Leaf, Node, NodeSpec, Variable, node_counter
from microfw.autograd.mode import MODE, mode
from microfw.autograd.op import Op, Partial, zero_cost
from microfw.autograd.pytree import flatten
from microfw.autograd.scope import THREAD_SCOPE, location
from microfw.autograd.state_discovery import find_state
from microfw.autograd.tensor import Tensor, result
from microfw.errors import DTypeError, GraphError, message


def checkpoint(f: Callable[..., Any], *inputs: Any) -> Any:
    """Compute ``f(*inputs)`` without keeping its graph; backward runs ``f`` again.

    Memory for time: of the arrays that the ops of ``f`` save, none is kept from the forward to the backward
    pass. In return ``f`` runs twice in a training step. A deep model whose blocks are checkpoints needs the
    memory of one block, and of what goes from one to the next.

    Parameters
    ----------
    f : callable
        A Module or a function of Tensors. It may use parameters that are not among its inputs.
    *inputs
        Tensors, lists, tuples and dicts of them, arrays (which are copied), or anything else.

    Returns
    -------
    Tensor, or list, tuple or dict of Tensors
        What ``f`` returns.

    Raises
    ------
    GraphError
        If ``f`` uses the result of an op that is not among ``inputs``. In backward, if ``f`` gives another
        value the second time, or what it read was written to.
    DTypeError
        If ``f`` returns Tensors of several dtypes.

    Notes
    -----
    The second run draws the same random numbers. The state of each `numpy.random.Generator` that ``f`` and its
    inputs hold (in modules and other objects, containers, closures, defaults, globals) is noted; it is set for
    the second run, and put back after it. Buffers that ``f`` writes, such as running statistics, are put back
    too, so that they count the step once. If ``f`` returns another value for any other reason, an error is raised.

    It can be differentiated again; the graph of the second run is then kept. Forward mode runs ``f`` once more
    for each input and parameter.

    Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> x = mf.tensor([0.5, 1.0], requires_grad=True)
    >>> y = mf.checkpoint(lambda x: np.exp(np.sin(x)), x)
    >>> y
    tensor([1.6151463 , 2.31977682], op=checkpoint)
    >>> y.sum().backward()
    >>> bool(np.allclose(x.grad, np.exp(np.sin([0.5, 1.0])) * np.cos([0.5, 1.0])))
    True
    """
    return _Part(f, inputs).first() if MODE.get().recording else f(*inputs)


class _Part:
    """A function and its inputs, with what it takes to run it again to the same effect."""

    def __init__(self, f: Callable[..., Any], inputs: tuple[Any, ...]) -> None:
        self.f = f
        self.inputs = _swapped(inputs, np.ndarray, np.array)
        self.generators, self.tensors = find_state((f, inputs))
        self.states = [g.bit_generator.state for g in self.generators]
        self.scope = THREAD_SCOPE.scope
        self.nested = MODE.get().nested
        self.waiting: dict[int, tuple[Any, dict[int, Any]]] = {}

    def run(self) -> tuple[Any, list[Tensor], int]:
        """Run the function; return what it returns, the Tensors that stood for inputs, and when it began."""
        since = next(node_counter)
        variables: list[Tensor] = []

        def variable(x: Tensor) -> Tensor:
            if not isinstance(x._node, Node):
                return x
            with unobserved():
                variables.append(ops.identity(x))
            return variables[-1]

        outer, THREAD_SCOPE.scope = THREAD_SCOPE.scope, self.scope
        try:
            with mode(recording=True, nested=self.nested):
                return self.f(*_swapped(self.inputs, Tensor, variable)), variables, since
        finally:
            THREAD_SCOPE.scope = outer

    def first(self) -> Any:
        """Run the function for its value, and record one node for all of it."""
        versions = {t._leaf: t._leaf.version for t in self.tensors if t._leaf is not None}
        output, variables, since = self.run()
        outputs, rebuild = flatten(output)
        y = _joined(outputs)
        if y._node is None:
            return output
        saved_versions = {leaf: v for leaf, v in versions.items() if leaf.version == v}
        self.written = [t for t in self.tensors if t._leaf not in saved_versions]
        nodes = Recorded([], [y], since, False).between()
        within = set(nodes)
        self.used = [k for k, v in enumerate(variables) if v._node in within]
        self.leaves: list[Any] = []
        parents = [variables[k]._node.parents[0] for k in self.used]  # type: ignore[union-attr, index]
        inputs = {v._node for v in variables}
        for node in nodes:
            saved_versions |= dict(node.saved_versions)
            parent: Any
            for parent in node.parents or ():
                if isinstance(parent, Variable):
                    if parent.order < since:  # later ones are of derivatives within the function
                        self.leaves.append(parent)
                elif isinstance(parent, Leaf):
                    self.leaves.append(parent)
                elif parent is not None and parent not in within and node not in inputs:
                    got = f"one of {parent.where} that is not among its inputs"
                    raise GraphError(message("checkpoint", "results of ops to come in as inputs", got, "pass it too"))
        self.leaves = list(dict.fromkeys(self.leaves))
        self.value = y._array
        ends = (*parents, *self.leaves)
        node = Node()
        node.order, node.shape, node.scope = next(node_counter), y.shape, self.scope
        node.saved_versions = tuple(
            (saved_versions | {leaf: leaf.version for leaf in self.leaves if isinstance(leaf, Leaf)}).items()
        )
        node.spec = NodeSpec(
            OP, tuple(Partial(k, _pull, _push, None, SAVED) for k in range(len(ends))),
            tuple((0, k + 1) for k in range(len(ends))),
        )  # fmt: skip
        node.parents, node.saved = ends, (self, *range(len(ends)))
        with unobserved():
            return rebuild(_parted(result(y._array, node), [y.shape for y in outputs]))

    @contextmanager
    def second(self) -> Iterator[tuple[Tensor, list[Any], int]]:
        """Run the function again: its output, the nodes and leaves where its inputs come in, and when it began.

        In the end the random generators and the buffers are as they were.
        """
        generators = [(g, g.bit_generator.state) for g in self.generators]
        buffers = [(t, t._array.copy(), t._leaf.version) for t in self.written]  # type: ignore[union-attr]
        try:
            for g, state in zip(self.generators, self.states, strict=True):
                g.bit_generator.state = state
            with mode(recomputing=True):
                output, variables, since = self.run()
                y = _joined(flatten(output)[0])
            self._compare(y._array)
            yield y, [*(variables[k]._node for k in self.used), *self.leaves], since
        finally:
            for g, state in generators:
                g.bit_generator.state = state
            for t, array, version in buffers:
                t._array[...] = array
                t._leaf.version = version  # type: ignore[union-attr]

    def _compare(self, y: Any) -> None:
        """Refuse a second value that differs by more than the rounding of one sum."""
        first = self.value
        size = np.abs(first[np.isfinite(first)]).max(initial=0) if first.shape == y.shape else 0
        if first.shape != y.shape or not np.allclose(
            first, y, rtol=0, atol=64 * np.finfo(first.dtype).eps * size, equal_nan=True
        ):
            raise GraphError(
                message(
                    location(self.scope, "checkpoint"),
                    "the same value when its function runs again",
                    "another",
                    "give it generators as numpy.random.Generator, and change nothing that it reads before backward",
                )
            )

    def pull(self, g: Any) -> dict[int, Any]:
        """Return the gradient with respect to each input, from one more run."""
        linked = isinstance(g, Tensor)
        with self.second() as (y, ends, since):
            with mode(recording=linked):
                link = as_differentiable if linked else None
                seeds: Any = [(y._node, g)]
                found = backward_pass(seeds, targets=set(ends), since=since, as_differentiable=link, retain=linked)
            return {k: found[end] for k, end in enumerate(ends)}


def unobserved() -> AbstractContextManager[None]:
    """Return a block in which no observer is notified: of ops that the function of a checkpoint has not applied."""
    return nullcontext() if MODE.get().observer is None else mode(observer=None)


def _pull(g: Any, again: _Part, index: int) -> Any:
    """Return one share of the gradient. The walk asks for all of them in turn, and one run gives all."""
    thread = get_ident()
    held = again.waiting.get(thread)
    if held is None or held[0] is not g or index not in held[1]:
        held = again.waiting[thread] = (g, again.pull(g))
    share = held[1].pop(index)
    if not held[1]:
        del again.waiting[thread]
    return share


def _push(dx: Any, again: _Part, index: int) -> Any:
    with again.second() as (y, ends, since):
        return Recorded([], [y], since, isinstance(dx, Tensor)).carry({ends[index]: dx})[0]


SAVED = ("again", "index")


def _value(*inputs: Any, again: _Part) -> Any:
    return again.f(*inputs)


OP = Op(_value, None, "same", None, None, zero_cost, True, False, "checkpoint")
"""The op of a checkpoint's node. Its cost is that of the ops inside, of which observers are notified."""


def _swapped(tree: Any, kind: type, new: Callable[[Any], Any]) -> Any:
    """Return a tree with others in the places of its leaves of a kind."""
    if isinstance(tree, kind):
        return new(tree)
    if isinstance(tree, dict):
        return {k: _swapped(v, kind, new) for k, v in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_swapped(v, kind, new) for v in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(_swapped(v, kind, new) for v in tree)
    return tree


def _joined(outputs: list[Any]) -> Tensor:
    """Return Tensors as one, which has a node of its own."""
    for y in outputs:
        if not isinstance(y, Tensor):
            raise GraphError(message("checkpoint", "a function that returns Tensors", type(y).__name__))
    if len({y.dtype for y in outputs}) > 1:
        got = ", ".join(str(y.dtype) for y in outputs)
        raise DTypeError(message("checkpoint", "a function that returns Tensors of one dtype", got))
    with mode(observer=None, recording=True):
        if len(outputs) == 1:
            return ops.identity(outputs[0])
        return ops.concatenate(*(y.reshape((y.size,)) for y in outputs))


def _parted(y: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """Undo `_joined`."""
    if len(shapes) == 1:
        return [y]
    ends = np.cumsum([prod(s) for s in shapes]).tolist()
    return [y[end - prod(s) : end].reshape(s) for end, s in zip(ends, shapes, strict=True)]
