"""The graph: leaves, and one node for each application of an op.

A node's edges hold, for each input that needs a gradient, the input's node or leaf, the op's partial derivative for
that input, and the values that the derivative needs. The record of a computation is its chain rule, ready to run.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np

from microfw.autograd.scope import Scope, location
from microfw.autograd.types import Gradient, GradientHooks, Op, Partial

# Numbers the nodes in the order of recording. No node has number 0, the default of ``since``.
node_counter = itertools.count(1)


class Leaf:
    """An array that no op made: a parameter, a buffer or data.

    Attributes
    ----------
    grad : ndarray or None
        The gradient, owned by this leaf alone.
    grad_buffer : ndarray or None
        Where an optimizer keeps the gradient.
    version : int
        Number of writes to the array. A node that saved the array compares it in backward.
    owner : object
        The `Owner` mark of the optimizer whose buffer has the array; None if there is none.
    hooks : callable or None
        The `GradientHooks` that replace the gradient before it is added to `grad`.
    name : str
        The path from the outermost module that was called; "" if no module has named it.
    """

    __slots__ = ("dtype", "grad", "grad_buffer", "hooks", "name", "owner", "shape", "version")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self.grad: np.ndarray[Any, Any] | None = None
        self.grad_buffer: np.ndarray[Any, Any] | None = None
        self.version = 0
        self.owner: Any = None
        self.hooks: GradientHooks | None = None
        self.name = ""

    @property
    def where(self) -> str:
        """How errors name the leaf: by its name, or by its shape if no module has named it."""
        return f"parameter {self.name!r}" if self.name else f"a leaf of shape {self.shape}"

    def accumulate_grad(self, gradient: np.ndarray[Any, Any]) -> None:
        """Add a gradient to `grad`."""
        if self.grad is not None:
            self.grad += gradient
        elif self.grad_buffer is None:
            self.grad = np.array(gradient, self.dtype)
        else:
            if gradient is not self.grad_buffer:
                self.grad_buffer[...] = gradient
            self.grad = self.grad_buffer

    def hand_out(self) -> np.ndarray[Any, Any] | None:
        """Return the gradient; one in an optimizer's buffer is copied first, since the next backward overwrites it."""
        if self.grad is self.grad_buffer and self.grad is not None:
            self.grad, self.owner.handed_out = self.grad.copy(), True
        return self.grad


class Variable:
    """An argument of a derivative function: gradients reach it as they reach a leaf, and none is kept.

    Attributes
    ----------
    shape, dtype
        Those of the array.
    order : int
        When it was made, numbered with the nodes.
    hooks : callable or None
        The `GradientHooks` that the function registered: the derivative function calls them with the gradient.
    """

    __slots__ = ("dtype", "hooks", "order", "shape")

    grad = None
    grad_buffer = None

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self.order = next(node_counter)
        self.hooks: GradientHooks | None = None

    def accumulate_grad(self, gradient: Any) -> None:
        """Drop the gradient: the derivative function gets it from `backward_pass`."""


class NodeSpec:
    """What all nodes of an op with the same number of inputs have in common.

    Attributes
    ----------
    op : Op
        The op.
    partials : tuple of Partial
        The op's derivatives, one for each of a node's parents.
    saved_indices : tuple of tuple of int
        For each partial, the indices of its arguments in `Node.saved`.
    backward_fn : callable
        ``backward_fn(node, g, grads, ready, needed)``: adds the node's input gradients to ``grads``. It is
        `visit_edges`, or what `codegen` wrote for the op.
    hooked : bool
        Whether the nodes have hooks on their gradients.
    """

    __slots__ = ("_hooked", "backward_fn", "hooked", "op", "partials", "saved_indices")

    def __init__(
        self,
        op: Op,
        partials: tuple[Partial, ...],
        saved_indices: tuple[tuple[int, ...], ...],
        backward_fn: Callable[..., Any],
    ) -> None:
        self.op = op
        self.partials = partials
        self.saved_indices = saved_indices
        self.backward_fn = backward_fn
        self.hooked = False
        self._hooked: NodeSpec | None = None

    def with_hooks(self) -> NodeSpec:
        """Return the spec of nodes of the same op that have hooks, always the same object."""
        if self.hooked:
            return self
        if self._hooked is None:
            self._hooked = NodeSpec(self.op, self.partials, self.saved_indices, self.backward_fn)
            self._hooked.hooked = True
        return self._hooked


