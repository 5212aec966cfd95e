"""Costs, computed once: `OpStats` of an op on given shapes, `GraphStats` of the graph of a loss."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np

from microfw.autograd.graph import Leaf, Node, reachable
from microfw.autograd.scope import Scope
from microfw.nn.module import Module
from microfw.profiler.ratio import products_without_grad
from microfw.profiler.recorder.declared import declared_cost
from microfw.profiler.recorder.memory import AddressRanges, SavedMemory, bytes_of
from microfw.profiler.scalars import GraphOp, ScalarCount, count_graph, graph_ops, stand_in
from microfw.profiler.session import Row

Shape = tuple[int, ...]
Shapes = list[Shape]


def needs(node: Node) -> tuple[bool, ...]:
    """Return, for each parent of a node, whether it gets a gradient."""
    return tuple([parent is not None for parent in node.parents or ()])


def dtypes(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the dtype of each input, on which the bytes depend that a node saves."""
    return tuple([getattr(x, "dtype", None) for x in inputs])


SIMPLE = int | float | complex | str | bytes | np.generic | np.dtype | type | None


def is_plain(value: Any) -> bool:
    """Return True for an immutable setting that is compared by value: a number, a name, a tuple or slice of them.

    Examples
    --------
    >>> is_plain((slice(0, 3), None)), is_plain([0, 3])
    (True, False)
    """
    if isinstance(value, tuple):
        return all(map(is_plain, value))
    if isinstance(value, slice):
        return is_plain((value.start, value.stop, value.step))
    return value is Ellipsis or isinstance(value, SIMPLE)


def settings(op: Any, shape: Shape, shapes: Shapes, params: dict[str, Any]) -> tuple[Any, ...]:
    """Return a key that distinguishes two applications of an op to the same shapes, for example by kernel size.

    Numbers, names and nested sequences of them are compared by value. If a setting is of another type, such as an
    array or a function, the key is the cost and the bytes of the arrays.
    """
    try:
        return tuple([v if isinstance(v, SIMPLE) else _setting(v) for v in params.values()])
    except TypeError:
        return (op.cost and tuple(op.cost(shape, *shapes, **params)), bytes_of(params))


def _setting(value: Any) -> Any:
    """Return a setting as a hashable value.

    Raises
    ------
    TypeError
        If the setting has none.
    """
    if isinstance(value, SIMPLE):
        return value
    if isinstance(value, tuple | list):
        return tuple([_setting(v) for v in value])
    if isinstance(value, np.random.Generator):
        return None  # decides which numbers are drawn, not how many
    if isinstance(getattr(value, "__self__", None), Module):  # such as what follows a batch's mean
        return value.__qualname__
    raise TypeError(type(value).__name__)


