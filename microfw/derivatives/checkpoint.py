"""Checkpoints: recompute a part of the graph in backward, and do not keep it until then."""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import prod
from typing import Any

import numpy as np

from microfw import ops
from microfw.autograd.backward import backward_pass, visit_edges
from microfw.autograd.double_backward import visit_recorded
from microfw.autograd.functional import Linearization
from microfw.autograd.graph import Leaf, Node, NodeSpec, Variable, node_counter
from microfw.autograd.mode import MODE, mode
from microfw.autograd.op import Op, Partial, zero_cost
from microfw.autograd.pytree import flatten
from microfw.autograd.scope import THREAD_SCOPE, location
from microfw.autograd.state_discovery import find_state
from microfw.autograd.tensor import Tensor, result
from microfw.errors import DTypeError, GraphError


def checkpoint(f: Callable[..., Any], *inputs: Any) -> Any:
    """Compute ``f(*inputs)`` without keeping its graph; backward runs ``f`` again.

    Checkpoints trade time for memory. The arrays that the ops of ``f`` save are not kept between the forward and the
    backward pass; ``f`` runs twice in a training step. A deep model whose blocks are checkpoints needs memory for
    one block and for the activations between blocks.

    Parameters
    ----------
    f : callable
        Module or function of Tensors. ``f`` may use parameters that are not among its inputs.
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
        value the second time, or an array that ``f`` read was written to.
    DTypeError
        If ``f`` returns Tensors of several dtypes.

    Notes
    -----
    The second run draws the same random numbers. The states of all `numpy.random.Generator` objects that ``f`` and
    its inputs reference (in modules and other objects, containers, closures, defaults, globals) are stored, set for
    the second run, and restored after it. Buffers that ``f`` writes, such as running statistics, are restored too:
    they count each step once. If the second run returns another value for any other reason, backward raises an error.

    In a profile N and the steps are those of ``f`` without a checkpoint; the second run adds to the time and the
    operations of backward.

    A checkpoint can be differentiated again; the graph of the second run is then kept. Forward mode runs ``f`` once
    more for each input and parameter.

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
    return CheckpointedCall(f, inputs).record() if MODE.get().recording else f(*inputs)


class CheckpointedCall:
    """A function call that can run again with the same result: inputs, states of random generators, scope."""

    def __init__(self, f: Callable[..., Any], inputs: tuple[Any, ...]) -> None:
        self.f = f
        self.inputs = _replace_leaves(inputs, np.ndarray, np.array)  # copies: a caller may write to its arrays
        self.generators, self.tensors = find_state((f, inputs))
        self.states = [g.bit_generator.state for g in self.generators]
        self.scope = THREAD_SCOPE.scope
        self.nested = MODE.get().nested
        self.pending: dict[int, tuple[Any, dict[int, Any]]] = {}

    def run(self) -> tuple[Any, list[Tensor], int]:
        """Run the function; return its output, the Tensors in place of inputs, and the order of its first node."""
        since = next(node_counter)  # nodes of this run have larger numbers
        variables: list[Tensor] = []

        def variable(x: Tensor) -> Tensor:
            if not isinstance(x._node, Node):
                return x
            with unobserved():  # the new node cuts the inner graph off from the outer one
                variables.append(ops.identity(x))
            return variables[-1]

        outer, THREAD_SCOPE.scope = THREAD_SCOPE.scope, self.scope
        try:
            with mode(recording=True, nested=self.nested):
                return self.f(*_replace_leaves(self.inputs, Tensor, variable)), variables, since
        finally:
            THREAD_SCOPE.scope = outer

    def record(self) -> Any:
        """Run the function, and record one node for the whole call."""
        versions = {t._leaf: t._leaf.version for t in self.tensors if t._leaf is not None}
        output, variables, since = self.run()
        outputs, rebuild = flatten(output)
        y = _joined(outputs)
        if y._node is None:
            return output
        saved_versions = {leaf: v for leaf, v in versions.items() if leaf.version == v}
        self.written = [t for t in self.tensors if t._leaf not in saved_versions]
        nodes = Linearization([], [y], since, False).between()
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
                    raise GraphError("checkpoint", "results of ops to come in as inputs", got, "pass it too")
        self.leaves = list(dict.fromkeys(self.leaves))
        self.value = y._array
        ends = (*parents, *self.leaves)
        node = Node()
        node.order, node.shape, node.scope = next(node_counter), y.shape, self.scope
        node.saved_versions = tuple(
            (saved_versions | {leaf: leaf.version for leaf in self.leaves if isinstance(leaf, Leaf)}).items()
        )
        node.spec = NodeSpec(
            OP, tuple(Partial(k, _vjp, _jvp, None, SAVED) for k in range(len(ends))),
            tuple((0, k + 1) for k in range(len(ends))), visit_edges,
        )  # fmt: skip
        node.parents, node.saved = ends, (self, *range(len(ends)))
        with unobserved():
            return rebuild(_parted(result(y._array, node), [y.shape for y in outputs]))

    @contextmanager
    def rerun(self) -> Iterator[tuple[Tensor, list[Any], int]]:
        """Run the function again; yield its output, the nodes and leaves of its inputs, and its first node's order.

        Random generators and buffers are restored afterwards.
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
        """Raise GraphError if the second value differs by more than the rounding of one sum."""
        first = self.value
        # A sum may be added in another order, as by another number of threads; a different mask differs by far more.
        size = np.abs(first[np.isfinite(first)]).max(initial=0) if first.shape == y.shape else 0
        if first.shape != y.shape or not np.allclose(
            first, y, rtol=0, atol=64 * np.finfo(first.dtype).eps * size, equal_nan=True
        ):
            raise GraphError(
                location(self.scope, "checkpoint"),
                "the same value when its function runs again",
                "another",
                "give it generators as numpy.random.Generator, and change nothing that it reads before backward",
            )

    def vjp(self, g: Any) -> dict[int, Any]:
        """Run the function again; return the gradient with respect to each input."""
        differentiable = isinstance(g, Tensor)
        with self.rerun() as (y, ends, since):
            with mode(recording=differentiable):
                visit = visit_recorded if differentiable else None
                seeds: Any = [(y._node, g)]
                found = backward_pass(seeds, targets=set(ends), since=since, visit=visit, retain=differentiable)
            return {k: found[end] for k, end in enumerate(ends)}


