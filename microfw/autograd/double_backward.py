"""Saved values of an edge as Tensors in the graph, so that the backward pass can be recorded."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from microfw.autograd.backward import visit_edges
from microfw.autograd.graph import Leaf, Node
from microfw.autograd.tensor import result
from microfw.autograd.types import Partial


def as_differentiable(node: Node, partial: Partial, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the saved values of an edge as Tensors connected to the graph that they come from."""
    return tuple(_link(node, source, value) for source, value in zip(partial.sources, args, strict=True))


visit_recorded = functools.partial(visit_edges, as_differentiable=as_differentiable)
"""`visit_edges` on Tensors: for a backward pass that is recorded, so that it can be differentiated again."""

# Module-level: a nested function that calls itself is a reference cycle, which would keep the graph alive.


def _link(node: Node, source: str, value: Any) -> Any:
    op = node.op
    if source == "y":
        return _as_tensor(value, node)
    if source in op.aux:
        inputs = {op.inputs[0]: node.inputs} if op.variadic else dict(zip(op.inputs, node.inputs or (), strict=True))
        recipe = op.aux[source]
        wanted = recipe.__code__.co_varnames[: recipe.__code__.co_argcount]
        return recipe(*(_link(node, name, inputs[name]) if name in inputs else node.params[name] for name in wanted))
    if op.variadic and source == op.inputs[0]:
        return [_as_tensor(a, parent) for a, parent in zip(value, node.parents or (), strict=True)]
    if source in op.inputs:
        return _as_tensor(value, _parent(node, op.inputs.index(source)))
    return value


def _parent(node: Node, index: int) -> Node | Leaf | None:
    """Return the node or leaf of an input, or None if it needs no gradient."""
    for parent, partial in zip(node.parents or (), node.spec.partials, strict=True):
        if partial.index == index:
            return parent
    return None


def _as_tensor(value: Any, parent: Node | Leaf | None) -> Any:
    return result(value, parent) if isinstance(value, np.ndarray) else value