class OpStats:
    """Cost, calls and times of one op of one layer on given shapes.

    ``spec`` is None for an op without a node (nothing in it is trained).
    """

    __slots__ = (
        "backward_ns",
        "constants",
        "cost",
        "derivatives",
        "factors",
        "forward_ns",
        "graph_op",
        "leaves",
        "module",
        "needs",
        "op",
        "path",
        "recomputations",
        "renewed",
        "scope",
        "settings",
        "shape",
        "shapes",
        "spec",
        "vjp_calls",
    )  # fmt: skip

    def __init__(
        self, op: Any, node: Node | None, path: str, shape: Shape, shapes: Shapes, params: dict[str, Any],
        inputs: tuple[Any, ...] = (), leaves: tuple[bool, ...] = (),
    ) -> None:  # fmt: skip
        self.leaves = leaves
        self.op = op
        self.graph_op = GraphOp(op, params, shape, tuple(map(stand_in, inputs)), {})
        self.spec = None if node is None else node.spec
        self.path = path
        self.scope: Scope | None = None
        self.renewed = False
        self.module: Any = None
        self.shape = shape
        self.shapes = shapes
        self.settings = settings(op, shape, shapes, params)
        self.needs = () if node is None else needs(node)
        self.constants = self.needs.count(False)
        self.forward_ns = self.backward_ns = self.vjp_calls = self.recomputations = 0
        self.derivatives: tuple[int, ...] = ()  # operations of the derivative for each input
        self.factors: tuple[int, ...] = ()  # indices of the inputs whose derivative is a product
        self.cost = row = Row(path, op.name, nodes=int(node is not None), edges=self.needs.count(True))
        if op.cost is None:
            row.uncounted = 1
            return
        edges = [] if node is None else node.edges or []
        cost = declared_cost(op, shape, shapes, params, [partial.index for _, partial, _ in edges])
        self.derivatives = cost.derivatives
        row.flops_forward = int(cost.forward)
        row.products_forward = int(cost.products_forward)
        for _, partial, _ in edges:
            row.flops_backward += int(cost.derivatives[partial.index])
            product = int(cost.products_derivatives[partial.index]) if cost.products_derivatives else 0
            row.products_backward += product
            if product:
                self.factors += (partial.index,)
        row.products_first = products_without_grad(len(self.factors), row.products_forward)
        if leaves and node is not None and uses_weight(node, self.factors, {}):  # in a checkpoint
            row.products_weights = row.products_forward

    def only_moves(self, index: int) -> bool:
        """Return True if the op does no arithmetic, or a product in which this input takes no part."""
        if not self.cost.flops_forward:
            return True
        return self.cost.products_forward > 0 and not self.derivatives[index]

    def count_scalars(self) -> ScalarCount:
        """Count the scalar nodes of the op alone, for an op in a checkpoint."""
        ops: list[GraphOp] = []
        leaves: list[Shape] = []
        links = {}
        partials = () if self.spec is None else self.spec.partials
        for partial, needed, leaf in zip(partials, self.needs, self.leaves, strict=True):
            shape = self.shapes[partial.index]
            if leaf:
                leaves.append(shape)
                links[partial.index] = -len(leaves)
            elif needed:
                links[partial.index] = len(ops)
                ops.append(GraphOp(None, {}, shape, (), {}))
        return count_graph([*ops, self.graph_op._replace(links=links)], leaves)[-1]

    def add_to(self, row: Row, forward_ns: int, backward_ns: int, vjp_calls: int, recomputations: int) -> None:
        """Add calls and times to a row.

        ``vjp_calls``: calls of the derivative rule; of an op without a node, forward calls. ``recomputations``: calls
        in the second run of a checkpoint.
        """
        row.forward_ns += forward_ns
        row.backward_ns += backward_ns
        if self.spec is None:
            row.uncounted += vjp_calls * self.cost.uncounted
            for name in ("flops_forward", "products_forward", "products_first"):
                setattr(row, name, getattr(row, name) + vjp_calls * getattr(self.cost, name))
            row.flops_backward += recomputations * self.cost.flops_forward
            row.products_backward += recomputations * self.cost.products_forward
            return
        row.rules += vjp_calls
        if recomputations:
            add_recomputed(row, self, vjp_calls, recomputations)


def add_scalars(row: Row, count: ScalarCount, times: int = 1, again: bool = False) -> None:
    """Add a count of scalar nodes to a row. ``again``: the nodes were counted in an earlier backward pass."""
    if not again:
        row.scalar_nodes += times * count.nodes
        row.scalar_uncounted += times * (not count.counted)
    row.scalar_rules += times * count.rules
    row.scalar_accumulated += times * count.accumulated


def add_recomputed(row: Row, stats: OpStats, vjp_calls: int, recomputations: int) -> None:
    """Add the counts of an op in a checkpoint: it ran in forward, again in backward, and then its rule ran.

    In a checkpoint inside another one, an op is recomputed twice and its rule runs once.
    """
    cost = stats.cost
    for name in (
        "nodes", "edges", "uncounted", "flops_forward", "products_forward", "products_first", "products_weights",
    ):  # fmt: skip
        setattr(row, name, getattr(row, name) + vjp_calls * getattr(cost, name))
    row.accumulated += vjp_calls * sum(stats.leaves)
    add_scalars(row, stats.count_scalars(), vjp_calls)
    row.flops_backward += vjp_calls * cost.flops_backward + recomputations * cost.flops_forward
    row.products_backward += vjp_calls * cost.products_backward + recomputations * cost.products_forward


