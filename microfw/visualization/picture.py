"""What a drawing shows, as plain data: ops numbered as backward visits them, leaves, edges, and boxes of layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from microfw.autograd.graph import Leaf, Node, reachable
from microfw.autograd.scope import Scope, path
from microfw.errors import ArgumentError, GraphError
from microfw.nn.module import Module

Shape = tuple[int, ...]


@dataclass
class Box:
    """One call of a layer, or several in a row. The first box of a picture holds all else and is not drawn."""

    title: str
    path: str
    parent: int | None
    depth: int


@dataclass
class OpItem:
    """One op node. ``inputs`` are its edges, each by the id of its source, in the order of the op's inputs."""

    id: int
    number: int
    name: str
    shape: Shape
    box: int
    inputs: list[int] = field(default_factory=list)
    saved: int = 0


@dataclass
class LeafItem:
    """Something without a node: a parameter, another leaf that wants a gradient, or data that a rule saved."""

    id: int
    kind: str  # "parameter", "leaf" or "data"
    name: str
    shape: Shape
    users: list[int] = field(default_factory=list)  # the ops, each once, in order of recording


@dataclass
class Picture:
    """A graph as plain data. Ids count ops in order of recording, then leaves."""

    ops: list[OpItem]
    leaves: list[LeafItem]
    boxes: list[Box]

    @property
    def edges(self) -> int:
        """E: the edges that carry a gradient."""
        data = {leaf.id for leaf in self.leaves if leaf.kind == "data"}
        return sum(source not in data for op in self.ops for source in op.inputs)

    def caption(self) -> str:
        """Say what is drawn, with the definitions of the counts."""
        trained = [leaf.shape for leaf in self.leaves if leaf.kind != "data"]
        return (
            f"N = {len(self.ops):,} op nodes, numbered in the order that backward visits them: 1 first. "
            f"E = {self.edges:,} edges that carry a gradient. "
            f"P = {sum(map(prod, trained)):,} trainable numbers, in {len(trained):,} arrays. "
            "Arrows show values going forward; gradients go back along them."
        )

    def label(self, leaf: LeafItem) -> str:
        """Name a leaf, without the part of its path that the box around its first user says."""
        path = self.boxes[self.ops[leaf.users[0]].box].path if leaf.users else ""
        return leaf.name.removeprefix(path + ".") if path and len(leaf.users) == 1 else leaf.name

    def layer(self, op: OpItem) -> str:
        """Return the title of the layer that an op is in, or ""."""
        return self.boxes[op.box].title


def read(root: Node | Leaf, model: Module | None, data: bool, most: int) -> Picture:
    """Read the graph below a node without changing it.

    Raises
    ------
    GraphError
        If the graph was freed.
    ArgumentError
        If it has more than ``most`` nodes.
    """
    nodes = drawable(root, most)
    ids: dict[Node | Leaf, int] = {node: k for k, node in enumerate(nodes)}
    leaves: list[LeafItem] = []

    def add(kind: str, name: str, shape: Shape) -> LeafItem:
        leaves.append(LeafItem(len(nodes) + len(leaves), kind, name, shape))
        return leaves[-1]

    names = {} if model is None else {p._leaf: name for name, p in model.named_parameters()}

    def add_leaf(leaf: Leaf) -> LeafItem:
        name = names.get(leaf, leaf.name)
        return add("parameter" if name else "leaf", name or "leaf", leaf.shape)

    if isinstance(root, Leaf):
        add_leaf(root)
    boxes, places = nest([node.scope for node in nodes], model)
    counted: set[int] = set()
    ops = []
    for k, node in enumerate(nodes):
        item = OpItem(k, len(nodes) - k, node.op.name, node.shape, places[k])
        for parent, _, _ in node.edges or ():
            if isinstance(parent, Leaf):
                if parent not in ids:
                    ids[parent] = add_leaf(parent).id
                leaf = leaves[ids[parent] - len(nodes)]
                if k not in leaf.users:
                    leaf.users.append(k)
            item.inputs.append(ids[parent])
        for name, value in saved(node):
            if id(value) not in counted and not own(value, node):
                counted.add(id(value))
                item.saved += value.nbytes
            if data and name:
                leaf = add("data", name, value.shape)
                leaf.users.append(k)
                item.inputs.append(leaf.id)
        ops.append(item)
    return Picture(ops, leaves, boxes)