class Node:
    """One application of an op.

    Attributes
    ----------
    order : int
        Number of the node in the order of recording.
    spec : NodeSpec
        The op, and its derivatives.
    parents : tuple or None
        For each input that has a derivative its node or leaf, or None if no gradient is needed. None for all once
        a backward pass has freed the node.
    saved : tuple
        The values that the derivatives need.
    saved_versions : tuple of (leaf, version)
        The leaves whose arrays were saved, with their versions at that time.
    scope : tuple or None
        The module that was being called, and its callers; see `Scope`.
    hooks : callable
        The `GradientHooks` that replace the node's gradient. Filled if `spec.hooked`.
    """

    __slots__ = (
        "_metadata",
        "_params",
        "hooks",
        "order",
        "parents",
        "saved",
        "saved_versions",
        "scope",
        "shape",
        "spec",
    )
    grad_buffer = None  # only a leaf has one
    order: int
    spec: NodeSpec
    parents: tuple[Node | Leaf | None, ...] | None
    saved: tuple[Any, ...]
    saved_versions: tuple[tuple[Leaf, int], ...]
    shape: tuple[int, ...]
    scope: Scope | None
    hooks: GradientHooks
    _params: dict[str, Any]
    _metadata: Any

    @property
    def op(self) -> Op:
        """The op."""
        return self.spec.op

    @property
    def edges(self) -> list[Edge] | None:
        """An edge for each input that needs a gradient; None once a backward pass has freed them."""
        if self.parents is None:
            return None
        found = zip(self.parents, self.spec.partials, self.spec.saved_indices, strict=True)
        return [(parent, p, tuple(self.saved[k] for k in at)) for parent, p, at in found if parent is not None]

    @property
    def inputs(self) -> tuple[Any, ...]:
        """All input arrays; kept only for ops that save more than inputs and output."""
        inputs: tuple[Any, ...] = self.saved[-1] if self.saved and self.op.aux else ()
        return inputs

    # These two slots are filled only where they are needed: to fill them takes 30 ns for each node.

    @property
    def params(self) -> dict[str, Any]:
        """The op's keyword parameters."""
        return getattr(self, "_params", {})

    @property
    def metadata(self) -> Any:
        """What an observer keeps with the node."""
        return getattr(self, "_metadata", None)

    @metadata.setter
    def metadata(self, value: Any) -> None:
        self._metadata = value

    @property
    def where(self) -> str:
        """The op's name, after the layer that recorded the node."""
        return location(self.scope, self.op.name)


Edge = tuple[Node | Leaf, Partial, tuple[Any, ...]]


def reachable(*roots: Node | Leaf | None, since: int = 0, beyond: Collection[Node | Leaf | None] = ()) -> list[Node]:
    """Return the nodes that a backward pass from the roots would visit, the roots included, oldest first.

    Nodes recorded before ``since``, and those in ``beyond``, are left out with all that only they lead to.
    """
    found: set[Node] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if type(node) is Node and node not in found and node.order >= since and node not in beyond:
            found.add(node)
            stack.extend(node.parents or ())
    return sorted(found, key=lambda n: n.order)


def nodes_between(
    seeds: Iterable[tuple[Node | Leaf, Gradient]], targets: Collection[Node | Leaf], since: int
) -> set[Node | Leaf]:
    """Return the targets, and the nodes between the seeds and the targets."""
    found = set(targets)
    for node in reachable(*(root for root, _ in seeds), since=since):
        if node.parents is None or any(parent in found for parent in node.parents):
            found.add(node)
    return found


def reaches_outside(roots: Iterable[Any], since: int, own: Collection[Any]) -> bool:
    """Return True if the roots depend on nodes recorded before ``since``, or on a leaf that is not in ``own``."""
    stack = [root for root in roots if root is not None]
    seen: set[Any] = set()
    while stack:
        node = stack.pop()
        if type(node) is Leaf:
            if node not in own:
                return True
        elif node.order < since:
            return True
        elif type(node) is Node and node not in seen:
            seen.add(node)
            stack += [parent for parent in node.parents or () if parent is not None]
    return False
