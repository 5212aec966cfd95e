"""Hooks on gradients: a function that gets the gradient of one Tensor, and may replace it.

The backward pass calls the hooks of a node with its complete gradient, before the op's derivatives. `Tensor.backward`
calls those of a leaf.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from microfw.autograd._tensor_base import TensorBase
from microfw.autograd.graph import Node
from microfw.autograd.mode import model_version
from microfw.errors import DTypeError, GraphError, ShapeError

GradientHook = Callable[[np.ndarray[Any, Any]], Any]

_keys = itertools.count()


class GradientHooks(dict[int, GradientHook]):
    """Hooks by number, in the order in which they were registered."""

    def __call__(self, g: Any) -> Any:
        """Return the gradient after all hooks."""
        for hook in tuple(self.values()):
            seen = np.array(g.data if isinstance(g, TensorBase) else g)
            seen.setflags(write=False)
            new = hook(seen)
            if new is None:
                continue
            if isinstance(g, TensorBase):
                raise GraphError(
                    "hook: expected None inside of another derivative, got a replacement, which cannot be "
                    "differentiated; declare an op with mf.op, whose vjp does what the hook does"
                )
            new = np.array(new.data if isinstance(new, TensorBase) else new)
            if new.shape != seen.shape:
                raise ShapeError("hook", f"a gradient of shape {seen.shape} or None", new.shape)
            if new.dtype != seen.dtype:
                raise DTypeError("hook", f"a gradient of {seen.dtype} or None", new.dtype, "cast with .astype")
            g = new
        return g

    def add(self, hook: GradientHook) -> Handle:
        """Register a hook."""
        key = next(_keys)
        model_version.count += 1
        self[key] = hook
        return Handle(self, key)


class Handle:
    """Removes a hook. It keeps no reference to the Tensor."""

    __slots__ = ("_hooks", "_key")

    def __init__(self, hooks: GradientHooks, key: int) -> None:
        self._hooks = hooks
        self._key = key

    def remove(self) -> None:
        """Remove the hook. Removing it twice is no error."""
        self._hooks.pop(self._key, None)
        model_version.count += 1


def node_hooks(node: Node) -> GradientHooks:
    """Return a node's hooks; create them if there are none."""
    if not node.spec.hooked:
        if node.parents is None:
            raise GraphError(f"{node.where}: expected a hook before backward, got one after; register it earlier")
        node.hooks, node.spec = GradientHooks(), node.spec.with_hooks()
    hooks: Any = node.hooks
    return hooks  # type: ignore[no-any-return]