class GraphStats:
    """Counts of the graph of one loss, by layer and op.

    Parameters
    ----------
    loss : Node, Leaf or None
        Node of the loss.
    earlier : AddressRanges, optional
        Addresses of other graphs that were in memory at the same time.
    since : int
        Order of the first node that could be recorded.

    Attributes
    ----------
    nodes : int
        Number of nodes that no earlier backward pass has visited.
    older : int
        Number of nodes recorded before ``since``.
    listed : bool
        False once the recorder has added up the graph and no longer counts it.
    ranges : AddressRanges
        Addresses of the bytes that the graph saved, and of ``earlier``.
    saved_bytes : int
        Bytes that the graph saved, also those of nodes that an earlier backward pass has retained.
    """

    def __init__(self, loss: Node | Leaf | None, earlier: AddressRanges | None = None, since: int = 0) -> None:
        self.count = self.nodes = 0
        self.listed = True
        self.rows: list[Row] = []
        self.counts: list[tuple[Row, list[tuple[str, int]]]] = []
        weights: dict[int, set[Leaf]] = {}
        nodes = reachable(loss)
        self.older = sum(node.order < since for node in nodes)
        observed = [node for node in nodes if node.metadata is not None]
        memory = SavedMemory(nodes)
        saved = [memory.count(node) for node in observed]
        if earlier is None:
            self.ranges, added = memory.ranges, saved
        else:
            memory = SavedMemory(nodes, earlier)
            self.ranges, added = earlier, [memory.count(node) for node in observed]
        # Positions have the leaves of the present step. Leaves of nodes without a position stay as they are now.
        self.positions = [node.metadata for node in observed]
        self.other_leaves = {p for n in nodes if n.metadata is None for p in n.parents or () if isinstance(p, Leaf)}
        self.parameter_tensors, self.parameters = len(self.leaves()), sum(prod(leaf.shape) for leaf in self.leaves())
        self.saved_bytes = sum(saved)
        added_by_depth = sorted(zip([position.depth for position in self.positions], added, strict=True))
        self.depths = [depth for depth, _ in added_by_depth]
        self.sums = [*accumulate((count for _, count in added_by_depth), initial=0)]
        described = lambda node: None if node.metadata is None else node.metadata.graph_op  # noqa: E731
        self.structure = graph_ops(nodes, described)
        self.visited: list[bool | None] = [None if n.metadata is None else n.metadata.visited for n in nodes]
        for node, count in zip(observed, saved, strict=True):
            stats = node.metadata.stats
            row = replace(stats.cost)
            if node.metadata.visited:  # and retained: only the backward part is repeated
                row = Row(row.layer, row.op, flops_backward=row.flops_backward, products_backward=row.products_backward)
            else:
                self.nodes += 1
                row.saved_bytes = count
                if uses_weight(node, stats.factors, weights):
                    row.products_weights = row.products_forward
            row.accumulated = sum(isinstance(parent, Leaf) for parent in node.parents or ())
            self.rows.append(row)

    def leaves(self) -> set[Leaf]:
        """Return the leaves that the backward pass reaches, in the last step with this graph."""
        links = (found for position in self.positions for found in position.links)
        return {found for found in links if isinstance(found, Leaf)} | self.other_leaves

    def kept(self, depth: int) -> int:
        """Return the bytes that the graph saved in the first ``depth`` ops of a step, and no earlier graph did."""
        return self.sums[bisect_right(self.depths, depth)]

    def forget_objects(self) -> None:
        """Release leaves and positions: the program may no longer use them."""
        self.positions, self.other_leaves = [], set()

    def add_to(self, rows: dict[tuple[str, str], Row], count: int) -> None:
        """Add the counts of ``count`` steps with this graph to rows, by layer and op."""
        if self.structure[0]:
            self._count_scalars()
        if not self.counts:  # only values other than 0: the zeros would take half of the time
            self.counts = [(r, [(k, v) for k, v in vars(r).items() if type(v) is int and v]) for r in self.rows]
        for row, values in self.counts:
            target = vars(rows.setdefault((row.layer, row.op), Row(row.layer, row.op)))
            for name, value in values:
                target[name] += value * count

    def _count_scalars(self) -> None:
        rows = iter(self.rows)
        for count, visited in zip(count_graph(*self.structure), self.visited, strict=True):
            if visited is not None:
                add_scalars(next(rows), count, again=visited)
        self.structure = [], []


def uses_weight(node: Node, factors: tuple[int, ...], known: dict[int, set[Leaf]]) -> bool:
    """Return True if a factor of a product is a trained weight of the layer in which the product runs.

    The weight may be transposed, sliced or concatenated first. ``known`` caches the weights of each module.
    """
    if node.scope is None or not factors:
        return False
    module: Any = node.scope[0]
    own = known.get(id(module))
    if own is None:
        own = known[id(module)] = weights_of(module)
    parents = {p.index: parent for p, parent in zip(node.spec.partials, node.parents or (), strict=False)}
    stack = [parents[k] for k in factors]
    while stack:
        parent = stack.pop()
        if isinstance(parent, Leaf):
            if parent in own:
                return True
        elif isinstance(parent, Node) and parent.metadata is not None:
            pairs = zip(parent.parents or (), parent.spec.partials, strict=False)
            stats = parent.metadata.stats
            stack += [p for p, partial in pairs if p is not None and stats.only_moves(partial.index)]
    return False


def weights_of(module: Module) -> set[Leaf]:
    """Return the leaves of a module's own trained parameters with two or more axes, without those of submodules."""
    inner = {id(part) for _, child in module.named_modules() if child is not module for part in child.parameters()}
    own = [p for p in module.parameters() if id(p) not in inner]
    return {p._leaf for p in own if p._leaf is not None and p.requires_grad and p.ndim > 1}
