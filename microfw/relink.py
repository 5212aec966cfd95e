"""What an edge saved, as Tensors tied to the graph, so that a walk can itself be recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from microfw.graph import Leaf, Node
from microfw.tensor import result

if TYPE_CHECKING:
    from microfw.op import Partial


def relink(node: Node, partial: Partial, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Turn what an edge saved into Tensors tied to the graph that they came from."""
    parents = {edge[1].index: edge[0] for edge in node.edges or ()}
    return tuple(_link(node, parents, source, value) for source, value in zip(partial.sources, args, strict=True))


# Functions of a module, since one within another that calls itself is a cycle, which would keep the graph.


def _link(node: Node, parents: dict[int, Node | Leaf], source: str, value: Any) -> Any:
    op = node.op
    if source == "y":
        return _linked(value, node)
    if source in op.aux:
        inputs = dict(zip(op.inputs, node.inputs or (), strict=True))
        recipe = op.aux[source]
        wanted = recipe.__code__.co_varnames[: recipe.__code__.co_argcount]
        return recipe(
            *(_link(node, parents, name, inputs[name]) if name in inputs else node.params[name] for name in wanted)
        )
    if op.variadic and source == op.inputs[0]:
        return [_linked(a, parents.get(i)) for i, a in enumerate(value)]
    if source in op.inputs:
        return _linked(value, parents.get(op.inputs.index(source)))
    return value


def _linked(value: Any, parent: Node | Leaf | None) -> Any:
    return result(value, parent) if isinstance(value, np.ndarray) else value