def drawable(root: Node | Leaf, most: int) -> list[Node]:
    """Return the nodes that a walk from a root visits, oldest first: backward visits them in reverse."""
    found = reachable(root)
    for node in reversed(found):
        if node.parents is None:
            raise GraphError(
                f"draw: expected a graph that backward has not walked, got one that it freed at {node.where}; "
                "call mf.draw(loss) before loss.backward(), or backward(retain_graph=True)"
            )
    if len(found) > most:
        raise ArgumentError(
            f"draw: expected at most {most:,} nodes, since more can hardly be read, got {len(found):,}; "
            f"draw a smaller model or a shorter loop, or pass most={len(found)}"
        )
    return found


def saved(node: Node) -> list[tuple[str, np.ndarray[Any, Any]]]:
    """List the arrays that a node's rules saved, each once; with a name, those of inputs without a gradient."""
    edges = node.edges or []
    flows = {partial.index for _, partial, _ in edges}
    still = {name for k, name in enumerate(node.op.inputs) if k not in flows and not node.op.variadic}
    held = [held for _, partial, args in edges for held in zip(partial.sources, args, strict=True)]
    held += zip(node.op.inputs, node.inputs, strict=False)
    found: dict[int, tuple[str, np.ndarray[Any, Any]]] = {}
    for source, value in held:
        for array in value if isinstance(value, tuple | list) else (value,):
            if isinstance(array, np.ndarray):
                found.setdefault(id(array), (source if source in still else "", array))
    return list(found.values())


def own(array: np.ndarray[Any, Any], node: Node) -> bool:
    """Whether an array is a leaf's own, which is there with or without a graph."""
    return bool(array.flags.writeable) and any(leaf.shape == array.shape for leaf, _ in node.saved_versions)


def nest(scopes: list[Scope | None], model: Module | None) -> tuple[list[Box], list[int]]:
    """Put each op, in order of recording, into a box for each module that was being called.

    A module in the model has its path there, others the path from the outermost module that was called. A module that
    is called again later gets another box, so that a box always is a stretch of the record and what lies between two
    calls stays outside of both. An outermost module that only calls others has no box, unless it is the model.
    """
    paths = {} if model is None else {id(module): name for name, module in model.named_modules()}
    direct = {id(scope[0]) for scope in scopes if scope is not None} | ({id(model)} if len(paths) > 1 else set())
    found: dict[int, tuple[str, str]] = {}  # of a module: the title and the path of its boxes

    def box(scope: Scope) -> tuple[str, str]:
        module = scope[0]
        if id(module) not in found:
            kind, name = type(module).__name__, paths.get(id(module))
            title = path(scope) if name is None else f"{name} {kind}" if name else kind
            found[id(module)] = title, (name if name is not None else "" if scope[1] is None else title)
        return found[id(module)]

    boxes = [Box("", "", None, 0)]
    opened: list[tuple[int, int]] = []
    places = []
    for scope in scopes:
        around: list[Scope] = []
        while scope is not None:
            if scope[1] is not None or id(scope[0]) in direct:
                around.insert(0, scope)
            scope = scope[1]
        same = 0
        while same < min(len(opened), len(around)) and opened[same][0] == id(around[same][0]):
            same += 1
        del opened[same:]
        for outer in around[same:]:
            parent = opened[-1][1] if opened else 0
            boxes.append(Box(*box(outer), parent, len(opened) + 1))
            opened.append((id(outer[0]), len(boxes) - 1))
        places.append(opened[-1][1] if opened else 0)
    return boxes, places
