"""Content of a drawing as plain data: ops numbered as backward visits them, leaves, edges, boxes of layers."""

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
    """One call of a layer, or consecutive ones. The first box of a picture contains all others and is not drawn."""

    title: str
    path: str
    parent: int | None
    depth: int


@dataclass
class OpItem:
    """One op node. ``inputs``: ids of the sources of its edges, in the order of the op's inputs."""

    id: int
    number: int
    name: str
    shape: Shape
    box: int
    inputs: list[int] = field(default_factory=list)
    saved: int = 0


@dataclass
class LeafItem:
    """A parameter, another leaf that needs a gradient, or data that a derivative rule saved."""

    id: int
    kind: str  # "parameter", "leaf" or "data"
    name: str
    shape: Shape
    users: list[int] = field(default_factory=list)  # ids of the ops that use it, in order of recording


@dataclass
class Picture:
    """A graph as plain data. Ids number the ops in order of recording, then the leaves."""

    ops: list[OpItem]
    leaves: list[LeafItem]
    boxes: list[Box]

    @property
    def edges(self) -> int:
        """E: number of edges that carry a gradient."""
        data = {leaf.id for leaf in self.leaves if leaf.kind == "data"}
        return sum(source not in data for op in self.ops for source in op.inputs)

    @property
    def unit(self) -> str:
        """What a node works on: "scalar" if all values are numbers, else "tensor"."""
        shapes = [op.shape for op in self.ops] + [leaf.shape for leaf in self.leaves]
        return "tensor" if any(shapes) else "scalar"

    def caption(self) -> str:
        """Return the counts of the drawing with definitions."""
        trained = [prod(leaf.shape) for leaf in self.leaves if leaf.kind != "data"]
        what, total = ("array", f" ({sum(trained):,} numbers)") if self.unit == "tensor" else ("number", "")
        return (
            f"N = {len(self.ops):,} {self.unit} nodes, numbered in the order that backward visits them: 1 first. "
            f"E = {self.edges:,} edges that carry a gradient. "
            f"P = {len(trained):,} {what}{'s' * (len(trained) != 1)} that get a gradient{total}. "
            "Arrows show values going forward; gradients go back along them."
        )

    def label(self, leaf: LeafItem) -> str:
        """Return the name of a leaf; if it has one user, relative to the box of that user."""
        path = self.boxes[self.ops[leaf.users[0]].box].path if leaf.users else ""
        return leaf.name.removeprefix(path + ".") if path and len(leaf.users) == 1 else leaf.name

    def layer(self, op: OpItem) -> str:
        """Return the title of the layer that an op is in, or ""."""
        return self.boxes[op.box].title


def read(root: Node | Leaf, model: Module | None, data: bool, max_nodes: int) -> Picture:
    """Return the picture of the graph of a node. The graph does not change.

    Raises
    ------
    GraphError
        If the graph was freed.
    ArgumentError
        If the graph has more than ``max_nodes`` nodes.
    """
    nodes = drawable(root, max_nodes)
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
    boxes, box_of = nest([node.scope for node in nodes], model)
    counted: set[int] = set()
    ops = []
    for k, node in enumerate(nodes):
        item = OpItem(k, len(nodes) - k, node.op.name, node.shape, box_of[k])
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


def drawable(root: Node | Leaf, max_nodes: int) -> list[Node]:
    """Return the nodes that a root depends on, oldest first. Backward visits them in reverse order."""
    found = reachable(root)
    for node in reversed(found):
        if node.parents is None:
            raise GraphError(
                f"draw: expected a graph before backward, got one that backward freed at {node.where}; "
                "call mf.draw(loss) before loss.backward(), or backward(retain_graph=True)"
            )
    if len(found) > max_nodes:
        raise ArgumentError(
            f"draw: expected at most {max_nodes:,} nodes, got {len(found):,}, which are hard to read; "
            f"draw a smaller model or a shorter loop, or pass max_nodes={len(found)}"
        )
    return found


def saved(node: Node) -> list[tuple[str, np.ndarray[Any, Any]]]:
    """Return the distinct arrays that the rules of a node saved; named if they are inputs without a gradient."""
    edges = node.edges or []
    flows = {partial.index for _, partial, _ in edges}
    constant = {name for k, name in enumerate(node.op.inputs) if k not in flows and not node.op.variadic}
    stored = [pair for _, partial, args in edges for pair in zip(partial.sources, args, strict=True)]
    stored += zip(node.op.inputs, node.inputs, strict=False)
    found: dict[int, tuple[str, np.ndarray[Any, Any]]] = {}
    for source, value in stored:
        for array in value if isinstance(value, tuple | list) else (value,):
            if isinstance(array, np.ndarray):
                found.setdefault(id(array), (source if source in constant else "", array))
    return list(found.values())


def own(array: np.ndarray[Any, Any], node: Node) -> bool:
    """Return True if an array is that of a leaf, which exists without a graph, too."""
    # results of ops are read-only; of a leaf's own array only its shape is known here
    return bool(array.flags.writeable) and any(leaf.shape == array.shape for leaf, _ in node.saved_versions)


def nest(scopes: list[Scope | None], model: Module | None) -> tuple[list[Box], list[int]]:
    """Return boxes of module calls, and the innermost box of each op, in order of recording.

    The title of a module in the model is its path there; others have the path from the outermost module that was
    called. A module that is called again later gets another box: a box contains consecutive ops only. An outermost
    module that only calls others has no box, unless it is the model.
    """
    paths = {} if model is None else {id(module): name for name, module in model.named_modules()}
    direct = {id(scope[0]) for scope in scopes if scope is not None} | ({id(model)} if len(paths) > 1 else set())
    found: dict[int, tuple[str, str]] = {}  # title and path, by module

    def box(scope: Scope) -> tuple[str, str]:
        module = scope[0]
        if id(module) not in found:
            kind, name = type(module).__name__, paths.get(id(module))
            title = path(scope) if name is None else f"{name} {kind}" if name else kind
            found[id(module)] = title, (name if name is not None else "" if scope[1] is None else title)
        return found[id(module)]

    boxes = [Box("", "", None, 0)]
    opened: list[tuple[int, int]] = []
    box_of = []
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
        box_of.append(opened[-1][1] if opened else 0)
    return boxes, box_of