def unobserved() -> AbstractContextManager[None]:
    """Return a block in which no observer is notified. It encloses ops that the checkpointed function did not apply."""
    return nullcontext() if MODE.get().observer is None else mode(observer=None)


def _vjp(g: Any, call: CheckpointedCall, index: int) -> Any:
    """Return the gradient with respect to one input. One run computes all of them; the others are kept."""
    thread = get_ident()  # two threads may walk the graph at once
    entry = call.pending.get(thread)
    # the rules of one node are called one after the other with the same g
    if entry is None or entry[0] is not g or index not in entry[1]:
        entry = call.pending[thread] = (g, call.vjp(g))
    grad_input = entry[1].pop(index)
    if not entry[1]:  # the last one was asked for: free the gradients
        del call.pending[thread]
    return grad_input


def _jvp(dx: Any, call: CheckpointedCall, index: int) -> Any:
    with call.rerun() as (y, ends, since):
        return Linearization([], [y], since, isinstance(dx, Tensor)).jvp_from({ends[index]: dx})[0]


SAVED = ("call", "index")


def _value(*inputs: Any, call: CheckpointedCall) -> Any:
    return call.f(*inputs)


OP = Op(
    _value,
    vjp=None,
    jvp="same",
    vjp_out=None,
    aux=None,
    cost=zero_cost,
    no_alias=True,
    allow_dtype_change=False,
    name="checkpoint",
)
"""The op of a checkpoint's node. Observers are notified of the ops inside of it, which have the cost."""


def _replace_leaves(tree: Any, kind: type, new: Callable[[Any], Any]) -> Any:
    """Return a tree with each leaf of type ``kind`` replaced by ``new(leaf)``."""
    if isinstance(tree, kind):
        return new(tree)
    if isinstance(tree, dict):
        return {k: _replace_leaves(v, kind, new) for k, v in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_replace_leaves(v, kind, new) for v in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(_replace_leaves(v, kind, new) for v in tree)
    return tree


def _joined(outputs: list[Any]) -> Tensor:
    """Return Tensors flattened into one; a single Tensor gets a new node."""
    for y in outputs:
        if not isinstance(y, Tensor):
            raise GraphError("checkpoint", "a function that returns Tensors", type(y).__name__)
    if len({y.dtype for y in outputs}) > 1:
        got = ", ".join(str(y.dtype) for y in outputs)
        raise DTypeError("checkpoint", "a function that returns Tensors of one dtype", got)
    with mode(observer=None, recording=True):
        if len(outputs) == 1:
            return ops.identity(outputs[0])
        return ops.concatenate(*(y.reshape((y.size,)) for y in outputs))


def _parted(y: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """Split a Tensor from `_joined` into Tensors of these shapes."""
    if len(shapes) == 1:
        return [y]
    ends = np.cumsum([prod(s) for s in shapes]).tolist()
    return [y[end - prod(s) : end].reshape(s) for end, s in zip(ends, shapes, strict=True)]
