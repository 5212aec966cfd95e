"""The visits of one gradient, recorded while the rules run, with a drawing of the graph: what the page replays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from microfw.autograd.backward import backward_pass, unbroadcast
from microfw.autograd.graph import Leaf, Node, reachable
from microfw.autograd.mode import mode
from microfw.autograd.observer import Observer
from microfw.autograd.tensor import Tensor
from microfw.errors import MicrofwError
from microfw.law.scalar_graph import Tape, scalar_graph
from microfw.law.strategies import count_paths
from microfw.nn.module import Module
from microfw.profiler.scalars import GraphOp, ScalarCount, count_graph, graph_ops, stand_in
from microfw.visualization.drawing import draw

MAX_SCALARS = 40
"""Most scalar nodes that are drawn: more do not fit a page."""

MAX_NODES = 150
"""Most nodes of a walk."""

MAX_EVENTS = 2000
"""Most events of a replay; more are counted and not shown."""


@dataclass
class Replay:
    """Events of one way to a gradient, in order.

    Attributes
    ----------
    name : str
        Name of the way.
    events : list of int
        Visits of nodes and additions into parameters: ids of the drawing, ops first, then parameters.
    visits, added : int
        Number of visits, and of gradients added into parameters, of all events.
    """

    name: str
    events: list[int]
    visits: int
    added: int


@dataclass
class Walk:
    """Replays of one gradient, on the graph of scalars if it is small, else on that of tensors.

    Attributes
    ----------
    kind : {"tensors", "scalars"}
        What a node of the graph is.
    svg, image : str
        Drawing of the graph: HTML in the colours of its page, and an SVG file.
    names : list of str
        Text for each op and parameter, by id.
    ops : int
        Number of ops.
    replays : list of Replay
        Forward, backward, for each parameter alone, and along paths.
    detail, detail_svg : str
        Text and drawing of one op unfolded into scalars; empty if no op is small enough.
    """

    kind: str
    svg: str
    image: str
    names: list[str]
    ops: int
    replays: list[Replay] = field(default_factory=list)
    detail: str = ""
    detail_svg: str = ""


class Visits(Observer):
    """Observer that records visits of nodes, and additions into leaves."""

    def __init__(self, ids: dict[Any, int], targets: Collection[Any]) -> None:
        self.ids = ids
        self.targets = targets
        self.events: list[int] = []

    def backward(self, node: Node, gradient: Any, grad_inputs: list[Any] | None, start_ns: int) -> None:
        """Record a visit."""
        self.events.append(self.ids[node])
        self.events += [self.ids[parent] for parent, _, _ in node.edges or () if parent in self.targets]


def record_walk(loss: Callable[[], Tensor], model: Module, scalars: Tensor | None) -> Walk | None:
    """Record the walk of a loss.

    Parameters
    ----------
    loss : callable
        Computes the loss from the parameters.
    model : Module
        The model, whose paths name layers and parameters.
    scalars : Tensor or None
        The loss with its scalar graph, which is used if it has at most `MAX_SCALARS` nodes.

    Returns
    -------
    Walk or None
        None if the graph has more than `MAX_NODES` nodes.
    """
    tape = Tape()
    with mode(observer=tape, recording=True):
        end = loss()
    kind = "tensors"
    root: Any = end._node
    if scalars is not None and len(reachable(scalars._node)) <= MAX_SCALARS:
        kind, end, root = "scalars", scalars, scalars._node
    nodes = reachable(root)
    if len(nodes) > MAX_NODES:
        return None
    ids: dict[Any, int] = {node: k for k, node in enumerate(nodes)}
    leaves: list[Any] = []
    for node in nodes:
        for parent, _, _ in node.edges or ():
            if isinstance(parent, Leaf) and parent not in ids:
                ids[parent] = len(ids)
                leaves.append(parent)
    drawing = draw(end, model, data=False)
    names = [f"{item.name} {_layer(drawing.picture.layer(item))}" for item in drawing.picture.ops]
    names = [name.strip() for name in names]
    counts = _scalar_counts(tape, nodes) if kind == "tensors" else {}
    for k, count in enumerate(counts.values()):
        names[k] += f": stands for {count.nodes:,} scalar nodes" if count.counted else ""
    names += [leaf.name for leaf in drawing.picture.leaves]
    walk = Walk(kind, drawing.html, drawing.svg, names, len(nodes))
    walk.replays = [
        Replay("forward", list(range(len(nodes))), len(nodes), 0),
        _replay("backward", _backward(root, ids, leaves), len(nodes)),
        _replay("per parameter", [e for leaf in leaves for e in _backward(root, ids, [leaf])], len(nodes)),
        _paths(root, ids),
    ]
    walk.detail, walk.detail_svg = _unfolded(tape, counts)
    return walk


def _layer(title: str) -> str:
    return f"in {title}" if title else ""


def _replay(name: str, events: list[int], ops: int) -> Replay:
    visits = sum(e < ops for e in events)
    return Replay(name, events[:MAX_EVENTS], visits, len(events) - visits)


def _backward(root: Node, ids: dict[Any, int], targets: Sequence[Any]) -> list[int]:
    """Return the events of a backward pass to some leaves."""
    visits = Visits(ids, set(targets))
    with mode(observer=visits, recording=False):
        backward_pass([(root, np.ones(root.shape))], targets=targets, retain=True)
    return visits.events


def _paths(root: Node, ids: dict[Any, int]) -> Replay:
    """Return the events of a recursion that passes each gradient on at once: one visit for each path to a node."""
    events: list[int] = []
    stack: list[tuple[Any, Any]] = [(root, np.ones(root.shape))]
    with mode(recording=False):
        while stack and len(events) < MAX_EVENTS:
            node, g = stack.pop()
            events.append(ids[node])
            for parent, partial, args in node.edges:
                if isinstance(parent, Leaf):
                    events.append(ids[parent])
                else:
                    stack.append((parent, unbroadcast(partial.vjp(g, *args), parent.shape, node)))
    paths, visits = count_paths(root)
    return Replay("paths", events[:MAX_EVENTS], visits, paths)


def _scalar_counts(tape: Tape, nodes: list[Node]) -> dict[Node, ScalarCount]:
    """Return the scalar nodes of each node."""
    ops = {
        node: GraphOp(op, params, node.shape, tuple(map(stand_in, inputs)), {})
        for op, node, inputs, params, _ in tape.entries
    }
    return dict(zip(nodes, count_graph(*graph_ops(nodes, ops.get)), strict=True))


def _unfolded(tape: Tape, counts: dict[Node, ScalarCount]) -> tuple[str, str]:
    """Return text and drawing of the scalar graph of one entry of an op: the largest that is small enough to draw."""
    sizes = {node: count.nodes / max(prod(node.shape), 1) for node, count in counts.items() if count.counted}
    small = [entry for entry in tape.entries if 2 <= sizes.get(entry[1], 0) <= MAX_SCALARS]
    if not small:
        return "", ""
    op, node, inputs, params, _ = max(small, key=lambda entry: sizes[entry[1]])
    given = list(inputs)
    variables = []
    for _, partial, _ in node.edges or ():
        variable = Tensor(np.array(inputs[partial.index], np.float64), requires_grad=True)
        variable._node.name = op.inputs[min(partial.index, len(op.inputs) - 1)]  # type: ignore[union-attr]
        variables.append(variable)
        given[partial.index] = variable
    try:
        graph = scalar_graph(lambda: op.call(*given, **params)[(0,) * len(node.shape)], variables)
        size = len(reachable(graph.loss._node))
        if size > MAX_SCALARS:
            return "", ""
        return f"{op.name}, one entry of the output: {size} scalar nodes", draw(graph.loss, data=False).html
    except MicrofwError:  # an op that cannot be computed with scalars
        return "", ""
