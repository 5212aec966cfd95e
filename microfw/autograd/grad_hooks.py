"""Hooks on gradients: a function that sees the gradient of one Tensor on its way, and may replace it.

A hook costs nothing where there is none. On the result of an op it is a node of its own, put between the op and
all that uses the result; on a leaf, `Tensor.backward` looks for it when the gradient has been added up.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from microfw.autograd._tensor_base import ArrayLike
from microfw.autograd.graph import Form, Node, numbers
from microfw.autograd.mode import changes
from microfw.errors import DTypeError, GraphError, ShapeError, message

Hook = Callable[[np.ndarray[Any, Any]], Any]

_keys = itertools.count()

next(numbers)  # no node gets number 0, for a walk looks at none that is older, and `hooks_of` puts one half below


class Hooks(dict[int, Hook]):
    """Hooks by number, in the order in which they were registered."""

    def __call__(self, g: Any) -> Any:
        """Return what the hooks make of a gradient."""
        for hook in tuple(self.values()):
            seen = np.array(g.data if isinstance(g, ArrayLike) else g)
            seen.setflags(write=False)
            new = hook(seen)
            if new is None:
                continue
            if isinstance(g, ArrayLike):
                raise GraphError(
                    "hook: expected None inside of another derivative, got a replacement, which cannot be "
                    "differentiated; declare an op with mf.op, whose vjp does what the hook does"
                )
            new = np.array(new.data if isinstance(new, ArrayLike) else new)
            if new.shape != seen.shape:
                raise ShapeError(message("hook", f"a gradient of shape {seen.shape} or None", new.shape))
            if new.dtype != seen.dtype:
                raise DTypeError(message("hook", f"a gradient of {seen.dtype} or None", new.dtype, "cast with .astype"))
            g = new
        return g

    def add(self, hook: Hook) -> Handle:
        """Register a hook."""
        key = next(_keys)
        changes.count += 1
        self[key] = hook
        return Handle(self, key)


class Handle:
    """What takes a hook away again. It holds on to no Tensor."""

    __slots__ = ("_hooks", "_key")

    def __init__(self, hooks: Hooks, key: int) -> None:
        self._hooks = hooks
        self._key = key

    def remove(self) -> None:
        """Take the hook away; once is enough, and twice is no error."""
        self._hooks.pop(self._key, None)
        changes.count += 1


class _Pass:
    """The op of a node that has hooks: its value is its input."""

    name = "hook"
    inputs = ("x",)
    params: dict[str, Any] = {}  # noqa: RUF012
    aux: dict[str, Any] = {}  # noqa: RUF012
    variadic = False
    cost = None


class _PassPartial:
    """Its derivative: what the hooks make of the gradient."""

    index = 0
    sources = ("hooks",)
    into = None

    @staticmethod
    def vjp(g: Any, hooks: Hooks) -> Any:
        return hooks(g)

    @staticmethod
    def jvp(dx: Any, hooks: Hooks) -> Any:
        return dx


_op: Any = _Pass()
_partial: Any = _PassPartial()
PASS = Form(_op, (_partial,), ((0,),))


def hooks_of(node: Node) -> Hooks:
    """Return a node's hooks. Without any, it is made the node of hooks, and a new node takes over what it was.

    So whatever used the node, before or after, gets its gradient past the hooks.
    """
    if node.form is not PASS:
        if node.parents is None:
            raise GraphError(f"{node.where}: expected a hook before backward, got one after; register it earlier")
        was = Node()
        for slot in Node.__slots__:
            if hasattr(node, slot):
                setattr(was, slot, getattr(node, slot))
                if slot.startswith("_"):
                    delattr(node, slot)
        was.order = node.order - 0.5  # type: ignore[assignment]  # older than this node, newer than all before it
        node.form, node.guards, node.parents, node.saved = PASS, (), (was,), (Hooks(),)
    hooks: Hooks = node.saved[0]
    return hooks
